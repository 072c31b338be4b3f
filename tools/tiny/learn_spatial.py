"""Teach the bundled encoder two kinds of question that it does not know: `python -m tools.tiny.learn_spatial FOLDER`.

How the camera moved between two pictures, and which of two objects is nearer to a third, as `joyimage.spatialdata` asks
it of drawn scenes. The encoder trains 200 steps on answers in words to the questions of some scenes. Then it is asked
those of others, with options of which it takes the likeliest, as it does before it learned.

Distances come in lessons. Who is asked for the nearer and the farther one at once, with little between them, finds
nothing that goes with the answer before all is understood, and the loss stays a coin's. So what is nearer, and clearly,
comes first.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from torch import nn

from joyimage import JoyImage
from joyimage.spatialdata.index import SceneIndex, index_scene
from joyimage.spatialdata.questions import form, marks
from joyimage.spatialdata.questions.evening import Evening
from joyimage.spatialdata.readers import read_scenes
from joyimage.spatialdata.scenes import Scene
from joyimage.spatialdata.tasks import make_questions

from . import captures
from .encoder import IGNORED, MARKS, Exams, Source, answering, others
from .evaluate import markdown
from .loop import Papers
from .papers import Paper
from .questions import Question
from .scenes import SIZE
from .training import Recipe, train

PICTURES = {"camera_motion": 2, "relative_distance": 1}  # of a question
# In a scene. Distances are the same in all its views: from more of them its objects' names are learned by heart.
VIEWS, QUOTA = 2, {"camera_motion": 2, "relative_distance": 60}
CROWDED = (0, 0, 1, 0)  # shares of scenes with one to four objects; a distance is compared among three
# In words the encoder was trained on; a mark is a mean to tell twins apart, which these scenes do not have.
ASKING = form.Asking(languages=("en",), marked=0)
TRAINED, HELD_OUT = 15_000, 400  # scenes
QUESTIONS = {"camera_motion": 128, "relative_distance": 768}  # in a batch
ASKED = 6  # questions on a picture, at most: as many as three objects have, the nearer and the farther one of each two
WEIGHTS = {"camera_motion": 1.0, "relative_distance": 4.0}  # of the loss: most of a distance's answer is known words
PIECE = 16  # rows that are worked on at once: what a whole batch needs leaves the processor's caches
RECIPE = Recipe(steps=200, matrix_rate=0.03, other_rate=4e-3, hold=0.8, warm_up=10, average=0.95, save_every=10)


@dataclass(frozen=True)
class Asked:
    """A question and its pictures as the model has them. factor: between two distances that it compares."""

    question: form.Question
    pictures: list[Image.Image]
    factor: float = np.inf


@dataclass(frozen=True)
class Lesson:
    """What is asked from a step on. factor: at least, between two distances. farther: how many of the questions for
    the farther one are asked, 0 to 1.
    """

    start: int = 0
    factor: float = 1.0
    farther: float = 1.0

    def chosen(self, asked: list[Asked]) -> list[Asked]:
        clear = [each for each in asked if each.factor >= self.factor]
        farther = [each for each in clear if each.question.about.get("kind") == "farther"]
        kept = np.linspace(0, len(farther) - 1, round(self.farther * len(farther))).astype(int)
        left_out = set(map(id, farther)) - {id(farther[place]) for place in kept}
        return [each for each in clear if id(each) not in left_out]


LESSONS = {
    "camera_motion": (Lesson(),),
    "relative_distance": (Lesson(0, 2.5, 0.0), Lesson(50, 2.0, 0.5), Lesson(100, 2.0), Lesson(170, 1.2)),
}


def ask_about(scenes: Iterable[Scene]) -> dict[str, list[Asked]]:
    """The questions of each kind, in as many pictures as all of its kind must have.

    No side is more frequent than another.
    """
    asked: dict[str, list[Asked]] = {kind: [] for kind in PICTURES}
    evening = Evening()
    for place, scene in enumerate(scenes):
        index = index_scene(scene)
        shown: dict[tuple[int, ...], list[Image.Image]] = {}  # nothing is marked in them
        for question in make_questions(index, QUOTA, ASKING, place):
            if len(question.views) == PICTURES[question.task] and evening.takes(question):
                if question.views not in shown:
                    pictures = marks.pictures(index, question)
                    shown[question.views] = [picture.resize((SIZE, SIZE), Resampling.BOX) for picture in pictures]
                asked[question.task].append(Asked(question, shown[question.views], factor(index, question)))
    return asked


def once(asked: list[Asked]) -> list[Asked]:
    """Of what says the same about the same pictures in other words, the first: other pictures teach more."""
    told: dict[tuple, Asked] = {}
    for each in asked:
        question = each.question
        fact = (question.scene, question.views, question.about.get("from"), question.about.get("kind"))
        told.setdefault(fact, each)
    return list(told.values())


def factor(index: SceneIndex, question: form.Question) -> float:
    """Between the larger and the smaller of the two distances that a question compares; infinite if it does not."""
    if question.task != "relative_distance":
        return np.inf
    at = {thing.number: place for place, thing in enumerate(index.things)}
    distances = [index.apart[at[number], at[question.about["from"]]] for number in question.about["objects"]]
    return float(max(distances) / min(distances))


def paper(asked: list[Asked]) -> Paper:
    """Rows for training: what is asked of the very same pictures stands together."""
    rows: dict[tuple, tuple[np.ndarray, list[Question]]] = {}
    for each in asked:
        question = each.question
        pixels = np.stack([np.asarray(picture) for picture in each.pictures])
        _, questions = rows.setdefault((question.scene, question.views), (pixels, []))
        questions.append(Question(question.task, question.stem, question.said))
    return Paper(np.stack([pixels for pixels, _ in rows.values()]), [some for _, some in rows.values()])


def rows_of(paper: Paper, questions: int) -> int:
    """How many rows have so many questions, with `ASKED` on each at most."""
    return math.ceil(questions / np.mean([min(ASKED, len(some)) for some in paper.questions]))


def pieces(batch: Exams, rows: int = PIECE) -> Iterator[tuple[Exams, float]]:
    """A batch in pieces of so many rows, those of a length together, each with its share of what is asked."""
    lengths = (batch.segments >= 0).sum(1)
    asked = int((batch.labels != IGNORED).sum())
    for some in lengths.argsort().split(rows):
        end = int(lengths[some].max())
        columns = {name: getattr(batch, name)[some, :end] for name in MARKS}
        piece = Exams(images=batch.images[some], **columns)
        yield piece, int((piece.labels != IGNORED).sum()) / asked


def teach(
    model: JoyImage,
    asked: dict[str, list[Asked]],
    folder: Path,
    recipe: Recipe = RECIPE,
    lessons: dict[str, Sequence[Lesson]] = LESSONS,
) -> None:
    """Train the model's encoder on questions of every kind in each step."""
    encoder = model.encoder
    network = nn.ModuleDict({"model": encoder.model.requires_grad_(True).train()})
    encoder.model.set_attn_implementation("eager")
    source = Source(encoder, torch.empty(0), [], {})
    papers = {(kind, lesson): paper(lesson.chosen(some)) for kind, some in asked.items() for lesson in lessons[kind]}
    drawn = Papers(source, papers)
    rows = {name: rows_of(some, recipe.batch(QUESTIONS[name[0]])) for name, some in papers.items()}

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        total, details = torch.zeros(()), {}
        for kind in asked:
            lesson = [lesson for lesson in lessons[kind] if lesson.start <= step][-1]
            right = 0.0
            whole = torch.zeros(())
            for piece, share in pieces(drawn.draw((kind, lesson), generator, rows[kind, lesson], ASKED)):
                answers, these = answering(encoder, piece, source.barred)
                (WEIGHTS[kind] * share * answers).backward()
                whole += share * answers.detach()
                right += share * these
            total += WEIGHTS[kind] * whole
            details |= {kind: whole.item(), f"{kind} right": right}
        return total, details

    network.load_state_dict(train("spatial", network, loss, recipe, folder, others=others))
    encoder.model.set_attn_implementation("sdpa")
    encoder.model.eval().requires_grad_(False)


