"""Items in SpatialEdit-Bench's layout made from drawn scenes, and the bundled model on them.

`python -m tools.tiny.bench` makes and measures them.

The scenes' poses and boxes are true. So the benchmark's figures are given twice: by what the model itself finds in
pictures, and by colour segmentation and the camera whose rendering comes nearest.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from joyimage import JoyImage
from joyimage.evaluation import scoring, spatialedit
from joyimage.evaluation.framing import Detection
from joyimage.evaluation.layout import META, Item, read_items
from joyimage.evaluation.predicting import check_predictions, make_all
from joyimage.evaluation.report import said
from joyimage.evaluation.settings import Predicting
from joyimage.evaluation.tools import Tools, own_tools
from joyimage.evaluation.viewpoint import Pose

from . import scenes as world
from .evaluate import markdown
from .judge import SMALLEST, segment
from .render import mask_boxes, render
from .scenes import COLOUR_NAMES, Scenes
from .tasks import TASKS, Pairs

SEED = 52_000  # of the scenes: neither training nor other measurements come near it
SHARES = {"move": 276, "rotate": 488, "camera": 452}  # of the published items
STEPS = 16
SAME = 6  # levels of 255, on the average, that two pictures of one scene differ by at most
GRID = {
    "yaw": np.arange(-120.0, 121.0, 20.0),
    "pitch": np.arange(-24.0, 25.0, 12.0),
    "zoom": np.geomspace(0.7, 1.42, 5),
}
LOWEST, HIGHEST = 5, 85  # degrees of elevation that are looked at
EXACT = 1.0  # mean square below which two pictures are one
HALVINGS = 4  # of the grid's steps, around what was nearest


def numbers(count: int) -> dict[str, int]:
    """How many of `count` items there are of each kind."""
    ends = np.round(np.cumsum(list(SHARES.values())) / sum(SHARES.values()) * count).astype(int)
    return dict(zip(SHARES, np.diff(ends, prepend=0).tolist(), strict=True))


def draw(count: int, seed: int = SEED) -> dict[str, Pairs]:
    """Held-out pairs by kind. Of camera edits only those with two objects or more, between which angles can be told."""
    found = {}
    for number, (kind, some) in enumerate(numbers(count).items()):
        generator = np.random.default_rng([seed, number])
        found[kind] = TASKS[kind](some if kind != "camera" else 3 * some + 8, generator, True)
    several = np.flatnonzero(found["camera"].before.count > 1)[: numbers(count)["camera"]]
    found["camera"] = _only(found["camera"], several)
    return found


def _only(pairs: Pairs, index: np.ndarray) -> Pairs:
    return replace(
        pairs,
        texts=[pairs.texts[i] for i in index],
        references=[reference[index] for reference in pairs.references],
        target=pairs.target[index],
        before=pairs.before[index],
        after=pairs.after[index],
        rendered=pairs.rendered[index],
        rendered_before=pairs.rendered_before[index],
        details={name: values[index] for name, values in (pairs.details or {}).items()},
    )


def write(folder: Path, drawn: dict[str, Pairs]) -> None:
    """The list of edits, the pictures, how cameras move, and under `truth/` the right result of each."""
    entries = []
    for kind, pairs in drawn.items():
        for i, text in enumerate(pairs.texts):
            name = f"{kind}-{i:04d}"
            picture = folder / kind / f"{name}.png"
            _save(pairs.references[0][i], picture)
            _save(pairs.target[i], folder / "truth" / f"{name}.png")
            entry = {"type": kind, "image_id": f"{i // 10:03d}", "edit_id": name, "prompt": text}
            entry |= {"image_path": f"{kind}/{name}.png", "object": pairs.before.name(i)}
            if kind == "move":
                entry["bbox_gt"] = json.dumps(pairs.rendered.box()[i].tolist())
            if kind == "camera":
                _save(pairs.target[i], picture.with_name(f"{name}_gt.png"))
                picture.with_suffix(".json").write_text(json.dumps({"metadata": {"edit_ypd": motion(pairs, i)}}))
            entries.append(entry)
    (folder / META).write_text(json.dumps(entries, indent=1))


def motion(pairs: Pairs, i: int) -> dict[str, float]:
    """Of a camera edit: degrees, and the change of the camera's distance."""
    yaw, pitch, distance = (float(value) for value in pairs.after.camera[i] - pairs.before.camera[i])
    return {"yaw": yaw, "pitch": pitch, "distance": round(distance, 6)}


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def pose(camera: np.ndarray) -> Pose:
    """Of a scene's camera, (3,)."""
    eye, basis = world.axes(np.asarray(camera, float)[None])
    rotation = basis[0] * np.array([[1.0], [-1.0], [1.0]])  # right, up, forward -> right, down, forward
    return Pose(rotation, -rotation @ eye[0])


def detect(pictures: Sequence[Image.Image]) -> list[list[Detection]]:
    """The coloured things of each picture."""
    return [coloured(picture) for picture in pictures]


def coloured(picture: Image.Image) -> list[Detection]:
    """Boxes around what has a colour of the scenes, under the colour's name."""
    labels = segment(np.asarray(picture))
    masks = np.stack([labels == colour for colour in range(len(COLOUR_NAMES))])
    boxes = mask_boxes(masks)
    there = masks.sum((1, 2)) >= SMALLEST
    return [
        Detection(name, tuple(map(float, box)))
        for name, box, seen in zip(COLOUR_NAMES, boxes, there, strict=True)
        if seen
    ]


