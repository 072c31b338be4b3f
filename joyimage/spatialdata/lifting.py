"""Boxes from instance masks and depth: clouds of each view, merged, cleaned by the other views, and fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import JoyImageError
from . import consistency
from .association import same_numbers
from .cameras import Pinhole
from .causes import Seen
from .clouds import QUIET, smooth_depth, without_outliers
from .consistency import Cycle, Observation
from .contradictions import contradiction
from .fitting import fit_box
from .scenes import Scene, SceneObject, Sensed, View

MaskMaker = Callable[[View], np.ndarray]  # -> numbers (h, w), 0 for none; they need not agree between views
DepthMaker = Callable[[View], np.ndarray]  # -> metres (h, w), 0 where unknown
PoseMaker = Callable[[Sequence[View]], Sequence[Pinhole]]  # -> a camera for each view


@dataclass(frozen=True)
class Lifting:
    """How boxes are lifted. `method` as in `fit_box`."""

    method: str = "upright"
    least: int = 30  # points that a box is fitted to
    most: int = 20_000  # points of an object, evenly left out beyond that
    surface: float = 0.03  # of its depth, within which a point lies on what a view measured there
    votes: float = 0.5  # of the views that see a point, in more of which it must lie in the mask
    neighbours: int = 10  # of a point, whose distances tell an outlier
    sigma: float = 3.0  # deviations above the mean; 2 takes the sides that all views see at a slant
    quiet_sigma: float = 5.0  # the same where depth has no noise, but edges may have points in between
    cycle: Cycle = field(default_factory=Cycle)


@dataclass(frozen=True, eq=False)
class LiftedObject:
    """A box and why it stays or not: its agreement with each view, None where that sees too little of it."""

    thing: SceneObject
    points: np.ndarray  # (N, 3) world points that the box was fitted to
    agreements: tuple[float | None, ...]
    kept: bool


@dataclass(frozen=True, eq=False)
class Lifted:
    """A scene with the boxes that stay, and all that were fitted."""

    scene: Scene
    found: tuple[LiftedObject, ...]


def lift(
    scene: Scene,
    settings: Lifting = Lifting(),
    *,
    masks: MaskMaker | None = None,
    depth: DepthMaker | None = None,
    poses: PoseMaker | None = None,
) -> Lifted:
    """Fit a box to each object of a scene from its masks and depth.

    masks, depth, poses: what makes them where the scene's files have none, or better ones. Numbers of made masks are
    brought together over the views by where their points lie; the objects then are called "object". Raises
    `JoyImageError` for a view without depth or masks, whatever cannot be read, and masks, depth and cameras that
    contradict each other.
    """
    if poses is not None:
        scene = _posed(scene, poses)
    sensed = [_sensed(view, masks, depth) for view in scene.views]
    if masks is not None:
        sensed = same_numbers(sensed, settings.surface)
    _check(scene, sensed, masks is None)
    categories = {} if masks is not None else {thing.number: thing for thing in scene.objects}
    found = []
    for number in _numbers(sensed):
        thing = categories.get(number, SceneObject(number, "object"))
        if (one := lift_object(thing, observations(sensed, number), settings)) is not None:
            found.append(one)
    kept = tuple(one.thing for one in found if one.kept)
    return Lifted(scene.with_objects(kept), tuple(found))


def unlifted(lifted: Lifted) -> str:
    """Why no box was lifted, in words; "" where one was."""
    if lifted.scene.objects:
        return ""
    if not lifted.found:
        return f"no box can be fitted: no object has {Lifting.least} measured points in its masks"
    best = max((value for one in lifted.found for value in one.agreements if value is not None), default=0.0)
    return (
        f"of {len(lifted.found)} boxes that were fitted none agrees with its masks in enough views (at best {best:.2f}"
        f", and {Cycle.agreement} is wanted); see that depth, poses and masks are of the same pictures"
    )


def _check(scene: Scene, sensed: Sequence[Sensed], numbered: bool) -> None:
    """numbered: whether numbers of masks are those of the scene's objects."""
    known = [thing.number for thing in scene.objects] if numbered else []
    things = tuple(SceneObject(number, "object") for number in known or _numbers(sensed))
    seen = [Seen(view, one.camera, one.depth, one.instances) for view, one in zip(scene.views, sensed, strict=True)]
    if told := contradiction(scene.with_objects(things), things, seen):
        raise JoyImageError(told)


