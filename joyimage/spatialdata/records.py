"""What a data set is made of, whatever its format: samples, which are questions about pictures, and edit pairs."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import JoyImageError
from .pictures import read_picture
from .questions.evening import Side

OPEN, CHOICE = "open", "choice"


@dataclass(frozen=True)
class Picture:
    """A picture's name within its data set, and its bytes or where they are."""

    name: str
    data: bytes | Path

    @property
    def content(self) -> bytes:
        """The file's bytes. Raises `JoyImageError` for one that cannot be read."""
        if isinstance(self.data, bytes):
            return self.data
        try:
            return self.data.read_bytes()
        except OSError as error:
            raise JoyImageError(f"{self.data} cannot be read: {error.strerror or error}") from error

    def image(self) -> Image.Image:
        """In RGB. Raises `JoyImageError` for one that cannot be read."""
        return read_picture(self.data, self.name)

    @property
    def suffix(self) -> str:
        """With its dot."""
        return Path(self.name).suffix


def encoded(picture: Image.Image, kind: str) -> bytes:
    """A file's bytes: JPEG at quality 95 without loss of colour's detail, which thin coloured lines need, or PNG."""
    held = io.BytesIO()
    if kind == "png":
        picture.save(held, "PNG", compress_level=1)
    else:
        picture.save(held, "JPEG", quality=95, subsampling=0)
    return held.getvalue()


@dataclass(frozen=True)
class Turn:
    """One question and its answer.

    form: `OPEN` or `CHOICE`. stem: the text without the list of options. answer: of a choice, its letter. sides: what
    `Evening` counts, as (what it is, of how many; the value from 0).
    """

    task: str
    form: str
    language: str
    text: str
    answer: str
    stem: str = ""
    options: tuple[str, ...] = ()
    sides: tuple[tuple[str, int], ...] = ()

    @property
    def keys(self) -> list[Side]:
        """The sides as `Evening` takes them."""
        return [(self.task, kind, value) for kind, value in self.sides]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Turn:
        """From what `asdict` gives, also after JSON."""
        sides = tuple((str(kind), int(value)) for kind, value in values["sides"])
        return cls(**{**values, "options": tuple(values["options"]), "sides": sides})


@dataclass(frozen=True)
class Shown:
    """What a picture of a scene shows: the name of its view, its size, and its lens in pixels (fx, fy, cx, cy)."""

    view: str
    size: tuple[int, int]
    lens: tuple[float, float, float, float]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Shown:
        """From what `asdict` gives, also after JSON."""
        return cls(values["view"], tuple(values["size"]), tuple(values["lens"]))


@dataclass(frozen=True)
class Sample:
    """Questions about the same pictures: one, or several as a dialogue. `source`: the data set that the scene is of."""

    id: str
    scene: str
    source: str
    pictures: tuple[Picture, ...]
    shown: tuple[Shown, ...]
    turns: tuple[Turn, ...]

    @property
    def task(self) -> str:
        """The sub-tasks of its questions."""
        return ",".join(dict.fromkeys(turn.task for turn in self.turns))

    @property
    def type(self) -> str:
        """The forms of its questions."""
        return ",".join(dict.fromkeys(turn.form for turn in self.turns))


@dataclass(frozen=True)
class Pair:
    """An edit: `text` leads from `source` to `target`.

    views: the names of the views of both. box: of a move, the red box that is drawn on the source, (left, top, right,
    bottom) in pixels.
    """

    id: str
    kind: str
    scene: str
    text: str
    source: Picture
    target: Picture
    views: tuple[str, str]
    box: tuple[int, int, int, int] | None = None

    @property
    def pictures(self) -> tuple[Picture, Picture]:
        return self.source, self.target


@dataclass(frozen=True)
class Batch:
    """What one scene gives. `failed`: names of scenes and why they could not be used.

    unnamed: categories in it without a word in a language that was asked for. silent: why nothing came of it, where it
    could be used. mark: what tells the scene from what it is after a change.
    """

    scene: str
    samples: tuple[Sample, ...] = ()
    pairs: tuple[Pair, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    unnamed: tuple[str, ...] = ()
    silent: str = ""
    mark: str = ""

    def pictures(self) -> Iterator[Picture]:
        """Each picture once."""
        seen: set[str] = set()
        for record in (*self.samples, *self.pairs):
            for picture in record.pictures:
                if picture.name not in seen:
                    seen.add(picture.name)
                    yield picture


def as_dict(record: Any) -> dict[str, Any]:
    """A record for JSON; of pictures only their names."""
    return asdict(record, dict_factory=_names)


def _names(items: list[tuple[str, Any]]) -> Any:
    values = dict(items)
    return values["name"] if values.keys() == {"name", "data"} else values


def batch_of(values: Mapping[str, Any], pictures: Mapping[str, Picture]) -> Batch:
    """From what `as_dict` gives, also after JSON, and the pictures by name."""
    return Batch(
        scene=values["scene"],
        samples=tuple(_sample_of(each, pictures) for each in values["samples"]),
        pairs=tuple(_pair_of(each, pictures) for each in values["pairs"]),
        failed=tuple((name, reason) for name, reason in values["failed"]),
        unnamed=tuple(values["unnamed"]),
        silent=values["silent"],
        mark=values["mark"],
    )


def _sample_of(values: Mapping[str, Any], pictures: Mapping[str, Picture]) -> Sample:
    own = {
        "pictures": tuple(pictures[name] for name in values["pictures"]),
        "shown": tuple(map(Shown.of, values["shown"])),
        "turns": tuple(map(Turn.of, values["turns"])),
    }
    return Sample(**{**values, **own})


def _pair_of(values: Mapping[str, Any], pictures: Mapping[str, Picture]) -> Pair:
    box = None if values["box"] is None else tuple(values["box"])
    own = {"source": pictures[values["source"]], "target": pictures[values["target"]]}
    return Pair(**{**values, **own, "views": tuple(values["views"]), "box": box})
