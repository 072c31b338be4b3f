"""Checks of spatial measurement."""

from __future__ import annotations

import itertools
import re

import numpy as np

from .. import margins
from ..questions.form import Question
from ..questions.words import read_lengths
from .matching import letters_apart
from .truth import Truth, Verdict, factor, mentioned, same

ROUNDED = 0.0051  # metres


def distance(truth: Truth, question: Question) -> Verdict:
    """A length against the least distance of two objects' points."""
    apart = truth.apart(*question.about["objects"])
    right = same(read_lengths(question.answer), [apart], margins.TOLERANCE, margins.LEAST_TOLERANCE)
    return Verdict(right, apart >= margins.NEAREST)


def size(truth: Truth, question: Question) -> Verdict:
    """Lengths against the longest edges of boxes."""
    true = [truth.extents(number)[-1] for number in question.about["objects"]]
    return Verdict(same(read_lengths(question.answer), true, 0, ROUNDED), bool(min(true) >= margins.NEAREST))


def height(truth: Truth, question: Question) -> Verdict:
    """Lengths against the highest corner above the lowest."""
    true = [high - low for low, high in map(truth.height, question.about["objects"])]
    return Verdict(same(read_lengths(question.answer), true, 0, ROUNDED), bool(min(true) >= margins.NEAREST))


def depth_order(truth: Truth, question: Question) -> Verdict:
    """The order of what the answer lists."""
    listed, depths = _listed(truth, question, question.said), _depths(truth, question)
    right = sorted(listed) == sorted(depths) and listed == sorted(depths, key=lambda thing: depths[thing])
    return Verdict(right, _clear(truth, question, depths))


def depth_choice(truth: Truth, question: Question) -> Verdict:
    """What the answer names, against all in their order."""
    depths = _depths(truth, question)
    ordered = sorted(depths, key=lambda thing: depths[thing])
    named = _listed(truth, question, question.said)
    return Verdict(named == [ordered[question.about["place"]]], _clear(truth, question, depths))


def _listed(truth: Truth, question: Question, text: str) -> list:
    if "points" in question.about:
        return re.findall(r"(?:point |点)([P-V])", text)
    return mentioned(text, question.names)


def _depths(truth: Truth, question: Question) -> dict:
    (view,) = question.views
    if "objects" in question.about:
        return {n: _near(truth, view, n) for n in question.about["objects"]}
    depth = truth.depth(view)
    rows, columns = depth.shape
    shown = {mark.label: mark.at for mark in question.marks if mark.at is not None}
    return {name: float(depth[int(y * rows), int(x * columns)]) for name, (x, y) in shown.items()}


def _near(truth: Truth, view: int, number: int) -> float:
    """The depth up to which the nearest tenth of an object's points reaches."""
    depths = np.sort(truth.in_camera(view, truth.cloud(view, number))[:, 2])
    return float(depths[len(depths) // 10])


def _clear(truth: Truth, question: Question, depths: dict) -> bool:
    """Depths differ by their margin, and points are told apart by their letters."""
    ordered = sorted(depths.values())
    clear = all(factor(a, b) >= margins.DEPTH for a, b in itertools.pairwise(ordered))
    points = question.about.get("points")
    return clear and (points is None or letters_apart(truth, question.views[0], points))
