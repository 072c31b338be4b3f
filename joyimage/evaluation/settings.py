"""Settings of benchmarks, checked when they are made: those that the benchmarks were published with."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import JoyImageError
from ..settings import (
    AUTO,
    SEEDS,
    Settings,
    check_base_size,
    check_guidance,
    check_seed,
    check_steps,
    given,
    number,
    whole,
)


@dataclass(frozen=True)
class Predicting(Settings):
    """How a benchmark's pictures are made. Every item has the same seed, so that it is the same picture in any order
    and after any interruption. Raises `JoyImageError` for a value that cannot be used, naming it.
    """

    steps: int = number(50, 1, 1000, help="denoising steps")
    guidance_scale: float = number(5.0, 1.0, 30.0, 0.1, help="1 or less turns guidance off")
    seed: int = number(42, 0, SEEDS - 1, help="seed of every picture")
    base_size: int | str = given(AUTO, "base size of the pictures")

    def __post_init__(self):
        check_steps(self.steps)
        check_guidance(self.guidance_scale, 1.0, (0.0, 1.0))
        check_seed(self.seed)
        check_base_size(self.base_size)

    def options(self) -> dict:
        """As `JoyImage.edit` and `generate` take them."""
        return dict(vars(self))


@dataclass(frozen=True)
class Sampled(Predicting):
    """The same for pictures from text, of which there are several of each prompt, by seeds that follow each other."""

    repeats: int = number(4, 1, 64, help="pictures of each prompt")

    def __post_init__(self):
        super().__post_init__()
        if not whole(self.repeats) or self.repeats < 1:
            raise JoyImageError(f"repeats is {self.repeats!r:.40}; give a whole number of pictures, at least 1")


def check_limit(limit: int | None) -> None:
    """Raise `JoyImageError` for a number of items that is not whole or below 1; None is all of them."""
    if limit is not None and (not whole(limit) or limit < 1):
        raise JoyImageError(f"limit is {limit!r:.40}; give a whole number of items, at least 1")


def some(items: list, limit: int | None) -> list:
    """At most `limit` of the items, at equal steps through all of them, so that every kind is among them."""
    check_limit(limit)
    if limit is None or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]
