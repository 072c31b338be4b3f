"""Checks of spatial relationship, in one view and over several."""

from __future__ import annotations

import itertools

import numpy as np

from .. import margins
from ..questions.form import Question
from .truth import Truth, Verdict, factor, mentioned, said_number

YES = {"Yes": True, "是": True, "No": False, "否": False}
NEXT = {"next to each other": True, "紧挨着": True, "far from each other": False, "离得远": False}


def relative_distance(truth: Truth, question: Question) -> Verdict:
    """The object named against the distances of both to the third."""
    origin = question.about["from"]
    distance = {number: truth.apart(number, origin) for number in question.about["objects"]}
    wanted = (min if question.about["kind"] == "nearer" else max)(distance, key=lambda number: distance[number])
    return Verdict(said_number(question) == wanted, factor(*distance.values()) >= margins.DISTANCE)


def relative_size(truth: Truth, question: Question) -> Verdict:
    """Yes or no against both volumes."""
    first, second = map(truth.volume, question.about["objects"])
    holds = first > second if question.about["kind"] == "larger" else first < second
    return Verdict(YES[question.answer] == holds, factor(first, second) >= margins.VOLUME - 1e-9)


def size_ranking(truth: Truth, question: Question) -> Verdict:
    """The order of what the answer lists against the volumes, the largest first."""
    volume = {number: truth.volume(number) for number in question.about["objects"]}
    listed = mentioned(question.said, question.names)
    ordered = sorted(volume, key=lambda number: -volume[number])
    if question.about["kind"] == "smallest":
        ordered.reverse()
    sizes = sorted(volume.values())
    clear = all(factor(a, b) >= margins.VOLUME - 1e-9 for a, b in itertools.pairwise(sizes))
    return Verdict(listed == ordered, clear)


def height_comparison(truth: Truth, question: Question) -> Verdict:
    """The object named against the highest corners."""
    spans = {number: truth.height(number) for number in question.about["objects"]}
    tops = {number: top for number, (_, top) in spans.items()}
    wanted = (max if question.about["kind"] == "higher" else min)(tops, key=lambda number: tops[number])
    tallest = max(top - bottom for bottom, top in spans.values())
    clear = max(tops.values()) - min(tops.values()) >= margins.HEIGHT * tallest - 1e-9
    return Verdict(said_number(question) == wanted, clear)


def proximity(truth: Truth, question: Question) -> Verdict:
    """Next to or far from, against the distance over the mean extent of both boxes."""
    first, second = question.about["objects"]
    share = truth.apart(first, second) * 6 / (truth.extents(first).sum() + truth.extents(second).sum())
    close = share < margins.NEXT_TO
    clear = share * margins.PROXIMITY <= margins.NEXT_TO or share >= margins.FAR_FROM * margins.PROXIMITY
    return Verdict(NEXT[question.said] == close, bool(clear))


def direction(truth: Truth, question: Question) -> Verdict:
    """The direction named against the angles between the boxes' middles, as complex numbers on the plan."""
    anchor, first, second = (_plan(truth, number) for number in question.about["objects"])
    # A turn clockwise is a negative angle: from "front", each of the eight directions is 45 degrees further.
    told = np.exp(-1j * np.pi / 4 * question.about["given"])
    turned = (second - anchor) / (first - anchor) * told
    degrees = -np.degrees(np.angle(turned)) % 360
    nearest = round(degrees / 45) % 8
    off = abs((degrees - 45 * nearest + 180) % 360 - 180)
    words = EIGHT[question.language]
    return Verdict(question.said == words[nearest], bool(22.5 - off >= margins.DIRECTION - 1e-6))


EIGHT = {
    "en": ("front", "front right", "right", "back right", "back", "back left", "left", "front left"),
    "zh": ("前", "右前", "右", "右后", "后", "左后", "左", "左前"),
}


def _plan(truth: Truth, number: int) -> complex:
    x, y, _ = truth.corners(number).mean(axis=0)
    return complex(x, y)
