"""What may be wrong where the files of a scene contradict each other: how each would be right, and its words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product
from pathlib import Path

import numpy as np

from .cameras import OPENGL, Pinhole
from .evidence import Glimpse
from .oriented import OrientedBox
from .pictures import MILLIMETRES
from .scenes import Scene, View

# Factors between units: metres, centimetres, millimetres, inches and feet, and steps of sensors' depth.
UNITS = tuple(a for b in (1000, 100, 10, 1 / 0.0254, 1 / 0.3048, 2.54, 5, 4, 3.90625, 2) for a in (b, 1 / b))
NEAR = 1.3  # factor up to which a measured one may be one of these


@dataclass(frozen=True)
class Names:
    """What a format calls what may be wrong."""

    depth: str = "depth of its views"
    pose: str = "pose of its views' cameras"
    lens: str = "intrinsic of its views' cameras"
    box: str = "box of its objects"
    masks: str = "instances of its views"


NAMES = {
    "nerfstudio": Names(
        "depth_file_path", "transform_matrix", "fl_x, fl_y, cx, cy, w and h", "box in objects", "instances_path"
    ),
    "scannet": Names("depth/*.png", "pose/*.txt", "intrinsic*.txt", "box", "instance masks"),
    "arkitscenes": Names("lowres_depth", "lowres_wide.traj", "lowres_wide_intrinsics", "obbAligned", "masks"),
    "openspatial": Names("depth_map with depth_scale", "pose", "intrinsic", "bboxes_3d_world_coords", "masks"),
}


def names_of(scene: Scene) -> Names:
    """What the format of a scene calls its parts."""
    return NAMES.get(scene.source, Names())


@dataclass(frozen=True, eq=False)
class Seen:
    """A view as it was measured: depth (h, w) in metres, and numbers of objects (h, w), None without masks."""

    view: View
    camera: Pinhole
    depth: np.ndarray
    numbers: np.ndarray | None


@dataclass(frozen=True)
class Change:
    """Something that may be wrong, and how it would be right. `told`: in words that begin a sentence."""

    told: str
    camera: Callable[[Pinhole], Pinhole] = lambda camera: camera
    depth: float = 1.0
    box: Callable[[OrientedBox], OrientedBox] = lambda box: box

    def of(self, glimpse: Glimpse) -> Glimpse:
        depth = glimpse.depth * self.depth if self.depth != 1 else glimpse.depth
        return replace(glimpse, camera=self.camera(glimpse.camera), depth=depth, box=self.box(glimpse.box))

    def of_view(self, seen: Seen) -> Seen:
        return replace(seen, camera=self.camera(seen.camera), depth=seen.depth * self.depth)


def changes(scene: Scene, seen: Sequence[Seen], measured: float | None) -> Iterator[Change]:
    """What is tried, the more likely first. measured: how many times too far depth seems, where that is known."""
    names = names_of(scene)
    yield from (_depth_change(names, scene, factor) for factor in UNITS if _about(factor, measured))
    yield from _poses(names)
    for size in _lens_factors(seen):
        told = f"{names.lens}: they are of pictures of another size: times {size:.3g},"
        yield Change(told, camera=lambda camera, size=size: _other_lens(camera, size))
    for factor in UNITS:
        told = f"{names.pose}: positions of cameras are {_times(factor)}: corrected,"
        yield Change(told, camera=lambda camera, factor=factor: _nearer(camera, factor))
    for factor in UNITS:
        told = f"{names.box}: centres and extents are {_times(factor)}: corrected,"
        yield Change(told, box=lambda box, factor=factor: _smaller(box, factor))
    if measured and not _about(measured, 1.0):
        yield _depth_change(names, scene, measured)


def _depth_change(names: Names, scene: Scene, factor: float) -> Change:
    return Change(f"{names.depth}: depth is {_times(factor)}{step(scene, factor)}: corrected,", depth=1 / factor)


def _about(factor: float, measured: float | None) -> bool:
    return not measured or 1 / NEAR <= factor / measured <= NEAR


def _times(factor: float) -> str:
    size = max(factor, 1 / factor)
    return (
        f"{size:,.0f} times too {'large' if factor > 1 else 'small'}"
        if size >= 100
        else (f"{size:.3g} times too {'large' if factor > 1 else 'small'}")
    )


def _poses(names: Names) -> Iterator[Change]:
    must = "it must lead from the camera to the world"
    yield Change(
        f"{names.pose}: its camera has y and z the other way round, as between OpenCV (z forward, y down) and OpenGL "
        "(z back, y up): with its second and third column negated,",
        camera=lambda camera: _posed(camera, camera.pose @ OPENGL),
    )
    for before, after in product((np.eye(4), OPENGL), repeat=2):
        yield Change(
            f"{names.pose}: {must}, and leads from the world to the camera: inverted,",
            camera=lambda camera, a=before, b=after: _posed(camera, np.linalg.inv(camera.pose @ a) @ b),
        )
    for turn in _turns():
        yield Change(
            f"{names.pose}: the world's axes are others than those of {names.box}; z must be up in both: with rows "
            f"x, y, z as {_axes(turn)},",
            camera=lambda camera, turn=turn: _posed(camera, turn @ camera.pose),
        )


def _turns() -> Iterator[np.ndarray]:
    """All rotations (4, 4) that take axes to axes, but for none."""
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        turn = np.eye(4)
        turn[:3, :3] = np.eye(3)[list(order)] * np.array(signs)[:, None]
        if np.linalg.det(turn) > 0 and not np.array_equal(turn, np.eye(4)):
            yield turn


def _axes(turn: np.ndarray) -> str:
    rows = [int(np.abs(row).argmax()) for row in turn[:3, :3]]
    return ", ".join(f"{'-' if turn[i, axis] < 0 else ''}{'xyz'[axis]}" for i, axis in enumerate(rows))


def _lens_factors(seen: Sequence[Seen]) -> list[float]:
    """By how much lenses would have to be larger, so that their axis meets the picture's middle, and usual ones."""
    camera = seen[0].camera
    across = camera.width / 2 / camera.intrinsic[0, 2] if camera.intrinsic[0, 2] > 0 else 1.0
    return [factor for factor in (across, 0.5, 2.0, 0.25, 4.0) if abs(factor - 1) > 0.1]


