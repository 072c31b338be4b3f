"""Scores of single edits of SpatialEdit-Bench: what the tools are asked, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..boxes import Box, check_corners, overlap
from ..candidates import Attempt, judged
from ..errors import JoyImageError
from ..images import load
from ..settings import VIEWS
from .framing import Detection, Framed, FramingErrors, framing_error, mean_framing_error
from .kept import Kept, digest, one_by_one
from .layout import Item, fitted_box
from .tools import Tools, answer_of
from .viewpoint import Pose, ViewpointErrors, viewpoint_error

FILE = "scores.jsonl"
COMPARING = ("detect", "estimate", "judge")  # tools that are shown the benchmark's own pictures, too
STILL = "the true camera hardly moves"
UNPOSED = "the poses could not be estimated"
UNJUDGED = "the judge could not tell"
UNMATCHED = "fewer than two things are matched with the truth"


@dataclass(frozen=True)
class Score:
    """What was measured of one edit; numbers that were not are None, and `note` says why."""

    item: Item
    iou: float | None = None  # of a move
    found: Box | None = None  # where the object is, and `truth` where it should be, in pixels of the prediction
    truth: Box | None = None
    seen: str = ""  # the side that a rotation shows
    consistency: float | None = None
    viewpoint: ViewpointErrors | None = None
    framing: FramingErrors | None = None
    note: str = ""

    @property
    def done(self) -> float | None:
        """Of an object edit, whether it was done: IoU, or 1 where the side that was asked for is seen and else 0."""
        return {"move": self.iou, "rotate": float(self.seen == self.item.view)}.get(self.item.kind)

    @property
    def overall(self) -> float | None:
        """Of an object edit: the geometric mean of `done` and the judge's consistency; None without a judge."""
        return None if self.done is None or self.consistency is None else math.sqrt(self.done * self.consistency)

    @property
    def goodness(self) -> float | None:
        """From 0 to 1, for the order on the page: of a camera edit 1 less the mean of its errors, as far as known."""
        if self.item.kind != "camera":
            return self.done if self.overall is None else self.overall
        framing = mean_framing_error([self.framing] if self.framing else [])
        errors = [min(self.viewpoint.value, 1.0)] if self.viewpoint else []
        errors += [framing["fe"]] if framing else []
        return 1 - float(np.mean(errors)) if errors else None

    def values(self) -> dict[str, Any]:
        """What the report says of this edit."""
        if self.item.kind == "move":
            own = {"iou": self.iou, "found": self.found, "bbox_gt": self.truth}
        elif self.item.kind == "rotate":
            own = {"asked": self.item.view, "seen": self.seen}
        else:
            assert self.item.motion
            own = {"asked": vars(self.item.motion), "viewpoint": self.viewpoint and vars(self.viewpoint),
                   "framing": self.framing and vars(self.framing)}  # fmt: skip
        judged_too = {} if self.consistency is None else {"consistency": self.consistency, "score": self.overall}
        return own | judged_too


def score(items: Sequence[Item], folder: Path, tools: Tools, progress: bool = False) -> list[Score | None]:
    """The scores of the predictions in a folder, None for those that are not there.

    What tools say is kept in the folder: what is scored again, by tools of the same names, costs nothing.
    """
    kept = Kept(folder / FILE)

    def score_one(item: Item) -> Score | None:
        path = item.prediction(folder)
        try:
            return Scorer(item, path, tools, kept).score() if path.exists() else None
        except JoyImageError as error:
            raise JoyImageError(f"{item.name}: {error}") from error

    return one_by_one(items, score_one, "score", progress)


