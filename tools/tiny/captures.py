"""Drawn scenes as posed pictures with depth, masks and their truth: `python -m tools.tiny.captures OUT --count 300`.

Each scene is a folder in nerfstudio's format that `joyimage.spatialdata` reads. Its cameras stand around one point, at
steps of yaw and pitch and zooms that the bundled model knows. One unit of a scene counts as a metre. With `--states`
each scene is followed by another state of it, in which one of its objects has moved or turned.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from joyimage.spatialdata.cameras import OPENGL
from joyimage.spatialdata.oriented import OrientedBox

from . import scenes as world
from .render import NOTHING, measure, render
from .scenes import CAR, FIELD_OF_VIEW, KINDS, SIZE, SLOTS, ZOOM, Scenes
from .tasks import HIGHEST, LOWEST, PITCHES

FEWEST, MOST = 4, 8  # views of a scene
STEP = 15  # degrees between two yaws
UNIT = 0.001  # of depth pictures


def shoot(scene: Scenes, generator: np.random.Generator, count: int) -> Scenes:
    """One scene, seen `count` times: as it was drawn, then from other yaws that all differ, pitches and zooms."""
    yaw = generator.permutation(np.arange(1, 360 // STEP))[: count - 1] * STEP
    pitches = [pitch for pitch in PITCHES if LOWEST <= scene.camera[0, 1] + pitch <= HIGHEST]
    pitch = generator.choice(pitches, size=count - 1)
    zoom = generator.choice(len(ZOOM), p=[0.2, 0.5, 0.3], size=count - 1)
    first = np.repeat(scene.camera, count, axis=0)
    moved = world.moved_camera(first[1:], yaw, pitch, zoom)
    views = scene[np.zeros(count, int)]
    return replace(views, camera=np.concatenate([first[:1], moved]))


def poses(camera: np.ndarray) -> np.ndarray:
    """Cameras (N, 3) as poses (N, 4, 4) to the world: x right, y down, z forward."""
    eye, basis = world.axes(camera)
    pose = np.tile(np.eye(4), (len(camera), 1, 1))
    right, up, forward = basis.transpose(1, 0, 2)
    pose[:, :3] = np.stack([right, -up, forward, eye], axis=-1)
    return pose


def true_box(scene: Scenes, slot: int) -> OrientedBox:
    """The oriented box of one object of the first of `scene`."""
    half = scene.half[0, slot]
    return OrientedBox.upright([*scene.place[0, slot], half[2]], 2 * half, np.radians(scene.yaw[0, slot]))


def write(folder: Path, views: Scenes, size: int = 2 * SIZE, state_of: str = "") -> None:
    """Write one scene, given as its views, to a folder: pictures of `size` pixels, depth, masks and transforms.json.

    state_of: the name of the folder of the scene that this is another state of.
    """
    pixels = render(views, size=size).pixels
    depth, slots = measure(views, size)
    for name in ("images", "depth", "instances"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    numbers = np.where(slots == NOTHING, 0, slots + 1).astype(np.uint8)
    for i in range(len(views)):
        name = f"{i:03d}.png"
        Image.fromarray(pixels[i]).save(folder / "images" / name)
        Image.fromarray(np.rint(depth[i] / UNIT).astype(np.uint16)).save(folder / "depth" / name)
        Image.fromarray(numbers[i]).save(folder / "instances" / name)
    # Last, as its presence makes the folder a scene.
    state = {"state_of": state_of} if state_of else {}
    (folder / "transforms.json").write_text(json.dumps({**state, **_transforms(views, size)}, indent=1))


def _transforms(views: Scenes, size: int) -> dict:
    focal = size / 2 / np.tan(np.radians(FIELD_OF_VIEW / 2))
    frames = [
        {
            "file_path": f"images/{i:03d}.png",
            "depth_file_path": f"depth/{i:03d}.png",
            "instances_path": f"instances/{i:03d}.png",
            "transform_matrix": (pose @ OPENGL).tolist(),
        }
        for i, pose in enumerate(poses(views.camera))
    ]
    objects = [
        {
            "number": slot + 1,
            "category": KINDS[views.kind[0, slot]],
            "description": views.name(0, slot),
            "box": list(true_box(views, slot).numbers),
            "faces": bool(views.kind[0, slot] == CAR),
        }
        for slot in range(SLOTS)
        if views.present[0, slot]
    ]
    camera = {"fl_x": focal, "fl_y": focal, "cx": size / 2, "cy": size / 2, "w": size, "h": size}
    return {**camera, "metric": True, "depth_unit_scale_factor": UNIT, "objects": objects, "frames": frames}


def make(
    output: Path,
    count: int,
    seed: int = 0,
    size: int = 2 * SIZE,
    shares: Sequence[float] = (0, 1, 0, 0),
    states: bool = False,
    views: tuple[int, int] = (FEWEST, MOST),
) -> None:
    """Write `count` scenes, each from its own seed; those that are there stay.

    shares: of scenes with one, two, three and four objects. states: write another state of each scene, too, beside it.
    views: of a scene, at least and at most.
    """
    for i in range(count):
        name = f"scene{i:05d}"
        folders = [output / name, output / f"{name}-after"][: 1 + states]
        if all((folder / "transforms.json").exists() for folder in folders):
            continue
        generator = np.random.default_rng([seed, i])
        numbers = np.eye(SLOTS)[generator.choice(SLOTS, p=shares)] if max(shares) < 1 else np.array(shares)
        scene = world.draw(1, generator, numbers=numbers)
        number = int(generator.integers(views[0], views[1] + 1))
        shown = changed(scene, generator, number) if states else [shoot(scene, generator, number)]
        for folder, state, before in zip(folders, shown, ("", name), strict=False):
            write(folder, state, size, before)


def changed(scene: Scenes, generator: np.random.Generator, count: int) -> tuple[Scenes, Scenes]:
    """A scene of one, seen `count` times, and the same views after the object of slot 0 has moved or turned."""
    before = shoot(scene, generator, count)
    while True:
        if scene.kind[0, 0] == CAR:
            after = before.with_slot(0, yaw=scene.yaw[0, 0] + generator.uniform(45, 315))
        else:
            after = before.with_slot(0, place=generator.uniform((-1.8, -1.6), (1.8, 1.9)))
        if world.valid(after[:1])[0]:
            return before, after


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=2 * SIZE, help="pixels of a picture's side")
    parser.add_argument("--states", action="store_true", help="write another state of each scene, too")
    options = parser.parse_args(arguments)
    make(options.output, options.count, options.seed, options.size, states=options.states)


if __name__ == "__main__":
    main()