def _posed(camera: Pinhole, pose: np.ndarray) -> Pinhole:
    return Pinhole(camera.intrinsic, pose, camera.width, camera.height)


def _other_lens(camera: Pinhole, factor: float) -> Pinhole:
    return Pinhole(np.diag([factor, factor, 1]) @ camera.intrinsic, camera.pose, camera.width, camera.height)


def _nearer(camera: Pinhole, factor: float) -> Pinhole:
    pose = camera.pose.copy()
    pose[:3, 3] /= factor
    return _posed(camera, pose)


def _smaller(box: OrientedBox, factor: float) -> OrientedBox:
    return OrientedBox(box.centre / factor, box.size / factor, box.rotation)


def step(scene: Scene, factor: float | None = None) -> str:
    """What a step of depth is taken for, and what it would be if depth were `factor` times less."""
    view = scene.views[0]
    if not isinstance(view.depth, Path):
        return ""
    step = 1 / (MILLIMETRES if view.depth_scale is None else view.depth_scale)
    field = {"nerfstudio": "depth_unit_scale_factor", "openspatial": "depth_scale"}.get(scene.source)
    if field is None:
        wanted = f", and {step / factor:.3g} m would be right" if factor else ""
        return f", as a step of {view.depth.name} is taken for {step:.3g} m{wanted}"
    now, then = (step, step / (factor or 1)) if field != "depth_scale" else (1 / step, (factor or 1) / step)
    said = f"{field} {'is' if view.depth_scale is not None else 'is not given and taken for'} {now:.3g}"
    return f", as {said}{f'; {then:.3g} would be right' if factor else ''}"
