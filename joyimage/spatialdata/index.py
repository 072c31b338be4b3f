"""The object-frame index: which object is visible in which view, how much of it, and what can be measured on it.

An object is one node in all views, known by its box. What questions and edit pairs need often is computed here once,
so that a question takes a fraction of a millisecond.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from ..errors import JoyImageError
from . import margins, polygons
from .cameras import Pinhole
from .causes import Seen
from .clouds import eroded, without_outliers
from .consistency import held
from .contradictions import contradiction
from .extras import extra
from .motion import rotation_between
from .pictures import sample
from .scenes import Scene, SceneObject, View
from .translations import Translations
from .visibility import Limits, visibility

STRUCTURE = {"ceiling", "floor", "wall"}
INNER = 2  # pixels from the edge of a mask, from which on a point surely is of the object
LIMITS = Limits()
SOME = 16  # of a cloud's points one, which bounds its distance from another
MOST = 20_000  # points of an object's cloud, evenly left out beyond that


@dataclass(frozen=True, eq=False)
class Frame:
    """What a view measured, on a grid that shows the same part as its picture.

    depth: (h, w) in metres, 0 where unknown. numbers: of objects, (h, w), 0 for none.
    """

    camera: Pinhole
    depth: np.ndarray
    numbers: np.ndarray

    def fraction(self, pixels: ArrayLike) -> np.ndarray:
        """Pixels (…, 2) of the grid as fractions of the picture's width and height."""
        return np.asarray(pixels, dtype=float) / [self.camera.width, self.camera.height]


@dataclass(frozen=True, eq=False)
class Sight:
    """An object in a view. All places are fractions of the picture's width and height.

    clear: whether it counts as visible, by `Limits`. share: of the picture that its mask covers. mask: cut to its box,
    whose first pixel is (row, column) `corner` of the frame. outline: (K, 2), the mask's convex hull. point: well
    inside the mask. inner: pixels (N, 2) of the frame, column and row, away from its edge. cloud: (N, 3) in the world.
    """

    clear: bool
    share: float
    box: tuple[float, float, float, float]
    corner: tuple[int, int]
    mask: np.ndarray
    outline: np.ndarray
    point: tuple[float, float]
    inner: np.ndarray
    cloud: np.ndarray


