"""SpatialEdit-Bench: the edits to make, and the report of their scores."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..conditioning import fit
from ..images import load, save_png
from ..settings import AUTO
from ..wishes import NearMiss
from .framing import mean_framing_error
from .layout import KINDS, Item
from .predicting import Wanted
from .report import Report, Row, Shown
from .scoring import Score
from .settings import Predicting
from .viewpoint import mean_viewpoint_error

if TYPE_CHECKING:
    from ..pipeline import JoyImage

NAME = "SpatialEdit-Bench"
MISSING = "there is no prediction"


def wanted(items: Sequence[Item], folder: Path, settings: Predicting, told: dict[str, Any]) -> list[Wanted]:
    """The edits to make in a folder, in the published layout. `told` is what pictures say of the model."""
    return [
        Wanted(
            item.prediction(folder),
            {"prompt": item.prompt, **settings.options(), **told},
            partial(_edited, item, settings),
            partial(_beside, item, folder, settings),
        )
        for item in items
    ]


def _edited(item: Item, settings: Predicting, model: JoyImage) -> Image.Image:
    """The prompt is the benchmark's, to the letter: that it comes near one of the model's own sentences is known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NearMiss)
        return model.edit(item.picture, item.prompt, **settings.options())[0]


def _beside(item: Item, folder: Path, settings: Predicting, model: JoyImage) -> None:
    """What the released scripts look for beside a prediction: the picture as it was fitted, the prompt, the truth."""
    base = model.base_size if settings.base_size == AUTO else settings.base_size
    _, fitted, prompt, truth, motion = item.files(folder)
    (source,), _ = fit([load(item.picture)], None, int(base))
    save_png(source, fitted, {})
    prompt.write_text(item.prompt, encoding="utf-8")
    if item.truth:
        save_png(load(item.truth), truth, {})
        shutil.copyfile(item.picture.with_suffix(".json"), motion)


def figures(scores: Sequence[Score]) -> dict[str, dict[str, float | int | None]]:
    """The benchmark's figures by kind of edit; one that could not be measured is None."""
    by_kind = {kind: [score for score in scores if score.item.kind == kind] for kind in KINDS}
    found: dict[str, dict[str, float | int | None]] = {}
    for kind, own in by_kind.items():
        if own:
            found[kind] = {"scored": len(own), **(camera_figures(own) if kind == "camera" else object_figures(own))}
    return found


def object_figures(scores: Sequence[Score]) -> dict[str, float | int | None]:
    """Of moves IoU, of rotations the share of right views; with a judge its consistency, and the score of both."""
    name = "iou" if scores[0].item.kind == "move" else "view"
    return {
        name: _mean([score.done for score in scores]),
        "judged": sum(score.consistency is not None for score in scores),
        "consistency": _mean([score.consistency for score in scores]),
        "score": _mean([score.overall for score in scores]),
    }


def camera_figures(scores: Sequence[Score]) -> dict[str, float | int | None]:
    """VE and FE with their parts, and `overall`, the mean of VE and the FE of the released script. Lower is better."""
    viewpoint = mean_viewpoint_error([score.viewpoint for score in scores if score.viewpoint])
    framing = mean_framing_error([score.framing for score in scores if score.framing])
    found: dict[str, float | int | None] = {"ve": None, "fe": None, "overall": None}
    found.update(viewpoint or {})
    found.update(framing or {})
    found["without_ve"] = sum(score.viewpoint is None for score in scores)
    if viewpoint and framing:
        found["overall"] = (viewpoint["ve"] + framing["fe_released"]) / 2
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    """Of those that were measured."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def report(items: Sequence[Item], folder: Path, scores: Sequence[Score | None], about: dict[str, Any]) -> Report:
    """Everything that was measured, to be saved. `about` says by what: the model, its settings, the tools."""
    rows = [_row(item, item.prediction(folder), score) for item, score in zip(items, scores, strict=True)]
    there = [score for score in scores if score]
    counts = {"items": len(items), "missing": len(items) - len(there)}
    return Report(NAME, figures(there), {**about, **counts}, rows)


def _row(item: Item, path: Path, score: Score | None) -> Row:
    shown = [Shown("picture", partial(load, item.picture))]
    if score is None:
        return Row(item.name, item.kind, item.prompt, None, MISSING, {}, shown)
    boxes = [(score.truth, "lime"), (score.found, "magenta")] if item.kind == "move" else []
    shown.append(Shown("edit", partial(load, path), tuple((box, colour) for box, colour in boxes if box)))
    if item.truth:
        shown.append(Shown("truth", partial(load, item.truth)))
    return Row(item.name, item.kind, item.prompt, score.goodness, score.note, score.values(), shown)
