"""`joyimage demo`: one spatial edit of a bundled photograph with the bundled model."""

from __future__ import annotations

import json
import time
from importlib import resources
from pathlib import Path

from PIL import Image

from . import spatial
from .images import load, save_png, side_by_side
from .pipeline import JoyImage

OBJECT = "space shuttle"
BOX = (20, 300, 180, 500)  # pixels of the photograph
OPTIONS = {"base_size": 256, "steps": 8, "seed": 0}


def photograph() -> Image.Image:
    """Astronaut Eileen Collins, NASA, 1998; public domain. 512 x 512."""
    with resources.as_file(resources.files(__package__) / "assets" / "astronaut.jpg") as path:
        return load(path)


def run(folder: Path, *, quiet: bool = False, as_json: bool = False) -> None:
    """Edit the photograph and write `input.png`, `output.png` and `side-by-side.png` into `folder`."""
    started = time.perf_counter()
    picture = photograph()
    boxed = spatial.draw_box(picture, BOX)
    instruction = spatial.move_object(OBJECT)
    (edited,) = JoyImage.load("tiny").edit(boxed, instruction, progress=not quiet, **OPTIONS)
    folder.mkdir(parents=True, exist_ok=True)
    sheet = side_by_side([picture, boxed, edited], ["input", instruction, "output of the tiny model"])
    paths = {}
    for name, image in (("input", boxed), ("output", edited), ("side-by-side", sheet)):
        paths[name] = str((folder / f"{name}.png").resolve())
        save_png(image, Path(paths[name]), {"prompt": instruction, "model": "tiny", **OPTIONS})
    seconds = time.perf_counter() - started
    if as_json:
        print(json.dumps({"instruction": instruction, "seconds": round(seconds, 3), **paths}, indent=2))
        return
    print(f"instruction  {instruction}")
    for name, path in paths.items():
        print(f"{name:<12} {path}")
    print(f"took         {seconds:.1f} s")
    print("The tiny model's weights are random, so its output is noise; every step on the way to it is the real one.")