@dataclass(frozen=True, eq=False)
class SceneIndex:
    """Objects and views of a scene. Objects and views are counted from 0, in the scene's order, without structure.

    sights: by view and object, for every object with a pixel in a view. near, close: (views, objects), the depth up to
    which its nearest tenth reaches, and the distance from the camera of its nearest fifth; not a number where it is not
    clear. apart: (objects, objects), the least distance of their clouds of all views; infinite without clouds.
    turned: (views, views) degrees between the cameras' rotations.
    """

    scene: Scene
    things: tuple[SceneObject, ...]
    frames: tuple[Frame, ...]
    sights: dict[tuple[int, int], Sight]
    near: np.ndarray
    close: np.ndarray
    apart: np.ndarray
    turned: np.ndarray

    @cached_property
    def clear(self) -> tuple[tuple[int, ...], ...]:
        """The visible objects of each view."""
        return self._where(lambda sight: sight.clear)

    @cached_property
    def shown(self) -> tuple[tuple[int, ...], ...]:
        """The objects with any pixel in each view."""
        return self._where(lambda sight: True)

    @cached_property
    def views_of(self) -> tuple[tuple[int, ...], ...]:
        """The views in which each object is visible."""
        return tuple(tuple(v for v, inside in enumerate(self.clear) if n in inside) for n in range(len(self.things)))

    @cached_property
    def complete(self) -> tuple[bool, ...]:
        """Of each view, whether every object with a pixel there is visible, so that all it shows can be told."""
        return tuple(set(shown) == set(clear) for shown, clear in zip(self.shown, self.clear, strict=True))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Words that mean one object of the scene alone; empty for objects that have none."""
        described = Counter(thing.description.casefold() for thing in self.scene.objects)
        found = []
        for thing, single in zip(self.things, self.single, strict=True):
            alone = thing.description and described[thing.description.casefold()] == 1
            found.append(thing.description if alone else thing.category if single else "")
        return tuple(found)

    @cached_property
    def single(self) -> tuple[bool, ...]:
        """Of each object, whether no other of the scene is of its category."""
        tags = Counter(thing.category.casefold() for thing in self.scene.objects)
        return tuple(tags[thing.category.casefold()] == 1 for thing in self.things)

    @cached_property
    def size(self) -> np.ndarray:
        """Full extents of the boxes, (objects, 3)."""
        return np.array([thing.box.size for thing in self.things if thing.box]).reshape(-1, 3)

    @cached_property
    def volume(self) -> list[float]:
        return self.size.prod(axis=1).tolist()

    @cached_property
    def bottom_top(self) -> np.ndarray:
        """Heights of the lowest and the highest corner of each box, (objects, 2)."""
        corners = np.array([thing.box.corners[:, 2] for thing in self.things if thing.box]).reshape(-1, 8)
        return np.stack([corners.min(axis=1), corners.max(axis=1)], axis=1)

    def _where(self, holds) -> tuple[tuple[int, ...], ...]:
        found: list[list[int]] = [[] for _ in self.frames]
        for (v, n), sight in sorted(self.sights.items()):
            if holds(sight):
                found[v].append(n)
        return tuple(map(tuple, found))


def called(index: SceneIndex, translations: Translations, language: str) -> SceneIndex:
    """The index with its objects called by the words of a language.

    A category without a word stays as it is; a description without one is left out. Names are unique by these words.
    """
    if not translations:
        return index

    def named(thing: SceneObject) -> SceneObject:
        category = translations.word(thing.category, language) or thing.category
        description = thing.description and translations.words(thing.description, thing.category, language)
        return replace(thing, category=category, description=description or "")

    scene = index.scene.with_objects(tuple(map(named, index.scene.objects)))
    return replace(index, scene=scene, things=tuple(map(named, index.things)))


def index_scene(scene: Scene, limits: Limits = LIMITS) -> SceneIndex:
    """The index of a scene whose objects have boxes and whose views have depth. Without instance masks, an object is
    what was measured within its box.

    Raises `JoyImageError` for objects without boxes, which are to be lifted first, what cannot be read, and depth,
    boxes, masks and cameras that contradict each other.
    """
    if bare := [thing.number for thing in scene.objects if thing.box is None]:
        raise JoyImageError(f"scene {scene.name}: objects {bare} have no box; lift the scene first")
    things = _things(scene)
    frames = tuple(_frame(view, things) for view in scene.views)
    _check(scene, things, frames)
    sights = {}
    for v, frame in enumerate(frames):
        for n, thing in enumerate(things):
            if (sight := _sight(frame, thing, limits)) is not None:
                sights[v, n] = sight
    near, close = _nearest(frames, sights, len(things))
    turned = np.array([[rotation_between(a.camera, b.camera) for b in frames] for a in frames])
    return SceneIndex(scene, things, frames, sights, near, close, _apart(frames, sights, things), turned)


def check_scene(scene: Scene) -> None:
    """Raise `JoyImageError` where depth, boxes, masks and cameras of a scene contradict each other."""
    things = _things(scene)
    boxed = tuple(thing for thing in things if thing.box is not None)
    _check(scene, things, tuple(_frame(view, boxed) for view in scene.views))


def _things(scene: Scene) -> tuple[SceneObject, ...]:
    return tuple(thing for thing in scene.objects if thing.category.casefold() not in STRUCTURE)


def _check(scene: Scene, things: tuple[SceneObject, ...], frames: tuple[Frame, ...]) -> None:
    seen = [
        Seen(view, frame.camera, frame.depth, None if view.instances is None else frame.numbers)
        for view, frame in zip(scene.views, frames, strict=True)
    ]
    if told := contradiction(scene, things, seen):
        raise JoyImageError(told)


def _frame(view: View, things: tuple[SceneObject, ...]) -> Frame:
    sensed = view.sensed()
    height, width = sensed.depth.shape
    camera, depth, numbers = view.camera.resized(width, height), sensed.depth, sensed.instances
    if numbers is None:
        numbers = np.zeros(depth.shape, dtype=np.int32)
        # What is smaller lies in what is larger, or before it: it comes last.
        for thing in sorted(things, key=lambda thing: -thing.box.volume if thing.box else 0.0):
            assert thing.box is not None
            numbers[held(thing.box, sensed.camera, depth)] = thing.number
    if not np.allclose(camera.intrinsic, sensed.camera.intrinsic):
        depth, numbers = sample(depth, sensed.camera, camera), sample(numbers, sensed.camera, camera)
    return Frame(camera, depth, numbers)


def _sight(frame: Frame, thing: SceneObject, limits: Limits) -> Sight | None:
    mask = frame.numbers == thing.number
    if not mask.any():
        return None
    assert thing.box is not None
    rows, columns = np.nonzero(mask)
    top, left = int(rows.min()), int(columns.min())
    bottom, right = int(rows.max()) + 1, int(columns.max()) + 1
    cut = mask[top:bottom, left:right]
    share = float(mask.mean())
    clear = share >= limits.mask and visibility(thing.box, frame.camera, frame.depth, mask).passes(limits)
    inner, point = _inside(cut)
    offset = np.array([left, top])
    box = frame.fraction([[left, top], [right, bottom]]).ravel()
    return Sight(
        clear=clear,
        share=share,
        box=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
        corner=(top, left),
        mask=cut,
        outline=frame.fraction(polygons.hull(_pixel_corners(rows, columns))),
        point=tuple(frame.fraction(offset + point + 0.5).tolist()),
        inner=inner + offset,
        cloud=without_outliers(frame.camera.points(frame.depth, mask)) if clear else np.zeros((0, 3)),
    )


def _pixel_corners(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The corners (N, 2) of the first and last pixel of each row of a mask: all that its hull needs."""
    first = np.flatnonzero(np.diff(rows, prepend=-1))
    last = np.append(first[1:], len(rows)) - 1
    ends = np.concatenate([np.stack([columns[first], rows[first]], 1), np.stack([columns[last] + 1, rows[last]], 1)])
    return np.concatenate([ends, ends + np.array([0, 1])])