def locate(picture: Image.Image, obj: str) -> list[tuple[float, ...]]:
    """The box of an object by the colour in its name."""
    return [found.box for found in coloured(picture) if found.label in obj.split()]


@dataclass(frozen=True, eq=False)
class Drawn:
    """What is known of the pictures of a benchmark: the scene of each by its pixels."""

    pairs: Pairs

    def scene(self, picture: Image.Image) -> tuple[Scenes, np.ndarray]:
        """The scene of a camera edit's picture, and the true camera afterwards. `LookupError` for an unknown one."""
        differences = np.abs(self.pairs.references[0].astype(int) - np.asarray(picture).astype(int)).mean((1, 2, 3))
        i = int(differences.argmin())
        if differences[i] > SAME:
            raise LookupError("the picture is of no drawn scene")
        return self.pairs.before[i : i + 1], self.pairs.after.camera[i]

    def estimate(self, pictures: Sequence[Image.Image]) -> list[Pose]:
        """The true poses of a picture and its true result, and for a third one that whose rendering is nearest."""
        scene, after = self.scene(pictures[0])
        nearest = nearest_camera(scene, np.asarray(pictures[2]), after)
        return [pose(camera) for camera in (scene.camera[0], after, nearest)]


def nearest_camera(scene: Scenes, pixels: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """The camera (3,) from which a scene looks most like a picture: `guess` or the scene's own if that is it, else of a
    grid around the scene's own, then by steps that are halved.
    """
    start = scene.camera[0]
    best, error = _nearest(scene, pixels, [guess, start])
    if error < EXACT:
        return best
    cameras = [np.array([start[0] + a, start[1] + b, start[2] * c]) for a, b, c in product(*GRID.values())]
    best, _ = _nearest(scene, pixels, [guess, *cameras])
    yaw, pitch, zoom = (float(values[1] - values[0]) for values in GRID.values())
    for _ in range(HALVINGS):
        yaw, pitch, zoom = yaw / 2, pitch / 2, zoom / 2
        near = [best + np.array([i * yaw, j * pitch, k * zoom * best[2]]) for i, j, k in product((0, -1, 1), repeat=3)]
        best, _ = _nearest(scene, pixels, near)
    return best


def _nearest(scene: Scenes, pixels: np.ndarray, cameras: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """With the mean square of its differences."""
    usable = np.stack([camera for camera in cameras if LOWEST < camera[1] < HIGHEST])
    many = replace(scene[np.zeros(len(usable), dtype=int)], camera=usable)
    error = ((render(many).pixels.astype(np.float32) - pixels) ** 2).mean((1, 2, 3))
    return usable[error.argmin()], float(error.min())


def true_tools(own: Tools, drawn: dict[str, Pairs]) -> Tools:
    """Colours and renderings where they can tell, and else the model's."""
    known = {"locate": locate, "detect": detect, "estimate": Drawn(drawn["camera"]).estimate}
    for kind, tool in known.items():
        own = own.with_tool(kind, tool, "drawn")
    return own


def measure(items: Sequence[Item], folder: Path, tools: Tools, about: dict) -> dict:
    """The figures of what is in a folder, whose report is written there."""
    scores = scoring.score(items, folder, tools, progress=True)
    report = spatialedit.report(items, folder, scores, {**about, "tools": tools.names})
    report.save(folder / ("drawn" if "drawn" in tools.names.values() else "own"))
    return report.figures


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny", help="a folder with weights instead of the bundled ones")
    parser.add_argument("--count", type=int, default=100, help="items")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--only-make", action="store_true", help="write the items, and predict nothing")
    parser.add_argument("--folder", type=Path, default=Path("build/tiny/bench"), help="for items, edits and reports")
    options = parser.parse_args(arguments)
    drawn = draw(options.count)
    write(options.folder / "items", drawn)
    if options.only_make:
        return
    model: Callable[[], JoyImage] = cache(lambda: JoyImage.load(options.model))
    items, edits = read_items(options.folder / "items"), options.folder / "edits"
    settings = Predicting(options.steps, options.guidance)
    wanted = spatialedit.wanted(items, edits, settings, {"model": options.model})
    check_predictions(wanted)
    make_all(wanted, model, progress=True)
    own = own_tools(lambda: model().mind, options.model)
    tools = {"the model": own, "the scenes": true_tools(own, drawn)}
    about = {"model": options.model, "settings": settings.options()}
    found = {f"by {who}": measure(items, edits, some, about) for who, some in tools.items()}
    best, objects = true_results(items, options.folder), [item for item in items if item.kind != "camera"]
    for who, some in tools.items():  # of a camera's true picture both are perfect
        found[f"true results, by {who}"] = measure(objects, best, some, {"model": "the truth"})
    print(table(found))


def true_results(items: Sequence[Item], folder: Path) -> Path:
    """A folder of predictions that are the right results."""
    best = folder / "best"
    for item in items:
        path = item.prediction(best)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "items" / "truth" / f"{item.edit_id}.png", path)
    return best


def table(found: dict[str, dict]) -> str:
    """Each figure by whom it was found."""
    keys = [(kind, name) for kind, named in next(iter(found.values())).items() for name in named]
    shown = [[said(figures.get(kind, {}).get(name, "")) for figures in found.values()] for kind, name in keys]
    rows = [[f"{kind} {name}", *values] for (kind, name), values in zip(keys, shown, strict=True)]
    return markdown(["figure", *found], rows)


if __name__ == "__main__":
    main()
