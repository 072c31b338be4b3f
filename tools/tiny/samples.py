"""The pictures of `joyimage demo`: `python -m tools.tiny.samples` draws them anew.

They are held-out scenes, so the bundled model has never seen their combinations.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

import joyimage

from . import evaluate
from .tasks import Pairs

FOLDER = Path(joyimage.__file__).parent / "assets"
CHOSEN = {"move": 16, "rotate": 27, "camera": 39}  # of the scenes that `evaluate` judges


def pairs(task: str) -> tuple[Pairs, int]:
    """A task's scenes, and which of them is the demo's."""
    return evaluate.test_pairs(task), CHOSEN[task]


def picture(task: str) -> Image.Image:
    made, index = pairs(task)
    return Image.fromarray(made.rendered_before.pixels[index])


def main() -> None:
    for task in CHOSEN:
        made, index = pairs(task)
        picture(task).save(FOLDER / f"{task}.png", optimize=True)
        box = "" if made.box is None else tuple(map(int, made.box[index]))
        print(task, repr(made.texts[index]), box)


if __name__ == "__main__":
    main()