def _inside(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 2) of a mask away from its edge, perhaps none, and one (2,) of those deepest inside."""
    left, inner, depth = np.pad(mask, 1), np.zeros((0, 2), dtype=int), 0
    while (following := eroded(left)).any():
        left, depth = following, depth + 1
        if depth == INNER:
            inner = np.argwhere(left)[:, ::-1] - 1
    deepest = np.argwhere(left)[:, ::-1] - 1
    return inner, deepest[np.abs(deepest - deepest.mean(axis=0)).sum(axis=1).argmin()]


def _nearest(frames: tuple[Frame, ...], sights: dict, count: int) -> tuple[np.ndarray, np.ndarray]:
    near, close = np.full((2, len(frames), count), np.nan)
    for (v, n), sight in sights.items():
        if len(sight.cloud):
            camera = frames[v].camera
            offset = sight.cloud - camera.centre
            near[v, n] = np.quantile(offset @ camera.forward, 0.1)
            close[v, n] = np.quantile(np.linalg.norm(offset, axis=1), 0.2)
    return near, close


def _apart(frames: tuple[Frame, ...], sights: dict[tuple[int, int], Sight], things) -> np.ndarray:
    """Infinite, too, where it hangs on what was cleaned away: where all points tell clearly another distance."""
    everything: dict[int, list[np.ndarray]] = {n: [] for n in range(len(things))}
    clean: dict[int, list[np.ndarray]] = {n: [] for n in range(len(things))}
    for (v, n), sight in sights.items():
        everything[n].append(frames[v].camera.points(frames[v].depth, frames[v].numbers == things[n].number))
        clean[n].append(sight.cloud)
    apart, raw = _distances(clean), _distances(everything)
    with np.errstate(invalid="ignore"):
        sure = np.abs(apart - raw) <= np.maximum(margins.TOLERANCE * raw, margins.LEAST_TOLERANCE) / 2
    return np.where(sure, apart, np.inf)


def _distances(clouds: dict[int, list[np.ndarray]]) -> np.ndarray:
    spatial, count = extra("scipy.spatial"), len(clouds)
    trees = []
    for n in range(count):
        cloud = np.concatenate([np.zeros((0, 3)), *clouds[n]])
        cloud = cloud if len(cloud) <= MOST else cloud[np.linspace(0, len(cloud) - 1, MOST).astype(int)]
        trees.append(spatial.cKDTree(cloud) if len(cloud) else None)
    apart = np.full((count, count), np.inf)
    for i, first in enumerate(trees):
        for j, second in enumerate(trees[:i]):
            if first is not None and second is not None:
                # No farther than the nearest of some: the rest is found a few times faster.
                bound = np.nextafter(first.query(second.data[::SOME])[0].min(), np.inf)
                apart[i, j] = apart[j, i] = first.query(second.data, distance_upper_bound=bound)[0].min()
    return apart
