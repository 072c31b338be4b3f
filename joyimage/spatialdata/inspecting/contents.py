"""Counts of a data set, read from its files, and by how much answers differ from chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import JoyImageError
from ..making.merging import Made, reasons
from ..making.running import read_about
from ..making.standing import lost
from ..questions.evening import Side, balance
from ..records import Pair, Sample
from ..writers import FORMATS, tars


@dataclass(frozen=True)
class Contents:
    """What is in a data set.

    questions: by sub-task, then by form, and by language. balance: as `evening.balance`. samples: dialogues count once.
    pairs: by kind. scenes, used, failed, unnamed, silent: as in `Made`. lost: files that were in it.
    """

    format: str
    samples: int
    questions: dict[str, dict[str, int]]
    languages: dict[str, int]
    balance: dict[str, dict[str, float]]
    pairs: dict[str, int]
    scenes: int
    used: int
    failed: tuple[tuple[str, str], ...]
    unnamed: tuple[str, ...] = ()
    silent: tuple[tuple[str, str], ...] = ()
    lost: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "failed": reasons(self.failed), "silent": reasons(self.silent)}

    def __str__(self) -> str:
        asked = sum(sum(forms.values()) for forms in self.questions.values())
        languages = ", ".join(f"{count} {name}" for name, count in self.languages.items())
        lines = [f"{asked} questions in {self.samples} samples ({self.format}; {languages or 'none'})"]
        for task, forms in self.questions.items():
            told = ", ".join(f"{count} {form}" for form, count in forms.items())
            even = ", ".join(f"{kind} {share:+.3f}" for kind, share in self.balance.get(task, {}).items())
            lines.append(f"  {task:<28}{told}{f' (above chance: {even})' if even else ''}")
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.pairs.items())
        lines.append(f"{sum(self.pairs.values())} edit pairs{f': {kinds}' if kinds else ''}")
        lines.append(f"{self.used} of {self.scenes} scenes are used")
        lines += [f"  {name}: {reason}" for name, reason in self.failed]
        lines += [f"  {name}: nothing came of it: {reason}" for name, reason in self.silent]
        if self.unnamed:
            lines.append(f"{len(self.unnamed)} names have no translation: {', '.join(self.unnamed)}")
        if self.lost:
            lines.append(f"what was in it, and is lost: {', '.join(self.lost)}")
        return "\n".join(lines)


def read_samples(out: Path) -> Iterator[Sample]:
    """The questions of a data set. Raises `JoyImageError` where it is none, or not complete."""
    settings = complete(out)["settings"]
    return FORMATS[settings["format"]].read(out) if settings["tasks"] else iter(())


def read_pairs(out: Path) -> Iterator[Pair]:
    """Its edit pairs. Errors as above."""
    complete(out)
    return tars.read(out)


def complete(out: Path) -> dict[str, Any]:
    """What a data set says of itself. Raises `JoyImageError` where it is none, or not complete."""
    about = read_about(out)
    if "made" not in about:
        raise JoyImageError(f"{out} is not complete: run the `joyimage data make` that began it again")
    if about["settings"].get("format") not in tuple(FORMATS) or "tasks" not in about["settings"]:
        raise JoyImageError(
            f"{out} was made by version {about['version']!s:.40}, and its questions are in no format of this one: "
            f"{', '.join(FORMATS)}"
        )
    return about


def inspect(out: str | Path) -> Contents:
    """What is in a data set. Raises `JoyImageError` where it is none, is not complete, or a file of it is damaged."""
    out = Path(out)
    about = complete(out)
    made = Made.of(about["made"])
    questions: dict[str, Counter[str]] = {}
    languages: Counter[str] = Counter()
    found: Counter[Side] = Counter()
    samples = 0
    for sample in read_samples(out):
        samples += 1
        for turn in sample.turns:
            questions.setdefault(turn.task, Counter())[turn.form] += 1
            languages[turn.language] += 1
            found.update(turn.keys)
    return Contents(
        format=about["settings"]["format"],
        samples=samples,
        questions={task: dict(sorted(questions[task].items())) for task in made.questions if task in questions},
        languages=dict(sorted(languages.items())),
        balance=balance(found.elements()),
        pairs=dict(Counter(pair.kind for pair in read_pairs(out))),
        scenes=made.scenes,
        used=made.used,
        failed=made.failed,
        unnamed=made.unnamed,
        silent=made.silent,
        lost=tuple(lost(out, about.get("files", {}))),
    )
