"""Checks of scene-aware reasoning: descriptions sentence by sentence, counts, boxes and sides."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable

import numpy as np

from .. import margins
from ..extras import extra
from ..questions.form import Question
from .truth import SIGNS, Truth, Verdict, factor, mentioned

OFF = 0.02  # metres by which a corner of a rounded box may be off
SIDES = {
    "en": ("front", "front right", "right", "rear right", "rear", "rear left", "left", "front left"),
    "zh": ("正面", "右前面", "右侧面", "右后面", "后面", "左后面", "左侧面", "左前面"),
}


def scene_caption(truth: Truth, question: Question) -> Verdict:
    """Every sentence against the truth; the first must name all that the picture shows."""
    sentences = [part for part in re.split(r"(?<=\.)\s|(?<=。)", question.answer) if part]
    verdicts = []
    for place, sentence in enumerate(sentences):
        named = mentioned(sentence, question.names)
        fact = _shows if place == 0 else next(test for word, test in FACTS.items() if word in sentence)
        verdicts.append(fact(truth, question.views[0], named, list(question.about["objects"])))
    told = len(sentences) == question.about["said"]
    return Verdict(told and all(one.right for one in verdicts), all(one.clear for one in verdicts))


def _shows(truth: Truth, view: int, named: list[int], objects: list[int]) -> Verdict:
    return Verdict(sorted(named) == sorted(truth.seen(view)) == sorted(objects))


def _nearest(truth: Truth, view: int, named: list[int], objects: list[int]) -> Verdict:
    clouds = {n: truth.in_camera(view, truth.cloud(view, n)) for n in objects}
    near = {n: float(np.quantile(np.linalg.norm(cloud, axis=1), 0.2)) for n, cloud in clouds.items()}
    first, second, *_ = sorted(near, key=lambda n: near[n])
    return Verdict(named == [first], factor(near[first], near[second]) >= margins.DEPTH)


def _across(truth: Truth, view: int, named: list[int], objects: list[int]) -> Verdict:
    numbers = truth.numbers(view)
    middle = {}
    for n in objects:
        columns = np.flatnonzero((numbers == n).any(axis=0))
        middle[n] = (columns[0] + columns[-1] + 1) / 2 / numbers.shape[1]
    ordered = sorted(middle.values())
    clear = all(b - a >= margins.SIDE - 1e-9 for a, b in itertools.pairwise(ordered))
    return Verdict(named == sorted(middle, key=lambda n: middle[n]), clear)


def _tallest(truth: Truth, view: int, named: list[int], objects: list[int]) -> Verdict:
    spans = {n: truth.height(n) for n in objects}
    tall = {n: top - bottom for n, (bottom, top) in spans.items()}
    first, second, *_ = sorted(tall, key=lambda n: -tall[n])
    return Verdict(named == [first], tall[first] - tall[second] >= margins.HEIGHT * tall[first] - 1e-9)


FACTS: dict[str, Callable[[Truth, int, list[int], list[int]], Verdict]] = {
    "nearest": _nearest,
    "最近": _nearest,
    "left to right": _across,
    "从左到右": _across,
    "tallest": _tallest,
    "最高": _tallest,
}


def counting(truth: Truth, question: Question) -> Verdict:
    """A number against the objects with a pixel in the picture, whether they are asked about or not."""
    seen = truth.seen(question.views[0])
    true = sum(truth.called(number, question.language) == question.about["tag"] for number in seen)
    return Verdict(int(question.said) == true and len(set(question.options)) == len(question.options), true > 0)


def grounding_3d(truth: Truth, question: Question) -> Verdict:
    """Boxes against the true corners in the camera's frame, for all that the picture shows of these kinds."""
    (view,) = question.views
    called = {n: truth.called(n, question.language) for n in truth.seen(view)}
    wanted = [n for n, name in called.items() if name in question.about["tags"]]
    found = json.loads(question.answer)
    right = len(found) == len(wanted) and not question.marks
    for entry in found:
        corners = _corners(np.array(entry["bbox_3d"]))
        alike = [n for n in wanted if called[n] == entry["label"]]
        off = [np.abs(truth.in_camera(view, truth.corners(n)) - corners).max() for n in alike]
        right = right and bool(off) and min(off) <= OFF
    ahead = [entry["bbox_3d"][2] for entry in found]
    return Verdict(bool(right) and ahead == sorted(ahead))


def _corners(values: np.ndarray) -> np.ndarray:
    turn = extra("scipy.spatial.transform").Rotation.from_euler("ZXY", values[6:])
    return turn.apply(SIGNS * values[3:6]) + values[:3]


def orientation(truth: Truth, question: Question) -> Verdict:
    """The side against where the camera is in the object's own axes: x ahead and y to the left."""
    (number,) = question.about["objects"]
    corners = truth.corners(number)
    ahead = corners[SIGNS[:, 0] > 0].mean(axis=0) - corners[SIGNS[:, 0] < 0].mean(axis=0)
    _, rotation, shift = truth.camera(question.views[0])
    towards = -rotation.T @ shift - corners.mean(axis=0)
    right_of = ahead[1] * towards[0] - ahead[0] * towards[1]
    degrees = np.degrees(np.arctan2(right_of, ahead[:2] @ towards[:2])) % 360
    nearest = round(degrees / 45) % 8
    off = abs((degrees - 45 * nearest + 180) % 360 - 180)
    clear = truth.things[number].faces and 22.5 - off >= margins.DIRECTION - 1e-6
    return Verdict(question.said == SIDES[question.language][nearest], bool(clear))
