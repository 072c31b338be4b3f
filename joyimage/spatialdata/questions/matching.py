"""Multi-view consistency: the same point, and the same object, in another view."""

from __future__ import annotations

import itertools

import numpy as np

from .. import margins
from ..index import Frame
from .asker import Asker
from .draw import Draw
from .form import LETTERS, OUTLINED, Question

PHRASES = {
    "point_correspondence": {
        "en": (
            "The {one} point in picture 1 marks a place. Which of the {many} points A to D in picture 2 marks the same "
            "place of the scene?",
            "Which {many} letter in picture 2 stands at the spot of the {one} point in picture 1?",
            "Find the place of picture 1's {one} point in picture 2: A, B, C or D ({many})?",
        ),
        "zh": (
            "图1中有一个{one}色点。图2中{many}色的A、B、C、D哪个点标的是场景里的同一位置？",
            "图1的{one}色点对应图2中{many}色字母里的哪一个？",
            "请在图2中找到图1里{one}色点所在的位置：{many}色的A、B、C还是D？",
        ),
    },
    "same_object": {
        "en": (
            "Are {a} and {b} one and the same?",
            "Is {a} the same thing as {b}?",
            "Both pictures show one scene. Do the marks, on {a} and {b}, mean a single object?",
        ),
        "zh": (
            "{a}和{b}是同一个物体吗？",
            "两张图拍的是同一场景，{a}与{b}是否为同一物体？",
            "{a}是否就是{b}？",
        ),
    },
    "in_other_view": {
        "en": (
            "Can {a} also be seen in picture 2?",
            "Does picture 2 show {a}, too?",
            "Is any part of {a} visible in picture 2?",
        ),
        "zh": ("在图2中也能看到{a}吗？", "图2里有{a}吗？", "图2是否拍到了{a}？"),
    },
}
ABSENT = 0.3  # of the questions about objects, the share that asks whether one is in the other view
REST = None  # in the place of an object: what is of none. Points lie on it as often as on any, so that tells nothing
TRIES = 12  # for a pixel on a surface, and for a surface
CLOSER = 0.8  # of the margin for a point: interpolation of depth differs a little


def point_correspondence(draw: Draw) -> list[Question]:
    """Which of four marked places of the second view shows the point that is marked in the first."""
    if (views := draw.chain(2, 2)) is None:
        return []
    first, second = (draw.index.frames[view] for view in views)
    both = [n for n in draw.index.clear[views[0]] if n in draw.index.clear[views[1]]]
    surface = draw.random.choice([REST, *both])
    if (found := _same_place(draw, views, surface)) is None:
        return []
    start, right = found
    if (wrong := _others(draw, views[1], surface, right, draw.letters_apart(views[1]))) is None:
        return []
    asker = Asker(draw, views, ("choice",), 4)
    places = [*wrong[: asker.letter], right, *wrong[asker.letter :]]
    begin = tuple(first.fraction(start).tolist())
    shown = [tuple(place) for place in second.fraction(np.array(places)).tolist()]
    words = {"one": asker.points([begin], 0), "many": asker.points(shown, 1, LETTERS[:4])}
    about = {"point": begin, "points": tuple(shown)}
    question = asker.open(PHRASES, "point_correspondence", LETTERS[asker.letter], about, **words)
    return [question.lettered(tuple(LETTERS[:4]))]


def _pixel(draw: Draw, view: int, surface: int | None) -> tuple[int, int] | None:
    """Column and row of a pixel of a view with depth, on a surface and away from its edge; None where none was met."""
    index, frame = draw.index, draw.index.frames[view]
    if surface is not None:
        inner = index.sights[view, surface].inner
        if not len(inner):
            return None
        column, row = inner[draw.random.randrange(len(inner))].tolist()
        return (column, row) if frame.depth[row, column] > 0 else None
    height, width = frame.depth.shape
    column, row = draw.random.randrange(1, width - 1), draw.random.randrange(1, height - 1)
    here = frame.numbers[row - 1 : row + 2, column - 1 : column + 2]
    alone = (here == here[1, 1]).all() and all(thing.number != here[1, 1] for thing in index.things)
    return (column, row) if alone and frame.depth[row, column] > 0 else None


