"""OpenSpatial's Parquet: one row for a picture, or one for a scene with lists in it.

Columns: image, depth_map, pose and intrinsic (text files of 4 x 4 numbers), depth_scale, obj_tags and
bboxes_3d_world_coords (nine numbers each); perhaps scene_id, masks (a file for each object), is_metric_depth. Rows of a
scene that follow each other are one scene. A box is the same object in every view, so it is what tells objects apart.
Paths are relative to the folder of the Parquet, or to one above it, where they are found.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from ...errors import JoyImageError, MissingFileError
from ..cameras import Pinhole
from ..extras import extra
from ..oriented import OrientedBox
from ..pictures import picture_size
from ..scenes import Scene, SceneObject, View
from .common import Found, load_intrinsics, load_matrix
from .fields import Fields, shown, told_of

SUFFIX = ".parquet"
NEEDED = ("image", "depth_map", "pose", "intrinsic", "obj_tags", "bboxes_3d_world_coords")
LISTED = ("image", "depth_map", "pose", "intrinsic", "obj_tags", "bboxes_3d_world_coords", "masks")
KEPT = ("depth_scale", "is_metric_depth")  # of a row of a scene, what holds for all its pictures
ROWS = 64  # read at a time
ORDER = "ZXY"  # as its format documents the angles; its own code turns in the order zxy
SAME = 4  # decimals in which the boxes of one object agree


@dataclass(frozen=True)
class Row:
    """A picture of a scene, or why it has none."""

    scene: str
    fields: Fields
    error: JoyImageError | None = None


def holds(path: Path) -> bool:
    """Whether this is a Parquet file; a folder of them holds scenes."""
    return path.suffix == SUFFIX and path.is_file()


def read(path: Path, order: str = ORDER) -> Iterator[Scene]:
    """The scenes of a file, one by one. `order` of the angles as in `oriented.rotation`.

    Raises `JoyImageError` for a file that is no Parquet, columns that are missing, and files that are not found.
    """
    for found in find(path, order):
        yield found.read()


def find(path: Path, order: str = ORDER) -> Iterator[Found]:
    """The same scenes, not yet read. Raises `JoyImageError` for what is wrong with the whole file."""
    for name, rows in groupby(_views(path), key=lambda row: row.scene):
        yield Found(name, partial(_scene, path, name, list(rows), order))


def _views(path: Path) -> Iterator[Row]:
    """Rows of one picture each, with the scene that they are of."""
    parquet = extra("pyarrow.parquet")
    try:
        file = parquet.ParquetFile(path)
        if missing := [name for name in NEEDED if name not in file.schema_arrow.names]:
            raise JoyImageError(
                f"{path} has no column {', '.join(missing)}; OpenSpatial's rows have {', '.join(NEEDED)}"
            )
        rows = (row for batch in file.iter_batches(ROWS) for row in batch.to_pylist())
        for number, values in enumerate(rows):
            scene = str(values.get("scene_id") or values.get("id") or f"{path.stem}-{number}")
            fields = Fields(values, f"{path}, row {number + 1}, scene {scene}")
            try:
                yield from (Row(scene, each) for each in _flat(fields))
            except JoyImageError as error:
                yield Row(scene, fields, error)
    except (JoyImageError, MemoryError):
        raise
    except Exception as error:  # for damaged data PyArrow raises its own, Python's and the system's
        raise JoyImageError(
            f"{path} is no Parquet that can be read: it is damaged or cut short; get it again"
        ) from error


def _flat(row: Fields) -> Iterator[Fields]:
    """A row of a scene as one for each of its pictures; a row of a picture as it is."""
    if not isinstance(row.raw("image"), list):
        yield row
        return
    names = [name for name in LISTED if row.has(name)]
    names += ["depth_scale"] if isinstance(row.raw("depth_scale"), list) else []
    lists = {name: row.items(name) for name in names}
    count = len(lists["image"])
    if uneven := [name for name, values in lists.items() if len(values) != count]:
        raise row.fault(uneven[0], f"a list of {count}, one for each picture in image")
    for i in range(count):
        own = {name: values[i] for name, values in lists.items()}
        kept = {name: row.raw(name) for name in KEPT if name not in own}
        yield Fields({**kept, **own}, f"{row.place}, picture {i + 1}")


def _scene(path: Path, name: str, rows: list[Row], order: str) -> Scene:
    known: dict[tuple, SceneObject] = {}
    views = []
    for i, row in enumerate(rows):
        if row.error is not None:
            raise row.error
        numbers = [_number(known, *thing) for thing in _things(row.fields, order)]
        views.append(_view(path, f"{name}-{i}", row.fields, numbers))
    metric = all(row.fields.flag("is_metric_depth", True) for row in rows)
    file = f"{path}, scene {name}"
    return Scene(name, tuple(views), tuple(known.values()), metric=metric, source="openspatial", file=file)


def _things(row: Fields, order: str) -> Iterator[tuple[str, OrientedBox]]:
    """The tag and box of each object of a row."""
    tags, boxes = row.items("obj_tags"), row.items("bboxes_3d_world_coords")
    if len(tags) != len(boxes):
        raise row.fault("bboxes_3d_world_coords", f"a list of {len(tags)}, as obj_tags is")
    for i, values in enumerate(zip(tags, boxes, strict=True)):
        thing = Fields(
            dict(zip(("obj_tags", "bboxes_3d_world_coords"), values, strict=True)), f"{row.place}, object {i + 1}"
        )
        yield thing.text("obj_tags"), thing.box("bboxes_3d_world_coords", order)


def _number(known: dict[tuple, SceneObject], tag: str, box: OrientedBox) -> int:
    """Of the object that the box is, which becomes known."""
    key = (tag, *np.round(box.numbers, SAME).tolist())
    return known.setdefault(key, SceneObject(len(known) + 1, tag, box=box)).number


def _view(path: Path, name: str, row: Fields, numbers: list[int]) -> View:
    image = _picture(path, row)
    intrinsic, pose = load_intrinsics(_found(path, row, "intrinsic")), _found(path, row, "pose")
    matrix = load_matrix(pose)
    with told_of(row.place):
        size = picture_size(image)
    with told_of(pose):
        camera = Pinhole(intrinsic, matrix, *size)
    depth = _found(path, row, "depth_map") if row.raw("depth_map") not in (None, "") else None
    scale = row.number("depth_scale", above=0) if row.has("depth_scale") else None
    return View(name, camera, image, depth, _masks(path, row, numbers), depth_scale=scale)


def _masks(path: Path, row: Fields, numbers: list[int]) -> dict[int, Path] | None:
    masks = row.items("masks") if row.has("masks") else []
    if masks and len(masks) != len(numbers):
        raise row.fault("masks", f"a list of {len(numbers)}, as obj_tags is, or empty")
    files = (Fields({"masks": mask}, f"{row.place}, object {i + 1}") for i, mask in enumerate(masks))
    return {number: _found(path, file, "masks") for number, file in zip(numbers, files, strict=True)} if masks else None


def _picture(path: Path, row: Fields) -> Path | bytes:
    """A picture is a path, or as Hugging Face's data sets keep it: bytes, with the path that they had."""
    if isinstance(row.raw("image"), str):
        return _found(path, row, "image")
    image = row.record("image")
    if not isinstance(data := image.raw("bytes"), bytes | None):
        raise image.fault("bytes", "the bytes of a picture's file")
    return data or _found(path, image, "path")


def _found(path: Path, row: Fields, key: str) -> Path:
    """A file that a row names. Raises `JoyImageError` where it is in none of the folders."""
    name = row.path(key, "the folder of its Parquet, or one above it")
    for folder in path.resolve().parents:
        with suppress(OSError):  # a name that the system has no room for
            if (folder / name).is_file():
                return folder / name
    raise MissingFileError(
        f"{row.place}: {key} is {shown(name)}, which is in neither the folder of {path.name} nor one above"
    )
