"""Checks of spatial measurement."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np

from .. import margins
from ..questions.form import Question
from ..questions.words import read_lengths
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
    return Verdict(right, _apart(list(depths.values())))


def depth_choice(truth: Truth, question: Question) -> Verdict:
    """What the answer names, against all in their order."""
    depths = _depths(truth, question)
    ordered = sorted(depths, key=lambda thing: depths[thing])
    named = _listed(truth, question, question.said)
    return Verdict(named == [ordered[question.about["place"]]], _apart(list(depths.values())))


def _listed(truth: Truth, question: Question, text: str) -> list:
    if "points" in question.about:
        return [(int(x), int(y)) for x, y in re.findall(r"\((\d+), (\d+)\)", text)]
    return mentioned(text, question.names)


def _depths(truth: Truth, question: Question) -> dict:
    (view,) = question.views
    if "objects" in question.about:
        return {n: _near(truth, view, n) for n in question.about["objects"]}
    depth = truth.depth(view)
    rows, columns = depth.shape
    return {
        (x, y): float(depth[int(y / 1000 * rows), int(x / 1000 * columns)])
        for x, y in map(tuple, question.about["points"])
    }


def _near(truth: Truth, view: int, number: int) -> float:
    """The depth up to which the nearest tenth of an object's points reaches."""
    depths = np.sort(truth.in_camera(view, truth.cloud(view, number))[:, 2])
    return float(depths[len(depths) // 10])


def _apart(values: Sequence[float]) -> bool:
    ordered = sorted(values)
    return all(factor(a, b) >= margins.DEPTH for a, b in itertools.pairwise(ordered))
