"""What the closed loop is worth to the bundled model: `python -m tools.tiny.closed_loop`, on held-out scenes.

Choosing: shares of scenes in which all is right, with the first seed, with the one that the model itself chooses of
some candidates, and with the best by the scenes' truth; and how far the model's judgement can be trusted. Reasoning:
shares of right answers from the picture alone, with the views that the model asks for and the editor renders, and with
the true pictures of those views.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from joyimage import JoyImage, reasoning, spatial
from joyimage.candidates import Attempt, Candidate, Choice, judged

from . import papers
from .evaluate import condition, markdown, outputs
from .judge import verdicts
from .papers import Reasoning, turned
from .render import render
from .scenes import Scenes
from .tasks import TASKS, Pairs

SEED = 41_000  # of the scenes: neither training nor other measurements come near it
CHOSEN = ("move", "rotate", "compose", "generate")
RIGHT = 0.5  # score from which on the judge says that a picture is right
SPACING = 1000  # between the first seeds of two scenes


@dataclass(frozen=True)
class Chosen:
    """Of each scene (N,) whether the picture is right, and of every candidate (n, N) what judge and truth say."""

    first: np.ndarray
    own: np.ndarray
    best: np.ndarray
    said: np.ndarray
    true: np.ndarray
    made: np.ndarray  # candidates that were made until the judge was sure

    def figures(self) -> dict[str, float]:
        gained, lost = int((self.own & ~self.first).sum()), int((self.first & ~self.own).sum())
        positive, wrong = self.said & self.true, ~self.true
        return {
            "one": self.first.mean(),
            "chosen": self.own.mean(),
            "truth": self.best.mean(),
            "precision": positive.sum() / max(self.said.sum(), 1),
            "recall": positive.sum() / max(self.true.sum(), 1),
            "wrong ones seen": (wrong & ~self.said).sum() / max(wrong.sum(), 1),
            "made": self.made.mean(),
            "gained": gained,
            "lost": lost,
            "p": paired(gained, lost),
        }


def paired(gained: int, lost: int) -> float:
    """McNemar's exact test: how likely so few scenes, or fewer, are lost among those that changed, by chance alone."""
    changed = gained + lost
    return sum(math.comb(changed, k) for k in range(lost + 1)) / 2**changed


def truth(pairs: Pairs, output: np.ndarray) -> np.ndarray:
    """Whether every yes-or-no judge says yes, (N,)."""
    return np.all([v for v in verdicts(pairs, output).values() if v.dtype == bool], axis=0)


def choosing(model: JoyImage, task: str, count: int, candidates: int, **options) -> Chosen:
    pairs = TASKS[task](count, np.random.default_rng([SEED, list(TASKS).index(task)]), True)
    conditionings = condition(model, pairs)
    pictures = [tuple(Image.fromarray(r[i]) for r in pairs.references) for i in range(count)]
    choices = [Choice() for _ in range(count)]
    true, judge = [], model.judge
    for number in range(candidates):
        seeds = [SPACING * i + number for i in range(count)]
        output = outputs(model, conditionings, seeds, **options)
        true.append(truth(pairs, output))
        for i, choice in enumerate(choices):
            attempt = Attempt(pictures[i], pairs.texts[i], Image.fromarray(output[i]))
            choice.candidates.append(Candidate(seeds[i], judged(judge, attempt)))
    marks, rows = np.stack(true), np.arange(count)
    stopped = [stopping(choice) for choice in choices]
    said = np.array([[(c.verdict.score or 0) >= RIGHT for c in choice.candidates] for choice in choices]).T
    own = marks[[choice.best for choice in stopped], rows]
    return Chosen(marks[0], own, marks.any(0), said, marks, np.array([len(c.candidates) for c in stopped]))


def stopping(choice: Choice) -> Choice:
    """The choice as it is made where later candidates wait for earlier ones."""
    early = Choice()
    for candidate in choice.candidates:
        early.candidates.append(candidate)
        if early.done:
            break
    return early


