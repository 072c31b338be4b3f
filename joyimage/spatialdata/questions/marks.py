"""Drawing marks on pictures: tints, boxes, points, and letters beside points."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..index import Frame, SceneIndex, Sight
from .form import Mark, Question
from .words import COLOURS

TINT = 0.5  # share of a mark's colour within a tinted mask
LINE, DISC, LETTER = 1 / 120, 1 / 70, 1 / 14  # of a picture's shorter side: a box's line, a point's radius, a letter
# Around marks, to be seen on their own colour: the rim on what is light, the halo on what is dark (points, letters).
RIM, HALO = (0, 0, 0), (255, 255, 255)


def pictures(index: SceneIndex, question: Question) -> list[Image.Image]:
    """The pictures of a question, in order and RGB, with its marks. Raises `JoyImageError` where one cannot be read."""
    return [
        draw(index.scene.views[view].picture(), index, view, [mark for mark in question.marks if mark.picture == place])
        for place, view in enumerate(question.views)
    ]


def draw(picture: Image.Image, index: SceneIndex, view: int, marks: list[Mark]) -> Image.Image:
    """A copy of a view's picture with marks. Tints come first, as they would cover the others."""
    things = {thing.number: n for n, thing in enumerate(index.things)}
    marked = picture.copy()
    for mark in sorted(marks, key=lambda mark: mark.kind != "tint"):
        sight = None if mark.number is None else index.sights[view, things[mark.number]]
        if mark.kind == "tint" and sight is not None:
            marked = _tinted(marked, index.frames[view], sight, _rgb(mark))
        elif mark.kind == "box" and sight is not None:
            _draw_box(marked, sight.box, _rgb(mark))
        elif mark.at is not None:
            _draw_point(marked, mark.at, _rgb(mark), mark.label)
    return marked


def _rgb(mark: Mark) -> tuple[int, int, int]:
    red, green, blue = COLOURS[mark.colour]["rgb"]
    return red, green, blue


def _tinted(picture: Image.Image, frame: Frame, sight: Sight, colour: tuple[int, int, int]) -> Image.Image:
    whole = np.zeros(frame.depth.shape, dtype=np.uint8)
    top, left = sight.corner
    height, width = sight.mask.shape
    whole[top : top + height, left : left + width] = sight.mask * round(255 * TINT)
    mask = Image.fromarray(whole)
    mask = mask if mask.size == picture.size else mask.resize(picture.size, Image.Resampling.NEAREST)
    return Image.composite(Image.new("RGB", picture.size, colour), picture, mask)


def _draw_box(picture: Image.Image, box: tuple[float, float, float, float], colour: tuple[int, int, int]) -> None:
    """The line lies around the object, not on it."""
    line = max(1, round(min(picture.size) * LINE))
    left, top, right, bottom = (round(value * side) for value, side in zip(box, picture.size * 2, strict=True))
    around = (
        max(left - line, 0),
        max(top - line, 0),
        min(right + line, picture.width),
        min(bottom + line, picture.height),
    )
    pen = ImageDraw.Draw(picture)
    pen.rectangle((around[0] - 1, around[1] - 1, around[2], around[3]), outline=RIM)
    pen.rectangle((*around[:2], around[2] - 1, around[3] - 1), outline=colour, width=line)


def _draw_point(picture: Image.Image, at: tuple[float, float], colour: tuple[int, int, int], label: str) -> None:
    side = min(picture.size)
    x, y = at[0] * picture.width - 0.5, at[1] * picture.height - 0.5
    radius = max(1.5, side * DISC)
    pen = ImageDraw.Draw(picture)
    for more, outline in ((1, HALO), (0, RIM)):
        reach = radius + more
        pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour, outline=outline)
    if label:
        size = max(9, round(side * LETTER))
        # On the side where there is room.
        right = x + radius + size < picture.width
        spot = (x + radius + 2 if right else x - radius - 2, min(max(y, size / 2), picture.height - size / 2))
        anchor = "lm" if right else "rm"
        for stroke, fill in ((2, HALO), (1, RIM)):
            pen.text(spot, label, colour, _font(size), anchor, stroke_width=stroke, stroke_fill=fill)


@lru_cache
def _font(size: int):
    return ImageFont.load_default(size)
