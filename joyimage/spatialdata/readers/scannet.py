"""ScanNet's exports: the folders that its reader of `.sens` files writes, and pictures, depth and poses side by side.

    scene0000_00/color/0.jpg  depth/0.png  pose/0.txt  intrinsic/intrinsic_color.txt, intrinsic_depth.txt
    scene0000_00/instance-filt/0.png (numbers of objects, 0 for none)  scene0000_00.aggregation.json  scene0000_00.txt
    scene0000_00/00000.jpg  00000.png (depth)  00000.txt (pose)  intrinsic.txt, perhaps depth_intrinsic.txt

Objects come without boxes: lift them. Views whose pose was lost (infinite) are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import JoyImageError
from ..cameras import Pinhole
from ..pictures import picture_size
from ..scenes import Scene, SceneObject, View
from .common import load_intrinsics, load_json, load_matrix, load_text, pictures_in
from .fields import LARGEST, NUMBERS, Fields, told_of

MASKS = ("instance-filt", "instance")


def holds(path: Path) -> bool:
    """Whether a folder is one scene in either form."""
    exported = (path / "color").is_dir() and (path / "pose").is_dir()
    return exported or ((path / "intrinsic.txt").is_file() and any(path.glob("*.jpg")))


def read(path: Path) -> Iterator[Scene]:
    """The one scene of a folder. Raises `JoyImageError` for files that are missing or of another kind."""
    aligned = _alignment(path)
    views = _exported(path, aligned) if (path / "color").is_dir() else _side_by_side(path, aligned)
    if not views:
        raise JoyImageError(f"{path}: no picture has a pose")
    objects = tuple(_objects(path))
    with told_of(path):
        scene = Scene(path.name, tuple(views), objects, metric=True, source="scannet", file=str(path))
    yield scene


def _exported(path: Path, aligned: np.ndarray) -> list[View]:
    intrinsic = load_intrinsics(path / "intrinsic" / "intrinsic_color.txt")
    depth_intrinsic = load_intrinsics(path / "intrinsic" / "intrinsic_depth.txt")
    masks = next((path / name for name in MASKS if (path / name).is_dir()), None)
    views = []
    for image in pictures_in(path / "color"):
        camera = _camera(image, intrinsic, path / "pose" / f"{image.stem}.txt", aligned)
        instances = masks / f"{image.stem}.png" if masks else None
        depth = path / "depth" / f"{image.stem}.png"
        if camera is not None:
            views.append(View(image.stem, camera, image, depth, instances, depth_intrinsic=depth_intrinsic))
    return views


def _side_by_side(path: Path, aligned: np.ndarray) -> list[View]:
    intrinsic = load_intrinsics(path / "intrinsic.txt")
    other = path / "depth_intrinsic.txt"
    depth_intrinsic = load_intrinsics(other) if other.is_file() else None
    views = []
    for image in pictures_in(path):
        depth = image.with_suffix(".png")
        camera = _camera(image, intrinsic, image.with_suffix(".txt"), aligned) if image != depth else None
        if camera is not None:
            views.append(View(image.stem, camera, image, depth, depth_intrinsic=depth_intrinsic))
    return views


def _camera(image: Path, intrinsic: np.ndarray, pose: Path, aligned: np.ndarray) -> Pinhole | None:
    """None where the pose was lost."""
    matrix = load_matrix(pose, lost=True)
    if not np.isfinite(matrix).all():
        return None
    size = picture_size(image)
    with told_of(pose):
        return Pinhole(intrinsic, aligned @ matrix, *size)


def _alignment(path: Path) -> np.ndarray:
    """From the scan's axes to those of its room, (4, 4), where the scan's text file has them."""
    file = path / f"{path.name}.txt"
    for line in load_text(file).splitlines() if file.is_file() else ():
        key, _, numbers = line.partition("=")
        if key.strip() == "axisAlignment":
            return _rigid(numbers, file)
    return np.eye(4)


def _rigid(numbers: str, file: Path) -> np.ndarray:
    try:
        matrix = np.array(numbers.split(), dtype=float).reshape(4, 4)
    except ValueError:
        matrix = np.full((4, 4), np.inf)
    if not (np.abs(matrix) <= LARGEST).all():
        raise JoyImageError(f"{file}: axisAlignment is {numbers.strip()!r:.60}; it must be 16 finite numbers")
    return matrix


def _objects(path: Path) -> Iterator[SceneObject]:
    """From the aggregation: an object's number in the masks is its `objectId` and 1."""
    file = next(iter(sorted(path.glob("*.aggregation.json"), key=lambda file: len(file.name))), None)
    if file is None:
        return
    for group in Fields(load_json(file), str(file)).records("segGroups"):
        yield SceneObject(group.whole("objectId", 0, NUMBERS - 1) + 1, group.text("label"))
