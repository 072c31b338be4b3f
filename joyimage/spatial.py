"""Spatial instructions: the sentences the model was trained on, to the letter. The red box of a move is in `boxes`.

Templates: "Spatial Editing Reference" in the README of JoyAI-Image, which asks to keep to them for stable results.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from .boxes import RED as RED
from .boxes import draw_box as draw_box  # which a move's sentence goes with
from .errors import JoyImageError
from .settings import VIEWS, ZOOMS, finite

FIELD = re.compile(r"\{(\w+)\}")

# The sentences, cut into {fields} and the pieces of fixed text that `parse` reports on.
MOVE = ("Move the ", "{object}", " into the red box", " and finally remove the red box.")
ROTATE = ("Rotate the ", "{object}", " to show the ", "{view}", " side view.")
CAMERA = (
    "Move the camera.",
    "\n- Camera rotation: Yaw ",
    "{yaw}",
    "°, Pitch ",
    "{pitch}",
    "°.\n- Camera zoom: ",
    "{zoom}",
    ".\n- Keep the 3D scene static; only change the viewpoint.",
)


@dataclass(frozen=True)
class Move:
    """Move `object` into the red box. `JoyImageError` if it is empty or longer than one line."""

    object: str
    kind: ClassVar[str] = "move"

    def __post_init__(self):
        _set(self, object=_object(self.object))

    @property
    def text(self) -> str:
        return "".join(MOVE).format(object=self.object)


@dataclass(frozen=True)
class Rotate:
    """Turn `object` to show its `view` side, one of `VIEWS`. `JoyImageError` for another view, and as for `Move`."""

    object: str
    view: str
    kind: ClassVar[str] = "rotate"

    def __post_init__(self):
        _set(self, object=_object(self.object), view=_one_of(VIEWS, "view", self.view))

    @property
    def text(self) -> str:
        return "".join(ROTATE).format(object=self.object, view=self.view)


@dataclass(frozen=True)
class Camera:
    """Turn the camera around the scene by degrees, and zoom by one of `ZOOMS`.

    Yaw is brought into (-180, 180] and pitch limited to [-90, 90]; both are rounded to four decimals.
    `JoyImageError` for degrees that are not finite numbers, and for another zoom.
    """

    yaw: float
    pitch: float = 0
    zoom: str = "unchanged"
    kind: ClassVar[str] = "camera"

    def __post_init__(self):
        yaw = round(math.remainder(_degrees("yaw", self.yaw), 360), 4)
        pitch = round(min(90.0, max(-90.0, _degrees("pitch", self.pitch))), 4)
        _set(self, yaw=180.0 if yaw == -180 else yaw, pitch=pitch, zoom=_one_of(ZOOMS, "zoom", self.zoom))

    @property
    def text(self) -> str:
        return "".join(CAMERA).format(yaw=_shortest(self.yaw), pitch=_shortest(self.pitch), zoom=self.zoom)


Instruction = Move | Rotate | Camera


def move_object(obj: str) -> str:
    """The sentence that moves `obj` into the red box drawn by `draw_box`. Errors as for `Move`."""
    return Move(obj).text


def rotate_object(obj: str, view: str) -> str:
    """The sentence that turns `obj` to show its `view` side. Errors as for `Rotate`."""
    return Rotate(obj, view).text


def camera(yaw: float, pitch: float = 0, zoom: str = "unchanged") -> str:
    """The four lines that move the camera by `yaw` and `pitch` degrees and zoom. Errors as for `Camera`."""
    return Camera(yaw, pitch, zoom).text


def orbit(yaw_start: float, yaw_end: float, count: int, pitch: float = 0, zoom: str = "unchanged") -> list[str]:
    """`count` camera instructions at equal steps of yaw, from `yaw_start` degrees to `yaw_end` and including both.

    A full turn (0 to 360, or 180 to -180) ends one step short, as its end is its start again.
    Raises `JoyImageError` for a count below 1, more than a full turn, several views without a turn, and whatever
    `Camera` refuses.
    """
    if isinstance(count, bool) or not isinstance(count, numbers.Integral) or count < 1:
        raise JoyImageError(f"an orbit has a whole number of views, 1 or more, not {count!r}")
    turn = round(_degrees("yaw", yaw_end) - _degrees("yaw", yaw_start), 4)
    if abs(turn) > 360 or (turn == 0 and count > 1):
        raise JoyImageError(
            f"an orbit from {yaw_start} to {yaw_end} turns by {turn:g} degrees; a full turn is 0 to 360"
        )
    steps = count if abs(turn) == 360 else max(1, count - 1)
    return [camera(yaw_start + turn * i / steps, pitch, zoom) for i in range(count)]


def _set(instruction: Instruction, **values: str | float) -> None:
    """Store the normal form of fields; a frozen dataclass allows it only this way."""
    for name, value in values.items():
        object.__setattr__(instruction, name, value)


def _object(text: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise JoyImageError(f"the object must be described in words, as in 'red cup', not {text!r}")
    text = text.strip()
    if len(text.splitlines()) > 1:
        raise JoyImageError(f"the object must be described in one line, not {text!r}")
    return text


def _one_of(allowed: tuple[str, ...], name: str, value: str) -> str:
    if value not in allowed:
        raise JoyImageError(f"unknown {name} {value!r}; it is one of {', '.join(allowed)}")
    return value


def _degrees(name: str, value: float) -> float:
    if not finite(value):
        raise JoyImageError(f"{name} must be a finite number of degrees, not {value!r}")
    return float(value)


def _shortest(degrees: float) -> str:
    """At most four decimals, none for whole degrees, and no minus before a zero: 45, 45.5, 0."""
    return f"{degrees + 0.0:.4f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class Parsed:
    """What `parse` found: one of our instructions, or how the text differs from one, or neither (both empty)."""

    instruction: Instruction | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Template:
    pieces: tuple[str, ...]
    attempt: str  # pattern of a text that is meant as this instruction, right or not
    make: Callable[..., Instruction]  # from the fields as they are written


def parse(text: str) -> Parsed:
    """Recognise an instruction of `move_object`, `rotate_object` or `camera`, or say how a near-miss differs from it.

    White space around the text is ignored. A near-miss speaks of moving into the red box, of rotating to a view, or
    of the camera's rotation or zoom, but is not what the builders write; its `problems` say, piece by piece, what
    is missing, misspelt or not allowed. Any other text is an ordinary instruction, and both fields stay empty.
    """
    text = text.strip()
    for template in TEMPLATES:
        if match := _exact(template.pieces).fullmatch(text):
            return _read(template, match)
    for template in TEMPLATES:
        if re.search(template.attempt, text, re.IGNORECASE | re.DOTALL):
            return Parsed(problems=tuple(_differences(template.pieces, text)))
    return Parsed()


def _read(template: Template, match: re.Match) -> Parsed:
    """Build the instruction from its written fields; they must be valid and in their normal form."""
    try:
        instruction = template.make(**match.groupdict())
    except JoyImageError as error:
        return Parsed(problems=(str(error),))
    normal = _exact(template.pieces).fullmatch(instruction.text).groupdict()
    problems = tuple(
        f"{name} {written!r} should read {normal[name]!r}"
        for name, written in match.groupdict().items()
        if written != normal[name]
    )
    return Parsed(problems=problems) if problems else Parsed(instruction)


def _differences(pieces: tuple[str, ...], text: str) -> Iterator[str]:
    """Look for the fixed pieces in their order, tolerant of case, white space and punctuation; report what differs.

    Finds a difference in every text that `_exact` does not match.
    """
    position, adjacent = 0, True  # adjacent: the next piece must follow at once
    for piece in pieces:
        if FIELD.fullmatch(piece):
            adjacent = False
            continue
        match = _loose(piece).search(text, position)
        if not match:
            yield f"{piece!r} is missing"
            adjacent = False
            continue
        before = text[position : match.start()]
        if adjacent and before:
            yield f"{before!r} does not belong before {match[0]!r}"
        if match[0] != piece:
            yield f"{match[0]!r} should read {piece!r}"
        position, adjacent = match.end(), True
    if adjacent and text[position:]:
        yield f"{text[position:]!r} does not belong at the end"


def _exact(pieces: tuple[str, ...]) -> re.Pattern:
    """The template as a pattern with a group for each field. A field may hold newlines, to be named as the error."""
    template = re.escape("".join(pieces))
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.*)", template), re.DOTALL)


def _loose(piece: str) -> re.Pattern:
    """The piece in any case, with any white space, and with its punctuation optional."""
    tokens = re.findall(r"\w+|\s+|[^\w\s]", piece)
    return re.compile("".join(map(_loose_token, tokens)), re.IGNORECASE)


def _loose_token(token: str) -> str:
    if token.isspace():
        return r"\s*"
    return rf"\b{token}" if token.isalnum() else re.escape(token) + "?"


def _camera(yaw: str, pitch: str, zoom: str) -> Camera:
    return Camera(_number("yaw", yaw), _number("pitch", pitch), zoom)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise JoyImageError(f"{name} must be a finite number of degrees, not {text!r}") from None


TEMPLATES = (
    Template(MOVE, r"\bmove\b.*\bred\s+box\b", Move),
    Template(ROTATE, r"\brotate\b.*\b(to\s+show|view)\b", Rotate),
    Template(CAMERA, r"\bmove\s+the\s+camera\s*(\.|\n|$)|\bcamera\s+(rotation|zoom)\b|\byaw\b.*\bpitch\b", _camera),
)
