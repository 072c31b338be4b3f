"""Pinhole cameras: from the world to pixels and back."""

from __future__ import annotations

import numbers
from dataclasses import dataclass

import numpy as np

from ..errors import JoyImageError
from .oriented import as_numbers, nearest_rotation

NEAR = 1e-6  # depth below which a point counts as behind the camera
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # between a camera that looks along -z with y up, and ours; its own inverse


@dataclass(frozen=True, eq=False)
class Pinhole:
    """`intrinsic` (3, 3) in pixels, `pose` (4, 4) from the camera to the world, and the picture's size.

    A pose whose rotation is rounded gets the nearest one. `JoyImageError` for matrices of another shape, that are not
    finite, and a pose that does more than move rigidly.
    """

    intrinsic: np.ndarray
    pose: np.ndarray
    width: int
    height: int

    def __post_init__(self):
        intrinsic, pose = as_numbers(self.intrinsic, "a camera's intrinsics"), as_numbers(self.pose, "a camera's pose")
        intrinsic = intrinsic[:3, :3] if intrinsic.ndim == 2 else intrinsic
        if intrinsic.shape != (3, 3) or not np.isfinite(intrinsic).all() or (np.diag(intrinsic) <= 0).any():
            raise JoyImageError(f"a camera's intrinsics are a (3, 3) matrix of pixels, not {intrinsic.tolist()}")
        if not all(isinstance(side, numbers.Integral) and side >= 1 for side in (self.width, self.height)):
            raise JoyImageError(f"a camera's picture of {self.width}x{self.height} has no whole number of pixels")
        if pose.shape != (4, 4) or not np.isfinite(pose).all() or not np.allclose(pose[3], [0, 0, 0, 1]):
            raise JoyImageError(f"a camera's pose is a finite (4, 4) matrix that ends in 0 0 0 1, not {pose.tolist()}")
        if (turn := nearest_rotation(pose[:3, :3])) is None:
            raise JoyImageError(f"a camera's pose is a rotation and a translation, without scale; not {pose.tolist()}")
        pose = pose.copy()
        pose[:3, :3] = turn
        object.__setattr__(self, "intrinsic", intrinsic)
        object.__setattr__(self, "pose", pose)

    @property
    def centre(self) -> np.ndarray:
        """Where the camera is, (3,)."""
        return self.pose[:3, 3]

    @property
    def forward(self) -> np.ndarray:
        """The direction in which it looks, (3,)."""
        return self.pose[:3, 2]

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points (…, 3) -> pixels (…, 2) and depth (…). Pixels are not a number behind the camera."""
        local = (np.asarray(points, dtype=float) - self.pose[:3, 3]) @ self.pose[:3, :3]
        depth = local[..., 2]
        safe = np.where(depth > NEAR, depth, np.nan)[..., None]
        return (local @ self.intrinsic.T)[..., :2] / safe, depth

    def back_project(self, pixels: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Pixels (…, 2) at depth (…) -> world points (…, 3)."""
        ahead = np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1)
        local = (ahead @ np.linalg.inv(self.intrinsic).T) * np.asarray(depth, dtype=float)[..., None]
        return local @ self.pose[:3, :3].T + self.pose[:3, 3]

    def points(self, depth: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """The world points (N, 3) of a depth picture (height, width), or of those in a mask, row by row."""
        measured = depth > 0 if mask is None else (depth > 0) & mask
        rows, columns = np.nonzero(measured)
        return self.back_project(np.stack([columns, rows], axis=-1) + 0.5, depth[measured])

    def index(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rows and columns of the pixels that show world points (N, 3), their depth, and whether they are inside.

        Outside the picture, row and column are 0.
        """
        pixels, depth = self.project(points)
        with np.errstate(invalid="ignore"):
            inside = (pixels >= 0).all(-1) & (pixels[..., 0] < self.width) & (pixels[..., 1] < self.height)
        columns, rows = np.floor(np.where(inside[..., None], pixels, 0)).astype(int).T
        return rows, columns, depth, inside

    def resized(self, width: int, height: int) -> Pinhole:
        """The same camera with a picture of another size that shows the same."""
        scale = np.diag([width / self.width, height / self.height, 1.0])
        return Pinhole(scale @ self.intrinsic, self.pose, width, height)


def field_of_view(intrinsic: np.ndarray, width: int, height: int) -> tuple[float, float]:
    """Horizontal and vertical field of view in degrees, of a camera whose axis meets the picture's middle."""
    half = np.arctan([width / 2 / intrinsic[0, 0], height / 2 / intrinsic[1, 1]])
    return float(np.degrees(2 * half[0])), float(np.degrees(2 * half[1]))


def looking_at(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The pose (4, 4) of a camera at `eye` that looks at `target` and does not roll; straight up or down it fails."""
    forward = np.asarray(target, dtype=float) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    if np.linalg.norm(right) < NEAR:
        raise JoyImageError("a camera that looks straight up or down has no side that is up")
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(forward, right), forward, eye], axis=1)
    return pose
