"""How well the bundled model moves objects to places in words: `python -m tools.tiny.places`.

In scenes it was never trained on an object is to go to the left or right of another, in front of or behind it: "the red
cube to the left of the blue cone". The model locates both, the library draws the box, the model moves the object. The
scene's truth judges: the object stands on that side, is the same solid, the box is gone, and the rest is untouched.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from joyimage import JoyImage, spatial
from joyimage.errors import JoyImageError

from . import judge
from . import scenes as world
from .evaluate import BATCH, GUIDANCE, markdown, sheet
from .example_scenes import placed
from .example_trials import UNTOUCHED, marked
from .questions import CLEAR_OFFSET
from .render import mask_boxes, render
from .scenes import Scenes
from .tasks import BESIDE, RELATIONS, Pairs

SEED = 41_000  # of the scenes: neither training nor evaluation nor the example scenes come near it
COUNT, STEPS = 100, 16
MOVED, ANCHOR = range(2)
GAPS = 0.1, 0.4, 0.7, 1.0, 1.3  # units of free ground between the two
DRAWN = 256  # scenes at once
LEAST_WAY = 14  # pixels from where the object stands to where it is to go
DIRECTIONS = np.array(list(RELATIONS.values()), dtype=float)


def scenes(count: int, seed: int = SEED) -> tuple[Scenes, np.ndarray]:
    """The same held-out scenes every time, as many for each relation: there is room for it, and a way to go."""
    generator = np.random.default_rng(seed)
    wanted, parts = np.arange(count) % len(RELATIONS), []
    for relation, direction in enumerate(DIRECTIONS):
        found: list[Scenes] = []
        while sum(map(len, found)) < (wanted == relation).sum():
            found.append(_possible(world.draw(DRAWN, generator, test=True, numbers=BESIDE), direction))
        parts.append(world.concatenate(found)[: (wanted == relation).sum()])
    order = np.argsort(wanted, kind="stable").argsort()  # one relation after the other, again and again
    return world.concatenate(parts)[order], wanted


def _possible(made: Scenes, direction: np.ndarray) -> Scenes:
    """Those in which object 0 has room on that side of the other, at one distance or another."""
    radius, good = made.radius, np.zeros(len(made), dtype=bool)
    for gap in GAPS:
        apart = radius[:, [MOVED]] + radius[:, [ANCHOR]] + gap
        after = made.with_slot(MOVED, place=made.place[:, ANCHOR] + direction * apart)
        way = np.linalg.norm(world.middle(made, MOVED)[:, :2] - world.middle(after, MOVED)[:, :2], axis=1)
        good |= world.valid(after) & (way > LEAST_WAY)
    return made[good]


def words(made: Scenes, relation: np.ndarray) -> list[str]:
    return [f"{list(RELATIONS)[r]} the {made.name(i, ANCHOR)}" for i, r in enumerate(relation)]


def boxes(model: JoyImage, pictures: np.ndarray, made: Scenes, places: list[str]) -> tuple[np.ndarray, list[str]]:
    """The box for each move, (N, 4), and what the model said against it: "" where there is one."""
    found, problems = np.tile([0, 0, 1, 1], (len(made), 1)), [""] * len(made)
    for i, where in enumerate(places):
        try:
            found[i] = model.place(Image.fromarray(pictures[i]), made.name(i, MOVED), where)
        except JoyImageError as error:
            problems[i] = str(error)
    return found, problems


def stands_there(made: Scenes, relation: np.ndarray, output: np.ndarray) -> np.ndarray:
    """Whether what the outputs show of the moved object's colour stands on that side of the other, by the ground."""
    masks = judge.segment(output) == made.colour[:, MOVED, None, None]
    after = placed(made, MOVED, mask_boxes(masks))
    offset = after.place[:, MOVED] - after.place[:, ANCHOR]
    direction = DIRECTIONS[relation]
    along = (offset * direction).sum(1)
    across = np.abs((offset * direction[:, ::-1]).sum(1))
    return masks.any((1, 2)) & (along >= CLEAR_OFFSET) & (along > across)


def verdicts(pairs: Pairs, relation: np.ndarray, problems: list[str], output: np.ndarray) -> judge.Verdict:
    verdict = judge.move(pairs, output)
    return {
        "box found": np.array([not problem for problem in problems]),
        "stands there": stands_there(pairs.before, relation, output),
        "the same solid": verdict["object in the box"],
        "box gone": verdict["box gone"],
        "rest untouched": verdict["untouched PSNR"] >= UNTOUCHED,
    }


def measure(
    model: JoyImage, count: int = COUNT, steps: int = STEPS, guidance: float = GUIDANCE, seed: int = SEED
) -> tuple[Pairs, np.ndarray, judge.Verdict, list[str]]:
    """The moves as a judge takes them, the pictures that came out, the verdicts, and what was said against a place."""
    made, relation = scenes(count, seed)
    first, places = render(made), words(made, relation)
    found, problems = boxes(model, first.pixels, made, places)
    pictures = marked(first.pixels, [tuple(map(int, box)) for box in found])
    output = moved(model, pictures, [spatial.move_object(made.name(i, MOVED)) for i in range(count)], steps, guidance)
    after = placed(made, MOVED, found)
    rendered = render(after)
    said = [f"{made.name(i, MOVED)} {where}" for i, where in enumerate(places)]
    pairs = Pairs("move", said, [pictures], rendered.pixels, made, after, rendered, first, found)
    return pairs, output, verdicts(pairs, relation, problems, output), problems


def moved(model: JoyImage, pictures: np.ndarray, instructions: list[str], steps: int, guidance: float) -> np.ndarray:
    """The model's pictures (N, SIZE, SIZE, 3) uint8; sample i has seed i."""
    made = model.edit(
        [[Image.fromarray(picture)] for picture in pictures], instructions,
        steps=steps, guidance_scale=guidance, seed=list(range(len(pictures))), batch_size=BATCH,
    )  # fmt: skip
    return np.stack([np.asarray(picture) for picture in made])


def table(verdict: judge.Verdict) -> str:
    """In how many scenes each is right, by relation and altogether."""
    rows = []
    for name, values in [*verdict.items(), ("all of it", np.all(list(verdict.values()), axis=0))]:
        by_relation = [values[start :: len(RELATIONS)] for start in range(len(RELATIONS))]
        rows.append(
            [name, *(f"{part.sum()} of {len(part)}" for part in by_relation), f"{values.sum()} of {len(values)}"]
        )
    return markdown(["", *RELATIONS, "all"], rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny", help="a folder with weights instead of the bundled ones")
    parser.add_argument("--count", type=int, default=COUNT, help="scenes")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--seed", type=int, default=SEED, help="of the scenes")
    parser.add_argument("--folder", type=Path, default=Path("build/tiny/places"), help="for the sheet of pictures")
    options = parser.parse_args(arguments)
    model = JoyImage.load(options.model)
    pairs, output, verdict, problems = measure(model, options.count, options.steps, options.guidance, options.seed)
    for text, problem in zip(pairs.texts, problems, strict=True):
        if problem:
            print(f"{text}: {problem}")
    sheet(pairs, output, options.folder / "places.png")
    print(table(verdict))


if __name__ == "__main__":
    main()
