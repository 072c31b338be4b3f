"""Measure lifting and camera motions on drawn scenes, whose truth is known: `python -m tools.tiny.lifting FOLDER`.

Scenes are written to the folder where they are missing. Round solids have no heading, so the true box of one is turned
as the lifted one. "Seen" is the share of an object's surface, without its foot, that some view shows.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial import ConvexHull

from joyimage import spatial
from joyimage.spatialdata.lifting import LiftedObject, Lifting, lift, lift_object, observations
from joyimage.spatialdata.motion import instruction, meeting_point, motion
from joyimage.spatialdata.oriented import OrientedBox
from joyimage.spatialdata.overlap import iou
from joyimage.spatialdata.readers import read_scenes
from joyimage.spatialdata.scenes import Scene, SceneObject, Sensed

from . import captures
from .render import SIDES
from .scenes import CONE, CYLINDER, KINDS, LOOK_AT, SPHERE, ZOOM

ROUND = tuple(KINDS[kind] for kind in (CYLINDER, CONE, SPHERE))
SEEN = 0.6
DEPTH_NOISE, MASK_NOISE = 0.01, 1
RIGHT = 0.5  # IoU from which on a lifted box is of the object
SAMPLES = 600  # points of an object's surface
PAIRS = 200


def surface(kind: int, half: np.ndarray, generator: np.random.Generator, count: int = SAMPLES) -> np.ndarray:
    """Points (count, 3), spread evenly, of a solid's surface without its foot, in its own axes from its middle."""
    turn = generator.uniform(0, 2 * np.pi, count)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    if kind == SPHERE:
        up = generator.uniform(-1, 1, count)
        points = np.column_stack([circle * np.sqrt(1 - up**2)[:, None], up])
    elif kind == CONE:
        down = np.sqrt(generator.uniform(0, 1, count))
        points = np.column_stack([circle * down[:, None], 1 - 2 * down])
    elif kind == CYLINDER:
        top = generator.uniform(0, 1, count) < half[0] / (half[0] + 4 * half[2])
        out = np.where(top, np.sqrt(generator.uniform(0, 1, count)), 1)
        points = np.column_stack([circle * out[:, None], np.where(top, 1, generator.uniform(-1, 1, count))])
    else:
        return _polytope(kind, half, generator, count)
    return points * half


def _polytope(kind: int, half: np.ndarray, generator: np.random.Generator, count: int) -> np.ndarray:
    normals = np.array([normal for normal, _ in SIDES[kind]], dtype=float)
    offsets = np.array([offset for _, offset in SIDES[kind]], dtype=float)
    corners = []
    for three in map(list, itertools.combinations(range(len(normals)), 3)):
        if abs(np.linalg.det(normals[three])) > 1e-9:
            corner = np.linalg.solve(normals[three], offsets[three])
            if (normals @ corner <= offsets + 1e-9).all():
                corners.append(corner * half)
    corners = np.array(corners)
    triangles = corners[ConvexHull(corners).simplices]
    triangles = triangles[triangles[..., 2].max(axis=1) > -half[2] + 1e-9]
    sides = triangles[:, 1:] - triangles[:, :1]
    area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    chosen = generator.choice(len(triangles), size=count, p=area / area.sum())
    u, v = np.sort(generator.uniform(0, 1, (2, count)), axis=0)
    return np.einsum("nk,nkd->nd", np.stack([u, v - u, 1 - v], axis=1), triangles[chosen])


def seen_share(thing: SceneObject, sensed: Sequence[Sensed], generator: np.random.Generator) -> float:
    """The share of an object's surface, without its foot, that some view shows."""
    assert thing.box is not None
    points = surface(KINDS.index(thing.category), thing.box.size / 2, generator)
    points = points @ thing.box.rotation.T + thing.box.centre
    shown = np.zeros(len(points), dtype=bool)
    for view in sensed:
        rows, columns, distance, inside = view.camera.index(points)
        own = view.instances[rows, columns] == thing.number
        shown |= inside & own & (distance <= 1.03 * view.depth[rows, columns])
    return float(shown.mean())


def disturbed(scene: Scene, generator: np.random.Generator) -> Scene:
    """The scene with noise on each depth, and each pixel's mask taken from up to a pixel beside it."""
    views = []
    for view in scene.views:
        sensed = view.sensed()
        depth = sensed.depth * (1 + DEPTH_NOISE * generator.standard_normal(sensed.depth.shape))
        rows, columns = np.indices(depth.shape)
        down, right = generator.integers(-MASK_NOISE, MASK_NOISE + 1, (2, *depth.shape))
        rows, columns = np.clip(rows + down, 0, len(depth) - 1), np.clip(columns + right, 0, depth.shape[1] - 1)
        views.append(replace(view, depth=depth.astype(np.float32), instances=sensed.instances[rows, columns]))
    return replace(scene, views=tuple(views))


def overlap(lifted: OrientedBox, thing: SceneObject, *, strict: bool = False) -> float:
    """IoU with the true box, which is turned as the lifted one where the solid is round, unless `strict`."""
    truth = thing.box
    assert truth is not None
    if thing.category in ROUND and not strict:
        truth = OrientedBox.upright(truth.centre, truth.size, lifted.heading)
    return iou(lifted, truth)


