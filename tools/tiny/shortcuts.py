"""What saving forwards costs the bundled model: `python -m tools.tiny.shortcuts`, on scenes it was never trained on.

Each setting makes the same pictures as 40 exact steps, with the same seeds. Judged are success, as in `evaluate`, and
how near the pictures are to those of the exact steps. What is done is kept in the results' file and not done again, so
a run may be stopped and go on. `--docs` writes the table into docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from joyimage import JoyImage
from joyimage.atomic import Part
from joyimage.settings import PRESETS

from . import judge
from .evaluate import COMPARED, condition, markdown, outputs, test_pairs

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "shortcuts.json"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- begin: python -m tools.tiny.shortcuts --docs -->\n", "<!-- end -->"
COUNT = 50  # scenes of each task
BATCH = 10
EXACT = "exact, 40 steps"
LOWEST = 0.05  # quantile of the pictures' PSNR

# What is compared. The block cache decides by all samples of a forward, so it gets them one by one.
ROWS: dict[str, dict[str, Any]] = {
    EXACT: {},
    "euler, 20 steps": {"steps": 20},
    "euler, 12 steps": {"steps": 12},
    "unipc, 16 steps": {"solver": "unipc", "steps": 16},
    "unipc, 12 steps": {"solver": "unipc", "steps": 12},
    "guidance_every 2": {"guidance_every": 2},
    "guidance_every 4": {"guidance_every": 4},
    "forecast 2": {"forecast": 2},
    "forecast 3": {"forecast": 3},
    "forecast 4": {"forecast": 4},
    "forecast 5": {"forecast": 5},
    "guidance_interval 0.2 to 1": {"guidance_interval": (0.2, 1.0)},
    "guidance_interval 0.5 to 1": {"guidance_interval": (0.5, 1.0)},
    "guidance_interval 0 to 0.9": {"guidance_interval": (0.0, 0.9)},
    "reference_every 2": {"reference_every": 2},
    "reference_every 4": {"reference_every": 4},
    "block_cache 0.05": {"block_cache": 0.05, "batch_size": 1},
    "block_cache 0.1": {"block_cache": 0.1, "batch_size": 1},
    "block_cache 0.2": {"block_cache": 0.2, "batch_size": 1},
    "forecast 2, guidance_every 2": {"forecast": 2, "guidance_every": 2},
    "forecast 3, guidance_every 2": {"forecast": 3, "guidance_every": 2},
    "forecast 4, guidance_every 2": {"forecast": 4, "guidance_every": 2},
    "forecast 3, guidance_interval 0.2 to 1": {"forecast": 3, "guidance_interval": (0.2, 1.0)},
    "forecast 4, reference_every 2": {"forecast": 4, "reference_every": 2},
    "forecast 2, unipc, 20 steps": {"forecast": 2, "solver": "unipc", "steps": 20},
    **{f"preset {name}": {"preset": name} for name in PRESETS if name != "exact"},
}

Row = dict[str, Any]  # of one setting and task: forwards, work, success, and each picture's psnr


@contextmanager
def counted(model: JoyImage) -> Iterator[dict[str, float]]:
    """Counts what the blocks do meanwhile: forwards of one prompt each, and tokens."""
    found = {"forwards": 0.0, "tokens": 0.0}
    blocks = model.mmdit.double_blocks

    def count(_block, arguments) -> None:
        img, txt = arguments[:2]
        found["forwards"] += len(img) / len(blocks)
        found["tokens"] += img.shape[:2].numel() + txt.shape[:2].numel()

    hooks = [block.register_forward_pre_hook(count) for block in blocks]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


class Comparison:
    """Scenes with their conditionings, made once, and what comes of them exactly."""

    def __init__(self, model: JoyImage, count: int):
        self.model, self.count = model, count
        self._made: dict[str, tuple] = {}

    def row(self, task: str, options: dict[str, Any]) -> Row:
        if task not in self._made:
            pairs = test_pairs(task, self.count)
            conditionings = condition(self.model, pairs)
            self._made[task] = pairs, conditionings, outputs(self.model, conditionings, batch_size=BATCH)
        pairs, conditionings, exact = self._made[task]
        with counted(self.model) as found:
            pictures = outputs(self.model, conditionings, **{"batch_size": BATCH} | options)
        verdicts = [v for v in judge.verdicts(pairs, pictures).values() if v.dtype == bool]
        near = judge.psnr(pictures, exact, np.ones(pictures.shape[:3], dtype=bool))
        return {
            "forwards": found["forwards"] / self.count,
            "tokens": found["tokens"] / self.count,
            "success": int(np.all(verdicts, axis=0).sum()),
            "psnr": [round(float(value), 2) for value in near],
        }


def compare(model: JoyImage, count: int, path: Path) -> dict[str, Any]:
    """The results, as they are in the file too; what is in there for as many scenes is taken from it."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if results.get("scenes") != count:
        results = {"scenes": count, "settings": {}}
    comparison = Comparison(model, count)
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, options in ROWS.items():
        shown = {**options, **(PRESETS[options["preset"]] if "preset" in options else {})}
        kept = results["settings"].get(name)
        if kept is None or kept["options"] != json.loads(json.dumps(shown)):
            kept = results["settings"][name] = {"options": shown, "tasks": {}}
        for task in COMPARED:
            if task not in kept["tasks"]:
                kept["tasks"][task] = comparison.row(task, options)
                write(path, json.dumps(results) + "\n")
        print(name, figures(kept), flush=True)
    results["settings"] = {name: results["settings"][name] for name in ROWS}
    return results


