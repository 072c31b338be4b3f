"""What views say of boxes: whether depth was measured where a box is, by the masks or by the box's outline alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .cameras import Pinhole
from .oriented import OrientedBox
from .visibility import BEYOND, at_foot, crossing, outline

LEAST = 12  # pixels of an object in a view that tell anything
MOST = 400  # pixels of it that are looked at
NOISE = 0.03  # of a depth, by which it may be off
MASKED = 0.5  # of a mask's points, at least, lie in its box
HELD = 0.25  # of a box's pixels before which nothing stands, at least, have a point in it: a table has much air


@dataclass(frozen=True, eq=False)
class Glimpse:
    """One view of one object: depth (h, w) in metres, 0 for unknown, and its mask (h, w), None without masks."""

    camera: Pinhole
    depth: np.ndarray
    mask: np.ndarray | None
    box: OrientedBox


@dataclass(frozen=True)
class Evidence:
    """How often what was measured of an object in a view lies in its box, how often it does not, and how often it may
    be hidden, which is known without masks alone."""

    agree: int
    differ: int
    hidden: int

    @property
    def told(self) -> int:
        return self.agree + self.differ

    @property
    def share(self) -> float:
        return self.agree / self.told if self.told else 0.0

    @property
    def shown(self) -> float:
        """The share that agrees, of hidden ones too."""
        return self.agree / (self.told + self.hidden) if self.agree else 0.0


def weighed(glimpses: Iterable[Glimpse]) -> Evidence:
    """The evidence of views in which enough of an object can be told."""
    agree = differ = hidden = 0
    for glimpse in glimpses:
        pixels, depth = probe(glimpse)
        if len(pixels) >= LEAST:
            verdict = _lies(glimpse, pixels, depth)
            agree, differ, hidden = agree + (verdict is True), differ + (verdict is False), hidden + (verdict is None)
    return Evidence(agree, differ, hidden)


def _lies(glimpse: Glimpse, pixels: np.ndarray, depth: np.ndarray) -> bool | None:
    """Whether depth (N,) at pixels (N, 2) lies where the box is; None where something may hide it."""
    box, slack = glimpse.box, BEYOND * float(glimpse.box.size.max()) + NOISE * depth
    points = glimpse.camera.back_project(pixels, depth)
    if glimpse.mask is not None:
        inside = (np.abs(box.local(points)) <= box.size / 2 + slack[:, None]).all(axis=1)
        return bool(inside.mean() >= MASKED)
    enter, leave = crossing(box, glimpse.camera, pixels)
    shown = depth >= enter - slack
    inside = shown & (depth <= leave + slack) & ~at_foot(box, points)
    return bool(inside.sum() >= HELD * shown.sum()) if shown.sum() >= LEAST else None


def probe(glimpse: Glimpse) -> tuple[np.ndarray, np.ndarray]:
    """Some pixels (N, 2) of an object with their depth (N,): those of its mask, else those whose rays meet its box."""
    rows, columns = _of_outline(glimpse) if glimpse.mask is None else _of_mask(glimpse.mask)
    pixels, depth = np.stack([columns, rows], axis=-1) + 0.5, glimpse.depth[rows, columns]
    if glimpse.mask is None:
        enter, leave = crossing(glimpse.box, glimpse.camera, pixels)
        met = (enter <= leave) & (leave > 0)
        pixels, depth = pixels[met], depth[met]
    return pixels[depth > 0], depth[depth > 0]


def _of_mask(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.nonzero(mask)
    some = slice(None, None, max(1, len(rows) // MOST))
    return rows[some], columns[some]


def _of_outline(glimpse: Glimpse) -> tuple[np.ndarray, np.ndarray]:
    """A grid over the rectangle around the box's outline."""
    height, width = glimpse.depth.shape
    around = outline(glimpse.box, glimpse.camera)
    low, high = (around.min(axis=0), around.max(axis=0)) if len(around) else (np.zeros(2), np.zeros(2))
    side = int(MOST**0.5)
    columns, rows = (
        np.unique(np.linspace(max(a, 0), min(b, most) - 1, side).astype(int)) if min(b, most) - 1 >= max(a, 0) else []
        for a, b, most in zip(low, high, (width, height), strict=True)
    )
    grid = np.meshgrid(np.asarray(rows, int), np.asarray(columns, int), indexing="ij")
    return grid[0].ravel(), grid[1].ravel()


def ratio(glimpses: Sequence[Glimpse]) -> float | None:
    """How many times farther than boxes what is measured lies, in the middle of many pixels; None for want of any."""
    found = []
    for glimpse in glimpses:
        pixels, depth = probe(glimpse)
        enter, leave = crossing(glimpse.box, glimpse.camera, pixels)
        met = (enter <= leave) & (leave > 0)
        found.append(2 * depth[met] / (np.maximum(enter, 0) + leave)[met])
    values = np.concatenate([*found, np.zeros(0)])
    return float(np.median(values)) if len(values) >= LEAST else None
