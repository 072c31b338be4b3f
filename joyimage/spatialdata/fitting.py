"""Oriented boxes around points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import JoyImageError
from .extras import extra
from .oriented import OrientedBox


def fit_box(points: np.ndarray, method: str = "upright") -> OrientedBox:
    """The box around points (N, 3), one or more, by one of `METHODS`.

    upright: stands, with the smallest area seen from above; its first axis is the longer one on the ground.
    volume: the smallest of those boxes that have a side in a side of the points' convex hull.
    pca: along the points' principal axes, the longest first.
    Raises `JoyImageError` for no points, points that are not finite, and another method.
    """
    if method not in METHODS:
        raise JoyImageError(f"no way to fit a box is called {method!r}; there are {', '.join(METHODS)}")
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or points.shape[1] != 3 or not len(points) or not np.isfinite(points).all():
        raise JoyImageError(f"a box is fitted to finite points of shape (N, 3), not {points.shape}")
    return METHODS[method](points)


def fit_upright(points: np.ndarray) -> OrientedBox:
    """The standing box with the smallest area seen from above."""
    first = smallest_rectangle(points[:, :2])
    return _around(points, np.array([[*first, 0.0], [-first[1], first[0], 0.0], [0.0, 0.0, 1.0]]).T)


def fit_volume(points: np.ndarray) -> OrientedBox:
    """The smallest box with a side in a side of the convex hull; of flat points, the box along the principal axes."""
    spatial = extra("scipy.spatial")
    try:
        hull = spatial.ConvexHull(points)
    except (spatial.QhullError, ValueError):
        return fit_pca(points)
    corners = points[hull.vertices]
    best: OrientedBox | None = None
    for normal in np.unique(np.round(hull.equations[:, :3], 9), axis=0):
        normal = normal / np.linalg.norm(normal)
        across = np.eye(3)[np.abs(normal).argmin()]
        u = np.cross(normal, across)
        u /= np.linalg.norm(u)
        v = np.cross(normal, u)
        x, y = smallest_rectangle(np.stack([corners @ u, corners @ v], axis=1))
        box = _around(corners, np.stack([x * u + y * v, -y * u + x * v, normal], axis=1))
        best = box if best is None or box.volume < best.volume else best
    assert best is not None  # a hull has sides
    return best


def fit_pca(points: np.ndarray) -> OrientedBox:
    """The box along the principal axes of the points, the longest first."""
    _, _, axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=True)
    return _around(points, axes.T)


METHODS: dict[str, Callable[[np.ndarray], OrientedBox]] = {
    "upright": fit_upright,
    "volume": fit_volume,
    "pca": fit_pca,
}


def smallest_rectangle(points: np.ndarray) -> np.ndarray:
    """The direction (2,) of the longer sides of the smallest rectangle around points (N, 2), with x >= 0.

    One side of that rectangle lies on a side of the convex hull.
    """
    spatial = extra("scipy.spatial")
    offset = points - points.mean(axis=0)
    try:
        corners = offset[spatial.ConvexHull(offset).vertices]
        sides = np.roll(corners, -1, axis=0) - corners
    except (spatial.QhullError, ValueError):  # on a line
        corners, sides = offset, offset[[np.abs(offset).sum(axis=1).argmax()]]
    lengths = np.linalg.norm(sides, axis=1)
    sides = sides[lengths > 0] / lengths[lengths > 0, None]
    if not len(sides):  # one point
        return np.array([1.0, 0.0])
    along, across = corners @ sides.T, corners @ np.stack([-sides[:, 1], sides[:, 0]])
    length, width = np.ptp(along, axis=0), np.ptp(across, axis=0)
    best = (length * width).argmin()
    x, y = sides[best] if length[best] >= width[best] else (-sides[best][1], sides[best][0])
    return np.array([x, y]) if x > 0 or (x == 0 and y > 0) else -np.array([x, y])


def _around(points: np.ndarray, axes: np.ndarray) -> OrientedBox:
    """The box along axes (3, 3), columns, that holds all points. The third axis is turned over for a mirror."""
    if np.linalg.det(axes) < 0:
        axes = axes * np.array([1.0, 1.0, -1.0])
    local = points @ axes
    low, high = local.min(axis=0), local.max(axis=0)
    return OrientedBox(axes @ ((low + high) / 2), high - low, axes)
