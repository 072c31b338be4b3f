"""A small benchmark of drawn scenes, made once for all tests that need one, and predictions of its true results."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from joyimage.evaluation.layout import Item, read_items
from joyimage.evaluation.tools import Tools
from tools.tiny import bench

FOLDER = TemporaryDirectory(prefix="joyimage-bench-")  # until the process ends
COUNT = 6  # items: one move, three rotations, two cameras


@cache
def made() -> tuple[Path, dict]:
    folder = Path(FOLDER.name)
    drawn = bench.draw(COUNT)
    bench.write(folder, drawn)
    return folder, drawn


def perfect(folder: Path) -> list[Item]:
    """The items, whose true results are predictions in `folder`."""
    items = read_items(made()[0])
    for item in items:
        path = item.prediction(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made()[0] / "truth" / f"{item.edit_id}.png", path)
    return items


def tools() -> Tools:
    """Boxes by colour, and true poses."""
    camera = bench.Drawn(made()[1]["camera"])
    names = dict.fromkeys(("locate", "detect", "see", "estimate"), "drawn")
    return Tools(bench.locate, bench.detect, lambda picture, obj: "front", camera.estimate, names=names)
