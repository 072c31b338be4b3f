"""Weight files: what they are, and their way into the networks.

`files` reads the formats, `namings` tells what names mean, `folders` finds the components of a model, `shapes` knows
what each network holds, `load` fills the networks, `conversion` writes them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conversion import Written, convert
    from .folders import Model, Source, base_size, find_parts, open_model, own_shift, own_steps
    from .load import load_encoder, load_mmdit, load_vae
    from .report import PartReport, Report, inspect

__all__ = [
    "Model",
    "PartReport",
    "Report",
    "Source",
    "Written",
    "base_size",
    "convert",
    "find_parts",
    "inspect",
    "load_encoder",
    "load_mmdit",
    "load_vae",
    "open_model",
    "own_shift",
    "own_steps",
]
_MODULES = {
    "conversion": ("Written", "convert"),
    "folders": ("Model", "Source", "base_size", "find_parts", "open_model", "own_shift", "own_steps"),
    "load": ("load_encoder", "load_mmdit", "load_vae"),
    "report": ("PartReport", "Report", "inspect"),
}


def __getattr__(name: str):
    """Load what a name needs when it is first used: headers are read without torch."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