def observations(sensed: Sequence[Sensed], number: int) -> list[Observation]:
    """How each view sees the object of one number."""
    return [Observation(view.camera, view.depth, view.instances == number) for view in sensed]


def lift_object(thing: SceneObject, seen: Sequence[Observation], settings: Lifting = Lifting()) -> LiftedObject | None:
    """The box of one object from its masks in all views; None where too few points are left for one."""
    smooth = [smooth_depth(one.depth, one.mask) for one in seen]
    quiet = [replace(one, depth=depth) for one, (depth, _) in zip(seen, smooth, strict=True)]
    noisy = max((noise for _, noise in smooth), default=0.0) >= QUIET
    points = merged_cloud(quiet, settings if noisy else replace(settings, sigma=settings.quiet_sigma))
    if len(points) < settings.least:
        return None
    box = fit_box(points, settings.method)
    values = tuple(consistency.agreements(box, quiet, settings.cycle))
    return LiftedObject(replace(thing, box=box), points, values, consistency.consistent(values, settings.cycle))


def merged_cloud(seen: Sequence[Observation], settings: Lifting = Lifting()) -> np.ndarray:
    """The points (N, 3) of an object from all views, without those that other views see beside its mask."""
    each = max(settings.least, settings.most // max(1, len(seen)))
    clouds = [without_outliers(_cloud(one, each), settings.neighbours, settings.sigma) for one in seen]
    points = np.concatenate([*clouds, np.zeros((0, 3))])
    shown, masked = np.zeros(len(points)), np.zeros(len(points))
    for one in seen:
        rows, columns, distance, inside = one.camera.index(points)
        surface = one.depth[rows, columns]
        on_surface = inside & (np.abs(distance - surface) <= settings.surface * surface)
        shown += on_surface
        masked += on_surface & one.mask[rows, columns]
    points = points[(masked > settings.votes * shown) | (shown <= 1)]
    return without_outliers(points, settings.neighbours, settings.sigma)


def _cloud(one: Observation, most: int) -> np.ndarray:
    points = one.camera.points(one.depth, one.mask)
    return points if len(points) <= most else points[np.linspace(0, len(points) - 1, most).astype(int)]


def _sensed(view: View, masks: MaskMaker | None, depth: DepthMaker | None) -> Sensed:
    if depth is not None:
        view = replace(view, depth=depth(view), depth_intrinsic=None)
    if masks is not None:
        view = replace(view, instances=masks(view))
    sensed = view.sensed()
    if sensed.instances is None:
        raise JoyImageError(f"view {view.name} has no instance masks; give what makes them, or masks in its scene")
    return sensed


def _posed(scene: Scene, poses: PoseMaker) -> Scene:
    cameras = poses(scene.views)
    if not isinstance(cameras, Sequence) or not all(isinstance(camera, Pinhole) for camera in cameras):
        raise JoyImageError(f"scene {scene.name}: poses must give a `Pinhole` for each view, in a list of them")
    if len(cameras) != len(scene.views):
        raise JoyImageError(f"scene {scene.name}: {len(cameras)} poses were made for {len(scene.views)} views")
    views = (replace(view, camera=camera) for view, camera in zip(scene.views, cameras, strict=True))
    return replace(scene, views=tuple(views))


def _numbers(sensed: Sequence[Sensed]) -> list[int]:
    found = [np.unique(view.instances) for view in sensed if view.instances is not None]
    return [int(number) for number in np.unique(np.concatenate([*found, np.zeros(1, int)])) if number > 0]
