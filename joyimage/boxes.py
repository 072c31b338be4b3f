"""Where something is in a picture: the question to the encoder, its answer, and boxes in all their forms.

A box is (left, top, right, bottom) in whole pixels of the picture, right and bottom exclusive as in Pillow's `crop`.
Every function that reads one returns a box that lies in the picture and is not empty. Nothing here waits for torch
but the making of masks.
"""

from __future__ import annotations

import json
import math
import numbers
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import JoyImageError
from .settings import finite

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor

PixelBox = tuple[int, int, int, int]
Box = tuple[float, float, float, float]  # the same before it is rounded

RED = (255, 0, 0)
THOUSANDTHS = 1000  # Qwen3-VL's unit; Qwen2.5-VL's was pixels
BBOX_2D = re.compile(r"""["']bbox_2d["']\s*:\s*\[([^\]]*)\]""")
LEAST_SIDE = 4  # pixels of a red box that is found in a picture
DRAWN = 0.85  # of each side that must be red for it to be one
TOLERANCE = 1e-3  # share of the picture's side by which a rounded box may stick out


def locate_question(obj: str) -> str:
    """The question for which Qwen3-VL was trained to answer with boxes in JSON.

    Raises `JoyImageError` for an empty object.
    """
    if not obj.strip():
        raise JoyImageError("the object to locate is empty; describe it in words, as in 'the red cup'")
    return f"Locate {obj.strip()} in the image. Report its bbox coordinates in JSON format."


def parse_boxes(text: str, width: int, height: int) -> list[PixelBox]:
    """The boxes in the model's answer, in its order, in pixels of a picture of `width` x `height`.

    Reads every `"bbox_2d": [x1, y1, x2, y2]`, in thousandths of the picture's sides, wherever it stands: in a list,
    between code fences, amid prose, or in an answer that was cut off. Corners may come in any order. Numbers outside
    0 to 1000 are brought inside; a box that is then empty, or that is not four numbers, is skipped.
    Raises `JoyImageError`, with the answer, if it holds no box.
    """
    boxes = [box for match in BBOX_2D.finditer(text) if (box := _from_thousandths(match[1], width, height))]
    if not boxes:
        raise JoyImageError(f"the model named no box; it answered: {_excerpt(text)}")
    return boxes


def _from_thousandths(numbers: str, width: int, height: int) -> PixelBox | None:
    try:
        x0, y0, x1, y1 = (float(number) / THOUSANDTHS for number in numbers.split(","))
    except ValueError:
        return None
    corners = min(x0, x1) * width, min(y0, y1) * height, max(x0, x1) * width, max(y0, y1) * height
    return _within(corners, width, height)


def _within(corners: Sequence[float], width: int, height: int) -> PixelBox | None:
    """The part that lies in the picture, in whole pixels; None if there is none."""
    if not all(map(math.isfinite, corners)):
        return None
    left, top, right, bottom = map(round, corners)
    box = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    return box if box[0] < box[2] and box[1] < box[3] else None


def _excerpt(text: str, length: int = 300) -> str:
    text = text.strip()
    return repr(text if len(text) <= length else text[:length] + "…")


def box_to_json(box: PixelBox, width: int, height: int) -> str:
    """A box as `{"x": …, "y": …, "w": …, "h": …}` in fractions of the picture, with five decimals."""
    left, top, right, bottom = box
    fractions = {"x": left / width, "y": top / height, "w": (right - left) / width, "h": (bottom - top) / height}
    return json.dumps({name: round(value, 5) for name, value in fractions.items()})


def box_from_json(text: str, width: int, height: int) -> PixelBox:
    """The inverse of `box_to_json`. Raises `JoyImageError` for no text, another form, and a box outside the picture."""
    if not text.strip():
        raise JoyImageError("there is no box: draw one around the place where the object is to go")
    try:
        x, y, w, h = (float(value) for value in map(json.loads(text).__getitem__, "xywh"))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise JoyImageError(
            f'the box must read {{"x": …, "y": …, "w": …, "h": …}} in fractions of the picture, not {_excerpt(text)}'
        ) from None
    if not (min(x, y, w, h) >= -TOLERANCE and max(x + w, y + h) <= 1 + TOLERANCE):
        raise JoyImageError(f"the box {text} reaches outside the picture; its numbers are fractions from 0 to 1")
    return _clipped((x * width, y * height, (x + w) * width, (y + h) * height), width, height)