def questions(count: int) -> Iterator[tuple[str, Reasoning]]:
    generator = np.random.default_rng([SEED, 99])
    for side in papers.SIDES:
        yield f"seen from the {side}", papers.seen_from_a_side(count, generator, side, test=True)
    yield "hidden objects", papers.hiding(count, generator, test=True)


def thinking(model: JoyImage, asked: Reasoning, **options) -> dict[str, dict[str, list[bool]]]:
    """By kind of question, marks of the plain answers, those with views, and those with true views."""
    pictures = render(asked.before).pixels
    answer = partial(model.encoder.answer, temperature=0, max_new_tokens=60)
    found: dict[str, dict[str, list[bool]]] = {}
    for i, some in enumerate(asked.questions):
        picture = Image.fromarray(pictures[i])
        scene = asked.before[i : i + 1]
        for question in some:
            marks = found.setdefault(question.kind, {})
            for way, render_view in (
                ("views", partial(edited, model, picture, options)),
                ("true", partial(true, scene)),
            ):
                told = reasoning.reason(partial(asking, model), render_view, picture, question.text)
                marks.setdefault(way, []).append(told.text == question.answer)
            marks.setdefault("asked for views", []).append(bool(told.views))
            marks.setdefault("plain", []).append(answer([picture], question.text).strip() == question.answer)
    return found


def asking(model: JoyImage, pictures: list[Image.Image], question: str, system: str | None) -> str:
    options = {} if system is None else {"system": system}
    return model.encoder.answer(pictures, question, temperature=0, max_new_tokens=80, **options)


def edited(
    model: JoyImage, picture: Image.Image, options: dict, cameras: Sequence[spatial.Camera]
) -> list[Image.Image]:
    return model.edit(picture, [camera.text for camera in cameras], **options)


def true(scene: Scenes, cameras: Sequence[spatial.Camera]) -> list[Image.Image]:
    return [Image.fromarray(render(turned(scene, camera.yaw)).pixels[0]) for camera in cameras]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny", help="a folder with weights instead of the bundled ones")
    parser.add_argument("--count", type=int, default=200, help="scenes of each task, and questions of each kind")
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--tasks", nargs="*", default=list(CHOSEN), choices=list(TASKS))
    parser.add_argument("--no-questions", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("build/tiny/loop"), help="for the results")
    options = parser.parse_args(arguments)
    model = JoyImage.load(options.model)
    options.folder.mkdir(parents=True, exist_ok=True)
    rows, results = [], {}
    for task in options.tasks:
        figures = choosing(model, task, options.count, options.candidates, steps=options.steps).figures()
        results[task] = figures
        shares = [f"{100 * figures[name]:.1f} %" for name in list(figures)[:6]]
        rows.append([task, *shares, *(f"{figures[name]:.3g}" for name in list(figures)[6:])])
        print(task, {name: round(float(value), 3) for name, value in figures.items()}, flush=True)
    head = ["task", "first seed", "the model's choice", "the truth's", "precision", "recall", "wrong ones seen",
            "candidates made", "gained", "lost", "p"]  # fmt: skip
    text = markdown(head, rows)
    if not options.no_questions:
        rows = []
        for name, asked in questions(options.count):
            for kind, marks in thinking(model, asked, steps=options.steps).items():
                shares = {way: float(np.mean(some)) for way, some in marks.items()}
                results[f"{name}, {kind}"] = shares
                ways = ("plain", "views", "true", "asked for views")
                rows.append([f"{name}, {kind}", *(f"{100 * shares[way]:.1f} %" for way in ways)])
                print(rows[-1], flush=True)
        text += "\n\n" + markdown(["question", "plain", "with views", "with true views", "asked for views"], rows)
    (options.folder / "results.json").write_text(json.dumps(results, indent=2, default=float) + "\n")
    (options.folder / "results.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