@dataclass(frozen=True)
class Scorer:
    """One prediction, in the file `path`, and the tools that are asked of it."""

    item: Item
    path: Path
    tools: Tools
    kept: Kept

    def score(self) -> Score:
        """Raises `JoyImageError` for what a tool says and no tool may say."""
        return {"move": self.move, "rotate": self.rotate, "camera": self.camera}[self.item.kind]()

    def asked(self, kind: str, find: Callable[[], Any]) -> Any:
        """What a tool says of this prediction, in values of JSON."""
        name = self.tools.names.get(kind, "")
        of = (kind, name, self.item.name, self.item.prompt, self.item.object)
        others = [path for path in (self.item.picture, self.item.truth) if path and kind in COMPARING]
        return self.kept.get((*of, *map(digest, (self.path, *others))), partial(answer_of, name or kind, find))

    def move(self) -> Score:
        prediction, source = load(self.path), load(self.item.picture)
        boxes = self.asked("locate", lambda: _numbers(self.tools.locate(prediction, self.item.object)))
        assert self.item.box
        truth = fitted_box(self.item.box, source.size, prediction.size)
        found = tuple(boxes[0]) if boxes else None
        consistency = self.consistency(source, prediction)
        iou = overlap(found, truth) if found else 0.0
        note = _joined("" if found else f"no {self.item.object} is found", self.untold(consistency))
        return Score(self.item, iou=iou, found=found, truth=truth, consistency=consistency, note=note)

    def rotate(self) -> Score:
        prediction = load(self.path)
        seen = self.asked("see", lambda: _side(self.tools.see(prediction, self.item.object)))
        consistency = self.consistency(load(self.item.picture), prediction)
        return Score(self.item, seen=seen, consistency=consistency, note=self.untold(consistency))

    def consistency(self, source: Image.Image, prediction: Image.Image) -> float | None:
        judge = self.tools.judge
        if judge is None:
            return None
        attempt = Attempt((source,), self.item.prompt, prediction)
        return self.asked("judge", lambda: _number(judged(judge, attempt).score))

    def untold(self, consistency: float | None) -> str:
        """Why there is no score, if a judge was asked for one."""
        return UNJUDGED if self.tools.judge and consistency is None else ""

    def camera(self) -> Score:
        assert self.item.truth and self.item.motion
        pictures = [load(self.item.picture), load(self.item.truth), load(self.path)]
        told = self.asked("detect", lambda: _things(self.tools.detect(pictures), len(pictures)))
        framed = [
            Framed(tuple(Detection(label, tuple(box)) for label, box in things), picture.size)
            for things, picture in zip(told, pictures, strict=True)
        ]
        source, truth, edited = framed
        framing = framing_error(source, truth, edited, self.item.motion.distance)
        viewpoint, note = self.viewpoint(pictures)
        note = _joined(note, "" if framing.angle is not None else UNMATCHED)
        return Score(self.item, viewpoint=viewpoint, framing=framing, note=note)

    def viewpoint(self, pictures: list[Image.Image]) -> tuple[ViewpointErrors | None, str]:
        """The error, or None and why."""
        estimate = self.tools.estimate
        if estimate is None:
            return None, ""
        told = self.asked("estimate", lambda: _poses(estimate(pictures), len(pictures)))
        if told is None:
            return None, UNPOSED
        source, truth, edited = (Pose(np.array(rotation), np.array(translation)) for rotation, translation in told)
        error = viewpoint_error(source, truth, edited)
        return error, "" if error else STILL


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _side(seen: str) -> str:
    if not (isinstance(seen, str) and seen in VIEWS):
        raise JoyImageError(f"the tool that sees sides says {seen!r:.60}; it must be one of {', '.join(VIEWS)}")
    return seen


def _number(score: float | None) -> float | None:
    return None if score is None else float(score)


def _numbers(boxes: Sequence[Box]) -> list[list[float]]:
    return [list(check_corners(box, "a box that locates something")) for box in boxes]


def _things(found: Sequence[Sequence[Detection]], count: int) -> list[list[tuple[str, list[float]]]]:
    if len(found) != count:
        raise JoyImageError(f"the detector gives {len(found)} lists for {count} pictures; it must give one of each")
    return [[(thing.label, list(thing.box)) for thing in things] for things in found]


def _poses(poses: Sequence[Pose] | None, count: int) -> list | None:
    if poses is None:
        return None
    if len(poses) != count:
        raise JoyImageError(f"the pose estimator gives {len(poses)} poses for {count} pictures; it must give one each")
    return [(pose.rotation.tolist(), pose.translation.tolist()) for pose in poses]
