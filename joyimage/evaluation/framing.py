"""Framing error: whether things are where the true picture has them, and larger or smaller as the zoom asks
(SpatialEdit-Bench's FE).

Things are compared by the rays to the middles of their boxes, in a pinhole camera with a focal length of 0.9 of the
picture's longer side, so that pictures of different sizes can be compared.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from ..boxes import Box, check_corners
from ..errors import JoyImageError
from ..settings import check_text, finite

FOCAL = 0.9  # of the longer side
LARGEST = 3  # things of one label that count, by area
AREA_WEIGHT = 2.0  # degrees that a factor of e in area costs when things are matched
ANGLE_GATE, ZOOM_GATE = 60.0, 70.0  # degrees between matched things at most: against the truth, against the source
LEAST_MATCHES = 2  # for an angle error
WORST_ANGLE = 20.0  # degrees: of a picture with fewer matches, and the unit of the error


@dataclass(frozen=True)
class Detection:
    """A thing in a picture: what it is called, and its box in pixels.

    Raises `JoyImageError` for a label that is no text, and for a box that is not four finite numbers in their order.
    """

    label: str
    box: Box

    def __post_init__(self):
        check_text("the label of a detection", self.label)
        object.__setattr__(self, "box", check_corners(self.box, f"the box of the detection of {self.label!r:.60}"))

    @property
    def area(self) -> float:
        left, top, right, bottom = self.box
        return max(1.0, right - left) * max(1.0, bottom - top)

    def ray(self, size: tuple[int, int]) -> np.ndarray:
        """The direction (3,), of length 1, in which the middle of the box is seen in a picture of (width, height)."""
        left, top, right, bottom = self.box
        focal = FOCAL * max(size)
        ray = np.array([(left + right - size[0]) / 2 / focal, (top + bottom - size[1]) / 2 / focal, 1.0])
        return ray / np.linalg.norm(ray)


@dataclass(frozen=True)
class Framed:
    """The things in a picture of `size` (width, height). `JoyImageError` for one without pixels."""

    detections: tuple[Detection, ...]
    size: tuple[int, int]

    def __post_init__(self):
        if len(self.size) != 2 or not all(map(finite, self.size)) or min(self.size) < 1:
            raise JoyImageError(f"a picture's size is {self.size!r:.60}; give its width and height in pixels")

    def by_label(self) -> dict[str, list[Detection]]:
        """The largest of each label, by falling area."""
        found: dict[str, list[Detection]] = defaultdict(list)
        for detection in sorted(self.detections, key=lambda each: -each.area):
            if len(found[detection.label]) < LARGEST:
                found[detection.label].append(detection)
        return found


@dataclass(frozen=True)
class Match:
    """A thing in two pictures: degrees between its rays, and the logarithm of its second area over its first."""

    angle: float
    growth: float


@dataclass(frozen=True)
class FramingErrors:
    """Of one picture. `angle` in degrees is None with fewer than `LEAST_MATCHES`; `zoom` is 0 or 1, None where nothing
    matches the source; `asked` whether the instruction zooms at all.
    """

    angle: float | None
    zoom: float | None
    asked: bool


def matches(first: Framed, second: Framed, gate: float) -> list[Match]:
    """The things that both pictures show, label by label, in the assignment of least cost; those too far apart drop out
    after it.
    """
    ours, theirs = first.by_label(), second.by_label()
    found: list[Match] = []
    for label in sorted(ours.keys() & theirs.keys()):
        pairs = [
            [Match(_degrees(a.ray(first.size), b.ray(second.size)), math.log(b.area / a.area)) for b in theirs[label]]
            for a in ours[label]
        ]
        found += [match for match in _assigned(pairs) if match.angle <= gate]
    return found


def _assigned(pairs: list[list[Match]]) -> list[Match]:
    """One match for each row, or each column where there are fewer. With `LARGEST` of each all ways can be tried."""
    if len(pairs) > len(pairs[0]):
        pairs = [list(column) for column in zip(*pairs, strict=True)]
    ways = permutations(range(len(pairs[0])), len(pairs))
    chosen = ([row[column] for row, column in zip(pairs, way, strict=True)] for way in ways)
    return min(chosen, key=lambda way: sum(match.angle + AREA_WEIGHT * abs(match.growth) for match in way))


def _degrees(a: np.ndarray, b: np.ndarray) -> float:
    return math.degrees(math.atan2(float(np.linalg.norm(np.cross(a, b))), float(a @ b)))


def framing_error(source: Framed, truth: Framed, prediction: Framed, distance: float) -> FramingErrors:
    """`distance` is the camera's commanded change of distance: below 0 it comes closer, at 0 no zoom is asked for."""
    against_truth = matches(truth, prediction, ANGLE_GATE)
    enough = len(against_truth) >= LEAST_MATCHES
    angle = float(np.mean([match.angle for match in against_truth])) if enough else None
    growths = [match.growth / 2 for match in matches(source, prediction, ZOOM_GATE)]
    zoom = None
    if distance != 0 and growths:
        zoom = 0.0 if float(np.median(growths)) * -distance > 0 else 1.0
    return FramingErrors(angle, zoom, distance != 0)


def mean_framing_error(errors: Sequence[FramingErrors]) -> dict[str, float] | None:
    """Means over pictures, what could not be measured counting as wrong, and FE. None without any.

    `fe` takes the zoom from pictures that were asked to zoom. The released script counts all others as wrong, which is
    `fe_released`: the figure to hold against published ones.
    """
    if not errors:
        return None
    angle = float(np.mean([WORST_ANGLE if error.angle is None else error.angle for error in errors]))
    wrong = [1.0 if error.zoom is None else error.zoom for error in errors]
    asked = [each for each, error in zip(wrong, errors, strict=True) if error.asked]
    parts = {"angle": min(angle / WORST_ANGLE, 1.0), "zoom_released": float(np.mean(wrong))}
    if asked:
        parts["zoom"] = float(np.mean(asked))
    fe = (parts["angle"] + parts["zoom"]) / 2 if asked else parts["angle"]
    return {"angle_degrees": angle, **parts, "fe": fe, "fe_released": (parts["angle"] + parts["zoom_released"]) / 2}
