"""Poses from where things are: a stand-in for a pose estimator, for want of a network that is one.

Things are taken to stand on a plane below a camera that goes around the middle of the picture, as `judging` takes them.
Of all orbits the one is chosen that brings the things of the first picture nearest to where another picture has them.
So it tells a turn, a tilt and a zoom of a whole scene, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..judging import ELEVATION, FIELD_OF_VIEW, orbited
from .framing import Detection
from .viewpoint import Pose

if TYPE_CHECKING:
    from .tools import Detect

YAWS = np.arange(-180.0, 180.0, 15.0)
PITCHES = np.arange(-30.0, 31.0, 15.0)
FACTORS = np.geomspace(0.5, 2.0, 7)  # of the distance
HALVINGS = 4  # of the steps, after the grid
SIZE_WEIGHT = 0.5  # of a logarithm of a size, against a shift by the picture's side


@dataclass(frozen=True)
class Orbit:
    """A motion around the middle of the picture: degrees, and the factor of the distance."""

    yaw: float = 0.0
    pitch: float = 0.0
    factor: float = 1.0

    @property
    def pose(self) -> Pose:
        """In the world of the first picture, whose camera is 1 from the middle."""
        eye, axes = orbited(math.radians(self.yaw), ELEVATION + math.radians(self.pitch), self.factor)
        rotation = axes * np.array([[1.0], [-1.0], [1.0]])  # right, up and forward become right, down and forward
        return Pose(rotation, -rotation @ eye)


def estimate(detect: Detect, pictures: Sequence[Image.Image]) -> list[Pose] | None:
    """Poses of pictures in the world of the first; None where one shares no thing with it. A thing counts where its
    label occurs once in both.
    """
    sized = zip(detect(pictures), pictures, strict=True)
    first, *others = ([(each, picture.size) for each in found] for found, picture in sized)
    orbits = [Orbit(), *(_fitted(_shared(first, other)) for other in others)]
    return None if None in orbits else [orbit.pose for orbit in orbits if orbit is not None]


def _shared(first, second) -> np.ndarray:
    """Things of both, (N, 2, 4): middle x and y and sides, in halves of the width from the middle of the picture."""
    named = [_once(found) for found in (first, second)]
    labels = sorted(named[0].keys() & named[1].keys())
    return np.array([[_relative(*found[label]) for found in named] for label in labels]).reshape(-1, 2, 4)


def _once(found) -> dict[str, tuple[Detection, tuple[int, int]]]:
    labels = [detection.label for detection, _ in found]
    return {each[0].label: each for each in found if labels.count(each[0].label) == 1}


def _relative(detection: Detection, size: tuple[int, int]) -> tuple[float, float, float, float]:
    left, top, right, bottom = detection.box
    width, height = size
    middle = ((left + right - width) / width, (height - top - bottom) / width)
    return *middle, max(right - left, 1.0) / width, max(bottom - top, 1.0) / width


def _fitted(things: np.ndarray) -> Orbit | None:
    """The orbit of least cost: of a grid, then by steps that are halved. Without things there is none."""
    if not len(things):
        return None
    best = min((Orbit(yaw, pitch, factor) for yaw in YAWS for pitch in PITCHES for factor in FACTORS),
               key=lambda orbit: cost(orbit, things))  # fmt: skip
    step = Orbit(15.0, 15.0, FACTORS[1] / FACTORS[0])
    for _ in range(HALVINGS):
        step = Orbit(step.yaw / 2, step.pitch / 2, math.sqrt(step.factor))
        near = [
            Orbit(best.yaw + i * step.yaw, best.pitch + j * step.pitch, best.factor * step.factor**k)
            for i in (0, -1, 1)
            for j in (0, -1, 1)
            for k in (0, -1, 1)
        ]
        best = min(near, key=lambda orbit: cost(orbit, things))
    return best


def cost(orbit: Orbit, things: np.ndarray) -> float:
    """How far an orbit's things are from those that were seen, of `_shared`: the mean of shifts and sizes."""
    half = math.tan(FIELD_OF_VIEW / 2)
    eye, axes = orbited(0.0, ELEVATION, 1.0)
    u, v = things[:, 0, 0] * half, things[:, 0, 1] * half
    rays = u[:, None] * axes[0] + v[:, None] * axes[1] + axes[2]
    down = np.minimum(rays[:, 2], -1e-3)
    reach = np.minimum(-eye[2] / down, 3.0)  # what is above the horizon is far away
    points = eye + reach[:, None] * rays
    eye, axes = orbited(math.radians(orbit.yaw), ELEVATION + math.radians(orbit.pitch), orbit.factor)
    local = (points - eye) @ axes.T
    depth = np.maximum(local[:, 2], 0.05)
    middles = local[:, :2] / depth[:, None] / half
    shift = np.linalg.norm(middles - things[:, 1, :2], axis=1)
    growth = np.log(reach / depth) - np.log(things[:, 1, 2:] / things[:, 0, 2:]).mean(axis=1)
    return float(np.mean(shift + SIZE_WEIGHT * np.abs(growth)))
