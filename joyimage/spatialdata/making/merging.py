"""Shards into one data set, in the scenes' order: limits, even answers, dialogues, and what is told of it all."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..questions.evening import Evening
from ..records import CHOICE, Batch, Sample
from ..settings import Making
from ..writers import FORMATS
from ..writers.tars import PairWriter

FOLDER = ".making"
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Made:
    """What a data set holds. `used`: scenes of which something is in it; `failed`: scenes and why they are not.

    questions: by sub-task; left_out: those that would have made one answer too frequent. pairs: by kind. unnamed:
    categories without a word in a language that was asked for, where there was a table of translations. silent: scenes
    that could be used and of which nothing came, and why.
    """

    scenes: int
    used: int
    failed: tuple[tuple[str, str], ...]
    questions: dict[str, int]
    left_out: dict[str, int]
    pairs: dict[str, int]
    unnamed: tuple[str, ...] = ()
    silent: tuple[tuple[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "failed": reasons(self.failed), "silent": reasons(self.silent)}

    @classmethod
    def of(cls, values: dict[str, Any]) -> Made:
        """From what `as_dict` gives, also after JSON. Raises `TypeError` or `KeyError` for other values."""
        counts = (values[name] for name in ("questions", "left_out", "pairs"))
        if not all(isinstance(each, dict) for each in counts) or not all(
            isinstance(name, str) for name in values.get("unnamed", ())
        ):
            raise TypeError("counts are by name, and names are text")
        failed, silent = (
            tuple((each["scene"], each["reason"]) for each in values.get(name, ())) for name in ("failed", "silent")
        )
        return cls(**{**values, "failed": failed, "silent": silent, "unnamed": tuple(values.get("unnamed", ()))})


def reasons(scenes: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Names of scenes and what is said of each, for JSON."""
    return [{"scene": name, "reason": reason} for name, reason in scenes]


class Merge:
    """A data set in a folder of its own within `out`, until `publish` gives its files their names; as a context."""

    def __init__(self, out: Path, settings: Making):
        self.out, self._settings = out, settings
        self.names: list[str] = []  # of what was published
        self._folder = out / FOLDER
        shutil.rmtree(self._folder, ignore_errors=True)  # of a run that was stopped: it is made of shards again
        self._folder.mkdir()
        size = settings.megabytes * MEGABYTE
        self._format = FORMATS[settings.format]
        self._writer = self._format.open(self._folder, size) if settings.tasks else None
        self._pair_writer = PairWriter(self._folder, size)
        self._open = [self._pair_writer, *([self._writer] if self._writer else [])]
        self._evening = Evening()
        self._questions = Counter({task: 0 for task in settings.tasks})
        self._left_out = Counter({task: 0 for task in settings.tasks})
        self._pairs = Counter({kind: 0 for kind in settings.edits})
        self._scenes = self._used = self._broken = 0
        self._failed: list[tuple[str, str]] = []
        self._silent: list[tuple[str, str]] = []
        self._unnamed: set[str] = set()

    @property
    def full(self) -> bool:
        """Whether no scene could add anything."""
        limit = self._settings.limit
        return limit is not None and all(n >= limit for n in (*self._questions.values(), *self._pairs.values()))

    @property
    def broken(self) -> Sequence[tuple[str, str]]:
        """Scenes and why they failed, where that is all of them; else none."""
        return self._failed if self._scenes == self._broken else ()

    def add(self, batch: Batch) -> None:
        """What a scene gives, as far as it is taken. Scenes come in their order."""
        samples = [sample for sample in batch.samples if self._takes(sample)]
        for sample in dialogues(samples) if self._settings.dialogues else samples:
            assert self._writer is not None
            self._writer.add(sample)
        pairs = 0
        for pair in batch.pairs:
            if self._room(self._pairs[pair.kind]):
                self._pairs[pair.kind] += 1
                self._pair_writer.add(pair)
                pairs += 1
        self._scenes += 1
        self._used += bool(samples or pairs)
        self._broken += bool(batch.failed and not batch.samples and not batch.pairs)
        self._failed += batch.failed
        self._silent += [(batch.scene, batch.silent)] if batch.silent else []
        self._unnamed |= set(batch.unnamed)

    def _takes(self, sample: Sample) -> bool:
        (turn,) = sample.turns
        if (self._format.choices and turn.form != CHOICE) or not self._room(self._questions[turn.task]):
            return False
        taken = self._evening.takes_sides(turn.keys)
        (self._questions if taken else self._left_out)[turn.task] += 1
        return taken

    def _room(self, count: int) -> bool:
        return self._settings.limit is None or count < self._settings.limit

    def publish(self) -> Made:
        """Give all files their names, in the place of what a stopped run may have left there."""
        self._close()
        self.names = sorted(path.name for path in self._folder.iterdir())
        for path in map(self._folder.joinpath, self.names):
            name = self.out / path.name
            if name.is_dir():
                shutil.rmtree(name)
            os.replace(path, name)
        self._folder.rmdir()
        counts = dict(self._questions), dict(self._left_out), dict(self._pairs)
        told = tuple(sorted(self._unnamed)), tuple(self._silent)
        return Made(self._scenes, self._used, tuple(self._failed), *counts, *told)

    def _close(self) -> None:
        while self._open:
            self._open.pop().close()

    def __enter__(self) -> Merge:
        return self

    def __exit__(self, *_error) -> None:
        self._close()


def dialogues(samples: Sequence[Sample]) -> Iterator[Sample]:
    """Those of one language about the very same pictures as one, with the first one's id and in its place."""
    groups: dict[tuple, list[Sample]] = {}
    for sample in samples:
        names = tuple(picture.name for picture in sample.pictures)
        groups.setdefault((names, sample.turns[0].language), []).append(sample)
    for group in groups.values():
        yield replace(group[0], turns=tuple(turn for sample in group for turn in sample.turns))
