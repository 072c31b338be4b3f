"""OpenSpatial's Parquet: one row for a picture, or one for a scene with lists in it.

Columns: image, depth_map, pose and intrinsic (text files of 4 x 4 numbers), depth_scale, obj_tags and
bboxes_3d_world_coords (nine numbers each); perhaps scene_id, masks (a file for each object), is_metric_depth. Rows of a
scene that follow each other are one scene. A box is the same object in every view, so it is what tells objects apart.
Paths are relative to the folder of the Parquet, or to one above it, where they are found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import JoyImageError, MissingFileError
from ..cameras import Pinhole
from ..extras import extra
from ..oriented import OrientedBox
from ..scenes import Scene, SceneObject, View
from .common import Found, centred, fields_of, load_matrix, picture_size

SUFFIX = ".parquet"
NEEDED = ("image", "depth_map", "pose", "intrinsic", "obj_tags", "bboxes_3d_world_coords")
LISTED = ("image", "depth_map", "pose", "intrinsic", "obj_tags", "bboxes_3d_world_coords", "masks")
ROWS = 64  # read at a time
ORDER = "ZXY"  # as its format documents the angles; its own code turns in the order zxy
SAME = 4  # decimals in which the boxes of one object agree


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
    for name, rows in groupby(_views(path), key=lambda row: row["scene"]):
        yield Found(name, partial(_scene, path, name, list(rows), order))


def _views(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of one picture each, with the scene that they are of."""
    parquet, arrow = extra("pyarrow.parquet"), extra("pyarrow")
    try:
        file = parquet.ParquetFile(path)
        if missing := [name for name in NEEDED if name not in file.schema_arrow.names]:
            raise JoyImageError(
                f"{path} has no column {', '.join(missing)}; OpenSpatial's rows have {', '.join(NEEDED)}"
            )
        rows = (row for batch in file.iter_batches(ROWS) for row in batch.to_pylist())
        for number, row in enumerate(rows):
            row["scene"] = str(row.get("scene_id") or row.get("id") or f"{path.stem}-{number}")
            yield from _flat(row)
    except (arrow.ArrowException, OSError) as error:
        raise JoyImageError(f"{path} is no Parquet that can be read ({error})") from error


def _flat(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row of a scene as one for each of its pictures; a row of a picture as it is."""
    if not isinstance(row["image"], list):
        yield dict(row)
        return
    lists = {name: row[name] for name in LISTED if row.get(name) is not None}
    if isinstance(row.get("depth_scale"), list):
        lists["depth_scale"] = row["depth_scale"]
    for i in range(len(row["image"])):
        yield {**row, **{name: values[i] for name, values in lists.items()}}


def _scene(path: Path, name: str, rows: list[dict[str, Any]], order: str) -> Scene:
    with fields_of(f"{path}, scene {name}"):
        return _joined(path, name, rows, order)


def _joined(path: Path, name: str, rows: list[dict[str, Any]], order: str) -> Scene:
    known: dict[tuple, SceneObject] = {}
    views = []
    for i, row in enumerate(rows):
        numbers = []
        for tag, box in zip(row["obj_tags"], row["bboxes_3d_world_coords"], strict=True):
            key = (tag, *np.round(box, SAME).tolist())
            known.setdefault(key, SceneObject(len(known) + 1, tag, box=OrientedBox.from_numbers(box, order)))
            numbers.append(known[key].number)
        views.append(_view(path, f"{name}-{i}", row, numbers))
    metric = all(row.get("is_metric_depth") in (None, True) for row in rows)
    return Scene(name, tuple(views), tuple(known.values()), metric=metric, source="openspatial")


def _view(path: Path, name: str, row: Mapping[str, Any], numbers: list[int]) -> View:
    image = _picture(path, row["image"])
    intrinsic = centred(load_matrix(_found(path, row["intrinsic"]), ((4, 4), (3, 3))))
    camera = Pinhole(intrinsic, load_matrix(_found(path, row["pose"])), *picture_size(image))
    masks = row.get("masks")
    instances = {n: _found(path, mask) for n, mask in zip(numbers, masks, strict=True)} if masks else None
    depth = _found(path, row["depth_map"]) if row["depth_map"] else None
    return View(name, camera, image, depth, instances, depth_scale=float(row.get("depth_scale") or 1000))


def _picture(path: Path, value: str | Mapping[str, Any]) -> Path | bytes:
    """A picture is a path, or as Hugging Face's data sets keep it: bytes, with the path that they had."""
    if isinstance(value, Mapping):
        return bytes(value["bytes"]) if value.get("bytes") else _found(path, value["path"])
    return _found(path, value)


def _found(path: Path, name: str) -> Path:
    """A file that a row names. Raises `JoyImageError` where it is in none of the folders."""
    for folder in path.resolve().parents:
        if (folder / name).is_file():
            return folder / name
    raise MissingFileError(f"{path}: {name} is in neither its folder nor one above it")
