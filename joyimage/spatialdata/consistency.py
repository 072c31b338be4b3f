"""Cycle consistency: what a box holds in each view, against the masks of what it is said to be.

A box that was fitted to points of two things holds, in a view of either, pixels that its mask does not have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .cameras import Pinhole
from .oriented import OrientedBox
from .visibility import BEYOND, FOOT, at_foot, on_surface


@dataclass(frozen=True)
class Cycle:
    """When a box agrees with a view, and in how many views it must. `beyond` and `foot` as in `on_surface`."""

    beyond: float = BEYOND
    foot: float = FOOT
    agreement: float = 0.75  # shared pixels over joint ones, from which on a view agrees
    pixels: int = 20  # of a mask or of the box's content; a view with fewer does not count
    views: int = 2  # in which a box must agree; in one, where it is seen in one alone
    share: float = 0.7  # of the views that count


@dataclass(frozen=True, eq=False)
class Observation:
    """One view of a thing: the camera, its depth picture (height, width) and the thing's mask, empty where not seen."""

    camera: Pinhole
    depth: np.ndarray
    mask: np.ndarray


def held(box: OrientedBox, camera: Pinhole, depth: np.ndarray, cycle: Cycle = Cycle()) -> np.ndarray:
    """The pixels (height, width) whose measured points lie in the box, a little around it, and above its foot."""
    rows, columns = np.nonzero(depth > 0)
    inside = np.zeros(depth.shape, dtype=bool)
    inside[rows, columns] = on_surface(box, camera.points(depth), cycle.beyond, cycle.foot)
    return inside


def agreement(box: OrientedBox, observation: Observation, cycle: Cycle = Cycle()) -> float | None:
    """Shared over joint pixels of what the box holds and the mask, in [0, 1]; None where there is too little of both.

    Pixels of the mask without depth, and those at the box's foot, do not count.
    """
    camera, depth, mask = observation.camera, observation.depth, observation.mask
    rows, columns = np.nonzero(depth > 0)
    points, masked = camera.points(depth), mask[rows, columns]
    inside = on_surface(box, points, cycle.beyond, cycle.foot)
    masked = masked & ~at_foot(box, points, cycle.foot)
    joint = int((inside | masked).sum())
    return float((inside & masked).sum() / joint) if joint >= cycle.pixels else None


def agreements(box: OrientedBox, observations: Iterable[Observation], cycle: Cycle = Cycle()) -> list[float | None]:
    """`agreement` in each view."""
    return [agreement(box, observation, cycle) for observation in observations]


def consistent(values: Iterable[float | None], cycle: Cycle = Cycle()) -> bool:
    """Whether a box stays, from its agreement with each view: with most of the views that count, and with some."""
    counted = [value for value in values if value is not None]
    agreed = sum(value >= cycle.agreement for value in counted)
    return agreed >= min(cycle.views, max(1, len(counted))) and agreed >= cycle.share * len(counted)
