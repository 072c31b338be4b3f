"""The columns of a table of jobs: what a cell is read as. A CSV has texts only, so that every value may be one."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

from ..errors import JoyImageError
from ..settings import AUTO, Answering, Sampling, check_text, finite

Read = Callable[[str, Any], Any]  # a column's name and a cell of it

NEAR = 0.75  # of 1: names as alike as this are taken for misspelt ones, others for columns of the user's own


def text(name: str, value: Any) -> str:
    check_text(name, value)
    return value


def whole(name: str, value: Any) -> int:
    return int(_finite(name, value, lambda number: isinstance(number, int) or number.is_integer(), "a whole number"))


def decimal(name: str, value: Any) -> float:
    return _finite(name, value, finite, "a number")


def _finite(name: str, value: Any, good: Callable[[float], bool], wanted: str) -> Any:
    """A number, which in a text may be written as one. A whole number stays what it is: no float holds every seed."""
    try:
        number = _number(value)
        if good(number):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise JoyImageError(f"{name} is {value!r:.40} and must be {wanted}")


def _number(value: Any) -> int | float:
    if isinstance(value, str):
        return int(value) if value.strip().lstrip("+-").isdecimal() else float(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real | Decimal):
        raise TypeError
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def flag(name: str, value: Any) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    given = words.get(str(value).strip().lower())
    if given is None:
        raise JoyImageError(f"{name} is {value!r:.40} and must be true or false")
    return given


def several(name: str, value: Any) -> list[Any]:
    """A list, a list in JSON, or values with commas between."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.lstrip().startswith("[") else value.split(",")
        except ValueError as error:
            raise JoyImageError(f"{name} is {value!r:.60}, which is no list in JSON: {error}") from None
    if not isinstance(value, Sequence):
        raise JoyImageError(f"{name} is {value!r:.60} and must be a list")
    return list(value)


def decimals(name: str, value: Any) -> tuple[float, ...]:
    return tuple(decimal(name, each) for each in several(name, value))


def wholes(name: str, value: Any) -> tuple[int, ...]:
    return tuple(whole(name, each) for each in several(name, value))


def box(name: str, value: Any) -> tuple[float, ...]:
    sides = decimals(name, value)
    if len(sides) != 4:
        raise JoyImageError(f"{name} is {value!r:.60} and must be left, top, right, bottom in pixels")
    return sides


def pictures(name: str, value: Any) -> tuple[str, ...]:
    """One address, or a list of them, in a text as JSON: names of files may hold commas."""
    one = isinstance(value, str) and not value.lstrip().startswith("[")
    return tuple(text(name, each) for each in ([value] if one else several(name, value)))


def size(name: str, value: Any) -> tuple[int, ...]:
    """Height and width, in a text as 768x1024."""
    return wholes(name, value.lower().split("x") if isinstance(value, str) and "x" in value.lower() else value)


def base_size(name: str, value: Any) -> int | str:
    return AUTO if value == AUTO else whole(name, value)


def camera(name: str, value: Any) -> tuple[float, float, str]:
    """Yaw, pitch and zoom, of which the last two may be left out: a list, a text with commas, or by their names."""
    if isinstance(value, Mapping):
        if lost := sorted(map(str, value.keys() - {"yaw", "pitch", "zoom"})):
            raise JoyImageError(f"{name} has no {', '.join(lost):.60}; it has yaw, pitch and zoom")
        value = [value.get("yaw", 0), value.get("pitch") or 0, value.get("zoom") or "unchanged"]
    parts = [value] if isinstance(value, numbers.Real) else several(name, value)
    if not 1 <= len(parts) <= 3:
        raise JoyImageError(f"{name} is {value!r:.60} and must be yaw, pitch, zoom")
    yaw, pitch, zoom = [*parts, *(0, 0, "unchanged")[len(parts) :]]
    return decimal(f"{name} yaw", yaw), decimal(f"{name} pitch", pitch), text(f"{name} zoom", zoom).strip()


def _setting(kind: type[Sampling | Answering], name: str) -> Read:
    default = getattr(kind, name)
    if isinstance(default, str):
        return text
    number = kind.range(name).step if default is None else default
    return whole if isinstance(number, int) else decimal


LEVELS: dict[str, Read] = {"sigmas": decimals, "timesteps": decimals, "guidance_interval": decimals}
SAMPLING: dict[str, Read] = {
    **{name: _setting(Sampling, name) for name in Sampling.names() if name not in LEVELS},
    **LEVELS,
}
ANSWERING: dict[str, Read] = {name: _setting(Answering, name) for name in Answering.names()}
# What decides encodings, besides pictures and words.
ENCODING: dict[str, Read] = {
    "negative_prompt": text, "size": size, "base_size": base_size, "exact": flag, "mask": text, "outpaint": wholes,
}  # fmt: skip
SPATIAL: dict[str, Read] = {
    "move": text, "box": box, "to": text, "rotate": text, "view": text, "camera": camera,
}  # fmt: skip
WORDS: dict[str, Read] = {"instruction": text, "prompt": text, "question": text}
CHOOSING: dict[str, Read] = {"candidates": whole, "draft_steps": whole}
COLUMNS: dict[str, Read] = {
    "images": pictures, "name": text, **WORDS, **SPATIAL, **ENCODING, **CHOOSING, **SAMPLING, **ANSWERING,
}  # fmt: skip


def read_cells(cells: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of a row that are columns of ours and not empty, each read as what it is.

    A column of another name is the user's own and passed over. Raises `JoyImageError` for one whose name is nearly one
    of ours, and for a cell that is not what its column holds.
    """
    found = {}
    for name, value in cells.items():
        if name not in COLUMNS:
            near = get_close_matches(str(name).strip().lower(), COLUMNS, 1, NEAR)
            if near and not _empty(value):
                raise JoyImageError(f"there is no column {name!r:.60}; did you mean {near[0]}?")
        elif not _empty(value):
            found[name] = COLUMNS[name](name, value)
    return found


def _empty(value: Any) -> bool:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    if isinstance(value, Mapping):  # of Parquet, where each row has all fields
        return all(map(_empty, value.values()))
    return isinstance(value, str | Sequence) and not (value.strip() if isinstance(value, str) else value)
