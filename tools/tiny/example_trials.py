"""What the bundled model makes of example scenes with the templates' settings, and whether that is right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from joyimage import JoyImage, spatial
from joyimage.boxes import PixelBox, box_from_json, locate_question, parse_boxes
from joyimage.errors import JoyImageError
from joyimage.spatial import VIEWS

from . import judge
from .example_scenes import BOX, MOVED, VEHICLE, VIEW, YAWS, ZOOM, nearer, orbited, placed, recoloured, view_yaw, words
from .render import render
from .scenes import SIZE, Scenes
from .tasks import Pairs

STEPS, GUIDANCE, NOISE_SEED = 30, 4.0, 0  # of the templates
BATCH = 32  # scenes that are edited at once
# What a judge's numbers must reach where they are no yes or no, in decibels.
UNTOUCHED, SAME_SCENE = 28.0, 20.5
IN_PLACE = 0.3  # of intersection over union, for solids seen from elsewhere
ANSWER = 40  # tokens


def edited(model: JoyImage, pictures: np.ndarray, instructions: list[str]) -> np.ndarray:
    """The model's edits (N, SIZE, SIZE, 3) uint8, each with the templates' settings and the same seed."""
    lists = [[Image.fromarray(p)] for p in pictures]
    made = model.edit(
        lists, instructions, steps=STEPS, guidance_scale=GUIDANCE, seed=[NOISE_SEED] * len(lists), batch_size=BATCH
    )
    return np.stack([np.asarray(picture) for picture in made])


def marked(pictures: np.ndarray, boxes: list[PixelBox]) -> np.ndarray:
    drawn = [spatial.draw_box(Image.fromarray(p), box) for p, box in zip(pictures, boxes, strict=True)]
    return np.stack([np.asarray(picture) for picture in drawn])


def pairs(task: str, before: Scenes, after: Scenes, **values) -> Pairs:
    """As a judge takes them: the object that changes in slot 0."""
    rendered, first = render(after), render(before)
    return Pairs(task, [], [first.pixels], rendered.pixels, before, after, rendered, first, **values)


def moved_well(scenes: Scenes, output: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Whether each output (N, SIZE, SIZE, 3) shows the first object in its box (N, 4) and all else as in `scenes`."""
    after = placed(scenes, MOVED, boxes)
    verdict = judge.move(pairs("move", scenes, after, box=boxes), output)
    return verdict["object in the box"] & verdict["box gone"] & (verdict["untouched PSNR"] >= UNTOUCHED)


def turned_well(scenes: Scenes, output: np.ndarray) -> np.ndarray:
    """Whether the car, and nothing else, shows VIEW."""
    before = scenes.starting_with(VEHICLE)
    after = before.with_slot(0, yaw=view_yaw(scenes, VIEW))
    details = {"view": np.full(len(scenes), VIEWS.index(VIEW))}
    verdict = judge.rotate(pairs("rotate", before, after, details=details), output)
    return verdict["right view"] & (verdict["untouched PSNR"] >= UNTOUCHED)


def orbited_well(scenes: Scenes, output: np.ndarray, yaw: int) -> np.ndarray:
    """Whether the scenes are seen from `yaw` degrees further round, both solids about where they belong."""
    after, zeros = orbited(scenes, yaw), np.zeros(len(scenes))
    made = pairs("camera", scenes, after, details={"yaw": np.full(len(scenes), yaw), "pitch": zeros, "zoom": zeros})
    verdict = judge.camera(made, output)
    good = verdict["yaw direction"] & (verdict["PSNR"] >= SAME_SCENE)
    for slot in (MOVED, VEHICLE):
        colour = scenes.colour[:, slot, None, None]
        good &= judge.overlap(judge.segment(output) == colour, judge.segment(made.target) == colour) >= IN_PLACE
    return good


def removed_well(scenes: Scenes, output: np.ndarray) -> np.ndarray:
    """Whether the car is gone, and nothing else."""
    before = scenes.starting_with(VEHICLE)
    verdict = judge.remove(pairs("remove", before, before.with_slot(0, present=False)), output)
    return verdict["removed"] & (verdict["untouched PSNR"] >= UNTOUCHED)


def drawn_well(scenes: Scenes, output: np.ndarray) -> np.ndarray:
    """Whether pictures made from the scenes' descriptions show the solids that they name, in order."""
    verdict = judge.generate(pairs("generate", scenes, scenes), output)
    return verdict["colours and shapes"] & verdict["order"]


