"""The tasks the bundled model learns: pairs of pictures with the product's own instructions, made from scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from joyimage import spatial
from joyimage.spatial import VIEWS, ZOOMS

from . import scenes as world
from .render import Rendered, mask_boxes, render
from .scenes import (
    CAR,
    COLOUR_NAMES,
    CROWDED,
    DISTANCE,
    GROUND_NAMES,
    KINDS,
    NUMBERS,
    SIZE,
    SLOTS,
    TEXTURES,
    Scenes,
)

CHANGED = 14  # levels of 255 from which on a pixel counts as changed
RELATIONS = {"to the left of": (-1, 0), "to the right of": (1, 0), "in front of": (0, -1), "behind": (0, 1)}
GAP = 0.3  # between an object that is added and what it is added beside
ADDED_SIZE, ADDED_YAW = 0.84, -60.0  # what the words do not say must be the same every time
BESIDE = NUMBERS * [0, 1, 1, 1]  # shares of numbers of objects where one stands beside another
DESCRIBED = NUMBERS * [1, 1, 1, 0]  # and where words alone say what is there
ELEVATION = 38.0  # of the camera in pictures made from text
YAWS = tuple(range(-90, 91, 15))
PITCHES = (-15, 0, 15)
LOWEST, HIGHEST = 18, 62  # elevations that a turned camera may have


@dataclass(frozen=True)
class Pairs:
    """Examples of one task. `after` and the boxes are what a judge measures the model against."""

    task: str
    texts: list[str]
    references: list[np.ndarray]  # one array (N, SIZE, SIZE, 3) uint8 per reference; none for text to image
    target: np.ndarray  # (N, SIZE, SIZE, 3) uint8
    before: Scenes
    after: Scenes
    rendered: Rendered  # of `after`
    rendered_before: Rendered
    box: np.ndarray | None = None  # the red box, (N, 4) left, top, right, bottom
    details: dict[str, np.ndarray] | None = None

    def changed(self) -> np.ndarray:
        """Where the target differs from the first reference, (N, SIZE, SIZE) bool; objects for text to image."""
        if not self.references:
            return self.rendered.slots.sum(-1) > 0.3
        difference = np.abs(self.references[0].astype(np.int16) - self.target.astype(np.int16)).max(-1)
        return difference > CHANGED


def _collect(
    count: int,
    generator: np.random.Generator,
    propose: Callable[[int, np.ndarray], tuple],
    numbers: np.ndarray = NUMBERS,
) -> tuple:
    """Call `propose(n, shares)`, which gives (good, Scenes, …) of n, until `count` good ones are there.

    The numbers of objects come in the shares `numbers`, however few of the proposals are good.
    """
    parts, missing = [], world.quotas(count, numbers)
    while missing.any():
        good, scenes, *values = propose(int(np.clip(4 * missing.sum(), 128, 8000)), missing)
        chosen = world.within(missing, scenes, good)
        parts.append([value[chosen] for value in (scenes, *values)])
        missing = missing - np.bincount(scenes.count[chosen], minlength=SLOTS + 1)[1:]
    order = generator.permutation(count)
    columns = map(list, zip(*parts, strict=True))
    joined = (world.concatenate(c) if isinstance(c[0], Scenes) else np.concatenate(c) for c in columns)
    return tuple(values[order] for values in joined)


def move(count: int, generator: np.random.Generator, test: bool = False) -> Pairs:
    def propose(n, numbers):
        before = world.draw(n, generator, test=test, numbers=numbers)
        place = np.stack([generator.uniform(-1.8, 1.8, n), generator.uniform(-1.6, 1.9, n)], axis=1)
        after = before.with_slot(0, place=place)
        distance = np.linalg.norm(world.middle(before, 0)[:, :2] - world.middle(after, 0)[:, :2], axis=1)
        return world.valid(after) & (distance > 14), before, after

    before, after = _collect(count, generator, propose)
    rendered, first = render(after), render(before)
    pad = generator.integers(1, 3, size=(count, 4)) * np.array([-1, -1, 1, 1])
    box = np.clip(rendered.box() + pad, 0, SIZE)
    boxed = np.stack([_draw_box(pixels, b) for pixels, b in zip(first.pixels, box, strict=True)])
    texts = [spatial.move_object(before.name(i)) for i in range(count)]
    return Pairs("move", texts, [boxed], rendered.pixels, before, after, rendered, first, box)


def _draw_box(pixels: np.ndarray, box: np.ndarray) -> np.ndarray:
    return np.asarray(spatial.draw_box(Image.fromarray(pixels), tuple(map(int, box))))


def rotate(count: int, generator: np.random.Generator, test: bool = False) -> Pairs:
    def propose(n, numbers):
        scenes = world.draw(n, generator, test=False, kind=CAR, numbers=numbers)
        if test:  # one half with colours no car had, one with views never asked of that colour
            unseen = world.draw(n // 2, generator, test=True, kind=CAR, numbers=numbers)
            scenes = world.concatenate([unseen, scenes[: n - n // 2]])
        view = generator.integers(len(VIEWS), size=n)
        colour = scenes.colour[:, 0]
        kept_out = world.held_out_view(colour, view)
        good = kept_out | world.held_out(colour, np.full(n, CAR)) if test else ~kept_out
        after = scenes.with_slot(0, yaw=world.view_yaw(scenes, view))
        turn = np.abs((after.yaw[:, 0] - scenes.yaw[:, 0] + 180) % 360 - 180)
        order = generator.permutation(n)
        return ((turn > 30) & good & world.valid(after))[order], scenes[order], after[order], view[order]

    before, after, view = _collect(count, generator, propose)
    rendered, first = render(after), render(before)
    texts = [spatial.rotate_object(before.name(i), VIEWS[v]) for i, v in enumerate(view)]
    return Pairs(
        "rotate", texts, [first.pixels], rendered.pixels, before, after, rendered, first, details={"view": view}
    )


def camera(count: int, generator: np.random.Generator, test: bool = False) -> Pairs:
    def propose(n, numbers):
        before = world.draw(n, generator, test=test, numbers=numbers)
        yaw = generator.choice(YAWS, size=n)
        pitch = generator.choice(PITCHES, p=[0.25, 0.5, 0.25], size=n)
        zoom = generator.choice(len(ZOOMS), p=[0.25, 0.25, 0.5], size=n)
        moved = world.moved_camera(before.camera, yaw, pitch, zoom)
        good = world.held_out_camera(yaw, pitch, zoom) == test
        good &= (yaw != 0) | (pitch != 0) | (ZOOM_NAMES[zoom] != "unchanged")
        good &= (moved[:, 1] >= LOWEST) & (moved[:, 1] <= HIGHEST)
        after = replace(before, camera=moved)
        return good & world.valid(after), before, after, yaw, pitch, zoom

    before, after, yaw, pitch, zoom = _collect(count, generator, propose)
    rendered, first = render(after), render(before)
    texts = [spatial.camera(float(y), float(p), ZOOM_NAMES[z]) for y, p, z in zip(yaw, pitch, zoom, strict=True)]
    details = {"yaw": yaw, "pitch": pitch, "zoom": zoom}
    return Pairs("camera", texts, [first.pixels], rendered.pixels, before, after, rendered, first, details=details)


ZOOM_NAMES = np.array(list(world.ZOOM))


def recolour(count: int, generator: np.random.Generator, test: bool = False) -> Pairs:
    def propose(n, numbers):
        scenes = world.draw(n, generator, test=test, numbers=numbers)
        other = generator.integers(len(COLOUR_NAMES), size=n)
        fresh = (~scenes.present | (scenes.colour != other[:, None])).all(axis=1)
        good = fresh & ~world.held_out(other, scenes.kind[:, 0])
        changed = scenes.with_slot(0, colour=other)
        # in tests the result is what was never seen
        return (good, changed, scenes) if test else (good, scenes, changed)

    before, after = _collect(count, generator, propose)
    rendered, first = render(after), render(before)
    texts = [f"Change the color of the {before.name(i)} to {COLOUR_NAMES[after.colour[i, 0]]}." for i in range(count)]
    return Pairs("recolour", texts, [first.pixels], rendered.pixels, before, after, rendered, first)


def remove(count: int, generator: np.random.Generator, test: bool = False) -> Pairs:
    before = world.draw(count, generator, test=test)
    after = before.with_slot(0, present=False)
    rendered, first = render(after), render(before)
    texts = [f"Remove the {before.name(i)}." for i in range(count)]
    return Pairs("remove", texts, [first.pixels], rendered.pixels, before, after, rendered, first)


def _beside(
    n: int, numbers: np.ndarray, generator: np.random.Generator, test: bool
) -> tuple[np.ndarray, Scenes, np.ndarray]:
    """Scenes whose object 0 stands beside object 1, whether they are good, and the relation of each."""
    scenes = world.draw(n, generator, test=test, numbers=numbers)
    relation = generator.integers(len(RELATIONS), size=n)
    step = np.array(list(RELATIONS.values()), dtype=float)[relation]
    scenes = scenes.with_slot(0, size=ADDED_SIZE * CROWDED[scenes.count - 1], yaw=np.full(n, ADDED_YAW))
    radius = scenes.radius
    place = scenes.place[:, 1] + step * (radius[:, :1] + radius[:, 1:2] + GAP)
    scenes = scenes.with_slot(0, place=place)
    return world.valid(scenes), scenes, relation


def add(count: int, generator: np.random.Generator, test: bool = False) -> Pairs:
    after, relation = _collect(count, generator, lambda *n: _beside(*n, generator, test), BESIDE)
    before = after.with_slot(0, present=False)
    rendered, first = render(after), render(before)
    words = list(RELATIONS)
    texts = [f"Add {article(after.name(i))} {words[r]} the {after.name(i, 1)}." for i, r in enumerate(relation)]
    details = {"relation": relation}
    return Pairs("add", texts, [first.pixels], rendered.pixels, before, after, rendered, first, details=details)


def compose(count: int, generator: np.random.Generator, test: bool = False) -> Pairs:
    """The object comes from a second picture, with the size and yaw it has there."""
    after, relation = _collect(count, generator, lambda *n: _beside(*n, generator, test), BESIDE)
    place = np.stack([generator.uniform(-1, 1, count), generator.uniform(-0.8, 1, count)], axis=1)
    shown = after.with_slot(0, place=place)
    shown = replace(shown, present=np.arange(SLOTS)[None] == np.zeros((count, 1)), ground=shown.ground[::-1])
    before = after.with_slot(0, present=False)
    rendered, first, second = render(after), render(before), render(shown)
    words = list(RELATIONS)
    texts = [
        f"Place the {after.name(i)} from image 2 {words[r]} the {after.name(i, 1)} in image 1."
        for i, r in enumerate(relation)
    ]
    return Pairs(
        "compose", texts, [first.pixels, second.pixels], rendered.pixels, before, after, rendered, first,
        details={"relation": relation},
    )  # fmt: skip


def generate(count: int, generator: np.random.Generator, test: bool = False) -> Pairs:
    def propose(n, numbers):
        scenes = world.draw(n, generator, test=test, numbers=numbers)
        size = np.broadcast_to(ADDED_SIZE * CROWDED[scenes.count - 1, None], scenes.size.shape)
        yaw = np.full_like(scenes.yaw, ADDED_YAW)
        scenes = replace(scenes, size=size, yaw=yaw, camera=np.tile([0, ELEVATION, DISTANCE], (n, 1)))
        return world.valid(scenes), scenes

    (after,) = _collect(count, generator, propose, DESCRIBED)
    rendered = render(after)
    texts = [describe(after, i) for i in range(count)]
    return Pairs("generate", texts, [], rendered.pixels, after, after, rendered, rendered)


def article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def describe(scenes: Scenes, index: int) -> str:
    """A sentence that names the objects from left to right, and the ground."""
    slots = np.flatnonzero(scenes.present[index])
    one = scenes[index : index + 1]
    slots = sorted(slots, key=lambda slot: world.middle(one, slot)[0, 0])
    names = [article(scenes.name(index, slot)) for slot in slots]
    listed = " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
    return f"{listed[0].upper()}{listed[1:]} on {ground(scenes, index)}."


def ground(scenes: Scenes, index: int) -> str:
    return f"{TEXTURES[scenes.texture[index]]} {GROUND_NAMES[scenes.ground[index]]} ground"


TASKS: dict[str, Callable[..., Pairs]] = {
    task.__name__: task for task in (move, rotate, camera, recolour, remove, add, compose, generate)
}

__all__ = ["KINDS", "TASKS", "Pairs", "article", "describe", "mask_boxes"]