def figures(setting: dict[str, Any]) -> dict[str, Any]:
    """Over all tasks together; `success` is by task."""
    rows = setting["tasks"].values()
    near = [value for row in rows for value in row["psnr"]]
    return {
        "forwards": float(np.mean([row["forwards"] for row in rows])),
        "tokens": float(np.mean([row["tokens"] for row in rows])),
        "success": {task: row["success"] / len(row["psnr"]) for task, row in setting["tasks"].items()},
        "psnr": float(np.mean(near)),
        "lowest": float(np.quantile(near, LOWEST)),
    }


def table(results: dict[str, Any]) -> str:
    found = {name: figures(setting) for name, setting in results["settings"].items()}
    whole = found[EXACT]["tokens"]
    rows = []
    for name, row in found.items():
        success = [f"{100 * row['success'][task]:.0f}" for task in COMPARED]
        near = ["", ""] if name == EXACT else [f"{row['psnr']:.1f}", f"{row['lowest']:.1f}"]
        together = f"{100 * np.mean(list(row['success'].values())):.1f}"
        rows.append([name, f"{row['forwards']:.1f}", f"{row['tokens'] / whole:.2f}", *success, together, *near])
    return markdown(["setting", "forwards", "tokens", *COMPARED, "all", "PSNR, mean", "lowest 5 %"], rows)


def page_with(text: str, results: dict[str, Any]) -> str:
    """The page with the table between its marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}{table(results)}\n{END}{rest.split(END, 1)[1]}"


def write(path: Path, text: str) -> None:
    with Part(path.parent) as part:
        part.path.write_text(text, encoding="utf-8")
        part.publish([path], replace=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny", help="a folder with weights instead of the bundled ones")
    parser.add_argument("--count", type=int, default=COUNT, help="scenes of each task")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file in which a run goes on")
    parser.add_argument("--anew", action="store_true", help="begin anew, as with other weights, and not go on")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/performance.md")
    options = parser.parse_args(arguments)
    if options.anew:
        options.results.unlink(missing_ok=True)
    results = compare(JoyImage.load(options.model), options.count, options.results)
    print(table(results))
    if options.docs:
        write(PAGE, page_with(PAGE.read_text(encoding="utf-8"), results))


if __name__ == "__main__":
    main()
