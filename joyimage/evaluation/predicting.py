"""Pictures that a benchmark asks for: made one by one, each whole or not at all, and never twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image

from ..errors import JoyImageError
from ..images import check_picture, read_parameters, save_png
from ..parameters import LORAS, NETWORKS
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
    """Raise `JoyImageError` if a picture that is there cannot be read, or was made by other settings than those asked
    for, such as by other LoRAs, or by none.

    A picture that does not say how it was made is another program's, and taken as it is.
    """
    for each in wanted:
        made = carried(each.path)
        said = [name for name in each.settings if name in made]
        for name in (*said, *NETWORKS, LORAS) if made else ():
            before, now = made.get(name), each.settings.get(name)
            if before != now:
                raise JoyImageError(
                    f"{each.path} was made with {name} {_said(before)}, not {_said(now)}: give the settings that "
                    "it was made with, or another folder"
                )


def _said(value: Any) -> str:
    return "as it is by default" if value is None else f"{value!r:.80}"


def carried(path: Path) -> dict[str, Any]:
    """What a picture that is there says of how it was made, which may be nothing, as of another program's.

    Raises `JoyImageError` for what cannot be read: it would be neither made nor scored.
    """
    if not path.exists():
        return {}
    try:
        check_picture(path)
    except JoyImageError as error:
        raise JoyImageError(f"{path} is to be a picture: {error}; move it away, so that it can be made") from None
    try:
        return read_parameters(path)
    except JoyImageError:
        return {}


def described(wanted: Sequence[Wanted]) -> tuple[dict[str, Any], int]:
    """What the pictures that are there say of how they were made, prompts apart: of each setting its value, or all
    values that there are; and how many of them say nothing. Errors as `carried`.
    """
    said = [(each, carried(each.path)) for each in wanted if each.path.exists()]
    values: dict[str, list[Any]] = {}
    for each, made in said:
        for name in (*each.settings, *NETWORKS, LORAS):
            known = values.setdefault(name, [])
            if name != "prompt" and name in made and made[name] not in known:
                known.append(made[name])
    found = {name: known[0] if len(known) == 1 else known for name, known in values.items() if known}
    return found, sum(not made for _, made in said)


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