def recoloured_well(scenes: Scenes, before: np.ndarray, output: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Whether the first object has its new colour inside its mask (N, SIZE, SIZE), and is the same solid there.

    `before` are the pictures that were changed: made from text, their truth is only what was seen in them.
    """
    new = recoloured(scenes)
    old_area = (judge.segment(before) == scenes.colour[:, MOVED, None, None]) & masks
    new_area = (judge.segment(output) == new[:, None, None]) & masks
    good = judge.overlap(old_area, new_area) >= judge.OVERLAP
    shaped = [
        judge.looks_like(output[i], new_area[i], scenes.kind[i, MOVED]) if new_area[i].any() else False
        for i in range(len(scenes))
    ]
    return good & np.array(shaped)


def located(model: JoyImage, picture: np.ndarray, name: str) -> PixelBox | None:
    said = model.ask(Image.fromarray(picture), locate_question(name), temperature=0, max_new_tokens=60)
    try:
        return parse_boxes(said, SIZE, SIZE)[0]
    except JoyImageError:
        return None


def answers_well(model: JoyImage, scenes: Scenes, pictures: np.ndarray) -> np.ndarray:
    def right(i: int) -> bool:
        question = words(scenes, i)["question"]
        said = model.ask(Image.fromarray(pictures[i]), question, temperature=0, max_new_tokens=ANSWER)
        return said.strip() == nearer(scenes, i)

    return np.array([right(i) for i in range(len(scenes))])


def located_well(scenes: Scenes, boxes: list[PixelBox | None]) -> np.ndarray:
    """Whether boxes found of the car overlap the true ones by more than half."""
    true = render(scenes).box(VEHICLE)
    found = np.array([box or (0, 0, 1, 1) for box in boxes])
    return judge.overlap(judge.inside(found), judge.inside(true)) > 0.5


def try_move(model: JoyImage, scenes: Scenes) -> np.ndarray:
    red = box_from_json(BOX, SIZE, SIZE)
    pictures = marked(render(scenes).pixels, [red] * len(scenes))
    output = edited(model, pictures, [spatial.move_object(scenes.name(i)) for i in range(len(scenes))])
    return moved_well(scenes, output, np.tile(red, (len(scenes), 1)))


def try_turn(model: JoyImage, scenes: Scenes) -> np.ndarray:
    texts = [spatial.rotate_object(scenes.name(i, VEHICLE), VIEW) for i in range(len(scenes))]
    return turned_well(scenes, edited(model, render(scenes).pixels, texts))


def try_orbit(model: JoyImage, scenes: Scenes) -> np.ndarray:
    good = np.ones(len(scenes), dtype=bool)
    for yaw in YAWS:
        output = edited(model, render(scenes).pixels, [spatial.camera(yaw, 0, ZOOM)] * len(scenes))
        good &= orbited_well(scenes, output, yaw)
    return good


def try_locate(model: JoyImage, scenes: Scenes) -> np.ndarray:
    pictures = render(scenes).pixels
    good = answers_well(model, scenes, pictures)
    boxes = [located(model, pictures[i], scenes.name(i, VEHICLE)) for i in range(len(scenes))]
    good &= located_well(scenes, boxes)
    boxes = [box or (0, 0, SIZE, SIZE) for box in boxes]
    empty = edited(model, pictures, [words(scenes, i)["removal"] for i in range(len(scenes))])
    good &= removed_well(scenes, empty)
    texts = [spatial.move_object(scenes.name(i)) for i in range(len(scenes))]
    output = edited(model, marked(empty, boxes), texts)
    return good & moved_well(scenes.with_slot(VEHICLE, present=False), output, np.array(boxes))


def try_text(model: JoyImage, scenes: Scenes) -> np.ndarray:
    said = [words(scenes, i) for i in range(len(scenes))]
    made = model.generate(
        [each["description"] for each in said],
        steps=STEPS, guidance_scale=GUIDANCE, seed=[NOISE_SEED] * len(scenes), batch_size=BATCH,
    )  # fmt: skip
    before = np.stack([np.asarray(picture) for picture in made])
    good = drawn_well(scenes, before)
    boxes = [located(model, before[i], said[i]["object"]) or (0, 0, 1, 1) for i in range(len(scenes))]
    masks = judge.inside(np.array(boxes))
    output = np.where(masks[..., None], edited(model, before, [each["recolouring"] for each in said]), before)
    return good & recoloured_well(scenes, before, output, masks)


TRIES: dict[str, Callable[[JoyImage, Scenes], np.ndarray]] = {
    "move": try_move,
    "text": try_text,
    "locate": try_locate,
    "turn": try_turn,
    "orbit": try_orbit,
}
