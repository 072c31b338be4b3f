"""The scenes of the node Example Scene: `python -m tools.tiny.examples` chooses and draws them anew, with `--mend` only
those on which something fails now.

They are held-out scenes: the object that is moved is of a combination that training never showed. All of the templates
that offer them must succeed on each, with one seed and the same settings, as a judge sees it from the scene's truth;
scenes on which one of them fails are left out. In each stand a car, which can be turned, and another solid to be moved.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from joyimage import JoyImage, spatial
from joyimage.boxes import PixelBox, box_from_json, locate_question, parse_boxes
from joyimage.errors import JoyImageError
from joyimage.spatial import VIEWS

from . import judge
from . import scenes as world
from .evaluate import save
from .render import render
from .scenes import CAR, COLOUR_NAMES, KINDS, SIZE, Scenes
from .tasks import Pairs, describe, ground

FOLDER = Path(__file__).parents[2] / "web" / "examples"
SEED = 31_000  # of the candidates: neither training nor evaluation comes near it
CANDIDATES = 12_000  # drawn at once
COUNT, SPARE = 16, 4
CLEARED = "cleared.png"
FIRST = 9  # of those chosen: the clearest to look at, with which the templates open
MOVED, VEHICLE = range(2)
# What the templates are set to.
STEPS, GUIDANCE, NOISE_SEED = 30, 4.0, 0
BATCH = 32  # scenes that are edited at once
BOX = '{"x": 0.06, "y": 0.47, "w": 0.36, "h": 0.42}'
VIEW = "right"
YAWS, ZOOM = (-45, -15, 15, 45), "out"
# What a judge's numbers must reach where they are no yes or no, in decibels.
UNTOUCHED, SAME_SCENE = 28.0, 20.5
IN_PLACE = 0.3  # of intersection over union, for solids seen from elsewhere
SIZES = 0.62, 0.74  # small enough to stay in sight all the way round
CLEAR_DEPTH = 0.8  # units by which two objects must differ for a question about their distance
LEAST_TURN, LEAST_WAY = 60, 14  # degrees, pixels
FITTING = 3  # pixels by which the moved object's box may be smaller than the red one, on all sides together
SOLVED = 4  # steps in which a place for a box is found
ANSWER = 40  # tokens


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


def good_ones(model: JoyImage, generator: np.random.Generator) -> Iterator[Scenes]:
    """Scenes on which all succeeds, some at a time, without end."""
    while True:
        scenes = candidates(CANDIDATES, generator)
        print(f"{len(scenes)} candidates", flush=True)
        for name, attempt in TRIES.items():
            if len(scenes):
                good = attempt(model, scenes)
                print(f"{name}: {good.sum()} of {len(scenes)}", flush=True)
                scenes = scenes[good]
        yield scenes


def various(scenes: Scenes, count: int) -> np.ndarray:
    """The indices of `count` scenes, one after the other the one whose solids are rarest among those chosen."""
    seen: dict[tuple, int] = {}
    chosen: list[int] = []
    for _ in range(min(count, len(scenes))):
        left = [i for i in range(len(scenes)) if i not in chosen]
        best = min(left, key=lambda i: sum(seen.get(trait, 0) for trait in traits(scenes, i)))
        chosen.append(best)
        for trait in traits(scenes, best):
            seen[trait] = seen.get(trait, 0) + 1
    return np.array(chosen)


def traits(scenes: Scenes, i: int) -> list[tuple]:
    objects = [(slot, scenes.name(i, slot)) for slot in (MOVED, VEHICLE)]
    kinds = [("kind", KINDS[scenes.kind[i, MOVED]])]
    return [*objects, *kinds, ("ground", scenes.ground[i]), ("texture", scenes.texture[i])]


def title(scenes: Scenes, i: int) -> str:
    """By which a scene is chosen: its objects and its ground, which together no other has."""
    return ", ".join([*(scenes.name(i, slot) for slot in (MOVED, VEHICLE)), ground(scenes, i)])


def truth(scenes: Scenes, i: int) -> dict[str, list | float]:
    """One scene's numbers, for judges."""
    return {name: np.asarray(value[i]).tolist() for name, value in vars(scenes).items()}


def load_scenes() -> tuple[list[dict], Scenes]:
    """What the node says of each scene, and their truth."""
    entries = json.loads((FOLDER / "scenes.json").read_text())
    numbers = {name: np.array([entry["truth"][name] for entry in entries]) for name in entries[0]["truth"]}
    return entries, Scenes(**numbers)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.tiny.examples", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only judge those that are there")
    parser.add_argument("--mend", action="store_true", help="keep those on which all succeeds, and replace the others")
    options = parser.parse_args(arguments)
    model = JoyImage.load("tiny")
    if options.check:
        _, scenes = load_scenes()
        for name, attempt in TRIES.items():
            print(f"{name}: {attempt(model, scenes).sum()} of {len(scenes)}")
        return
    if options.mend:
        write(mended(model, load_scenes()[1]))
        return
    found: list[Scenes] = []
    for scenes in good_ones(model, np.random.default_rng(SEED)):
        found.append(scenes)
        if sum(map(len, found)) >= COUNT + SPARE:
            break
    scenes = world.concatenate(found)
    chosen = various(scenes, COUNT)
    write(scenes[[chosen[FIRST], *np.delete(chosen, FIRST)]])


def mended(model: JoyImage, scenes: Scenes) -> Scenes:
    """The scenes, with others in place of those on which something fails."""
    good = np.all([attempt(model, scenes) for attempt in TRIES.values()], axis=0)
    bad, names = list(np.flatnonzero(~good)), {title(scenes, i) for i in np.flatnonzero(good)}
    print(f"{len(bad)} of {len(scenes)} fail", flush=True)
    found = good_ones(model, np.random.default_rng([SEED, 1]))  # scenes other than those chosen from before
    while bad:
        new = next(found)
        for i in range(len(new)):
            if bad and title(new, i) not in names:
                names.add(title(new, i))
                order = np.arange(len(scenes))
                order[bad.pop(0)] = len(scenes)
                scenes = world.concatenate([scenes, new[i : i + 1]])[order]
    return scenes


def write(scenes: Scenes) -> None:
    names = {title(scenes, i) for i in range(len(scenes))}
    if len(names) < len(scenes):
        raise ValueError("two scenes have the same name")
    pixels, entries = render(scenes).pixels, []
    FOLDER.mkdir(parents=True, exist_ok=True)
    for i in range(len(scenes)):
        file = f"scene-{i + 1:02d}.png"
        save(Image.fromarray(pixels[i]), FOLDER / file)
        entries.append({"name": title(scenes, i), "file": file, **words(scenes, i), "truth": truth(scenes, i)})
    save(without_cars(scenes), FOLDER / CLEARED)
    partial = FOLDER / "scenes.part"
    partial.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")
    os.replace(partial, FOLDER / "scenes.json")


def without_cars(scenes: Scenes) -> Image.Image:
    """The scenes without their cars, one below the other in the colours of a palette: half of the bytes."""
    drawn = render(scenes.with_slot(VEHICLE, present=False)).pixels
    return Image.fromarray(np.concatenate(list(drawn))).quantize(256, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main()
