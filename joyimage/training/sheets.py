"""Sheets of samples: what is given, what the model made before, and what it makes now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from ..atomic import Part
from ..errors import JoyImageError

FOLDER = "samples"  # within that of a run
SIDE, GAP, HEAD = 256, 8, 20  # pixels: of the longer side of a picture, between pictures, and for the columns' names


@dataclass(frozen=True)
class Preview:
    """What is watched while a model is trained: `make` gives its pictures, the same ones of the same weights.

    `given` are the pictures that each of them is made from, if any.
    """

    make: Callable[[], Sequence[Image.Image]]
    given: Sequence[Sequence[Image.Image]] = ()


def sheet(columns: dict[str, Sequence[Image.Image]]) -> Image.Image:
    """Named columns of pictures, a row for each of their places. Raises `JoyImageError` without pictures."""
    rows = max((len(column) for column in columns.values()), default=0)
    if not rows:
        raise JoyImageError("there are no pictures to show on a sheet")
    canvas = Image.new("RGB", (GAP + len(columns) * (SIDE + GAP), HEAD + rows * (SIDE + GAP)), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (name, pictures) in enumerate(columns.items()):
        left = GAP + number * (SIDE + GAP)
        draw.text((left, 4), name, fill="black")
        for row, picture in enumerate(pictures):
            canvas.paste(_fitted(picture), (left, HEAD + row * (SIDE + GAP)))
    return canvas


def _fitted(picture: Image.Image) -> Image.Image:
    scale = SIDE / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.convert("RGB").resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def sheets_in(run: Path) -> list[Path]:
    """The sheets in a run's folder, the newest last."""
    return sorted((run / FOLDER).glob("step-*.png"))


class Sheets:
    """The sheets of a run, step by step, in a folder of their own."""

    def __init__(self, run: Path, preview: Preview):
        self.folder, self.preview = run / FOLDER, preview
        self._before: list[Image.Image] = []

    def start(self) -> None:
        """Make the pictures of before; called while the model is as it was."""
        self._before = list(self.preview.make())

    def make(self, step: int) -> Path:
        """Write the sheet of a step; returns its path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        most = max((len(row) for row in self.preview.given), default=0)
        columns: dict[str, Sequence[Image.Image]] = {
            f"picture {k + 1}": [row[k] for row in self.preview.given if len(row) > k] for k in range(most)
        }
        columns |= {"before": self._before, f"step {step}": list(self.preview.make())}
        path = self.folder / f"step-{step:07}.png"
        with Part(self.folder) as part:
            sheet(columns).save(part.path, format="PNG")
            part.publish([path], replace=True)
        return path