def boxes_from_json(text: str, width: int, height: int) -> list[PixelBox]:
    """The boxes of a JSON list, each as `box_from_json` reads one, in its order.

    Raises `JoyImageError` for no box, for another form, and for a box that cannot be used, whose number it
    gives, counted from 1.
    """
    try:
        entries = json.loads(text) if text.strip() else []
    except ValueError:
        entries = None
    if not isinstance(entries, list):
        raise JoyImageError(
            'the boxes must read [{"x": …, "y": …, "w": …, "h": …}, …] in fractions of the picture, '
            f"not {_excerpt(text)}"
        )
    if not entries:
        raise JoyImageError("there are no boxes: draw at least one on the picture")
    return [_numbered(i, json.dumps(entry), width, height) for i, entry in enumerate(entries, 1)]


def _numbered(number: int, text: str, width: int, height: int) -> PixelBox:
    try:
        return box_from_json(text, width, height)
    except JoyImageError as error:
        raise JoyImageError(f"box {number}: {error}") from None


def box_to_region(box: PixelBox) -> dict[str, int]:
    """A box as `{"x": …, "y": …, "width": …, "height": …}` in pixels."""
    left, top, right, bottom = box
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}


def box_from_regions(regions: Mapping | Sequence, width: int, height: int) -> PixelBox:
    """The first of the boxes `{"x": …, "y": …, "width": …, "height": …}`, in pixels, that detectors give.

    `regions` is one of them, a list, or a list of lists with one list per picture.
    What sticks out of the picture, as detectors' boxes may, is cut off.
    Raises `JoyImageError` if there is no box, and if nothing of it lies in the picture.
    """
    region = regions
    while not isinstance(region, Mapping):
        if not isinstance(region, Sequence) or isinstance(region, str) or not region:
            raise JoyImageError("there is no bounding box: nothing was detected")
        region = region[0]
    try:
        x, y, w, h = (float(region[name]) for name in ("x", "y", "width", "height"))
    except (ValueError, TypeError, KeyError):
        raise JoyImageError(
            f"a bounding box has x, y, width and height in pixels, not {_excerpt(str(region))}"
        ) from None
    return _clipped((x, y, x + w, y + h), width, height)


def box_from_mask(mask: Tensor, width: int, height: int) -> PixelBox:
    """The box around what a mask (…, h, w) in [0, 1] covers by more than half, in pixels of the picture.

    The mask is stretched over the picture if their sizes differ; masks of a batch are joined.
    Raises `JoyImageError` for an empty mask.
    """
    covered = (mask > 0.5).reshape(-1, *mask.shape[-2:]).any(dim=0)  # (h, w)
    rows, columns = covered.any(dim=1).nonzero(), covered.any(dim=0).nonzero()
    if not len(rows):
        raise JoyImageError("the mask is empty: paint over the place where the object is to go")
    x_scale, y_scale = width / mask.shape[-1], height / mask.shape[-2]
    left, right = columns.min().item() * x_scale, (columns.max().item() + 1) * x_scale
    top, bottom = rows.min().item() * y_scale, (rows.max().item() + 1) * y_scale
    return _clipped((left, top, right, bottom), width, height)


def boxes_to_mask(boxes: Sequence[PixelBox], width: int, height: int) -> Tensor:
    """(1, height, width), 1 inside any of the boxes and 0 elsewhere."""
    import torch  # here: it takes a second to import

    mask = torch.zeros(1, height, width)
    for left, top, right, bottom in boxes:
        mask[:, top:bottom, left:right] = 1
    return mask


def _clipped(corners: Sequence[float], width: int, height: int) -> PixelBox:
    box = _within(corners, width, height)
    if box is None:
        left, top, right, bottom = corners
        raise JoyImageError(
            f"the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) covers nothing of the picture, which is "
            f"{width} pixels wide and {height} high: draw one inside it"
        )
    return box


