"""A contact sheet: some samples of each sub-task with their pictures as they were marked, and some edit pairs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...atomic import Part
from ...errors import JoyImageError, one_line
from ..cameras import Pinhole
from ..oriented import OrientedBox
from ..records import Pair, Sample, Shown
from ..settings import check_count
from ..visibility import visible_edges
from .contents import read_pairs, read_samples

COUNT = 24
# Pixels of a picture's side at most, of a column's width, of gaps and lines; columns.
SIDE, COLUMN, GAP, LINE, ACROSS = 200, 420, 10, 15, 4
HIGHEST = 60_000  # pixels: no PNG reader takes much more
BOX = (0, 220, 0)
# Pillow's own letters are Latin alone; where the system has one of these, Chinese is shown.
FONTS = ("NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "wqy-microhei.ttc", "msyh.ttc", "PingFang.ttc", "simsun.ttc")
Record = TypeVar("Record", Sample, Pair)


def sheet(out: str | Path, path: str | Path, count: int = COUNT) -> Path:
    """Write a PNG of about `count` records of a data set, as many of each sub-task and kind; returns its path.

    Raises `JoyImageError` for a data set without records, or as `inspect` does.
    """
    out, path = Path(out), Path(path)
    check_count(count)
    kinds: dict[str, list[Image.Image]] = {}
    for title, record in _chosen(out, count):
        shown = _of_pair(record) if isinstance(record, Pair) else _of_sample(record)
        kinds.setdefault(title, []).append(_cell(title, *shown))
    cells = [cell for several in kinds.values() for cell in several]
    if not cells:
        raise JoyImageError(f"{out} holds neither questions nor pairs")
    with Part(path.parent) as part:
        _arranged(cells).save(part.path, "PNG")
        return part.publish([path], replace=True)


def _chosen(out: Path, count: int) -> Iterator[tuple[str, Sample | Pair]]:
    samples = _spread(read_samples(out), lambda sample: sample.task, count)
    pairs = _spread(read_pairs(out), lambda pair: pair.kind, count)
    groups = [*samples.items(), *((f"{kind} pair", each) for kind, each in pairs.items())]
    each = max(1, count // max(1, len(groups)))
    more = max(0, count - each * len(groups))  # of the first groups one more, so that they are `count`
    for number, (title, records) in enumerate(groups):
        for record in records[: each + (number < more)]:
            yield title, record


def _spread(records: Iterable[Record], kind: Callable[[Record], str], most: int) -> dict[str, list[Record]]:
    """Up to `most` of each kind, any of them as likely as any other, and the same ones every time."""
    found: dict[str, list[Record]] = {}
    seen: dict[str, int] = {}
    generator = random.Random(0)
    for record in records:
        own = found.setdefault(name := kind(record), [])
        seen[name] = number = seen.get(name, 0) + 1
        if len(own) < most:
            own.append(record)
        elif (place := generator.randrange(number)) < most:
            own[place] = record
    for own in found.values():
        generator.shuffle(own)
    return found


def _of_sample(sample: Sample) -> tuple[list[Image.Image], list[str]]:
    pictures = [picture.image() for picture in sample.pictures]
    lines = [f"{sample.id}, {sample.scene}"]
    for turn in sample.turns:
        lines += [*turn.text.splitlines(), *f"→ {turn.answer}".splitlines()]
        if turn.task == "grounding_3d":
            pictures[0] = _with_boxes(pictures[0], sample.shown[0], turn.answer)
    return pictures, lines


def _of_pair(pair: Pair) -> tuple[list[Image.Image], list[str]]:
    return [pair.source.image(), pair.target.image()], [f"{pair.id}, {pair.scene}", *pair.text.splitlines()]


def _with_boxes(picture: Image.Image, shown: Shown, answer: str) -> Image.Image:
    """With the edges of the answer's boxes, in the camera's frame, and their labels."""
    picture, (fx, fy, cx, cy) = picture.copy(), shown.lens
    camera = Pinhole(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), np.eye(4), *shown.size)
    pen = ImageDraw.Draw(picture)
    for each in json.loads(answer):
        edges = visible_edges(OrientedBox.from_numbers(each["bbox_3d"]), camera)
        for edge in edges:
            pen.line(list(map(tuple, edge.tolist())), BOX, max(1, min(picture.size) // 200))
        if len(edges):
            font = _font(max(10, min(picture.size) // 16))
            place = np.clip(edges.reshape(-1, 2).min(axis=0), 0, picture.size)
            pen.text(tuple(place.tolist()), one_line(each["label"]), BOX, font, "lb")
    return picture


def _cell(title: str, pictures: Sequence[Image.Image], lines: Sequence[str]) -> Image.Image:
    """A column's width: pictures side by side, and text below."""
    side = min(SIDE, (COLUMN - GAP * (len(pictures) - 1)) // len(pictures))
    shown = [_fitted(picture, side) for picture in pictures]
    text = [part for line in (title, *lines) for part in _wrapped(line)]
    height = max(picture.height for picture in shown)
    cell = Image.new("RGB", (COLUMN, height + GAP + LINE * len(text)), "white")
    for number, picture in enumerate(shown):
        cell.paste(picture, (number * (side + GAP), 0))
    pen = ImageDraw.Draw(cell)
    for number, line in enumerate(text):
        place = 0, height + GAP // 2 + LINE * number
        pen.text(place, line, "navy" if number == 0 else "black", _font(LINE - 3))
    return cell


def _wrapped(line: str) -> Iterator[str]:
    """Parts that fit into a column, cut at a space where there is one."""
    font = _font(LINE - 3)
    while font.getlength(line) > COLUMN:
        end = next(n for n in range(1, len(line) + 1) if font.getlength(line[:n]) > COLUMN) - 1
        space = line.rfind(" ", 1, end + 1)
        cut = space if space > end // 2 else max(end, 1)
        yield line[:cut]
        line = line[cut:].lstrip()
    yield line


def _fitted(picture: Image.Image, side: int) -> Image.Image:
    scale = side / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _arranged(cells: Sequence[Image.Image]) -> Image.Image:
    """In columns, each cell where there is most room; what would make the sheet too high is left out."""
    columns = min(ACROSS, len(cells))
    heights, places = [GAP] * columns, []
    for cell in cells:
        column = heights.index(min(heights))
        if heights[column] + cell.height > HIGHEST:
            break
        places.append((GAP + column * (COLUMN + GAP), heights[column]))
        heights[column] += cell.height + GAP
    arranged = Image.new("RGB", (GAP + columns * (COLUMN + GAP), max(heights)), "white")
    for cell, place in zip(cells, places, strict=False):
        arranged.paste(cell, place)
    return arranged


@lru_cache
def _font(size: int):
    for name in FONTS:
        try:
            return ImageFont.truetype(name, size, layout_engine=ImageFont.Layout.BASIC)
        except OSError:
            continue
    return ImageFont.load_default(size)
