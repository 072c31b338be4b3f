"""Oriented boxes: a centre, full extents along three axes, and a rotation.

As nine numbers: centre, extents, and three angles in radians about z, then about the turned x, then about the turned y,
so that the rotation is Rz(a) Rx(b) Ry(c). A box that stands upright has its heading in the first angle alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..errors import JoyImageError

SIGNS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)  # of the corners
EDGES = np.array([(i, j) for i in range(8) for j in range(i) if (SIGNS[i] != SIGNS[j]).sum() == 1])  # (12, 2)
ROUNDED = 1e-3  # by which a rotation's columns may differ from unit length and right angles
EXACT = 1e-12  # up to which they do for want of decimals alone
UPRIGHT = 1e-6  # how far the third axis of an upright box may lean


def as_numbers(values: ArrayLike, what: str) -> np.ndarray:
    """An array of floats. Raises `JoyImageError` for what is none, such as words and rows of several lengths."""
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError, OverflowError):
        raise JoyImageError(f"{what} must be numbers, not {values!r:.80}") from None


@dataclass(frozen=True, eq=False)
class OrientedBox:
    """`centre` (3,), `size` (3,) full extents, `rotation` (3, 3) whose columns are the box's axes in the world.

    A rotation that is rounded becomes the nearest one. `JoyImageError` for numbers that are not finite, extents below
    zero and a matrix that is no rotation.
    """

    centre: np.ndarray
    size: np.ndarray
    rotation: np.ndarray

    def __post_init__(self):
        for name, shape in (("centre", (3,)), ("size", (3,)), ("rotation", (3, 3))):
            value = as_numbers(getattr(self, name), f"a box's {name}")
            if value.shape != shape or not np.isfinite(value).all():
                raise JoyImageError(f"a box's {name} has {shape} finite numbers, not {value.tolist()}")
            object.__setattr__(self, name, value)
        if (self.size < 0).any():
            raise JoyImageError(f"a box's extents are 0 or more, not {self.size.tolist()}")
        if (turn := nearest_rotation(self.rotation)) is None:
            raise JoyImageError(f"a box's rotation is no rotation: {self.rotation.tolist()}")
        object.__setattr__(self, "rotation", turn)

    @classmethod
    def upright(cls, centre: ArrayLike, size: ArrayLike, heading: float = 0.0) -> OrientedBox:
        """A box with its third axis up, turned by `heading` radians, anticlockwise from above."""
        return cls(np.asarray(centre), np.asarray(size), rotation((heading, 0.0, 0.0)))

    @classmethod
    def from_numbers(cls, numbers: ArrayLike, order: str = "ZXY") -> OrientedBox:
        """From nine numbers. `order` as in `rotation`. Raises `JoyImageError` for another count of numbers."""
        values = as_numbers(numbers, "a box")
        if values.shape != (9,):
            raise JoyImageError(f"a box has nine numbers: centre, extents, angles; not {values.shape}")
        return cls(values[:3], values[3:6], rotation(values[6:], order))

    @property
    def numbers(self) -> tuple[float, ...]:
        """Nine numbers that `from_numbers` reads."""
        return (*self.centre.tolist(), *self.size.tolist(), *angles(self.rotation))

    @property
    def corners(self) -> np.ndarray:
        """(8, 3), in the order of `SIGNS`."""
        return self.centre + (SIGNS * self.size / 2) @ self.rotation.T

    @property
    def volume(self) -> float:
        return float(np.prod(self.size))

    @property
    def stands(self) -> bool:
        """Whether the third axis points straight up."""
        return bool(self.rotation[2, 2] > 1 - UPRIGHT)

    @property
    def heading(self) -> float:
        """Radians from the world's x to the first axis, anticlockwise from above, in (-pi, pi]."""
        return float(np.arctan2(self.rotation[1, 0], self.rotation[0, 0]))

    def local(self, points: np.ndarray) -> np.ndarray:
        """World points (…, 3) in the box's own axes, from its centre."""
        return (np.asarray(points, dtype=float) - self.centre) @ self.rotation

    def contains(self, points: np.ndarray, margin: float = 0.0) -> np.ndarray:
        """Whether points (…, 3) lie inside, or beyond by no more than `margin` (a negative one: deeper inside)."""
        return np.all(np.abs(self.local(points)) <= self.size / 2 + margin, axis=-1)

    def scaled(self, factor: float) -> OrientedBox:
        """The box with all extents times a factor."""
        return OrientedBox(self.centre, self.size * factor, self.rotation)

    def moved(self, pose: np.ndarray) -> OrientedBox:
        """The box after a rigid motion (4, 4), as from the world into a camera's frame."""
        return OrientedBox(pose[:3, :3] @ self.centre + pose[:3, 3], self.size, pose[:3, :3] @ self.rotation)


def rotation(turns: ArrayLike, order: str = "ZXY") -> np.ndarray:
    """A rotation (3, 3) from three angles in radians about the axes in `order`.

    Capital letters: about the axes as they have been turned, so "ZXY" is Rz Rx Ry. Small letters: about the world's
    axes one after the other, so "zxy" is Ry Rx Rz. Raises `JoyImageError` for another order.
    """
    if sorted(order.upper()) != ["X", "Y", "Z"] or not (order.isupper() or order.islower()):
        raise JoyImageError(f"an order of angles is x, y and z in capitals or in small letters, not {order!r}")
    about = zip(order.upper(), np.asarray(turns, dtype=float), strict=True)
    parts = [_about("XYZ".index(axis), angle) for axis, angle in about]
    first, second, third = parts if order.isupper() else reversed(parts)
    return first @ second @ third


def nearest_rotation(matrix: np.ndarray) -> np.ndarray | None:
    """The rotation (3, 3) that a rounded one stands for; None where it is none within `ROUNDED`.

    An exact one stays as it is. Without this, the products of two that each are within bounds would not be.
    """
    off = np.abs(matrix @ matrix.T - np.eye(3)).max()
    if off > ROUNDED or np.linalg.det(matrix) < 0:
        return None
    if off < EXACT:
        return matrix
    left, _, right = np.linalg.svd(matrix)
    return left @ right


def angles(matrix: np.ndarray) -> tuple[float, float, float]:
    """The three angles of `rotation` in the order ZXY; the second is in [-pi/2, pi/2]."""
    second = float(np.arcsin(np.clip(matrix[2, 1], -1, 1)))
    if abs(matrix[2, 1]) > 1 - 1e-12:  # first and third turn about one axis: all of it goes to the first
        return float(np.arctan2(matrix[1, 0], matrix[0, 0])), second, 0.0
    return float(np.arctan2(-matrix[0, 1], matrix[1, 1])), second, float(np.arctan2(-matrix[2, 0], matrix[2, 2]))


def axis_angle(vector: ArrayLike) -> np.ndarray:
    """A rotation (3, 3) by a vector: about its direction, by its length in radians."""
    direction = np.asarray(vector, dtype=float)
    turn = float(np.linalg.norm(direction))
    if turn < 1e-12:
        return np.eye(3)
    x, y, z = direction / turn
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(turn) * cross + (1 - np.cos(turn)) * (cross @ cross)


def _about(axis: int, angle: float) -> np.ndarray:
    vector = np.zeros(3)
    vector[axis] = angle
    return axis_angle(vector)
