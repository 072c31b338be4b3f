"""nerfstudio's `transforms.json`: cameras that look along -z with y up, in a world with z up.

Beyond the format, as other readers pass over them: `instances_path` of a frame, a picture of objects' numbers; and at
the top `objects`, a list of {number, category, description, box (nine numbers), faces}, `metric`,
`depth_unit_scale_factor`, the length of one step of a depth picture (0.001), and `state_of`, the folder of the scene
that this is another state of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import JoyImageError
from ...settings import finite
from ..cameras import OPENGL, Pinhole
from ..oriented import OrientedBox
from ..scenes import Scene, SceneObject, View
from .common import fields_of, load_json, picture_size

FILE = "transforms.json"
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
STRAIGHT = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE")
UNIT = 0.001


def holds(path: Path) -> bool:
    """Whether a folder has a transforms.json, or a file is one."""
    return (path / FILE).is_file() or path.name == FILE


def read(path: Path) -> Iterator[Scene]:
    """The one scene of a folder. Raises `JoyImageError` for fields that are missing or of another kind, and lenses."""
    file = path if path.name == FILE else path / FILE
    values = load_json(file)
    with fields_of(file):
        scene = _scene(file, values)
    yield scene


def _scene(file: Path, values: Mapping[str, Any]) -> Scene:
    frames = sorted(values["frames"], key=lambda frame: frame["file_path"])
    if not frames:
        raise JoyImageError(f"{file} has no frames")
    return Scene(
        name=file.parent.name,
        views=tuple(_view(file, {**values, **frame}) for frame in frames),
        objects=tuple(_object(thing) for thing in values.get("objects", ())),
        metric=_flag(values, "metric"),
        source="nerfstudio",
        state_of=_name(values.get("state_of", "")),
    )


def _view(file: Path, frame: Mapping[str, Any]) -> View:
    name, folder = frame["file_path"], file.parent
    image = folder / name
    if not image.suffix:
        image = image.with_suffix(".png")
    bent = {key: frame[key] for key in DISTORTION if frame.get(key, 0) != 0}
    if bent or frame.get("camera_model", "OPENCV") not in STRAIGHT:
        model = frame.get("camera_model", "OPENCV")
        raise JoyImageError(f"{file}: {name} has a lens that bends lines ({model} {bent}); undistort its pictures")
    width, height = (int(frame["w"]), int(frame["h"])) if "w" in frame else picture_size(image)
    pose = np.array(frame["transform_matrix"], dtype=float)
    if pose.shape == (3, 4):
        pose = np.concatenate([pose, [[0, 0, 0, 1]]])
    return View(
        name=Path(name).stem,
        camera=Pinhole(_intrinsic(frame, width, height), pose @ OPENGL, width, height),
        image=image,
        depth=_optional(folder, frame, "depth_file_path"),
        depth_scale=1 / _positive(frame, "depth_unit_scale_factor", UNIT),
        instances=_optional(folder, frame, "instances_path"),
        ignored=_optional(folder, frame, "mask_path"),
    )


def _intrinsic(frame: Mapping[str, Any], width: int, height: int) -> np.ndarray:
    if (focal := frame.get("fl_x")) is None:
        focal = width / 2 / math.tan(frame["camera_angle_x"] / 2)
    vertical = frame.get("fl_y", focal)
    x, y = float(frame.get("cx", width / 2)), float(frame.get("cy", height / 2))
    return np.array([[focal, 0, x], [0, vertical, y], [0, 0, 1]], dtype=float)


def _positive(values: Mapping[str, Any], key: str, default: float) -> float:
    if not finite(value := values.get(key, default)) or value <= 0:
        raise TypeError(f"{key} is {value!r:.40} and must be a number above 0")
    return float(value)


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"state_of is {value!r:.40} and no name")
    return value


def _flag(values: Mapping[str, Any], key: str) -> bool:
    if not isinstance(value := values.get(key, False), bool):  # "no" would be taken for yes
        raise TypeError(f"{key} is {value!r:.40} and must be true or false")
    return value


def _optional(folder: Path, frame: Mapping[str, Any], key: str) -> Path | None:
    return folder / frame[key] if frame.get(key) else None


def _object(values: Mapping[str, Any]) -> SceneObject:
    box = OrientedBox.from_numbers(values["box"]) if values.get("box") is not None else None
    description = values.get("description", "")
    return SceneObject(int(values["number"]), values["category"], description, box, _flag(values, "faces"))
