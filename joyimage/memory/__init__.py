"""Running within a memory budget: what it is spent on, and how weights come and go."""

from .budget import Needs, parse_size
from .offload import Memory

__all__ = ["Memory", "Needs", "parse_size"]
