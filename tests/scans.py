"""Scenes of boxes, as they would be measured, written in each format that scans come in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from joyimage.spatialdata.cameras import OPENGL, Pinhole
from joyimage.spatialdata.oriented import OrientedBox
from joyimage.spatialdata.visibility import entry_depth

HALF = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # from a pixel's corner to its middle
BEYOND = 60.0  # metres, from which on nothing is measured


@dataclass(frozen=True, eq=False)
class Shot:
    """A view: its picture (h, w, 3), depth in millimetres and numbers of objects (h, w)."""

    camera: Pinhole
    picture: np.ndarray
    depth: np.ndarray
    numbers: np.ndarray


@dataclass(frozen=True, eq=False)
class Thing:
    """An object, whose number is its place from 1."""

    category: str
    box: OrientedBox


def shoot(camera: Pinhole, things: Sequence[Thing]) -> Shot:
    """What a camera measures of boxes over the ground. Of one that it stands in it sees nothing."""
    columns, rows = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    ahead = camera.back_project(np.stack([columns, rows], -1), np.ones_like(rows)) - camera.centre
    with np.errstate(divide="ignore"):
        ground = np.where(ahead[..., 2] < 0, -camera.centre[2] / ahead[..., 2], np.inf)
    depths = np.array([ground, *(entry_depth(thing.box, camera) for thing in things)])
    depths = np.where(depths > 0, depths, np.inf)
    numbers = depths.argmin(axis=0)
    depth = depths.min(axis=0)
    measured = depth < BEYOND
    shade = np.stack([40 + 20 * numbers, 200 - 15 * numbers, np.full_like(numbers, 90)], -1)
    millimetres = np.where(measured, np.rint(1000 * np.where(measured, depth, 0)), 0)
    return Shot(camera, shade.astype(np.uint8), millimetres.astype(np.uint16), numbers.astype(np.uint8))


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def save_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def save_matrix(path: Path, matrix: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, matrix, fmt="%.9f")


def square(intrinsic: np.ndarray) -> np.ndarray:
    whole = np.eye(4)
    whole[:3, :3] = intrinsic
    return whole


def turn_vector(matrix: np.ndarray) -> np.ndarray:
    """The axis times the angle of a rotation below a half turn."""
    turn = np.arccos((np.trace(matrix) - 1) / 2)
    skew = matrix - matrix.T
    return turn / (2 * np.sin(turn)) * np.array([skew[2, 1], skew[0, 2], skew[1, 0]])


def nerfstudio(folder: Path, shots: Sequence[Shot], things: Sequence[Thing]) -> None:
    frames = []
    for i, shot in enumerate(shots):
        for name, array in (("images", shot.picture), ("depth", shot.depth), ("masks", shot.numbers)):
            save(folder / name / f"{i}.png", array)
        (fx, _, cx), (_, fy, cy), _ = shot.camera.intrinsic.tolist()
        files = {
            "file_path": f"images/{i}.png",
            "depth_file_path": f"depth/{i}.png",
            "instances_path": f"masks/{i}.png",
        }
        lens = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": shot.camera.width, "h": shot.camera.height}
        frames.append({**files, **lens, "transform_matrix": (shot.camera.pose @ OPENGL).tolist()})
    objects = [
        {"number": n, "category": thing.category, "box": list(thing.box.numbers)} for n, thing in enumerate(things, 1)
    ]
    save_text(folder / "transforms.json", json.dumps({"metric": True, "frames": frames, "objects": objects}))


def scannet(folder: Path, shots: Sequence[Shot], things: Sequence[Thing]) -> None:
    for i, shot in enumerate(shots):
        save(folder / "color" / f"{i}.jpg", shot.picture)
        save(folder / "depth" / f"{i}.png", shot.depth)
        save(folder / "instance-filt" / f"{i}.png", shot.numbers)
        save_matrix(folder / "pose" / f"{i}.txt", shot.camera.pose)
        for name in ("color", "depth"):
            save_matrix(folder / "intrinsic" / f"intrinsic_{name}.txt", square(shot.camera.intrinsic - HALF))
    groups = [{"objectId": n, "label": thing.category} for n, thing in enumerate(things)]
    save_text(folder / f"{folder.name}.aggregation.json", json.dumps({"segGroups": groups}))


def arkitscenes(folder: Path, shots: Sequence[Shot], things: Sequence[Thing]) -> None:
    frames, lines = folder / f"{folder.name}_frames", []
    for i, shot in enumerate(shots):
        name = f"{folder.name}_{100 + i}.000"
        save(frames / "lowres_wide" / f"{name}.png", shot.picture)
        save(frames / "lowres_depth" / f"{name}.png", shot.depth)
        (fx, _, cx), (_, fy, cy), _ = (shot.camera.intrinsic - HALF).tolist()
        lens = (shot.camera.width, shot.camera.height, fx, fy, cx, cy)
        save_text(frames / "lowres_wide_intrinsics" / f"{name}.pincam", " ".join(map(str, lens)))
        inverse = np.linalg.inv(shot.camera.pose)
        numbers = [100 + i, *turn_vector(inverse[:3, :3]), *inverse[:3, 3]]
        lines.append(" ".join(f"{number:.9f}" for number in numbers))
    save_text(frames / "lowres_wide.traj", "\n".join(lines))
    data = [{"label": thing.category, "segments": {"obbAligned": _aligned(thing.box)}} for thing in things]
    save_text(folder / f"{folder.name}_3dod_annotation.json", json.dumps({"data": data}))


def _aligned(box: OrientedBox) -> dict:
    axes = box.rotation.T.ravel().tolist()
    return {"centroid": box.centre.tolist(), "axesLengths": box.size.tolist(), "normalizedAxes": axes}


def openspatial(folder: Path, shots: Sequence[Shot], things: Sequence[Thing]) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = []
    for i, shot in enumerate(shots):
        save(folder / "rgb" / f"{i}.png", shot.picture)
        save(folder / "depth" / f"{i}.png", shot.depth)
        save_matrix(folder / f"pose{i}.txt", shot.camera.pose)
        save_matrix(folder / f"intrinsic{i}.txt", square(shot.camera.intrinsic - HALF))
        masks = [f"masks/{i}_{n}.png" for n in range(1, len(things) + 1)]
        for n, mask in enumerate(masks, 1):
            save(folder / mask, np.where(shot.numbers == n, 255, 0).astype(np.uint8))
        rows.append(
            {
                "scene_id": "room", "id": f"room-{i}", "image": f"rgb/{i}.png", "depth_map": f"depth/{i}.png",
                "pose": f"pose{i}.txt", "intrinsic": f"intrinsic{i}.txt", "depth_scale": 1000, "masks": masks,
                "obj_tags": [thing.category for thing in things], "is_metric_depth": True,
                "bboxes_3d_world_coords": [list(thing.box.numbers) for thing in things],
            }
        )  # fmt: skip
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "rows.parquet")


WRITERS = {"nerfstudio": nerfstudio, "scannet": scannet, "arkitscenes": arkitscenes, "openspatial": openspatial}
