"""Viewpoint error: how far a picture's camera is from the one that was asked for (SpatialEdit-Bench's VE)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import JoyImageError

LEAST_BASELINE = 1e-3  # of the estimator's unit of length: what moves less has no direction to be wrong in
RIGHT_ANGLE = 90.0
TOLERANCE = 1e-3  # by which a rotation may fail to be one


@dataclass(frozen=True, eq=False)
class Pose:
    """A camera from world to camera: x_camera = `rotation` (3, 3) @ x_world + `translation` (3,).

    Axes are OpenCV's (x right, y down, z forward); the unit of length is the estimator's own, the same in all pictures
    of one call. Raises `JoyImageError` for other shapes, and for what is no rotation.
    """

    rotation: np.ndarray
    translation: np.ndarray

    def __post_init__(self):
        try:
            rotation, translation = np.asarray(self.rotation, float), np.asarray(self.translation, float)
        except (TypeError, ValueError):
            raise JoyImageError("a pose is a rotation (3, 3) and a translation (3,), of numbers alone") from None
        if rotation.shape != (3, 3) or translation.shape != (3,) or not np.isfinite(translation).all():
            raise JoyImageError(
                f"a pose is a rotation (3, 3) and a translation (3,), not {rotation.shape} and {translation.shape}"
            )
        if not np.allclose(rotation @ rotation.T, np.eye(3), atol=TOLERANCE) or np.linalg.det(rotation) < 0:
            raise JoyImageError("a pose's rotation is no rotation: its rows must be right-handed, of length 1, square")
        object.__setattr__(self, "rotation", rotation)
        object.__setattr__(self, "translation", translation)

    @property
    def centre(self) -> np.ndarray:
        """Where the camera stands in the world, (3,)."""
        return -self.rotation.T @ self.translation


@dataclass(frozen=True)
class ViewpointErrors:
    """Of one picture: the camera's distance from the true one, over the way it should have gone, and the angle between
    the two in right angles. 0 is perfect; a camera that stayed where it was has a `distance` of 1.
    """

    distance: float
    rotation: float

    @property
    def value(self) -> float:
        return (self.distance + self.rotation) / 2


def viewpoint_error(source: Pose, truth: Pose, prediction: Pose) -> ViewpointErrors | None:
    """None where the true camera moves less than `LEAST_BASELINE`, so that nothing can be measured in its way."""
    baseline = float(np.linalg.norm(truth.centre - source.centre))
    if baseline < LEAST_BASELINE:
        return None
    distance = float(np.linalg.norm(prediction.centre - truth.centre)) / baseline
    return ViewpointErrors(distance, angle_between(truth.rotation, prediction.rotation) / RIGHT_ANGLE)


def angle_between(a: np.ndarray, b: np.ndarray) -> float:
    """The angle in degrees, 0 to 180, of the rotation that takes `a` (3, 3) to `b`."""
    relative = a.T @ b
    askew = relative - relative.T
    sine = math.hypot(askew[2, 1], askew[0, 2], askew[1, 0])  # twice the sine, as the trace less 1 is of the cosine
    return math.degrees(math.atan2(sine, float(np.trace(relative)) - 1))  # exact for the smallest angles too


def mean_viewpoint_error(errors: Sequence[ViewpointErrors]) -> dict[str, float] | None:
    """Means over pictures, by name, and VE, which is the mean of the two. None without any."""
    if not errors:
        return None
    distance = float(np.mean([error.distance for error in errors]))
    rotation = float(np.mean([error.rotation for error in errors]))
    return {"distance": distance, "rotation": rotation, "ve": (distance + rotation) / 2}
