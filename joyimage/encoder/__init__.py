"""The multimodal language model: contexts for the MMDiT, and answers to questions about images.

| file | what stands there |
| --- | --- |
| `chat.py` | from messages to token ids: the format, its control tokens, positions, cutting and packing |
| `vision.py` | from images to what the vision tower takes |
| `conditioning.py` | from ids to contexts |
| `answers.py` | from ids to text, token by token |
| `encoder.py` | `Encoder`, which puts these together |
| `limits.py` | the longest context, the smallest image |

transformers takes longer to import than all the rest of the library: it is imported where its classes are used, which
is when an encoder is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .limits import MAX_PIXELS, MIN_PIXELS, PACK_LIMIT

if TYPE_CHECKING:
    from .encoder import Encoder

__all__ = ["MAX_PIXELS", "MIN_PIXELS", "PACK_LIMIT", "Encoder"]


def __getattr__(name: str):
    """Load torch when the encoder is first named: the limits do not need it."""
    if name == "Encoder":
        from .encoder import Encoder

        return Encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
