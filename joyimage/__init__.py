"""JoyAI-Image as a library: understanding, text to image, instruction editing and spatial editing.

    from joyimage import JoyImage
    model = JoyImage.load("folder with the weights")
    model.edit("photo.jpg", "Remove the cup.")[0].save("edited.png")
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
