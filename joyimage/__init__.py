"""JoyAI-Image as a library: understanding, text to image, instruction editing and spatial editing.

`JoyImage.load(folder)` gives a model; its `edit`, `generate`, `ask`, `locate` and `rewrite` do the work.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import CheckpointError, JoyImageError, MissingFileError

if TYPE_CHECKING:
    from .conditioning import Conditioning
    from .pipeline import JoyImage


def _version() -> str:
    """The version in pyproject.toml: ComfyUI's manager reads it there, so that is the one place that names it.

    The file lies beside this package in a checkout and in `custom_nodes`; elsewhere pip has kept what it said.
    """
    project = Path(__file__).parents[1] / "pyproject.toml"
    text = project.read_text(encoding="utf-8") if project.is_file() else ""
    if found := re.search(r'^name = "joyimage"\nversion = "(.+)"$', text, re.MULTILINE):
        return found[1]
    from importlib.metadata import version  # here: it takes as long to import as the rest of this file

    return version("joyimage")


__version__ = _version()
__all__ = ["CheckpointError", "Conditioning", "JoyImage", "JoyImageError", "MissingFileError"]


def __getattr__(name: str):
    """Load the networks when they are first named: `joyimage --help` should not wait for torch."""
    if name in ("JoyImage", "Conditioning"):
        from . import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
