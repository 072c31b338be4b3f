"""Spatial relationship in one view: nearer, larger, higher, beside."""

from __future__ import annotations

from .. import margins
from .asker import Asker
from .draw import Draw, beyond
from .form import Question

UNKNOWN = 1e9  # metres: the distance to what no cloud is of is infinite
BOTH = ("open", "choice")
SIDE = "side of 2"  # in `about`: which of two that a question names is its answer; of yes or no, 0 is yes
PHRASES = {
    "nearer": {
        "en": (
            "Which is closer to {c}: {a} or {b}?",
            "Measured from {c}, what is nearer, {a} or {b}?",
            "Compare {a} and {b}: which stands at the smaller distance from {c}?",
        ),
        "zh": ("{a}和{b}，哪个离{c}更近？", "从{c}量起，{a}与{b}哪个距离更短？", "离{c}较近的是{a}还是{b}？"),
    },
    "farther": {
        "en": (
            "Which is farther from {c}: {a} or {b}?",
            "Measured from {c}, what is more distant, {a} or {b}?",
            "Compare {a} and {b}: which stands at the larger distance from {c}?",
        ),
        "zh": ("{a}和{b}，哪个离{c}更远？", "从{c}量起，{a}与{b}哪个距离更长？", "离{c}较远的是{a}还是{b}？"),
    },
    "larger": {
        "en": (
            "Judged by the space that its bounding box takes, is {a} larger than {b}?",
            "Is the bounding box of {a} bigger in volume than that of {b}?",
            "Would {a} need a bigger crate than {b}, by volume?",
        ),
        "zh": (
            "按外接框的体积，{a}比{b}大吗？",
            "{a}的外接框体积是否大于{b}的？",
            "装下{a}所需的箱子，体积比装下{b}的更大吗？",
        ),
    },
    "smaller": {
        "en": (
            "Judged by the space that its bounding box takes, is {a} smaller than {b}?",
            "Is the bounding box of {a} less in volume than that of {b}?",
            "Would {a} fit a smaller crate than {b}, by volume?",
        ),
        "zh": (
            "按外接框的体积，{a}比{b}小吗？",
            "{a}的外接框体积是否小于{b}的？",
            "装下{a}所需的箱子，体积比装下{b}的更小吗？",
        ),
    },
    "higher": {
        "en": (
            "Whose top is higher above the ground: {a} or {b}?",
            "Which reaches higher, {a} or {b}?",
            "Compare the highest points of {a} and {b}: which is higher?",
        ),
        "zh": ("{a}和{b}，哪个的顶端更高？", "{a}与{b}相比，谁的最高点更高？", "顶部较高的是{a}还是{b}？"),
    },
    "lower": {
        "en": (
            "Whose top is lower: {a} or {b}?",
            "Which reaches less high, {a} or {b}?",
            "Compare the highest points of {a} and {b}: which is lower?",
        ),
        "zh": ("{a}和{b}，哪个的顶端更低？", "{a}与{b}相比，谁的最高点更低？", "顶部较低的是{a}还是{b}？"),
    },
    "proximity": {
        "en": (
            "For their size, are {a} and {b} next to each other or far from each other?",
            "How do {a} and {b} stand, compared with how large they are?",
            "Which fits {a} and {b}, given their sizes?",
        ),
        "zh": (
            "就自身大小而言，{a}与{b}是紧挨着还是离得远？",
            "相对于它们的大小，{a}和{b}的位置关系如何？",
            "考虑尺寸，以下哪项符合{a}和{b}？",
        ),
    },
}
PROXIMITY = {"next": {"en": "next to each other", "zh": "紧挨着"}, "far": {"en": "far from each other", "zh": "离得远"}}


def relative_distance(draw: Draw) -> list[Question]:
    """Which of two objects is nearer to, or farther from, a third."""
    if (found := draw.view(3)) is None:
        return []
    view, things = found
    return which_distance(draw, (view,), things, (0, 0, 0), BOTH)