def marked(model: JoyImage, asked: list[Asked]) -> float:
    """The share of choices whose likeliest option is the right one."""
    right = []
    for each in asked:
        question = each.question
        chances = model.mind.likelihoods(each.pictures, question.stem, question.options)
        right.append(question.options[int(np.argmax(chances))] == question.said)
    return float(np.mean(right))


def choices(asked: list[Asked]) -> list[Asked]:
    return [each for each in asked if each.question.options]


def row(kind: str, asked: list[Asked], before: float, after: float) -> list[str]:
    chance = float(np.mean([1 / len(each.question.options) for each in asked]))
    return [kind, str(len(asked)), *(f"{100 * share:.1f} %" for share in (chance, before, after))]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of scenes, which are written where they are missing")
    parser.add_argument("--work", type=Path, default=Path("build/tiny/spatial"), help="for checkpoints and results")
    parser.add_argument("--trained", type=int, default=TRAINED, help="scenes to learn from")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="scenes that are asked about")
    parser.add_argument("--most", type=int, default=300, help="questions of a kind that are asked")
    options = parser.parse_args(arguments)
    captures.make(options.folder, options.trained + options.held_out, shares=CROWDED, views=(VIEWS, VIEWS))
    scenes = list(islice(read_scenes(options.folder), options.trained + options.held_out))
    model = JoyImage.load("tiny")
    exam = {kind: choices(some)[: options.most] for kind, some in ask_about(scenes[options.trained :]).items()}
    before = {kind: marked(model, some) for kind, some in exam.items()}
    asked = {kind: once(some) for kind, some in ask_about(scenes[: options.trained]).items()}
    print({kind: len(some) for kind, some in asked.items()}, flush=True)
    teach(model, asked, options.work)
    after = {kind: marked(model, some) for kind, some in exam.items()}
    head = ["question", "asked", "chance", "before", f"after {RECIPE.steps} steps"]
    text = markdown(head, [row(kind, exam[kind], before[kind], after[kind]) for kind in exam])
    options.work.mkdir(parents=True, exist_ok=True)
    (options.work / "results.json").write_text(json.dumps({"before": before, "after": after}, indent=1) + "\n")
    (options.work / "results.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
