"""How much two oriented boxes share, exactly: one is cut by the six sides of the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import polygons
from .oriented import SIGNS, OrientedBox

FLAT = 1e-12  # of a box's extent: nearer to a plane than this lies in it


def _side(axis: int, sign: int) -> list[int]:
    """The four corners of one side of a box, in turn around it."""
    across = np.delete(SIGNS, axis, axis=1)
    return sorted(np.flatnonzero(SIGNS[:, axis] == sign).tolist(), key=lambda i: np.arctan2(across[i, 1], across[i, 0]))


SIDES = [_side(axis, sign) for axis in range(3) for sign in (-1, 1)]


def intersection(first: OrientedBox, second: OrientedBox) -> float:
    """The volume that two boxes share."""
    if np.linalg.norm(first.centre - second.centre) >= (np.linalg.norm(first.size) + np.linalg.norm(second.size)) / 2:
        return 0.0
    corners = second.local(first.corners)  # the second box is straight in its own axes
    faces = [corners[side] for side in SIDES]
    for axis in range(3):
        for sign in (-1, 1):
            faces = _cut(faces, axis, sign, second.size[axis] / 2)
    return _volume(faces)


def iou(first: OrientedBox, second: OrientedBox) -> float:
    """Shared volume over joint volume, in [0, 1]; 0 where both are flat."""
    shared = intersection(first, second)
    joint = first.volume + second.volume - shared
    return float(min(1.0, shared / joint)) if joint > 0 else 0.0


def ious(first: Sequence[OrientedBox], second: Sequence[OrientedBox]) -> np.ndarray:
    """`iou` of each of the first with each of the second, (N, M)."""
    return np.array([[iou(a, b) for b in second] for a in first]).reshape(len(first), len(second))


def _cut(faces: list[np.ndarray], axis: int, sign: int, limit: float) -> list[np.ndarray]:
    """The faces of a convex solid after all beyond one plane was cut off, with the new face."""
    distances = [sign * face[:, axis] - limit for face in faces]
    eps = FLAT * max(limit, 1.0)
    if not any((d > eps).any() for d in distances):
        return faces
    kept = [polygons.cut(face, np.where(np.abs(d) <= eps, 0.0, d)) for face, d in zip(faces, distances, strict=True)]
    kept = [face for face in kept if len(face) > 2]
    points = np.concatenate([*kept, np.zeros((0, 3))])
    edge = points[np.abs(sign * points[:, axis] - limit) <= 1e-9 * max(limit, 1.0)]
    plane = np.delete(edge, axis, axis=1)
    if len(plane) < 3:
        return kept
    offset = plane - plane.mean(axis=0)
    return [*kept, edge[np.argsort(np.arctan2(offset[:, 1], offset[:, 0]))]]


def _volume(faces: list[np.ndarray]) -> float:
    """Of a convex solid: the pyramids from a point inside it to its faces."""
    if len(faces) < 4:
        return 0.0
    inside = np.concatenate(faces).mean(axis=0)
    total = 0.0
    for face in faces:
        spokes = face - inside
        pairs = np.cross(spokes[1:-1] - spokes[0], spokes[2:] - spokes[0]).sum(axis=0)
        total += abs(float(pairs @ spokes[0])) / 6
    return total
