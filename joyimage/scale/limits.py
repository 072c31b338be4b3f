"""The most that one row of a table, or one request, may ask for, so that none fills the memory of a machine for others.

It imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import JoyImageError
from ..settings import MAX_CANDIDATES, Settings, check_levels, number, whole


@dataclass(frozen=True, kw_only=True)
class Limits(Settings):
    """What one may ask for at most. Raises `JoyImageError` for a limit out of its range."""

    max_pixels: int = number(4_194_304, 4096, 67_108_864, help="of a picture that is made")
    max_characters: int = number(8000, 1, 1_000_000, help="of a text")
    max_candidates: int = number(8, 1, MAX_CANDIDATES, help="of which one picture is chosen")
    max_steps: int = number(100, 1, 1000, help="denoising steps of a picture")
    max_tokens: int = number(4096, 1, 32_768, help="of an answer")

    def __post_init__(self):
        for name in self.limits():
            bounds, value = self.range(name), getattr(self, name)
            if not whole(value) or not bounds.least <= value <= bounds.most:
                raise JoyImageError(
                    f"{name} is {value!r:.40}; give a whole number from {bounds.least:,} to {bounds.most:,}"
                )

    @classmethod
    def limits(cls) -> list[str]:
        """The names of those that are numbers."""
        return [name for name in cls.names() if isinstance(getattr(cls, name), int)]

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise `JoyImageError` for the first of some options, checked by themselves, that is beyond its limit."""
        size, levels = options.get("size"), {name: options.get(name) for name in ("sigmas", "timesteps")}
        asked = {
            "max_pixels": {"pixels of size": size[0] * size[1] if size else 0},
            "max_candidates": {"candidates": options.get("candidates", 1)},
            "max_steps": {name: options.get(name) or 1 for name in ("steps", "draft_steps")},
            "max_tokens": {"max_new_tokens": options.get("max_new_tokens", 1)},
        }
        if any(value is not None for value in levels.values()):
            asked["max_steps"]["steps by their levels"] = len(check_levels(**levels)) - 1
        for limit, values in asked.items():
            for what, value in values.items():
                self.check_most(what, value, limit)

    def check_text(self, what: str, text: str) -> None:
        self.check_most(f"characters of {what}", len(text), "max_characters")

    def check_most(self, what: str, value: int, limit: str) -> None:
        """Raise `JoyImageError` for more of something than the limit of that name."""
        if value > (most := getattr(self, limit)):
            raise JoyImageError(f"{what}: {value:,} are more than the {most:,} of --{limit.replace('_', '-')}")
