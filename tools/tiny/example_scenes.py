"""What Example Scene shows: which scenes can be candidates, what is said of them, and what their edits should give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from joyimage.boxes import box_from_json
from joyimage.spatial import VIEWS

from . import scenes as world
from .render import render
from .scenes import CAR, COLOUR_NAMES, SIZE, Scenes
from .tasks import describe

MOVED, VEHICLE = range(2)
# What the templates are set to.
BOX = '{"x": 0.06, "y": 0.47, "w": 0.36, "h": 0.42}'
VIEW = "right"
YAWS, ZOOM = (-45, -15, 15, 45), "out"
SIZES = 0.62, 0.74  # small enough to stay in sight all the way round
CLEAR_DEPTH = 0.8  # units by which two objects must differ for a question about their distance
LEAST_TURN, LEAST_WAY = 60, 14  # degrees, pixels
FITTING = 3  # pixels by which the moved object's box may be smaller than the red one, on all sides together
SOLVED = 4  # steps in which a place for a box is found


def words(scenes: Scenes, i: int) -> dict[str, str]:
    """What the node says of a scene, each in the words that the bundled model knows."""
    name = scenes.name(i, MOVED)
    new = recoloured(scenes)[i]
    return {
        "object": name,
        "car": scenes.name(i, VEHICLE),
        "question": f"Which is nearer to the camera, the {name} or the {scenes.name(i, VEHICLE)}?",
        "description": describe(scenes, i),
        "removal": f"Remove the {scenes.name(i, VEHICLE)}.",
        "recolouring": f"Change the color of the {name} to {COLOUR_NAMES[new]}.",
    }


def nearer(scenes: Scenes, i: int) -> str:
    """The answer to a scene's question."""
    depth = [world.middle(scenes[i : i + 1], slot)[0, 2] for slot in (MOVED, VEHICLE)]
    return f"the {scenes.name(i, MOVED if depth[0] < depth[1] else VEHICLE)}"


def recoloured(scenes: Scenes) -> np.ndarray:
    """A colour for the moved object, (N,), that none in its scene has and that its kind may have."""
    chosen = np.zeros(len(scenes), dtype=int)
    for i in range(len(scenes)):
        free = [c for c in range(len(COLOUR_NAMES)) if c not in scenes.colour[i, :2]]
        chosen[i] = next(c for c in free if not world.held_out(c, scenes.kind[i, MOVED]))
    return chosen


def candidates(count: int, generator: np.random.Generator) -> Scenes:
    """Of `count` scenes of two solids, those in which all that the templates do is possible."""
    scenes = world.draw(count, generator, test=True, numbers=np.array([0, 1, 0, 0]))
    scenes = scenes[(scenes.kind[:, MOVED] != CAR) & (scenes.kind[:, VEHICLE] == CAR)]
    scenes = replace(scenes, size=generator.uniform(*SIZES, scenes.size.shape))
    depth = np.stack([world.middle(scenes, slot)[:, 2] for slot in (MOVED, VEHICLE)])
    scenes = scenes[np.abs(depth[0] - depth[1]) > CLEAR_DEPTH]
    for yaw in YAWS:
        scenes = scenes[world.valid(orbited(scenes, yaw))]
    turned = scenes.with_slot(VEHICLE, yaw=view_yaw(scenes, VIEW))
    turn = np.abs((turned.yaw[:, VEHICLE] - scenes.yaw[:, VEHICLE] + 180) % 360 - 180)
    scenes = scenes[world.valid(turned) & (turn > LEAST_TURN)]
    red = np.array(box_from_json(BOX, SIZE, SIZE))
    moved = placed(scenes, MOVED, np.tile(red, (len(scenes), 1)))
    found = render(moved).box(MOVED)
    fits = (found[:, :2] >= red[:2]).all(1) & (found[:, 2:] <= red[2:]).all(1) & (np.abs(found - red).max(1) <= FITTING)
    way = np.linalg.norm(world.middle(moved, MOVED)[:, :2] - world.middle(scenes, MOVED)[:, :2], axis=1)
    scenes = scenes[world.valid(moved) & fits & (way > LEAST_WAY)]
    swapped = placed(scenes.with_slot(VEHICLE, present=False), MOVED, render(scenes).box(VEHICLE))
    return scenes[world.valid(swapped)]


def placed(scenes: Scenes, slot: int, box: np.ndarray) -> Scenes:
    """The scenes with an object put where it fills a box (N, 4) best: the middles of what is seen of it coincide."""
    middle = (box[:, :2] + box[:, 2:]) / 2
    aim = middle.copy()
    for _ in range(SOLVED):
        place = ground_under(aim, scenes.half[:, slot, 2], scenes.camera)
        scenes = scenes.with_slot(slot, place=place)
        alone = replace(scenes, present=np.arange(world.SLOTS)[None] == np.full((len(scenes), 1), slot))
        found = render(alone).box(slot)
        aim += middle - (found[:, :2] + found[:, 2:]) / 2
    return scenes


def ground_under(pixels: np.ndarray, height: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """The places (N, 2) whose points at a height (N,) are seen at pixels (N, 2)."""
    eye, basis = world.axes(camera)
    half = np.tan(np.radians(world.FIELD_OF_VIEW / 2))
    local = np.stack([pixels[:, 0] / SIZE * 2 - 1, 1 - pixels[:, 1] / SIZE * 2], axis=1) * half
    ray = local[:, :1] * basis[:, 0] + local[:, 1:] * basis[:, 1] + basis[:, 2]
    t = (height - eye[:, 2]) / np.minimum(ray[:, 2], -1e-3)
    return eye[:, :2] + t[:, None] * ray[:, :2]


def view_yaw(scenes: Scenes, view: str) -> np.ndarray:
    """The yaw (N,) at which the car shows a side."""
    return world.view_yaw(scenes.starting_with(VEHICLE), np.full(len(scenes), VIEWS.index(view)))


def orbited(scenes: Scenes, yaw: int) -> Scenes:
    """Seen by a camera that has gone around by `yaw` and farther out."""
    n = len(scenes)
    zoom = np.full(n, list(world.ZOOM).index(ZOOM))
    turned = world.moved_camera(scenes.camera, np.full(n, yaw), np.zeros(n, int), zoom)
    return replace(scenes, camera=turned)
