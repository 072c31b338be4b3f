"""Convex polygons in the plane: hulls of few points, cuts and areas."""

from __future__ import annotations

import numpy as np


def hull(points: np.ndarray) -> np.ndarray:
    """The corners (K, 2) of the convex hull of points (N, 2), anticlockwise (y up), without those on its sides."""
    ordered = np.unique(np.asarray(points, dtype=float), axis=0)
    if len(ordered) < 3:
        return ordered
    return np.array(_chain(ordered)[:-1] + _chain(ordered[::-1])[:-1])


def _chain(ordered: np.ndarray) -> list[np.ndarray]:
    """One side of the hull, from the first of the ordered points to the last."""
    side: list[np.ndarray] = []
    for point in ordered:
        while len(side) > 1 and _turn(side[-2], side[-1], point) <= 0:
            side.pop()
        side.append(point)
    return side


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def area(polygon: np.ndarray) -> float:
    """Of a polygon (K, 2) of any number of corners; 0 below three."""
    if len(polygon) < 3:
        return 0.0
    following = np.roll(polygon, -1, axis=0)
    return float(abs((polygon[:, 0] * following[:, 1] - polygon[:, 1] * following[:, 0]).sum()) / 2)


def cut(polygon: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """The part of a convex polygon (K, D) on the side where `distance` (K,) from a line or plane is 0 or less."""
    following, beyond = np.roll(polygon, -1, axis=0), np.roll(distance, -1)
    kept = []
    for here, there, a, b in zip(polygon, following, distance, beyond, strict=True):
        if a <= 0:
            kept.append(here)
        if (a < 0 < b) or (b < 0 < a):
            kept.append(here + (there - here) * (a / (a - b)))
    return np.array(kept).reshape(-1, polygon.shape[1])


def within(polygon: np.ndarray, width: float, height: float) -> np.ndarray:
    """The part of a convex polygon (K, 2) in a picture: x from 0 to `width`, y from 0 to `height`."""
    for axis, limit in ((0, width), (1, height)):
        polygon = cut(polygon, -polygon[:, axis])
        polygon = cut(polygon, polygon[:, axis] - limit)
    return polygon


def covers(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Whether points (…, 2) lie in a convex polygon (K, 2) with its corners in the order of `hull`."""
    inside = np.full(points.shape[:-1], len(polygon) > 2)
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        inside &= (b[0] - a[0]) * (points[..., 1] - a[1]) - (b[1] - a[1]) * (points[..., 0] - a[0]) >= 0
    return inside
