"""Running within a memory budget: what it is spent on, and how weights come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .budget import Needs, parse_size

if TYPE_CHECKING:
    from .offload import Memory

__all__ = ["Memory", "Needs", "parse_size"]


def __getattr__(name: str):
    """Load what moves weights when it is first named: plans are made without torch."""
    if name == "Memory":
        from .offload import Memory

        return Memory
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
