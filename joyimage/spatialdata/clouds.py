"""Points of one thing: depth without its noise, clouds from masks, and what does not belong."""

from __future__ import annotations

import numpy as np

from .extras import extra

WINDOW = 3  # pixels on each side of one over which depth is smoothed: 7 x 7
QUIET = 0.004  # relative noise of depth below which nothing is smoothed; a ball of 30 pixels looks like 0.003
JUMP = 0.05  # a relative change that is an edge, and no noise
RIDGE = 0.05  # pixels squared by which slopes are held back where a window is hardly wider than a line


def smooth_depth(depth: np.ndarray, mask: np.ndarray, radius: int = WINDOW) -> tuple[np.ndarray, float]:
    """Depth (h, w) of a mask's pixels with less noise, and the relative noise that there was.

    A plane's inverse depth is linear in a picture, so each pixel takes the value there of the plane through the inverse
    depths around it, within the mask. Quiet depth stays as it is, and so do pixels inside where it changes much; at the
    mask's edge those are taken for what lies behind, and become 0.
    """
    rows, columns = np.nonzero(mask & (depth > 0))
    if not len(rows):
        return depth, 0.0
    top, left = max(rows.min() - radius, 0), max(columns.min() - radius, 0)
    crop = np.s_[top : rows.max() + radius + 1, left : columns.max() + radius + 1]
    used, raw = mask[crop] & (depth[crop] > 0), np.maximum(depth[crop], 1e-9)
    inner = used & eroded(used)
    inner = inner if inner.any() else used
    fitted, known = _linear(np.where(inner, 1 / raw, 0), inner, radius)
    change = np.where(used & known, 1 / (np.maximum(fitted, 1e-9) * raw) - 1, 0)
    noise = float(1.4826 * np.median(np.abs(change[inner])))
    if noise < QUIET:
        return depth, noise
    near = used & known & (np.abs(change) < max(JUMP, 4 * noise))
    smooth = depth.copy()
    smooth[crop] = np.where(near, raw * (1 + change), np.where(used & ~inner, 0, depth[crop]))
    return smooth, noise


def eroded(mask: np.ndarray) -> np.ndarray:
    """A mask (h, w) without the pixels that have one of their four neighbours outside it; the picture's edge is not."""
    padded = np.pad(mask, 1, mode="edge")
    return mask & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]


def _linear(values: np.ndarray, used: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """At each pixel, the value there of the plane through the used values (h, w) around it, and if they are enough."""
    y, x = np.meshgrid(*(np.arange(n, dtype=float) for n in values.shape), indexing="ij")
    weight = used.astype(float)
    parts = np.stack([weight, x, y, x * x, x * y, y * y, values, x * values, y * values]) * weight
    n, sx, sy, sxx, sxy, syy, sv, sxv, syv = _window_sums(parts, radius)
    known = n > radius
    n = np.maximum(n, 1)
    mx, my, mv = sx / n, sy / n, sv / n
    cxx, cyy, cxy = sxx / n - mx * mx + RIDGE, syy / n - my * my + RIDGE, sxy / n - mx * my
    cxv, cyv = sxv / n - mx * mv, syv / n - my * mv
    determinant = cxx * cyy - cxy * cxy
    slope_x, slope_y = (cxv * cyy - cyv * cxy) / determinant, (cyv * cxx - cxv * cxy) / determinant
    return mv + slope_x * (x - mx) + slope_y * (y - my), known


def _window_sums(parts: np.ndarray, radius: int) -> np.ndarray:
    """Sums of (C, h, w) over the window around each pixel."""
    for axis in (1, 2):
        size = parts.shape[axis]
        pad = [(0, 0)] * 3
        pad[axis] = (1, 0)
        total = np.cumsum(np.pad(parts, pad), axis=axis)
        ends = np.minimum(np.arange(size) + radius + 1, size)
        starts = np.maximum(np.arange(size) - radius, 0)
        parts = np.take(total, ends, axis=axis) - np.take(total, starts, axis=axis)
    return parts


def without_outliers(points: np.ndarray, neighbours: int = 10, sigma: float = 2.0) -> np.ndarray:
    """The points (N, 3) whose mean distance to their neighbours is no more than `sigma` deviations above the mean."""
    spatial = extra("scipy.spatial")
    if len(points) <= neighbours:
        return points
    distances, _ = spatial.cKDTree(points).query(points, k=neighbours + 1)
    mean = distances[:, 1:].mean(axis=1)
    return points[mean <= mean.mean() + sigma * mean.std() + 1e-12]
