"""Judges of edited pictures: colour segmentation and the scene engine's own pictures, no network.

Each judge takes pairs and the model's pictures (N, SIZE, SIZE, 3) uint8 and gives named arrays (N,): booleans of
success, or numbers whose mean is reported.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from filelock import FileLock

from joyimage.spatial import VIEWS

from . import render as renderer
from . import scenes as world
from .render import PALETTE, render
from .scenes import SIZE, SLOTS
from .tasks import Pairs

CHROMA = 48  # levels between the largest and the smallest channel from which on a pixel has a colour
SATURATION = 0.33
OVERLAP = 0.6  # intersection over union from which on a silhouette is the right one, in the right place
RED_LEFT = 0.05  # of a box's line that may stay
BRIGHT_RED = 230  # level of red that the line has and no red solid
SMALLEST = 30  # pixels of an object that is there
CROP = 20  # side of the crops by which shapes are told
AROUND = 0.4  # of an object's box on each side of it: the white front of a car has no colour
WHITE = 190  # levels of all channels from which on a pixel is of a car's lit front
NEIGHBOURS, VOTES = 9, 4
FARTHEST = 0.99  # quantile of the distances between neighbours
DRAWN = 5000  # scenes, for the objects that others are compared with
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "joyimage"

Verdict = dict[str, np.ndarray]
Examples = tuple[np.ndarray, np.ndarray, float]


def segment(pixels: np.ndarray) -> np.ndarray:
    """The index of each pixel's colour in COLOUR_NAMES, -1 for gray: (…, 3) -> (…)."""
    values = pixels.astype(np.float32)
    high, low = values.max(-1), values.min(-1)
    coloured = (high - low >= CHROMA) & (high - low >= SATURATION * high)
    difference = np.abs(hue(values[coloured])[:, None] - hue(PALETTE))  # (pixels, colours)
    found = np.full(coloured.shape, -1)
    found[coloured] = np.minimum(difference, 360 - difference).argmin(-1)
    return found


def hue(rgb: np.ndarray) -> np.ndarray:
    """In degrees, (…, 3) -> (…)."""
    r, g, b = np.moveaxis(rgb.astype(np.float32), -1, 0)
    return np.degrees(np.arctan2(np.sqrt(3) * (g - b), 2 * r - g - b)) % 360


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of masks (N, H, W)."""
    return (a & b).sum((1, 2)) / np.maximum((a | b).sum((1, 2)), 1)


def psnr(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Of pictures (N, H, W, 3) against each other, over the pixels of masks (N, H, W); at most 60 dB."""
    squares = ((a.astype(np.float32) - b.astype(np.float32)) ** 2).mean(-1)
    mean = (squares * where).sum((1, 2)) / np.maximum(where.sum((1, 2)), 1)
    return 10 * np.log10(255**2 / np.maximum(mean, 0.065))


def grown(masks: np.ndarray, by: int = 1) -> np.ndarray:
    """Masks (N, H, W) with all pixels within `by` of them."""
    padded = np.pad(masks, ((0, 0), (by, by), (by, by)))
    h, w = masks.shape[1:]
    shifts = [(y, x) for y in range(2 * by + 1) for x in range(2 * by + 1)]
    return np.any([padded[:, y : y + h, x : x + w] for y, x in shifts], axis=0)