def check_corners(box: Any, what: str) -> Box:
    """A box as floats. Raises `JoyImageError` for what is not four finite numbers in their order, naming `what`."""
    try:
        left, top, right, bottom = map(float, box)
    except (TypeError, ValueError, OverflowError):
        left = top = right = bottom = math.nan
    if not (all(map(math.isfinite, (left, top, right, bottom))) and left <= right and top <= bottom):
        raise JoyImageError(f"{what} is {box!r:.80}; give four numbers: left, top, right, bottom")
    return left, top, right, bottom


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - shared
    return shared / both if both > 0 else 0.0


def red_box(picture: Image.Image) -> PixelBox | None:
    """The red outline that `draw_box` drew into a picture, also after it was scaled; None if there is none."""
    red = _reddest(picture)
    for top in range(len(red)):
        left, right = _longest(red[top])
        if right - left < LEAST_SIDE:
            continue
        bottoms = [y for y in range(len(red) - 1, top, -1) if red[y, left:right].mean() >= DRAWN]
        if not bottoms or bottoms[0] - top < LEAST_SIDE:
            continue
        bottom = bottoms[0] + 1
        columns = red[top:bottom, left:right].mean(0)
        within = columns[: len(columns) // 2]  # a line ends there; a red door does not
        if min(columns[0], columns[-1]) >= DRAWN > within.min():
            return left, top, right, bottom
    return None


def red_line(picture: Image.Image, box: PixelBox) -> float:
    """The share of a box's outline that is drawn in red in a picture."""
    import numpy as np

    left, top, right, bottom = box
    red = _reddest(picture)
    line = np.concatenate(
        [red[top, left:right], red[bottom - 1, left:right], red[top:bottom, left], red[top:bottom, right - 1]]
    )
    return float(line.mean())


def _reddest(picture: Image.Image) -> np.ndarray:
    """Where a picture is as red as the line, (H, W): redder than things are, though scaling has softened it."""
    import numpy as np

    r, g, b = np.moveaxis(np.asarray(picture.convert("RGB")).astype(int), -1, 0)
    return (r >= 225) & (np.maximum(g, b) <= 60)


def _longest(row: np.ndarray) -> tuple[int, int]:
    """The longest run of True in a row, from where to where."""
    import numpy as np

    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    if not len(edges):
        return 0, 0
    lengths = edges[1::2] - edges[::2]
    k = int(lengths.argmax())
    return int(edges[2 * k]), int(edges[2 * k + 1])


def draw_box(image: str | os.PathLike | Image.Image, box: Sequence[float], width: int | None = None) -> Image.Image:
    """An RGB copy of `image` with the red outline that a move needs.

    `image` is whatever `joyimage.images.load` takes; `box` is (left, top, right, bottom) in its upright pixels: any two
    opposite corners, right and bottom exclusive as in Pillow's `crop`, rounded to whole pixels. The line is pure red
    and lies inside the box; `width` is in pixels, by default 0.4 % of the picture's shorter side and at least 2:
    4 at 1024 x 1024. (In the README's own pictures the lines measure 0.3 to 0.5 %.)
    Raises `JoyImageError` for a box that is empty or reaches outside the picture, and for a width below 1.
    """
    from .images import load  # here: it waits for numpy, and sentences do not need that

    image = load(image)
    left, top, right, bottom = map(round, _corners(box))
    picture = f"the picture, which is {image.width} pixels wide and {image.height} high"
    if left < 0 or top < 0 or right > image.width or bottom > image.height:
        raise JoyImageError(f"the box {tuple(box)} reaches outside {picture}")
    if left == right or top == bottom:
        raise JoyImageError(f"the box {tuple(box)} contains no pixel of {picture}")
    if width is None:
        width = max(2, round(0.004 * min(image.size)))
    elif isinstance(width, bool) or not isinstance(width, numbers.Integral) or width < 1:
        raise JoyImageError(f"the line's width must be a whole number of pixels, 1 or more, not {width!r}")
    line = min(width, right - left, bottom - top)
    for edge in (
        (left, top, right, top + line),
        (left, bottom - line, right, bottom),
        (left, top, left + line, bottom),
        (right - line, top, right, bottom),
    ):
        image.paste(RED, edge)
    return image


def _corners(box: Sequence[float]) -> Box:
    """The box's numbers, checked, with left <= right and top <= bottom."""
    if len(box) != 4 or not all(map(finite, box)):
        raise JoyImageError(f"a box is four finite numbers, left, top, right and bottom, not {box!r}")
    x0, y0, x1, y1 = map(float, box)
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
