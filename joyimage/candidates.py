"""Several pictures for one edit, of which a judge chooses: who judges, what is chosen, and when it is enough.

The idea is the paper's (section 1): understanding guides editing. `joyimage.judging` has the model's own judge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image

from .errors import JoyImageError
from .settings import CANDIDATES, MAX_CANDIDATES, SEEDS, Sampling, check_steps, check_text, finite, whole

if TYPE_CHECKING:  # so that commands check their options without torch
    from torch import Tensor

    from .conditioning import Conditioning
    from .rendering import Pictures, Renderer, Run
    from .understanding import Understanding


@dataclass(frozen=True, eq=False)
class Attempt:
    """What a judge sees: the pictures that an edit was given, as they were fitted, the instruction, and the result.

    Without pictures the result was made from text.
    """

    pictures: tuple[Image.Image, ...]
    instruction: str
    result: Image.Image


@dataclass(frozen=True)
class Verdict:
    """What a judge says: a score from 0 to 1, or None where it cannot tell, and why; `sure` that nothing is wrong.

    `clear` is what it must be ahead of the first candidate's, so that a judge that is not sure changes nothing.

    Raises `JoyImageError` for a score that is no number from 0 to 1, a reason that is no text, a `sure` that is neither
    yes nor no, and a `clear` below 0.
    """

    score: float | None
    reason: str = ""
    sure: bool = False
    clear: float = 0.1

    def __post_init__(self):
        if self.score is not None and not (finite(self.score) and 0 <= self.score <= 1):
            raise JoyImageError(f"the judge's score is {self.score!r:.40}; it must be from 0 to 1, or None")
        check_text("the judge's reason", self.reason)
        if type(self.sure).__name__ not in ("bool", "bool_"):  # the latter from a comparison of NumPy's numbers
            raise JoyImageError(f"the judge's sure is {self.sure!r:.40}; it must be True or False")
        if not (finite(self.clear) and self.clear >= 0):
            raise JoyImageError(f"the judge's clear is {self.clear!r:.40}; it must be 0 or more")


Judge: TypeAlias = Callable[[Attempt], "Verdict | float | None"]


@dataclass(frozen=True)
class Candidate:
    """One picture with what the judge said of it."""

    seed: int
    verdict: Verdict

    def as_dict(self) -> dict[str, Any]:
        score = self.verdict.score
        return {
            "seed": self.seed,
            "score": None if score is None else round(float(score), 4),  # NumPy's numbers are none to JSON
            "reason": self.verdict.reason,
        }

    def __str__(self) -> str:
        score = "not told" if self.verdict.score is None else f"{self.verdict.score:.2f}"
        return f"seed {self.seed}: {score}" + (f", {self.verdict.reason}" if self.verdict.reason else "")


@dataclass
class Choice:
    """The candidates of one edit, in the order in which they were made."""

    candidates: list[Candidate] = field(default_factory=list)

    @property
    def best(self) -> int:
        """The index of the one with the highest score, of equal ones the lower seed, that is the earlier.

        The first stays where the judge could not tell of it, or no other is clearly ahead.
        """
        scores = [candidate.verdict.score for candidate in self.candidates]
        first = scores[0]
        if first is None:
            return 0
        told = [(score, -i) for i, score in enumerate(scores) if score is not None]
        score, index = max(told)
        return -index if score > first + self.candidates[-index].verdict.clear else 0

    @property
    def done(self) -> bool:
        """Whether another candidate could not be better: one is surely right, or none can be told."""
        last = self.candidates[-1].verdict
        return last.sure or last.score is None

    @property
    def seed(self) -> int:
        return self.candidates[self.best].seed

    def as_dict(self) -> dict[str, Any]:
        return {"chosen": self.seed, "candidates": [candidate.as_dict() for candidate in self.candidates]}

    def __str__(self) -> str:
        lines = [f"{'* ' if i == self.best else ''}{each}" for i, each in enumerate(self.candidates)]
        return "\n".join(lines)


# Which edits to make with which seeds -> their pictures.
Make: TypeAlias = Callable[[list[int], list[int]], Sequence[Image.Image]]


def choose(
    make: Make,
    edits: Sequence[tuple[tuple[Image.Image, ...], str]],
    seeds: Sequence[int],
    count: int,
    judge: Judge,
) -> list[Choice]:
    """Of each edit, its pictures and instruction, the choice among `count` candidates of seeds that follow its own.

    One candidate of every edit is made, then judged, then the next of those that are not done, so that what is surely
    right costs no more than without a choice.
    """
    choices = [Choice() for _ in edits]
    for number in range(count):
        members = [i for i, choice in enumerate(choices) if number == 0 or not choice.done]
        if not members:
            break
        own = [(seeds[i] + number) % SEEDS for i in members]
        for i, seed, picture in zip(members, own, make(members, own), strict=True):
            pictures, instruction = edits[i]
            verdict = judged(judge, Attempt(pictures, instruction, picture))
            choices[i].candidates.append(Candidate(seed, verdict))
    return choices


def judged(judge: Judge, attempt: Attempt) -> Verdict:
    """What a judge says, as a `Verdict`: it may give a plain number, or None."""
    said = judge(attempt)
    return said if isinstance(said, Verdict) else Verdict(said)


@dataclass(frozen=True, eq=False)
class Choosing:
    """How one picture is chosen among several; with one candidate nothing is chosen.

    Candidates are made by `draft_steps`, where given, and the chosen one again by all. `judge` is the model's own
    unless given.
    """

    candidates: int = 1
    draft_steps: int | None = None
    judge: Judge | None = None

    def checked(self, count: int, settings: Sampling, model: Understanding) -> Choosing:
        """With the judge of the model where none is given and one is needed.

        Raises `JoyImageError` for what cannot be used, or not with the other options of a run.
        """
        check_candidates(self.candidates, self.draft_steps, count, settings)
        if self.judge is None:
            return self if self.candidates == 1 else replace(self, judge=model.judge)
        if not callable(self.judge):
            raise JoyImageError(f"the judge must take an Attempt and give a Verdict or a number: {self.judge!r:.60}")
        if self.candidates == 1:
            raise JoyImageError("the judge is for choosing: give 2 candidates or more with it")
        return self


def check_candidates(candidates: int, draft_steps: int | None, count: int, settings: Sampling) -> None:
    """Raise `JoyImageError` for numbers of candidates and their steps that cannot be used, or not with the rest."""
    if not whole(candidates) or not 1 <= candidates <= MAX_CANDIDATES:
        raise JoyImageError(f"candidates is {candidates!r:.40}; give a whole number from 1 to {MAX_CANDIDATES}")
    if candidates > 1 and count > 1:
        raise JoyImageError(
            f"{candidates} candidates, of which one is chosen, and a count of {count}: leave one of them at 1"
        )
    if draft_steps is None:
        return
    check_steps(draft_steps)
    if candidates == 1:
        raise JoyImageError("draft_steps are those of candidates: give 2 candidates or more with them")
    if settings.sigmas is not None or settings.timesteps is not None:
        raise JoyImageError("draft_steps are steps of a schedule: leave out sigmas and timesteps, or draft_steps")


def best_of(
    renderer: Renderer,
    conditionings: Sequence[Conditioning],
    edits: Sequence[tuple[tuple[Image.Image, ...], str]],
    seeds: Sequence[int],
    settings: Sampling,
    run: Run,
    choosing: Choosing,
) -> Pictures:
    """One picture for each conditioning, in the form of `run.output`: the best of its candidates.

    `edits` are the pictures and instructions of the conditionings; `choosing` has been checked.
    """
    assert choosing.judge is not None
    drafts = settings if choosing.draft_steps is None else replace(settings, steps=choosing.draft_steps)
    made: dict[tuple[int, int], Tensor] = {}

    def make(members: list[int], own: list[int]) -> list[Image.Image]:
        batch = [conditionings[i] for i in members]
        latents = renderer.sample(batch, own, drafts, run.only(members))
        made.update(zip(zip(members, own, strict=True), latents, strict=True))
        return renderer.output(latents, batch, "pil")

    choices = choose(make, edits, seeds, choosing.candidates, choosing.judge)
    if choosing.draft_steps is None:
        latents = [made[i, choice.seed] for i, choice in enumerate(choices)]
    else:
        latents = renderer.sample(conditionings, [choice.seed for choice in choices], settings, run)
    pictures = renderer.output(latents, conditionings, run.output)
    if run.output == "pil":
        for picture, choice in zip(pictures, choices, strict=True):
            picture.info[CANDIDATES] = choice.as_dict()
    return pictures
