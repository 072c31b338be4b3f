"""How a camera moved between two views, in the model's words: yaw, pitch and zoom around what both look at.

Positive yaw goes around to the right, positive pitch up, and zoom in means nearer. The sentence has no words for a
camera that rolls, turns away or moves sideways.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..spatial import Camera
from .cameras import Pinhole

PARALLEL = 1e-4  # squared sine of the angle between axes that meet nowhere
STEEPEST = 85.0  # degrees of elevation, above which yaw says nothing


@dataclass(frozen=True)
class Motion:
    """A move from a first camera to a second, around `target`.

    yaw, pitch: degrees, yaw in (-180, 180]. distance: of the second from the target over that of the first.
    roll: degrees by which the second leans against the first. miss: how far an optical axis passes by the target, over
    that camera's distance, the larger of both. lens: change of the focal length over the picture's size, 1 or more.
    """

    yaw: float
    pitch: float
    distance: float
    roll: float
    miss: float
    lens: float
    target: tuple[float, float, float]


@dataclass(frozen=True)
class Sayable:
    """Which motions the sentence can say: what it has no words for is small, and a zoom is clear or none."""

    roll: float = 2.0  # degrees
    miss: float = 0.05
    lens: float = 1.02
    unchanged: float = 1.05  # factor of the distance up to which nothing has zoomed
    least: float = 1.15  # and from which on it has
    most: float = 1.45  # a larger one is more than one zoom
    smallest: float = 3.0  # degrees of yaw or pitch where the zoom is unchanged


def meeting_point(cameras: Sequence[Pinhole]) -> np.ndarray | None:
    """The point (3,) nearest to all optical axes; None where they are parallel, as of a camera that moves ahead."""
    forward = np.array([camera.forward for camera in cameras])
    centres = np.array([camera.centre for camera in cameras])
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]  # (N, 3, 3), away from each axis
    total = across.sum(axis=0)
    if np.linalg.eigvalsh(total)[0] < PARALLEL * len(cameras) / 2:
        return None
    return np.linalg.solve(total, np.einsum("nij,nj->i", across, centres))


def motion(first: Pinhole, second: Pinhole, target: np.ndarray | None = None) -> Motion | None:
    """How the camera moved from one view to the other around a world point or, without one, where both axes meet.

    None where no such point lies in front of both, or one looks straight down.
    """
    target = meeting_point((first, second)) if target is None else np.asarray(target, dtype=float)
    if target is None:
        return None
    if any(camera.forward @ (target - camera.centre) <= 0 for camera in (first, second)):
        return None
    before, after = _Orbit.of(first, target), _Orbit.of(second, target)
    if max(abs(before.elevation), abs(after.elevation)) > STEEPEST:
        return None
    return Motion(
        yaw=_turn(after.azimuth - before.azimuth),
        pitch=after.elevation - before.elevation,
        distance=after.distance / before.distance,
        roll=_turn(after.roll - before.roll),
        miss=max(before.miss, after.miss),
        lens=max(after.lens / before.lens, before.lens / after.lens),
        target=(float(target[0]), float(target[1]), float(target[2])),
    )


def instruction(move: Motion, sayable: Sayable = Sayable()) -> Camera | None:
    """The model's instruction for a motion, in whole degrees; None where the sentence cannot say it."""
    if abs(move.roll) > sayable.roll or move.miss > sayable.miss or move.lens > sayable.lens:
        return None
    zoomed = max(move.distance, 1 / move.distance)
    if zoomed > sayable.most or sayable.unchanged < zoomed < sayable.least:
        return None
    zoom = "unchanged" if zoomed <= sayable.unchanged else "in" if move.distance < 1 else "out"
    if zoom == "unchanged" and max(abs(move.yaw), abs(move.pitch)) < sayable.smallest:
        return None
    return Camera(round(move.yaw), round(move.pitch), zoom)


def rotation_between(first: Pinhole, second: Pinhole) -> float:
    """The angle in degrees, 0 to 180, by which one camera is turned against another."""
    cosine = (np.trace(first.pose[:3, :3].T @ second.pose[:3, :3]) - 1) / 2
    return math.degrees(math.acos(min(1.0, max(-1.0, float(cosine)))))


@dataclass(frozen=True)
class _Orbit:
    """A camera as seen from the target: degrees, the azimuth from the world's -y anticlockwise from above."""

    azimuth: float
    elevation: float
    distance: float
    roll: float
    miss: float
    lens: float

    @classmethod
    def of(cls, camera: Pinhole, target: np.ndarray) -> _Orbit:
        x, y, z = offset = camera.centre - target
        distance = float(np.linalg.norm(offset))
        right, down, forward = camera.pose[:3, :3].T
        level = np.cross(forward, [0.0, 0.0, 1.0])
        return cls(
            azimuth=math.degrees(math.atan2(x, -y)),
            elevation=math.degrees(math.asin(z / distance)),
            distance=distance,
            roll=math.degrees(math.atan2(float(down @ level), float(right @ level))),
            miss=float(np.linalg.norm(np.cross(forward, offset))) / distance,
            lens=float(camera.intrinsic[1, 1]) / camera.height,
        )


def _turn(degrees: float) -> float:
    """Brought into (-180, 180]."""
    turned = math.remainder(degrees, 360)
    return 180.0 if turned == -180 else turned
