"""Pictures that a benchmark asks for: made one by one, each whole or not at all, and never twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image

from ..errors import JoyImageError
from ..images import read_parameters, save_png
from .kept import one_by_one

if TYPE_CHECKING:
    from ..pipeline import JoyImage


@dataclass(frozen=True)
class Wanted:
    """A picture to be made at `path` by a model, with settings that it carries as a PNG. `beside` writes what goes with
    it. Where they can be pickled, another process can make it.
    """

    path: Path
    settings: dict[str, Any]
    make: Callable[[JoyImage], Image.Image]
    beside: Callable[[JoyImage], object] | None = None

    def write(self, model: JoyImage) -> None:
        """Make it, whole or not at all."""
        picture = self.make(model)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.beside is not None:
            self.beside(model)
        save_png(picture, self.path, self.settings)


Spread: TypeAlias = Callable[[Sequence[Wanted]], Iterator[object]]  # writes them somewhere, and gives a value for each


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


def make_all(
    wanted: Sequence[Wanted], model: Callable[[], JoyImage], progress: bool = False, spread: Spread | None = None
) -> int:
    """Make the pictures that are not there, and return how many that were. When stopped, says how many are kept.

    `model` loads it, when the first is made; `spread` has the pictures made elsewhere.
    """
    missing = [each for each in wanted if not each.path.exists()]
    if missing:
        written = spread(missing) if spread else (each.write(model()) for each in missing)
        one_by_one(missing, lambda _: next(written), "picture", progress, len(wanted) - len(missing))
    return len(missing)