def colour_masks(pairs: Pairs, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the output and the truth have the colour that object 0 has after the task, (N, H, W) each."""
    wanted = pairs.after.colour[:, 0, None, None]
    return segment(output) == wanted, segment(pairs.target) == wanted


def inside(box: np.ndarray) -> np.ndarray:
    """Masks (N, SIZE, SIZE) of boxes (N, 4)."""
    at = np.arange(SIZE)
    left, top, right, bottom = box.T[..., None]
    columns, rows = (at >= left) & (at < right), (at >= top) & (at < bottom)
    return rows[:, :, None] & columns[:, None, :]


def untouched(pairs: Pairs, output: np.ndarray) -> np.ndarray:
    return psnr(output, pairs.target, ~grown(pairs.changed(), 2))


def move(pairs: Pairs, output: np.ndarray) -> Verdict:
    found, truth = colour_masks(pairs, output)
    box = inside(pairs.box)
    area = found.sum((1, 2))
    rows, columns = np.indices((SIZE, SIZE))
    weight = np.maximum(area, 1)
    y, x = (found * rows).sum((1, 2)) / weight, (found * columns).sum((1, 2)) / weight
    left, top, right, bottom = pairs.box.T
    centred = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    within = (found & grown(box)).sum((1, 2)) >= 0.8 * weight
    line = box & ~inside(pairs.box + np.array([2, 2, -2, -2]))
    r, g, b = np.moveaxis(output.astype(np.int16), -1, 0)
    red = (r > 150) & (g < 100) & (b < 100)
    differs = np.abs(output.astype(np.int16) - pairs.target.astype(np.int16)).max(-1) > 60
    left_over = (red & differs & line & ~solids(pairs.after, output)).sum((1, 2)) / np.maximum(line.sum((1, 2)), 1)
    return {
        "object in the box": centred & within & (area >= SMALLEST) & (overlap(found, truth) >= OVERLAP),
        "box gone": left_over < RED_LEFT,
        "untouched PSNR": untouched(pairs, output),
    }


def solids(scenes: world.Scenes, output: np.ndarray) -> np.ndarray:
    """Patches of the scene's own colours, three pixels thick at least and darker than the line: a red cube that has
    come out too wide is no line that was left."""
    labels = np.where(output.max(-1) < BRIGHT_RED, segment(output), -1)
    found = np.zeros(output.shape[:3], dtype=bool)
    for slot in range(SLOTS):
        patch = (labels == scenes.colour[:, slot, None, None]) & scenes.present[:, slot, None, None]
        found |= grown(~grown(~patch)) & patch
    return found


def recolour(pairs: Pairs, output: np.ndarray) -> Verdict:
    found, truth = colour_masks(pairs, output)
    old = (segment(output) == pairs.before.colour[:, 0, None, None]) & truth
    return {
        "recoloured": (overlap(found, truth) >= OVERLAP) & (old.sum((1, 2)) < 0.1 * truth.sum((1, 2))),
        "untouched PSNR": untouched(pairs, output),
    }


def remove(pairs: Pairs, output: np.ndarray) -> Verdict:
    place = pairs.rendered_before.slots[..., 0] > 0.5
    left_over = (segment(output) >= 0) & (segment(pairs.target) < 0) & place
    gone = left_over.sum((1, 2)) < 0.05 * place.sum((1, 2))
    return {
        "removed": gone & (psnr(output, pairs.target, place) > 20),
        "untouched PSNR": untouched(pairs, output),
    }


def rotate(pairs: Pairs, output: np.ndarray) -> Verdict:
    count = len(output)
    views = [
        render(pairs.before.with_slot(0, yaw=world.view_yaw(pairs.before, np.full(count, view))))
        for view in range(len(VIEWS))
    ]
    place = grown(np.max([view.slots[..., 0] for view in views], axis=0) > 0.3)
    nearness = np.stack([psnr(output, view.pixels, place) for view in views], axis=1)
    found, truth = colour_masks(pairs, output)
    return {
        "right view": (nearness.argmax(1) == pairs.details["view"]) & (overlap(found, truth) >= 0.5),
        "untouched PSNR": untouched(pairs, output),
    }


def camera(pairs: Pairs, output: np.ndarray) -> Verdict:
    """The yaw is right if the output is nearer to its picture than to the one turned the other way or not at all."""
    yaw = pairs.details["yaw"]
    everywhere = np.ones(output.shape[:3], dtype=bool)
    nearness = [psnr(output, pairs.target, everywhere)]
    for factor in (-1, 0):
        other = pairs.after.camera + np.stack([(factor - 1) * yaw, 0 * yaw, 0 * yaw], axis=1)
        nearness.append(psnr(output, render(replace(pairs.after, camera=other)).pixels, everywhere))
    turned = yaw != 0
    return {"yaw direction": (np.argmax(nearness, axis=0) == 0)[turned], "PSNR": nearness[0]}


def add(pairs: Pairs, output: np.ndarray) -> Verdict:
    found, truth = colour_masks(pairs, output)
    return {"added": overlap(found, truth) >= 0.5, "untouched PSNR": untouched(pairs, output)}


def generate(pairs: Pairs, output: np.ndarray) -> Verdict:
    """Whether all named colours are there, with the named shapes, and in the named order from left to right."""
    labels = segment(output)
    present = np.ones(len(output), dtype=bool)
    ordered = np.ones(len(output), dtype=bool)
    for i in range(len(output)):
        slots = np.flatnonzero(pairs.after.present[i])
        masks = [labels[i] == pairs.after.colour[i, slot] for slot in slots]
        if min(mask.sum() for mask in masks) < SMALLEST:
            present[i] = ordered[i] = False
            continue
        present[i] = all(
            looks_like(output[i], mask, pairs.after.kind[i, slot]) for mask, slot in zip(masks, slots, strict=True)
        )
        wanted = np.argsort([world.middle(pairs.after[i : i + 1], slot)[0, 0] for slot in slots])
        ordered[i] = list(np.argsort([np.nonzero(mask)[1].mean() for mask in masks])) == list(wanted)
    return {"colours and shapes": present, "order": ordered}


def looks_like(picture: np.ndarray, mask: np.ndarray, kind: int) -> bool:
    """Whether enough of the nearest of many rendered objects have this kind, and it is no farther from them than they
    are from each other: a blob is near to nothing. A car from behind may be a cube."""
    crops, kinds, farthest = examples()
    distance = ((crops - crop(picture, mask).ravel()) ** 2).sum(1)
    nearest = np.argsort(distance)[:NEIGHBOURS]
    return bool((kinds[nearest] == kind).sum() >= VOTES and distance[nearest[0]] <= farthest)


@lru_cache(maxsize=1)
def examples() -> Examples:
    """Crops (N, features) of rendered objects, their kinds (N,), and how far apart neighbours of them are at most.

    They take half a minute to draw, and every process that judges needs them: the first keeps them in CACHE, if it can.
    """
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        path = CACHE / f"examples-{drawn_by()}.npz"
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                part = path.with_suffix(".part.npz")
                np.savez_compressed(part, **dict(zip(("crops", "kinds", "farthest"), draw_examples(), strict=True)))
                part.replace(path)
        with np.load(path) as kept:
            return kept["crops"], kept["kinds"], float(kept["farthest"])
    except OSError:  # a home that cannot be written, or a disk that is full
        return draw_examples()


def drawn_by() -> str:
    """A name for all that decides what is drawn: these sources, and the NumPy that runs them."""
    sources = [Path(file).read_bytes() for file in (__file__, renderer.__file__, world.__file__)]
    return hashlib.sha256(b"".join([*sources, np.__version__.encode()])).hexdigest()[:16]


def draw_examples() -> Examples:
    drawn = world.draw(DRAWN, np.random.default_rng(7))
    pictures = render(drawn).pixels
    masks = segment(pictures) == drawn.colour[:, 0, None, None]
    seen = np.flatnonzero(masks.sum((1, 2)) >= SMALLEST)
    crops = np.stack([crop(pictures[i], masks[i]).ravel() for i in seen])
    squares = (crops**2).sum(1)
    apart = squares[:, None] + squares - 2 * crops @ crops.T
    np.fill_diagonal(apart, np.inf)
    return crops, drawn.kind[seen, 0], float(np.quantile(apart.min(1), FARTHEST))


def crop(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An object's silhouette, its light, and what is white: its box and some more, stretched to CROP x CROP."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    at = (np.arange(CROP) + 0.5) / CROP * (1 + 2 * AROUND) - AROUND
    y = np.floor(top + at * (bottom - top)).astype(int)
    x = np.floor(left + at * (right - left)).astype(int)
    good = ((y >= 0) & (y < SIZE))[:, None] & ((x >= 0) & (x < SIZE))
    y, x = y.clip(0, SIZE - 1)[:, None], x.clip(0, SIZE - 1)
    shown = picture[y, x].astype(np.float32)
    inside = mask[y, x] & good
    light = shown.max(-1) * inside
    white = (shown.min(-1) > WHITE) & (shown.max(-1) - shown.min(-1) < 16) & good
    return np.stack([inside, 0.7 * light / max(float(light.max()), 1.0), white], axis=-1).astype(np.float32)


JUDGES = {
    "move": move, "rotate": rotate, "camera": camera, "recolour": recolour, "remove": remove, "add": add,
    "compose": add, "generate": generate,
}  # fmt: skip


def verdicts(pairs: Pairs, output: np.ndarray) -> Verdict:
    return JUDGES[pairs.task](pairs, output)
