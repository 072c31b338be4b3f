"""Pictures that a benchmark asks for: made one by one, each whole or not at all, and never twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import JoyImageError
from ..images import read_parameters, save_png
from .kept import one_by_one


@dataclass(frozen=True)
class Wanted:
    """A picture to be made at `path`, by settings that it carries as a PNG. `beside` writes what goes with it."""

    path: Path
    settings: dict[str, Any]
    make: Callable[[], Image.Image]
    beside: Callable[[], object] = lambda: None


def check_predictions(wanted: Sequence[Wanted]) -> None:
    """Raise `JoyImageError` if a picture that is there was made by other settings than those asked for.

    A picture that does not say how it was made is another program's, and taken as it is.
    """
    for each in wanted:
        if not each.path.exists():
            continue
        try:
            made = read_parameters(each.path)
        except JoyImageError:
            continue
        for name, value in each.settings.items():
            if name in made and made[name] != value:
                raise JoyImageError(
                    f"{each.path} was made with {name} {made[name]!r:.80}, not {value!r:.80}: give the settings that "
                    "it was made with, or another folder"
                )


def make_all(wanted: Sequence[Wanted], progress: bool = False) -> int:
    """Make the pictures that are not there, and return how many that were. When stopped, says how many are kept."""
    missing = [each for each in wanted if not each.path.exists()]
    done = len(wanted) - len(missing)
    one_by_one(missing, _make, "picture", progress, done)
    return len(missing)


def _make(wanted: Wanted) -> None:
    picture = wanted.make()
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    wanted.beside()
    save_png(picture, wanted.path, wanted.settings)
