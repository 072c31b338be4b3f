"""Whether a box is seen in a view: it lies in the picture, nothing hides it, and enough of it was measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import polygons
from .cameras import Pinhole
from .extras import extra
from .oriented import EDGES, OrientedBox

CLIP = 1e-3  # of depth, where the part of a box behind the camera is cut off
BEYOND = 0.05  # of a box's longest extent, by which its surface may lie outside: noise of depth
FOOT = 0.08  # of its height, the lowest part, where what it stands on reaches in


@dataclass(frozen=True)
class Limits:
    """When a box counts as visible."""

    in_picture: float = 0.1  # at least, of the projected box's area
    hidden: float = 0.7  # at most, of what lies in the picture
    points: int = 50  # at least, of its surface that were measured
    hull: float = 0.07  # at least, of the box's volume
    mask: float = 0.005  # at least, of the picture


@dataclass(frozen=True)
class Visibility:
    """How a box is seen in one view. `mask` is None where there is no mask."""

    in_picture: float  # share of the projected box that lies in the picture
    hidden: float  # share of that in front of which something was measured
    points: int  # measured within the box
    hull: float  # volume of their hull over the box's
    mask: float | None  # share of the picture that the mask covers

    def passes(self, limits: Limits = Limits()) -> bool:
        """Whether the box counts as visible."""
        shown = self.in_picture >= limits.in_picture and self.hidden <= limits.hidden
        measured = self.points >= limits.points and self.hull >= limits.hull
        return shown and measured and (self.mask is None or self.mask >= limits.mask)


def outline(box: OrientedBox, camera: Pinhole) -> np.ndarray:
    """The convex outline (K, 2) of a box in pixels, also beyond the picture; empty where it is behind the camera."""
    edges = visible_edges(box, camera)
    return polygons.hull(edges.reshape(-1, 2)) if len(edges) else np.zeros((0, 2))


def visible_edges(box: OrientedBox, camera: Pinhole) -> np.ndarray:
    """The two ends (K, 2, 2) of a box's edges in pixels, also beyond the picture, without what is behind the camera."""
    ends = box.corners[EDGES]  # (12, 2, 3)
    ahead = (ends - camera.centre) @ camera.forward - CLIP
    ends, ahead = ends[(ahead > 0).any(axis=1)], ahead[(ahead > 0).any(axis=1)]
    behind = ahead <= 0
    # Where an edge crosses the plane in front of the camera is the end of its visible part.
    along = np.where(behind, ahead / np.where(behind, ahead - ahead[:, ::-1], 1), 0)[..., None]
    pixels, _ = camera.project(ends + (ends[:, ::-1] - ends) * along + camera.forward * 1e-9)
    return pixels


def in_picture(box: OrientedBox, camera: Pinhole) -> float:
    """The share of a projected box's area that lies in the picture."""
    around = outline(box, camera)
    whole = polygons.area(around)
    return polygons.area(polygons.within(around, camera.width, camera.height)) / whole if whole > 0 else 0.0


def seen(points: np.ndarray, camera: Pinhole, depth: np.ndarray, tolerance: float = 0.02) -> np.ndarray:
    """Whether points (N, 3) lie in the picture and not behind what was measured there, by `tolerance` of its depth.

    `depth` is (height, width); where nothing was measured, nothing hides.
    """
    rows, columns, distance, inside = camera.index(points)
    surface = depth[rows, columns]
    return inside & ((surface <= 0) | (distance <= surface * (1 + tolerance)))


def entry_depth(box: OrientedBox, camera: Pinhole) -> np.ndarray:
    """The depth (height, width) at which the rays of pixels' middles enter a box; infinite where they pass by.

    0 or less where the camera is inside.
    """
    columns, rows = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    enter, leave = crossing(box, camera, np.stack([columns, rows], axis=-1))
    return np.where((enter <= leave) & (leave > 0), enter, np.inf)


def crossing(box: OrientedBox, camera: Pinhole, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The depths (…) at which the rays of pixels (…, 2) enter a box and leave it; those that pass by leave first."""
    ahead = camera.back_project(pixels, np.ones(pixels.shape[:-1])) - camera.centre
    direction, origin = ahead @ box.rotation, box.local(camera.centre)
    direction = np.where(np.abs(direction) < 1e-12, 1e-12, direction)
    low, high = (-box.size / 2 - origin) / direction, (box.size / 2 - origin) / direction
    return np.minimum(low, high).max(axis=-1), np.maximum(low, high).min(axis=-1)


def hidden_share(box: OrientedBox, camera: Pinhole, depth: np.ndarray, tolerance: float = 0.02) -> float:
    """The share of a box's pixels in front of which something was measured, by `tolerance` of the depth; 1 without any.

    `depth` is (height, width), 0 where nothing was measured.
    """
    enter = entry_depth(box, camera)
    across = np.isfinite(enter)
    hiding = across & (depth > 0) & (depth < enter * (1 - tolerance))
    return float(hiding.sum() / across.sum()) if across.any() else 1.0


def on_surface(box: OrientedBox, points: np.ndarray, beyond: float = BEYOND, foot: float = FOOT) -> np.ndarray:
    """Whether points (…, 3) lie in the box or hardly beyond it, and above its foot: what it stands on does not."""
    return box.contains(points, margin=beyond * float(box.size.max())) & ~at_foot(box, points, foot)


def at_foot(box: OrientedBox, points: np.ndarray, foot: float = FOOT) -> np.ndarray:
    """Whether points (…, 3) lie below the height up to which a box's surroundings may reach in."""
    height = box.corners[:, 2]
    return points[..., 2] < height.min() + foot * np.ptp(height)


def visibility(box: OrientedBox, camera: Pinhole, depth: np.ndarray, mask: np.ndarray | None = None) -> Visibility:
    """How a box is seen in a view with a depth picture (height, width) and perhaps its mask of the same size."""
    near, around = _around(box, camera, depth)
    points = near.points(around)
    points = points[on_surface(box, points)]
    return Visibility(
        in_picture=in_picture(box, camera),
        hidden=hidden_share(box, near, around),
        points=len(points),
        hull=hull_volume(points) / box.volume if box.volume > 0 else 0.0,
        mask=None if mask is None else float(mask.mean()),
    )


def _around(box: OrientedBox, camera: Pinhole, depth: np.ndarray) -> tuple[Pinhole, np.ndarray]:
    """The part of a view in which a box, and what lies a little beyond it, is: all else is looked at in vain.

    One pixel at the border where the box is out of the picture.
    """
    larger = OrientedBox(box.centre, box.size + 2 * BEYOND * box.size.max(), box.rotation)
    pixels = np.clip(outline(larger, camera), 0, [camera.width, camera.height])
    if not len(pixels):
        pixels = np.zeros((1, 2))
    first = np.minimum(np.floor(pixels.min(axis=0)).astype(int), [camera.width - 1, camera.height - 1])
    (left, top), (right, bottom) = first, np.maximum(np.ceil(pixels.max(axis=0)).astype(int), first + 1)
    intrinsic = camera.intrinsic - [[0, 0, left], [0, 0, top], [0, 0, 0]]
    return Pinhole(intrinsic, camera.pose, right - left, bottom - top), depth[top:bottom, left:right]


def hull_volume(points: np.ndarray) -> float:
    """The volume of the convex hull of points (N, 3); 0 where they are fewer than four or lie in a plane."""
    spatial = extra("scipy.spatial")
    if len(points) < 4:
        return 0.0
    try:
        return float(spatial.ConvexHull(points).volume)
    except spatial.QhullError:
        return 0.0
