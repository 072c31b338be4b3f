"""Weight files: what they are, and their way into the networks.

`files` reads the formats, `layouts` knows the namings, `folders` finds the parts of a model, `load` fills the networks,
`convert` writes them.
"""

from .convert import Written, convert
from .folders import base_size, find_parts
from .load import load_encoder, load_mmdit, load_vae
from .report import PartReport, Report, inspect

__all__ = [
    "PartReport",
    "Report",
    "Written",
    "base_size",
    "convert",
    "find_parts",
    "inspect",
    "load_encoder",
    "load_mmdit",
    "load_vae",
]
