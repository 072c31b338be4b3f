"""Fields of what a file holds, each taken as what it must be; one that is not is told by file, place and name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from ...errors import JoyImageError
from ...settings import check_text, finite
from ..oriented import OrientedBox

LARGEST = 1e9  # of any number: beyond it distances lose their last decimals, and their cubes their range
NUMBERS = 2**31 - 1  # of an object, the largest that a mask has
SIDE = 100_000  # pixels of a picture, at most
FOCAL = 1e-3  # pixels of a focal length, more than which a lens has


class Fields:
    """The named fields of a record. `place`: the file, and where in it the record is. `above`: has what this lacks.

    Every method raises `JoyImageError` for a field that is missing, unless it has a default, or not what it must be.
    A field of null counts as missing.
    """

    def __init__(self, values: Any, place: str, above: Fields | None = None):
        if not isinstance(values, Mapping):
            raise JoyImageError(f"{place} is {shown(values)}; it must be a record with named fields")
        self._values, self.place, self._above = values, place, above

    def has(self, key: str) -> bool:
        return self.raw(key) is not None

    def named(self, key: str) -> bool:
        """Whether it is there, be it as null."""
        return key in self._values or (self._above is not None and self._above.named(key))

    def raw(self, key: str) -> Any:
        """What is there, None where nothing is."""
        value = self._values.get(key)
        return self._above.raw(key) if value is None and self._above is not None else value

    def fault(self, key: str, must: str) -> JoyImageError:
        """The error of a field that is not what it must be."""
        if self._above is not None and self._values.get(key) is None and self._above.named(key):
            return self._above.fault(key, must)
        wrong = f"{key} is {shown(self.raw(key))}" if self.named(key) else f"{key} is missing"
        return JoyImageError(f"{self.place}: {wrong}; it must be {must}")

    def text(self, key: str, default: str | None = None) -> str:
        """In one line, without spaces around it. An empty one counts as missing."""
        if not self.has(key) and default is not None:
            return default
        if not isinstance(value := self.raw(key), str):
            raise self.fault(key, "text")
        check_text(f"{self.place}: {key}", value)
        if not (value := " ".join(value.split())) and default is None:
            raise self.fault(key, "text that is not empty")
        return value

    def number(self, key: str, default: float | None = None, above: float = -LARGEST) -> float:
        if not self.has(key) and default is not None:
            return default
        value = self.raw(key)
        if not finite(value) or not above < value <= LARGEST:
            raise self.fault(key, f"a number above {above:g} and up to {LARGEST:g}")
        return float(value)

    def whole(self, key: str, least: int, most: int) -> int:
        value = self.raw(key)
        if not finite(value) or value != int(value) or not least <= value <= most:
            raise self.fault(key, f"a whole number from {least} to {most}")
        return int(value)

    def flag(self, key: str, default: bool = False) -> bool:
        if not isinstance(value := self.raw(key), bool | None):  # "no" would be taken for yes
            raise self.fault(key, "true or false")
        return default if value is None else value

    def numbers(self, key: str, *shapes: tuple[int, ...]) -> np.ndarray:
        """Finite numbers in lists, of one of the shapes."""
        try:
            array = np.array(self.raw(key))
        except (ValueError, OverflowError):  # rows of different lengths
            array = np.zeros(0)
        good = array.dtype.kind in "iuf" and array.shape in shapes
        if not good or not (np.abs(array.astype(float)) <= LARGEST).all():
            sizes = " or ".join(" x ".join(map(str, shape)) for shape in shapes)
            raise self.fault(key, f"{sizes} numbers in lists, each finite and up to {LARGEST:g}")
        return array.astype(float)

    def box(self, key: str, order: str = "ZXY") -> OrientedBox:
        """From nine numbers."""
        with told_of(f"{self.place}: {key}"):
            return OrientedBox.from_numbers(self.numbers(key, (9,)), order)

    def items(self, key: str, must: str = "a list") -> list[Any]:
        if not isinstance(value := self.raw(key), list):
            raise self.fault(key, must)
        return value

    def records(self, key: str) -> list[Fields]:
        """A list of records, each with its place in the list, from 0."""
        return [Fields(item, f"{self.place}, {key}[{i}]") for i, item in enumerate(self.items(key))]

    def record(self, key: str) -> Fields:
        if not self.has(key):
            raise self.fault(key, "a record with named fields")
        return Fields(self.raw(key), f"{self.place}, {key}")

    def path(self, key: str, folder: str = "its file's folder") -> str:
        """A path within a folder, of which an error calls it `folder`."""
        value = self.raw(key)
        if not isinstance(value, str) or not value or "\0" in value:
            raise self.fault(key, f"the path of a file within {folder}")
        check_text(f"{self.place}: {key}", value)
        outside = PurePosixPath(value).is_absolute() or PureWindowsPath(value).drive
        value = os.path.normpath(value)
        if outside or value in (".", "..") or value.startswith(f"..{os.sep}"):
            raise self.fault(key, f"the path of a file within {folder}: copy or link the file to there")
        return value

    def at(self, name: str) -> Fields:
        """The same, whose place is also told by a name."""
        return Fields(self._values, f"{self.place} ({name})", self._above)

    def below(self, above: Fields) -> Fields:
        """The same, with the fields of `above` where it has none of its own."""
        return Fields(self._values, self.place, above)


def shown(value: Any) -> str:
    """A value of a file as an error tells it."""
    if isinstance(value, Mapping):
        return f"a record with {', '.join(map(str, value)) or 'no fields':.60}"
    if not isinstance(value, list):
        return "null" if value is None else f"{value!r:.60}"
    try:
        shape = " x ".join(map(str, np.array(value).shape))
    except (ValueError, OverflowError):
        shape = f"{len(value)}, each of another length"
    return f"the list {value!r:.60} of {shape}"


def lens(matrix: np.ndarray, place: Path | str) -> np.ndarray:
    """The intrinsics (3, 3) in a matrix. Raises `JoyImageError` where those are no camera's."""
    inner = matrix[:3, :3]
    if min(inner[0, 0], inner[1, 1]) <= FOCAL or not np.allclose(inner[[1, 2, 2], [0, 0, 1]], 0) or inner[2, 2] != 1:
        raise JoyImageError(
            f"{place} must have focal lengths above {FOCAL:g} pixels on the diagonal, 1 after them and 0 below, as in "
            f"fx 0 cx / 0 fy cy / 0 0 1, not {inner.tolist()}"
        )
    return inner


@contextmanager
def told_of(place: Path | str) -> Iterator[None]:
    """Where a file's values become what checks itself, such as a camera: its error then begins with the place."""
    try:
        yield
    except JoyImageError as error:
        raise type(error)(f"{place}: {error}") from error
