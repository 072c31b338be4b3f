"""Spatial relationship over several views: objects that are each named in one of the pictures."""

from __future__ import annotations

import itertools
import math

from .. import margins
from .asker import Asker
from .draw import Draw, beyond
from .form import Question
from .relationship import whether_larger, which_distance
from .words import DIRECTION_WORDS, DIRECTIONS

PHRASES = {
    "largest": {
        "en": (
            "Rank these by the volume of their bounding boxes, the largest first: {list}.",
            "From biggest to smallest by bounding box, what is the order of {list}?",
            "List all of these in order of falling size (bounding box): {list}.",
        ),
        "zh": (
            "请按外接框体积由大到小排列：{list}。",
            "{list}，按外接框从大到小的次序是什么？",
            "把以下物体按体积（外接框）从最大的开始列出：{list}。",
        ),
    },
    "smallest": {
        "en": (
            "Rank these by the volume of their bounding boxes, the smallest first: {list}.",
            "From smallest to biggest by bounding box, what is the order of {list}?",
            "List all of these in order of rising size (bounding box): {list}.",
        ),
        "zh": (
            "请按外接框体积由小到大排列：{list}。",
            "{list}，按外接框从小到大的次序是什么？",
            "把以下物体按体积（外接框）从最小的开始列出：{list}。",
        ),
    },
    "direction": {
        "en": (
            "Seen from above, let the direction from {o} to {a} be “{given}”. In which of the eight directions "
            "from {o} is {c}?",
            "Suppose that {a} is on the side “{given}” of {o}, on a plan. On which side of {o} is {c} then?",
            "On a map turned so that {a} lies to the {given} of {o}, where does {c} lie as seen from {o}?",
        ),
        "zh": (
            "从上方看，设{a}在{o}的{given}方，那么{c}在{o}的哪个方向（八个方向之一）？",
            "假定平面图上{a}位于{o}的{given}方，请问{c}位于{o}的什么方向？",
            "把平面图转到{a}在{o}的{given}方，此时从{o}看{c}在哪个方向？",
        ),
    },
}
# Steps clockwise that are options together. Most corners of three things are narrow: another would be known as wrong.
TURNS = ((1, 2, 6, 7), (0, 3, 4, 5))


def relative_distance(draw: Draw) -> list[Question]:
    """Which of two objects is nearer to a third, over a chain of three to six views."""
    if (views := draw.chain(3, 6)) is None:
        return []
    pictures = tuple(sorted(draw.random.sample(range(len(views)), 3)))
    if (things := draw.one_in_each([views[picture] for picture in pictures])) is None:
        return []
    return which_distance(draw, views, things, pictures, ("open",))


def size_pair(draw: Draw) -> list[Question]:
    """Whether an object of one view is larger than one of another."""
    if (views := draw.chain(2, 2)) is None or (things := draw.one_in_each(views)) is None:
        return []
    return whether_larger(draw, views, things, (0, 1))


def size_ranking(draw: Draw) -> list[Question]:
    """The order of the sizes of three or more objects, over a chain of three to six views."""
    if (views := draw.chain(3, 6)) is None:
        return []
    count = draw.random.randint(3, len(views))
    pictures = sorted(draw.random.sample(range(len(views)), count))
    if (things := draw.one_in_each([views[picture] for picture in pictures])) is None:
        return []
    volume = draw.index.volume
    ordered = sorted(range(count), key=lambda i: -volume[things[i]])
    sizes = [volume[things[i]] for i in ordered]
    if not all(beyond(a, b, margins.VOLUME) for a, b in itertools.pairwise(sizes)):
        return []
    kind = draw.random.choice(("largest", "smallest"))
    ordered = ordered if kind == "largest" else ordered[::-1]
    asker = Asker(draw, views)
    names = [asker.name(thing, picture) for thing, picture in zip(things, pictures, strict=True)]
    listed = asker.list(draw.random.sample(names, count))
    about = {"objects": draw.numbers(things), "kind": kind}
    return [asker.open(PHRASES, kind, asker.list([names[i] for i in ordered]), about, list=listed)]


def direction(draw: Draw) -> list[Question]:
    """An anchor in both views, A in the first, C in the second: where is C, if A is on a given side of the anchor."""
    if (views := draw.chain(2, 2)) is None:
        return []
    clear = draw.index.clear
    anchor = draw.random.choice([n for n in clear[views[0]] if n in clear[views[1]]])
    first = draw.random.choice(clear[views[0]])
    second = draw.random.choice(clear[views[1]])
    if len({anchor, first, second}) < 3 or (turn := _clockwise(draw, anchor, first, second)) is None:
        return []
    side = draw.turn("side", 8)
    given = (side - turn) % 8
    asker = Asker(draw, views, ("open", "choice"), 4)
    words = DIRECTION_WORDS[asker.language]
    options = next(turns for turns in TURNS if turn in turns)
    wrong = [words[DIRECTIONS[(given + other) % 8]] for other in options if other != turn]
    about = {"objects": draw.numbers((anchor, first, second)), "given": given, "side of 8": side}
    about["side by angle"] = min(turn, 8 - turn)
    named = {"a": asker.name(first, 0), "c": asker.name(second, 1), "o": asker.name(anchor, draw.random.randrange(2))}
    shown = words[DIRECTIONS[given]]
    return [asker.either(PHRASES, "direction", words[DIRECTIONS[side]], wrong, about, given=shown, **named)]


def _clockwise(draw: Draw, anchor: int, first: int, second: int) -> int | None:
    """By how many of eight steps C lies clockwise of A around the anchor; None where it is not clear."""
    boxes = [draw.index.things[n].box for n in (anchor, first, second)]
    (ox, oy), (ax, ay), (cx, cy) = (box.centre[:2].tolist() for box in boxes if box)
    degrees = math.degrees(math.atan2(ay - oy, ax - ox) - math.atan2(cy - oy, cx - ox))
    step = round(degrees / 45)
    return step % 8 if 22.5 - abs(degrees - 45 * step) >= margins.DIRECTION else None