def which_distance(draw: Draw, views, things, pictures, forms) -> list[Question]:
    """Which of the first two objects is nearer to, or farther from, the third; each in its picture."""
    a, b, c = things
    to_a, to_b = float(draw.index.apart[a, c]), float(draw.index.apart[b, c])
    if not 0 < min(to_a, to_b) <= max(to_a, to_b) < UNKNOWN:
        return []
    if not beyond(to_a, to_b, margins.DISTANCE * margins.SPARE):
        return []
    kind = draw.random.choice(("nearer", "farther"))
    (a, first), (b, second) = first_or_second(
        draw, (a, pictures[0]), (b, pictures[1]), (to_a < to_b) == (kind == "nearer")
    )
    asker = Asker(draw, views, forms, 2)
    words = {"a": asker.name(a, first), "b": asker.name(b, second), "c": asker.name(c, pictures[2])}
    right, wrong = (words["a"], words["b"]) if draw.side == 0 else (words["b"], words["a"])
    about = {"objects": draw.numbers((a, b)), "from": draw.numbers((c,))[0], "kind": kind, SIDE: draw.side}
    return [asker.either(PHRASES, kind, right, [wrong], about, **words)]


def first_or_second(draw: Draw, first, second, right: bool):
    """Two in such an order that the answer is the one named first, or second, in turn. `right`: it is `first`."""
    draw.side = draw.turn("side", 2)
    return (first, second) if right == (draw.side == 0) else (second, first)


def relative_size(draw: Draw) -> list[Question]:
    """Whether the box of one object is larger, or smaller, than that of another."""
    if (found := draw.view(2)) is None:
        return []
    view, things = found
    return whether_larger(draw, (view,), things, (0, 0))


def whether_larger(draw: Draw, views, things, pictures) -> list[Question]:
    """Yes or no: whether one of two objects, each in its picture, is larger or smaller than the other."""
    volume = draw.index.volume
    if not beyond(volume[things[0]], volume[things[1]], margins.VOLUME):
        return []
    kind = draw.random.choice(("larger", "smaller"))
    holds = (volume[things[0]] > volume[things[1]]) == (kind == "larger")
    (a, first), (b, second) = first_or_second(draw, (things[0], pictures[0]), (things[1], pictures[1]), holds)
    asker = Asker(draw, views)
    words = {"a": asker.name(a, first), "b": asker.name(b, second)}
    about = {"objects": draw.numbers((a, b)), "kind": kind, SIDE: draw.side}
    return [asker.open(PHRASES, kind, asker.yes(draw.side == 0), about, **words)]


def height_comparison(draw: Draw) -> list[Question]:
    """Which of two objects has the higher, or the lower, top."""
    if (found := draw.view(2)) is None:
        return []
    (view, (a, b)), low_high = found, draw.index.bottom_top
    tops, tallest = low_high[:, 1], max(low_high[a, 1] - low_high[a, 0], low_high[b, 1] - low_high[b, 0])
    if abs(tops[a] - tops[b]) < margins.HEIGHT * tallest:
        return []
    kind = draw.random.choice(("higher", "lower"))
    a, b = first_or_second(draw, a, b, (tops[a] > tops[b]) == (kind == "higher"))
    asker = Asker(draw, (view,), BOTH, 2)
    words = {"a": asker.name(a), "b": asker.name(b)}
    right, wrong = (words["a"], words["b"]) if draw.side == 0 else (words["b"], words["a"])
    about = {"objects": draw.numbers((a, b)), "kind": kind, SIDE: draw.side}
    return [asker.either(PHRASES, kind, right, [wrong], about, **words)]


def proximity(draw: Draw) -> list[Question]:
    """Whether a pair is next to each other or far from each other; between these, nothing is asked."""
    if (found := draw.view(2)) is None or (kind := _proximity(draw, *found[1])) is None:
        return []
    view, (a, b) = found
    asker = Asker(draw, (view,), ("choice",), 2)
    words = {"a": asker.name(a), "b": asker.name(b)}
    right, wrong = (PROXIMITY[one][asker.language] for one in (("next", "far") if kind == "next" else ("far", "next")))
    about = {"objects": draw.numbers((a, b)), SIDE: int(kind == "far")}
    return [asker.choose(PHRASES, "proximity", right, [wrong], about, **words)]


def _proximity(draw: Draw, a: int, b: int) -> str | None:
    share = draw.index.apart[a, b] / draw.index.size[[a, b]].mean()
    factor = margins.PROXIMITY * margins.SPARE
    if share * factor <= margins.NEXT_TO:
        return "next"
    return "far" if margins.FAR_FROM * factor <= share < UNKNOWN else None
