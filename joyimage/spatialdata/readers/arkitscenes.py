"""ARKitScenes' scans for object detection, as they are downloaded.

    40753679/40753679_3dod_annotation.json
    40753679/40753679_frames/lowres_wide/40753679_6845.707.png  lowres_depth/  lowres_wide_intrinsics/*.pincam
    40753679/40753679_frames/lowres_wide.traj

Names end in times in seconds. A trajectory's line is a time, a rotation from the world as an axis times an angle, and a
translation. Boxes' axes are the rows of `normalizedAxes`. There are no masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import JoyImageError
from ..cameras import Pinhole
from ..oriented import OrientedBox, axis_angle
from ..scenes import Scene, SceneObject, View
from .common import centred, load_json, load_matrix, load_numbers, pictures_in
from .fields import LARGEST, SIDE, Fields, lens, told_of

LATE = 0.02  # seconds by which a pose, depth or intrinsics may be of another moment than a picture


def holds(path: Path) -> bool:
    """Whether a folder is a scan, or the frames of one."""
    return (_frames(path) / "lowres_wide.traj").is_file()


def read(path: Path) -> Iterator[Scene]:
    """The one scene of a folder. Raises `JoyImageError` for files that are missing or of another kind."""
    frames = _frames(path)
    times, poses = _trajectory(frames / "lowres_wide.traj")
    depths = _by_time(frames / "lowres_depth", ".png")
    lenses = _by_time(frames / "lowres_wide_intrinsics", ".pincam")
    views = []
    for image in pictures_in(frames / "lowres_wide"):
        moment = _time(image)
        nearest = int(np.abs(times - moment).argmin())
        lens = _nearest(lenses, moment)
        if abs(times[nearest] - moment) <= LATE and lens is not None:
            views.append(View(image.stem, _camera(lens, poses[nearest]), image, _nearest(depths, moment)))
    if not views:
        raise JoyImageError(f"{path}: no picture has a pose and intrinsics of its time")
    objects = tuple(_objects(path))
    yield Scene(path.name, tuple(views), objects, metric=True, source="arkitscenes", file=str(path))


def _frames(path: Path) -> Path:
    return path / f"{path.name}_frames"


def _trajectory(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Times (N,) and poses (N, 4, 4) to the world."""
    lines = load_numbers(file)
    if lines.shape[1] != 7 or not (np.abs(lines) <= LARGEST).all():
        raise JoyImageError(
            f"{file} must have 7 finite numbers in each line: a time, a turn and a translation; it has {lines.shape[1]}"
            + ("" if lines.shape[1] != 7 else ", not all of them finite")
        )
    poses = np.tile(np.eye(4), (len(lines), 1, 1))
    for pose, line in zip(poses, lines, strict=True):
        turn = axis_angle(line[1:4]).T
        pose[:3, :3], pose[:3, 3] = turn, -turn @ line[4:]
    return lines[:, 0], poses


def _camera(file: Path, pose: np.ndarray) -> Pinhole:
    width, height, focal_x, focal_y, x, y = load_matrix(file, ((1, 6),))[0].tolist()
    if not (width.is_integer() and height.is_integer() and min(width, height) >= 1 and max(width, height) <= SIDE):
        raise JoyImageError(f"{file} begins with {width:g} and {height:g}; it must with a picture's width and height")
    intrinsic = centred(lens(np.array([[focal_x, 0, x], [0, focal_y, y], [0, 0, 1]]), file))
    with told_of(file):
        return Pinhole(intrinsic, pose, int(width), int(height))


def _by_time(folder: Path, suffix: str) -> list[tuple[float, Path]]:
    return sorted((_time(path), path) for path in folder.glob(f"*{suffix}"))


def _time(path: Path) -> float:
    try:
        return float(path.stem.rpartition("_")[2])
    except ValueError as error:
        raise JoyImageError(f"{path}: its name does not end in a time, as in 40753679_6845.707") from error


def _nearest(files: list[tuple[float, Path]], moment: float) -> Path | None:
    late, path = min(((abs(time - moment), path) for time, path in files), default=(np.inf, None))
    return path if late <= LATE else None


def _objects(path: Path) -> Iterator[SceneObject]:
    file = path / f"{path.name}_3dod_annotation.json"
    if not file.is_file():
        return
    for number, thing in enumerate(Fields(load_json(file), str(file)).records("data"), start=1):
        yield SceneObject(number, thing.text("label"), box=_box(thing.record("segments").record("obbAligned")))


def _box(found: Fields) -> OrientedBox:
    axes = found.numbers("normalizedAxes", (9,), (3, 3)).reshape(3, 3).T
    centre, size = found.numbers("centroid", (3,)), found.numbers("axesLengths", (3,))
    with told_of(found.place):
        return OrientedBox(centre, size, _right_handed(axes))


def _right_handed(axes: np.ndarray) -> np.ndarray:
    """Axes (3, 3), columns, with the last turned over for a mirror: the box is the same."""
    return axes * np.array([1.0, 1.0, np.sign(np.linalg.det(axes)) or 1.0])
