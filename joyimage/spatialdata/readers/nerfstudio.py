"""nerfstudio's `transforms.json`: cameras that look along -z with y up, in a world with z up.

Beyond the format, as other readers pass over them: `instances_path` of a frame, a picture of objects' numbers; and at
the top `objects`, a list of {number, category, description, box (nine numbers), faces}, `metric`,
`depth_unit_scale_factor`, the length of one step of a depth picture (0.001), and `state_of`, the folder of the scene
that this is another state of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

import numpy as np

from ...errors import JoyImageError
from ..cameras import OPENGL, Pinhole
from ..pictures import picture_size
from ..scenes import Scene, SceneObject, View
from .common import load_json
from .fields import FOCAL, NUMBERS, SIDE, Fields, told_of

FILE = "transforms.json"
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
STRAIGHT = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE")


def holds(path: Path) -> bool:
    """Whether a folder has a transforms.json, or a file is one."""
    return (path / FILE).is_file() or path.name == FILE


def read(path: Path) -> Iterator[Scene]:
    """The one scene of a folder. Raises `JoyImageError` for fields that are missing or of another kind, and lenses."""
    file = path if path.name == FILE else path / FILE
    values = Fields(load_json(file), str(file))
    frames = [(frame.path("file_path"), frame) for frame in values.records("frames")]
    if not frames:
        raise JoyImageError(f"{file} has no frames")
    things = values.records("objects") if values.has("objects") else []
    views = tuple(_view(file.parent, name, frame.below(values)) for name, frame in sorted(frames, key=itemgetter(0)))
    objects, metric, state_of = tuple(map(_object, things)), values.flag("metric"), values.text("state_of", "")
    with told_of(file):
        scene = Scene(file.parent.name, views, objects, metric, "nerfstudio", state_of, str(file))
    yield scene


def _view(folder: Path, name: str, frame: Fields) -> View:
    frame = frame.at(name)
    image = folder / name
    if not image.suffix:
        image = image.with_suffix(".png")
    _check_lens(frame)
    size = (frame.whole("w", 1, SIDE), frame.whole("h", 1, SIDE)) if frame.has("w") else picture_size(image)
    pose = frame.numbers("transform_matrix", (4, 4), (3, 4))
    pose = pose if len(pose) == 4 else np.concatenate([pose, [[0, 0, 0, 1]]])
    intrinsic = _intrinsic(frame, *size)
    with told_of(frame.place):
        camera = Pinhole(intrinsic, pose @ OPENGL, *size)
    return View(
        name=Path(name).stem,
        camera=camera,
        image=image,
        depth=_optional(folder, frame, "depth_file_path"),
        depth_scale=_scale(frame),
        instances=_optional(folder, frame, "instances_path"),
        ignored=_optional(folder, frame, "mask_path"),
    )


def _check_lens(frame: Fields) -> None:
    bent = {key: frame.raw(key) for key in DISTORTION if frame.has(key) and frame.raw(key) != 0}
    model = frame.text("camera_model", STRAIGHT[0])
    if bent or model not in STRAIGHT:
        raise JoyImageError(f"{frame.place}: its lens bends lines ({model} {bent!r:.100}); undistort its pictures")


def _intrinsic(frame: Fields, width: int, height: int) -> np.ndarray:
    if frame.has("fl_x"):
        focal = frame.number("fl_x", above=FOCAL)
    else:
        angle = frame.number("camera_angle_x", above=0)
        if angle >= math.pi:
            raise frame.fault("camera_angle_x", "an angle in radians below pi")
        focal = width / 2 / math.tan(angle / 2)
    vertical = frame.number("fl_y", focal, above=FOCAL)
    x, y = frame.number("cx", width / 2), frame.number("cy", height / 2)
    return np.array([[focal, 0, x], [0, vertical, y], [0, 0, 1]])


def _scale(frame: Fields) -> float | None:
    """What numbers of depth are divided by, where the file says it."""
    unit = "depth_unit_scale_factor"
    return 1 / frame.number(unit, above=0) if frame.named(unit) else None


def _optional(folder: Path, frame: Fields, key: str) -> Path | None:
    return folder / frame.path(key) if frame.has(key) else None


def _object(thing: Fields) -> SceneObject:
    number, category, description = (
        thing.whole("number", 1, NUMBERS),
        thing.text("category"),
        thing.text("description", ""),
    )
    box = thing.box("box") if thing.has("box") else None
    return SceneObject(number, category, description, box, thing.flag("faces"))