def wrongly_merged(
    scene: Scene, sensed: Sequence[Sensed], generator: np.random.Generator, settings: Lifting
) -> list[bool]:
    """Whether boxes stay that are of two objects, as the masks are of one in some views and of another in the rest."""
    kept = []
    for first, second in itertools.combinations(scene.objects, 2):
        exchanged = generator.permutation(np.arange(len(sensed)) < generator.integers(1, len(sensed)))
        numbers = np.where(exchanged, second.number, first.number)
        views = [observations([view], number)[0] for view, number in zip(sensed, numbers, strict=True)]
        one = lift_object(SceneObject(1, "object"), views, settings)
        if one and max(overlap(one.thing.box, first), overlap(one.thing.box, second)) < RIGHT:
            kept.append(one.kept)
    return kept


def measure(scenes: Sequence[Scene], seed: int = 0) -> dict:
    """IoU and cycle consistency, with exact and with disturbed depth and masks."""
    found = {"exact": [], "disturbed": []}
    merged = {"exact": [], "disturbed": []}
    unchecked = Lifting(votes=0.0)  # the other views' votes would mend most of what is merged wrongly
    for i, scene in enumerate(scenes):
        generator = np.random.default_rng([seed, i])
        truth = {thing.number: thing for thing in scene.objects}
        exact = [view.sensed() for view in scene.views]
        shares = {number: seen_share(thing, exact, generator) for number, thing in truth.items()}
        bare = scene.with_objects(tuple(replace(thing, box=None) for thing in scene.objects))
        for name, version in (("exact", bare), ("disturbed", disturbed(bare, generator))):
            lifted = {one.thing.number: one for one in lift(version).found}
            for number, thing in truth.items():
                found[name].append((thing, shares[number], lifted.get(number)))
            sensed = exact if name == "exact" else [view.sensed() for view in version.views]
            merged[name] += wrongly_merged(scene, sensed, generator, unchecked)
    return {name: _summary(found[name], merged[name]) for name in found}


def _summary(found: list[tuple[SceneObject, float, LiftedObject | None]], merged: list[bool]) -> dict:
    well = [(thing, one) for thing, share, one in found if share >= SEEN]
    kinds: dict[str, list[float]] = {}
    values, strict = [], []
    for thing, one in well:
        box = one.thing.box if one else None
        values.append(overlap(box, thing) if box else 0.0)
        strict.append(overlap(box, thing, strict=True) if box else 0.0)
        kinds.setdefault(thing.category, []).append(values[-1])
    right = [one.kept for thing, _, one in found if one and overlap(one.thing.box, thing) >= RIGHT]
    return {
        "objects": len(found),
        "well seen": len(well),
        "mean IoU": round(float(np.mean(values)), 4),
        "mean IoU, headings of round solids too": round(float(np.mean(strict)), 4),
        "5th percentile": round(float(np.percentile(values, 5)), 4),
        "mean IoU by kind": {kind: round(float(np.mean(each)), 4) for kind, each in sorted(kinds.items())},
        "right boxes": len(right),
        "right boxes kept": round(float(np.mean(right)), 4),
        "wrongly merged": len(merged),
        "wrongly merged dropped": round(1 - float(np.mean(merged)), 4) if merged else None,
    }


def motions(scenes: Sequence[Scene], pairs: int = PAIRS, seed: int = 0) -> dict:
    """Pairs of views: the motion and the sentence against the cameras that the scenes were drawn with."""
    generator = np.random.default_rng(seed)
    said, worst, wrong, silent = 0, 0.0, 0, 0
    while said < pairs:
        scene = scenes[generator.integers(len(scenes))]
        first, second = (scene.views[i].camera for i in generator.permutation(len(scene.views))[:2])
        target = meeting_point([view.camera for view in scene.views])
        move = motion(first, second, target)
        assert move is not None and target is not None
        before, after = (_true_camera(camera.centre) for camera in (first, second))
        yaw, pitch = (after[0] - before[0] + 180) % 360 - 180, after[1] - before[1]
        factor = after[2] / before[2]
        off = [abs((move.yaw - yaw + 180) % 360 - 180), abs(move.pitch - pitch), 100 * abs(move.distance / factor - 1)]
        worst = max(worst, *off)
        told = instruction(move)
        if told is None:
            silent += 1
            continue
        said += 1
        wrong += not _agrees(told, yaw, pitch, factor)
    return {
        "pairs said": said,
        "not said": silent,
        "sentences wrong": wrong,
        "worst degrees or percent": round(worst, 5),
    }


def _true_camera(eye: np.ndarray) -> tuple[float, float, float]:
    """Azimuth and elevation in degrees and the distance, as `scenes.axes` takes them."""
    x, y, z = eye - LOOK_AT
    distance = float(np.linalg.norm(eye - LOOK_AT))
    return float(np.degrees(np.arctan2(x, -y))), float(np.degrees(np.arcsin(z / distance))), distance


def _agrees(told: spatial.Camera, yaw: float, pitch: float, factor: float) -> bool:
    """Whether a sentence, read back, says the true motion: in whole degrees, by the bundled model's factor of zooms."""
    read = spatial.parse(told.text).instruction
    if not isinstance(read, spatial.Camera):
        return False
    turned = abs((read.yaw - yaw + 180) % 360 - 180) <= 0.51 and abs(read.pitch - pitch) <= 0.51
    return turned and abs(ZOOM[read.zoom] / factor - 1) < 0.01


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    captures.make(options.folder, options.count, options.seed)
    scenes = list(itertools.islice(read_scenes(options.folder), options.count))
    views = sum(len(scene.views) for scene in scenes)
    found = {"scenes": len(scenes), "views": views, **measure(scenes, options.seed), "motions": motions(scenes)}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