def _same_place(draw: Draw, views: tuple[int, ...], surface: int | None) -> tuple | None:
    """A place of a surface in the frames of two views, in pixels."""
    first, second = (draw.index.frames[view] for view in views)
    for _ in range(TRIES):
        pixel = _pixel(draw, views[0], surface)
        if pixel is not None and (right := _seen_again(first, *pixel, second)) is not None:
            return (pixel[0] + 0.5, pixel[1] + 0.5), right
    return None


def _seen_again(first: Frame, column: int, row: int, second: Frame) -> tuple[float, float] | None:
    """Where the second view shows what the first has at a pixel; None where it does not, or not surely."""
    depth = float(first.depth[row, column])
    if depth <= 0:
        return None
    point = first.camera.back_project(np.array([column + 0.5, row + 0.5]), np.array(depth))
    (x, y), _ = second.camera.project(point)
    if not (1 <= x < second.camera.width - 1 and 1 <= y < second.camera.height - 1):
        return None
    left, top = int(np.floor(x - 0.5)), int(np.floor(y - 0.5))
    part = np.s_[top : top + 2, left : left + 2]
    around = second.depth[part]
    if (second.numbers[part] != first.numbers[row, column]).any() or around.min() <= 0:
        return None
    right, down = x - 0.5 - left, y - 0.5 - top
    weights = np.outer((1 - down, down), (1 - right, right))
    there = second.camera.back_project(np.array([x, y]), 1 / (weights / around).sum())
    return (float(x), float(y)) if np.linalg.norm(there - point) <= CLOSER * margins.SAME_POINT else None


def _others(draw: Draw, view: int, surface: int | None, right: tuple[float, float], least: float) -> list | None:
    """Three places on other surfaces, as different as there are, `least` pixels or more from the right one and from
    each other, and anywhere within a pixel, as the right one is: what lies in the middle would be known as wrong.
    """
    surfaces = [other for other in (REST, *draw.index.clear[view]) if other != surface]
    found = [right]
    for other in itertools.islice(itertools.cycle(draw.random.sample(surfaces, len(surfaces))), TRIES):
        for _ in range(TRIES):
            if (pixel := _pixel(draw, view, other)) is None:
                continue
            x, y = (value + draw.random.random() for value in pixel)
            if min(np.hypot(x - a, y - b) for a, b in found) >= least:
                found.append((x, y))
                break
        if len(found) == 4:
            return found[1:]
    return None


def object_correspondence(draw: Draw) -> list[Question]:
    """Whether marks in two views are on one object, or whether an object of one is in the other; yes or no."""
    if (views := draw.chain(2, 2)) is None:
        return []
    if draw.random.random() < ABSENT:
        return _in_other_view(draw, views)
    first, second = (draw.index.clear[view] for view in views)
    same = draw.turn("side", 2) == 0
    a = draw.random.choice(first)
    tag = draw.index.things[a].category
    alike = [n for n in second if n != a and draw.index.things[n].category == tag]
    others = [a] if same and a in second else [] if same else alike or [n for n in second if n != a]
    if not others:
        return []
    asker = Asker(draw, views)
    b = draw.random.choice(others)
    words = {"a": asker.marked(a, 0, OUTLINED), "b": asker.marked(b, 1, OUTLINED)}
    about = {"objects": draw.numbers((a, b)), "side of 2": 0 if same else 1}
    return [asker.open(PHRASES, "same_object", asker.yes(same), about, **words)]


def _in_other_view(draw: Draw, views: tuple[int, ...]) -> list[Question]:
    index = draw.index
    if not any(set(first) - set(second) for first in index.clear for second in index.shown):
        return []  # all answers would be yes
    there = draw.turn("sight", 2) == 0
    first, second = index.clear[views[0]], (index.clear if there else index.shown)[views[1]]
    things = [n for n in first if (n in second) == there]
    if not things:
        return []
    a = draw.random.choice(things)
    asker = Asker(draw, views)
    side = 0 if there else 1
    about = {"objects": draw.numbers((a,)), "side of 2": side, "side by sight": side}  # even among themselves, too
    return [asker.open(PHRASES, "in_other_view", asker.yes(there), about, a=asker.name(a, 0))]
