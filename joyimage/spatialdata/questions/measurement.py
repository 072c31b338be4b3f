"""Spatial measurement: lengths in metres, and the order of depths."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from .. import margins
from .asker import Asker
from .draw import Draw, beyond
from .form import Question
from .words import COLOURS, length

PHRASES = {
    "absolute_distance": {
        "en": (
            "How far apart are {a} and {b}, from surface to surface?",
            "What is the shortest distance between {a} and {b}? Answer in metres.",
            "Estimate the gap between {a} and {b} in metres.",
            "How many metres lie between {a} and {b} where they are closest?",
        ),
        "zh": (
            "{a}与{b}之间最近的距离是多少米？",
            "请估计{a}和{b}的间距（最近处），单位为米。",
            "从{a}的表面到{b}的表面，最短有多远？请以米回答。",
        ),
    },
    "absolute_size": {
        "en": (
            "How long is the longest side of {a}? Answer in metres.",
            "What is the largest dimension of {a}, in metres?",
            "Give the longest extent in metres of {a}.",
        ),
        "zh": (
            "{a}最长的一边有多少米？",
            "请估计{a}的最大尺寸，单位为米。",
            "{a}最长的方向有多长？以米为单位依次回答。",
        ),
    },
    "height": {
        "en": (
            "How tall is {a}? Answer in metres.",
            "What is the vertical extent of {a}, in metres?",
            "Estimate the height in metres of {a}.",
        ),
        "zh": ("{a}有多高？以米为单位依次回答。", "请估计{a}的高度（米）。", "{a}在竖直方向上有多少米？"),
    },
    "depth_order": {
        "en": (
            "Order these by their distance from the camera's plane, nearest first: {list}.",
            "Sort from nearest to farthest, by depth: {list}.",
            "Which comes first in depth? List all of these from near to far: {list}.",
        ),
        "zh": (
            "请按深度由近到远排列：{list}。",
            "从离相机最近的开始，按深度排序：{list}。",
            "以下各项按深度由近到远的次序是什么：{list}？",
        ),
    },
    "depth_nearest": {
        "en": (
            "Which of these is nearest in depth: {list}?",
            "Of {list}, what has the smallest depth?",
        ),
        "zh": ("以下哪个深度最小：{list}？", "{list}当中，按深度看哪个最近？"),
    },
    "depth_farthest": {
        "en": (
            "Which of these is farthest in depth: {list}?",
            "Of {list}, what has the largest depth?",
        ),
        "zh": ("以下哪个深度最大：{list}？", "{list}当中，按深度看哪个最远？"),
    },
    "depth_nth": {
        "en": (
            "Sorted from near to far by depth, which of these is number {n}: {list}?",
            "By depth, which of {list} is in place {n}, where place 1 is the nearest?",
        ),
        "zh": ("按深度由近到远排序，以下哪个排在第{n}位：{list}？", "{list}当中，深度第{n}小的是哪个？"),
    },
}
POINT = {"en": "the point {name}", "zh": "点{name}"}
POINTED = {
    "en": " The points are in {colour}, each with its letter beside it.",
    "zh": "点为图中带字母的{colour}色点。",
}
NAMES = "PQRSTUV"  # of points, four or more; none is an option's letter
UNKNOWN = 1e9  # metres: the distance to what no cloud is of is infinite
POINTS = 0.4  # of the questions about depth, the share that is about points
TRIES = 40  # for the points of a view


def absolute_distance(draw: Draw) -> list[Question]:
    """The least distance of two objects in one view."""
    if (found := draw.view(2)) is None:
        return []
    view, (a, b) = found
    return _distance(Asker(draw, (view,)), a, b, 0, 0)


def multiview_distance(draw: Draw) -> list[Question]:
    """The least distance of two objects, one in each of two views."""
    if (views := draw.chain(2, 2)) is None or (things := draw.one_in_each(views)) is None:
        return []
    return _distance(Asker(draw, views), things[0], things[1], 0, 1)


def _distance(asker: Asker, a: int, b: int, first: int, second: int) -> list[Question]:
    apart = float(asker.draw.index.apart[a, b])
    if not margins.NEAREST * margins.SPARE <= apart < UNKNOWN:
        return []
    about = {"objects": asker.draw.numbers((a, b))}
    words = {"a": asker.name(a, first), "b": asker.name(b, second)}
    return [asker.open(PHRASES, "absolute_distance", length(apart, asker.language), about, **words)]


def absolute_size(draw: Draw) -> list[Question]:
    """The longest extent of one to four objects."""
    return _lengths(draw, "absolute_size", draw.index.size.max(axis=1, initial=0).tolist())


def height(draw: Draw) -> list[Question]:
    """The vertical extent of one to four objects."""
    low_high = draw.index.bottom_top
    return _lengths(draw, "height", (low_high[:, 1] - low_high[:, 0]).tolist())


def _lengths(draw: Draw, key: str, values: Sequence[float]) -> list[Question]:
    found = draw.view(draw.random.choice((1, 1, 2, 3, 4)))
    if found is None or min(values[n] for n in found[1]) < margins.NEAREST:
        return []
    view, things = found
    asker = Asker(draw, (view,))
    names = asker.list([asker.name(n) for n in things])
    answer = asker.list([length(float(values[n]), asker.language) for n in things])
    return [asker.open(PHRASES, key, answer, {"objects": draw.numbers(things)}, a=names)]


def depth_order(draw: Draw) -> list[Question]:
    """The order of the depths of objects or of points."""
    if (found := _by_depth(draw)) is None:
        return []
    asker, words, about = found
    orders = [words]
    while len(orders) < 4:
        order = asker.random.sample(words, len(words))
        if order not in orders:
            orders.append(order)
    texts = [asker.list(order) for order in orders]
    listed = asker.list(asker.random.sample(words, len(words)))
    return [_with_points(asker.either(PHRASES, "depth_order", texts[0], texts[1:], about, list=listed))]


def depth_choice(draw: Draw) -> list[Question]:
    """Which of some objects or points is nearest, farthest or in another place by depth."""
    if (found := _by_depth(draw, choice=True)) is None:
        return []
    asker, words, about = found
    kind = asker.random.choice(("depth_nearest", "depth_farthest", "depth_nth"))
    last = len(words) - 1
    place = {"depth_nearest": 0, "depth_farthest": last}.get(kind, asker.random.randint(1, last - 1))
    about = {**about, "place": place}
    wrong = asker.random.sample([word for i, word in enumerate(words) if i != place], asker.letters - 1)
    listed = asker.list(asker.random.sample(words, len(words)))
    return [_with_points(asker.either(PHRASES, kind, words[place], wrong, about, list=listed, n=place + 1))]


def _by_depth(draw: Draw, choice: bool = False) -> tuple[Asker, list[str], dict] | None:
    """A question begun about things of one view, in words, and what it is about, both the nearest first."""
    forms = ("open", "choice")
    if draw.random.random() < POINTS:
        if (points := _points(draw)) is None:
            return None
        view, depths = points
        asker, places = Asker(draw, (view,), forms), tuple(depths)
        asker.points(places, 0, NAMES[: len(places)])
        ordered = sorted(zip(depths.values(), NAMES, strict=False))
        return asker, [POINT[asker.language].format(name=name) for _, name in ordered], {"points": places}
    count = draw.random.randint(3, 5)
    if (found := draw.view(min(count, max(map(len, draw.index.clear))))) is None or len(found[1]) < 3:
        return None
    view, things = found
    near = draw.index.near[view]
    ordered = sorted(things, key=lambda n: near[n])
    if not _clear_order([near[n] for n in ordered]):
        return None
    letters = min(4, len(ordered)) if choice else 4
    asker = Asker(draw, (view,), forms, letters)
    return asker, [asker.name(n) for n in ordered], {"objects": draw.numbers(ordered)}


def _clear_order(values: Sequence[float]) -> bool:
    factor = margins.DEPTH * margins.SPARE
    return all(beyond(a, b, factor) for a, b in itertools.pairwise(values))


def _points(draw: Draw) -> tuple[int, dict[tuple[float, float], float]] | None:
    """A view and four to seven places in it, in random order and fractions of the picture, each with its depth.

    They are shown, not told: of two places that are given by numbers the lower one is nearer in most pictures.
    """
    view = draw.random.randrange(len(draw.index.frames))
    frame, apart = draw.index.frames[view], draw.letters_apart(view)
    height, width = frame.depth.shape
    count = draw.random.randint(4, len(NAMES))
    found: dict[tuple[int, int], float] = {}
    for _ in range(TRIES):
        column, row = draw.random.randrange(1, width - 1), draw.random.randrange(1, height - 1)
        depth = float(frame.depth[row, column])
        if depth <= 0 or any(math.hypot(column - x, row - y) < apart for x, y in found):
            continue
        around = frame.depth[row - 1 : row + 2, column - 1 : column + 2]
        flat = around.min() > 0 and around.max() < 1.03 * around.min()
        if flat and all(beyond(depth, other, margins.DEPTH * margins.SPARE) for other in found.values()):
            found[column, row] = depth
        if len(found) == count:
            chosen = draw.random.sample(list(found), count)
            shown = frame.fraction(np.array(chosen) + 0.5).tolist()
            return view, {(x, y): found[place] for (x, y), place in zip(shown, chosen, strict=True)}
    return None


def _with_points(question: Question) -> Question:
    """With a word on which points are meant."""
    if "points" not in question.about:
        return question
    said, line, rest = question.text.partition("\n")
    colour = COLOURS[question.marks[0].colour][question.language]
    return question.with_text(f"{said}{POINTED[question.language].format(colour=colour)}{line}{rest}")
