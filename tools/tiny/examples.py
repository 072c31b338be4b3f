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
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from joyimage import JoyImage

from . import scenes as world
from .evaluate import save
from .example_scenes import MOVED, VEHICLE, candidates, words
from .example_trials import TRIES
from .render import render
from .scenes import KINDS, Scenes
from .tasks import ground

FOLDER = Path(__file__).parents[2] / "web" / "examples"
SEED = 31_000  # of the candidates: neither training nor evaluation comes near it
CANDIDATES = 12_000  # drawn at once
COUNT, SPARE = 16, 4
CLEARED = "cleared.png"
FIRST = 9  # of those chosen: the clearest to look at, with which the templates open


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
