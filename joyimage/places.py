"""Where an object goes, in words such as "next to the plate": what they say, and the box that they mean.

The words name a relation and what it is to. Any model that finds objects can find that, and the object's box follows
from the two: see `box_beside`. Other words are a place that the model has to find itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .boxes import Box, PixelBox
from .errors import JoyImageError

LEFT, RIGHT, FRONT, BEHIND = "to the left of", "to the right of", "in front of", "behind"
BESIDE, ON, IN, AT = "next to", "on", "in", "where"

# English relations stand before what they are to. "Put it in the empty space just" may come before them.
LEAD = (
    r"(?:(?:in|into|at|to|on|onto)\s+)?(?:(?:the|an?)\s+)?(?:(?:empty|free)\s+)?(?:(?:place|space|spot|area)\s+)?"
    r"(?:(?:just|right|directly)\s+)?"
)
SIDE = r"(?:(?:to|on|at)\s+)?(?:the\s+)?{}(?:[\s-]hand)?(?:\s+side)?"
ENGLISH = {
    LEFT: rf"{SIDE.format('left')}\s+of\s+(?P<anchor>.+)",
    RIGHT: rf"{SIDE.format('right')}\s+of\s+(?P<anchor>.+)",
    FRONT: r"(?:in|at|to)\s+(?:the\s+)?front\s+of\s+(?P<anchor>.+)",
    BEHIND: r"(?:behind|(?:in|at|to)\s+(?:the\s+)?back\s+of)\s+(?P<anchor>.+)",
    BESIDE: r"(?:next\s+to|beside|near(?:\s+to)?|close\s+to|by)\s+(?P<anchor>.+)",
    ON: r"(?:on(?:to)?(?:\s+(?:the\s+)?top\s+of)?|upon)\s+(?P<anchor>.+)",
    IN: r"(?:in(?:to)?|inside(?:\s+of)?)\s+(?P<anchor>.+)",
    AT: r"where\s+(?P<anchor>.+?)\s+(?:is|are|stands?|lies?)(?:\s+now)?",
}
# Chinese ones stand behind it. The first that fits is taken, so the longer come before those that they end with.
PUT = r"(?:请?(?:放|移|移动|挪|挪动)?[到在至])?"
SPOT = r"(?:的?空?(?:地方|位置|处|地))?"
CHINESE = {
    LEFT: r"左(?:[边邊侧側面方]|手[边邊])",
    RIGHT: r"右(?:[边邊侧側面方]|手[边邊])",
    FRONT: r"正?前(?:[面方边邊]|头|頭)",
    BEHIND: r"正?[后後](?:[面方边邊]|头|頭)|背[后後]",
    BESIDE: r"(?:旁[边邊]?|[边邊]上|附近|身旁)",
    ON: r"上(?:[面边邊])?",
    IN: r"(?:[里裡裏](?:[面边邊])?|中间|中間|当中|當中|内|內)",
    AT: r"(?:所在|那里|那裡|现在的位置|原来的位置)",
}
# Relations to where the object itself is.
ALONE = {
    LEFT: r"(?:(?:further|farther|more)\s+)?(?:to\s+(?:the\s+)?)?left(?:wards?)?|[向往朝]?左(?:[边邊侧側面方])?",
    RIGHT: r"(?:(?:further|farther|more)\s+)?(?:to\s+(?:the\s+)?)?right(?:wards?)?|[向往朝]?右(?:[边邊侧側面方])?",
    FRONT: r"(?:(?:further|farther|more)\s+)?(?:to\s+the\s+front|forwards?)|[向往朝]?前(?:面|方)?",
    BEHIND: r"(?:(?:further|farther|more)\s+)?(?:to\s+the\s+back|back(?:wards?)?)|[向往朝]?[后後](?:面|方)?",
}
# Of these there is no box to find: "the left side of the picture" is a place for the model.
PICTURES = re.compile(
    r"(?:the\s+|this\s+)?(?:picture|image|photo(?:graph)?|frame|scene|view)|(?:这张?|整个)?(?:图|图片|图像|照片|画面|圖片|畫面)",
    re.IGNORECASE,
)

FORESHORTENED = 0.3  # of an object's width: from the lower edge of its box to the middle of its foot
HORIZON = 0.6  # of the picture's height: how far above its upper edge things shrink to nothing
GAP = 0.2  # of the widths' mean: between an object and what it is put beside
MARGIN, LEAST_MARGIN = 0.06, 1.5  # of an object's size, and pixels: between it and its box on each side
SOLVED = 4  # steps in which a place and a size that depend on each other are found
MOST_SHARED = 0.25  # of the smaller of their boxes: how far an object may reach over what it is put beside


@dataclass(frozen=True)
class Place:
    """What words say of a place: a relation, and what it is to; no relation for a place to be found as it is called.

    An empty `anchor` is the object itself, where it is now.
    """

    words: str
    relation: str | None = None
    anchor: str = ""


def read_place(words: str) -> Place:
    """What `words` say: "next to the plate", "where the car is", "to the left", "盘子左边", "the empty chair".

    Raises `JoyImageError` for no words.
    """
    if not isinstance(words, str) or not words.strip(" \t\r\n.。,，"):
        raise JoyImageError(f"the place must be described in words, as in 'next to the plate', not {words!r}")
    text = words.strip(" \t\r\n.。,，")
    for relation, pattern in ALONE.items():
        if re.fullmatch(pattern, text, re.IGNORECASE):
            return Place(words, relation)
    for relation, pattern in ENGLISH.items():
        if found := re.fullmatch(LEAD + pattern, text, re.IGNORECASE | re.DOTALL):
            return _place(words, relation, found["anchor"])
    for relation, pattern in CHINESE.items():
        if found := re.fullmatch(rf"{PUT}(?P<anchor>.+?)的?(?:{pattern}){SPOT}", text, re.DOTALL):
            return _place(words, relation, found["anchor"])
    return Place(words)


def _place(words: str, relation: str, anchor: str) -> Place:
    return Place(words) if PICTURES.fullmatch(anchor.strip()) else Place(words, relation, anchor.strip())


def box_beside(relation: str, obj: PixelBox, anchor: PixelBox, width: int, height: int) -> PixelBox | None:
    """Where an object with the box `obj` goes, in a relation to what has the box `anchor`; None where there is no room.

    Both stand on one ground, seen from somewhat above: the lower in the picture, the nearer and the larger. The box is
    as large as the object is there, and lies in the picture of `width` x `height`. It does not reach over the anchor,
    but where the object is to be on or in it, or where the picture leaves no other room, and then by a quarter of the
    smaller at most.
    """
    if relation == BESIDE:
        sides = (LEFT, RIGHT) if anchor[0] > width - anchor[2] else (RIGHT, LEFT)
        found = (box_beside(side, obj, anchor, width, height) for side in (*sides, FRONT, BEHIND))
        return next((box for box in found if box), None)
    box = _inside(_placed(relation, obj, anchor, width, height), width, height)
    return box if relation in (ON, IN, AT) or _shared(box, anchor) <= MOST_SHARED else None


def _placed(relation: str, obj: PixelBox, anchor: PixelBox, width: int, height: int) -> Box:
    left, top, right, bottom = anchor
    middle, foot, wide, high = (left + right) / 2, _foot(anchor), right - left, bottom - top
    w, h = _size_at(foot, obj, height)
    if relation in (LEFT, RIGHT):
        aside = (wide + w) / 2 * (1 + GAP)
        return _standing(middle + (aside if relation == RIGHT else -aside), foot, w, h)
    if relation in (FRONT, BEHIND):
        return _before_or_behind(relation, obj, anchor, width, height)
    if relation == ON:  # on the middle of what is seen of it from above
        return _standing(middle, top + min(wide * FORESHORTENED, high / 2), w, h)
    if relation == IN:
        scale = min(1.0, wide / w, high / h)
        return _standing(middle, (top + bottom + h * scale) / 2 - w * scale * FORESHORTENED, w * scale, h * scale)
    return _standing(middle, foot, w, h)


def _before_or_behind(relation: str, obj: PixelBox, anchor: PixelBox, width: int, height: int) -> Box:
    """Where an object is seen before or behind another: below or above it, or past the side of something tall, which
    hides all that stands behind it.
    """
    left, top, right, bottom = anchor
    middle, foot, wide = (left + right) / 2, _foot(anchor), right - left
    w, h = _size_at(foot, obj, height)
    aside, gap = (wide + w) / 2 * (1 + GAP), (wide + w) * GAP / 4
    away = aside * 2 * FORESHORTENED
    if relation == BEHIND and foot - away - (top - gap - w * FORESHORTENED) > aside:
        w, h = _size_at(foot - away, obj, height)
        return _standing(middle + (aside if middle < width / 2 else -aside), foot - away, w, h)
    stands = foot
    for _ in range(SOLVED):  # the size depends on where the foot is, and that on the size
        edge = w * FORESHORTENED  # from the foot's middle down to the edge of the box
        if relation == FRONT:
            stands = min(max(foot + away, bottom + gap + h - edge), height - edge)
        else:
            stands = max(min(foot - away, top - gap - edge), h - edge)
        w, h = _size_at(stands, obj, height)
    return _standing(middle, stands, w, h)


def _foot(box: Box) -> float:
    """How far down the middle of what an object stands on is."""
    left, top, right, bottom = box
    return bottom - min((right - left) * FORESHORTENED, (bottom - top) / 2)


def _size_at(foot: float, obj: PixelBox, height: int) -> tuple[float, float]:
    """Width and height of the box for an object that stands so far down."""
    above = HORIZON * height
    scale = max(foot + above, above / 2) / (_foot(obj) + above)
    sides = (obj[2] - obj[0]) * scale, (obj[3] - obj[1]) * scale
    w, h = (side + 2 * max(side * MARGIN, LEAST_MARGIN) for side in sides)
    return w, h


def _standing(middle: float, foot: float, w: float, h: float) -> Box:
    bottom = foot + min(w * FORESHORTENED, h / 2)
    return middle - w / 2, bottom - h, middle + w / 2, bottom


def _inside(box: Box, width: int, height: int) -> PixelBox:
    """The box moved into the picture, in whole pixels, and cut off where it is larger."""
    left, top, right, bottom = box
    w, h = min(max(round(right - left), 1), width), min(max(round(bottom - top), 1), height)
    x, y = min(max(round((left + right - w) / 2), 0), width - w), min(max(round((top + bottom - h) / 2), 0), height - h)
    return x, y, x + w, y + h


def _shared(a: PixelBox, b: PixelBox) -> float:
    """How much of the smaller of two boxes lies in the other, from 0 to 1."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(w, 0) * max(h, 0) / smaller
