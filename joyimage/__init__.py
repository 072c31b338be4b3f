"""JoyAI-Image as a library: understanding, text to image, instruction editing and spatial editing.

`JoyImage.load(folder)` gives a model; its `edit`, `generate`, `ask` and `rewrite` do the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import CheckpointError, JoyImageError, MissingFileError

if TYPE_CHECKING:
    from .pipeline import Conditioning, JoyImage

__version__ = "0.1.0"
__all__ = ["CheckpointError", "Conditioning", "JoyImage", "JoyImageError", "MissingFileError"]


def __getattr__(name: str):
    """Load the networks when they are first named: `joyimage --help` should not wait for torch."""
    if name in ("JoyImage", "Conditioning"):
        from . import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
