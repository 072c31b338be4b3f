"""Checks of multi-view consistency, by projecting what was measured in one view into the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import margins
from ..extras import extra
from ..questions.form import LETTERS, Question
from .relationship import YES
from .truth import Truth, Verdict


def point_correspondence(truth: Truth, question: Question) -> Verdict:
    """The point at the answer's letter shows what the first view's point shows; the others lie on other surfaces."""
    first, second = question.views
    start = _world(truth, first, question.about["point"])
    ends = [_world(truth, second, place) for place in question.about["points"]]
    answer = LETTERS.index(question.answer)
    off = [float(np.linalg.norm(end - start)) for end in ends]
    right = int(np.argmin(off)) == answer and off[answer] <= margins.SAME_POINT
    surfaces = [_number(truth, second, place) for place in question.about["points"]]
    others = [n for i, n in enumerate(surfaces) if i != answer]
    right = right and surfaces[answer] == _number(truth, first, question.about["point"])
    clear = letters_apart(truth, second, question.about["points"])
    return Verdict(right, clear and surfaces[answer] not in others)


def letters_apart(truth: Truth, view: int, places: Sequence[Sequence[float]]) -> bool:
    """Whether points with letters are so far apart that none lies on another's."""
    camera = truth.scene.views[view].camera
    pixels = np.array(places) * [camera.width, camera.height]
    apart = np.linalg.norm(pixels[:, None] - pixels, axis=-1)[np.triu_indices(len(places), 1)].min()
    return bool(apart >= max(margins.OTHER_POINT, margins.OTHER_SHARE * min(camera.width, camera.height)) - 1e-6)


def object_correspondence(truth: Truth, question: Question) -> Verdict:
    """Yes or no, from the objects' numbers, or from the pixels that the other view has of the object."""
    objects = question.about["objects"]
    if len(objects) == 2:
        marked = tuple(mark.number for mark in question.marks)
        seen = all(number in truth.seen(view) for number, view in zip(objects, question.views, strict=True))
        return Verdict(YES[question.answer] == (objects[0] == objects[1]) and marked == objects and seen)
    return Verdict(YES[question.answer] == (objects[0] in truth.seen(question.views[1])))


def _world(truth: Truth, view: int, place: tuple[float, float]) -> np.ndarray:
    """The world point (3,) that a view measured at a place, in fractions of the picture, between its pixels."""
    depth = truth.depth(view)
    height, width = depth.shape
    column, row = place[0] * width - 0.5, place[1] * height - 0.5
    inverse = 1 / np.maximum(depth, 1e-9)
    between = extra("scipy.ndimage").map_coordinates(inverse, [[row], [column]], order=1, mode="nearest")
    return truth.measured(view, np.array([row]), np.array([column]), 1 / between)[0]


def _number(truth: Truth, view: int, place: tuple[float, float]) -> int:
    numbers = truth.numbers(view)
    height, width = numbers.shape
    return int(numbers[int(place[1] * height), int(place[0] * width)])
