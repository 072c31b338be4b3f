"""Teach the bundled encoder two kinds of question that it does not know: `python -m tools.tiny.learn_spatial FOLDER`.

How the camera moved between two pictures, and which of two objects is nearer to a third, as `joyimage.spatialdata` asks
it of drawn scenes. The encoder trains 200 steps on answers in words to the questions of some scenes. Then it is asked
those of others, with options of which it takes the likeliest, as it does before it learned.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from torch import nn

from joyimage import JoyImage
from joyimage.spatialdata.index import index_scene
from joyimage.spatialdata.questions import form, marks
from joyimage.spatialdata.questions.evening import Evening
from joyimage.spatialdata.readers import read_scenes
from joyimage.spatialdata.scenes import Scene
from joyimage.spatialdata.tasks import make_questions

from . import captures
from .encoder import Source, answering, others
from .evaluate import markdown
from .loop import Papers
from .papers import Paper
from .questions import Question
from .scenes import SIZE
from .training import Recipe, train

PICTURES = {"camera_motion": 2, "relative_distance": 1}  # of a question
# In a scene. Distances are the same in all its views: from more of them its objects' names are learned by heart.
VIEWS, QUOTA = 2, {"camera_motion": 2, "relative_distance": 8}
CROWDED = (0, 0, 0.5, 0.5)  # shares of scenes with one to four objects; a distance is compared among three
# In words the encoder was trained on; a mark is a mean to tell twins apart, which these scenes do not have.
ASKING = form.Asking(languages=("en",), marked=0)
TRAINED, HELD_OUT = 5000, 400  # scenes
ROWS = {"camera_motion": 64, "relative_distance": 48}  # in a batch
ASKED = 5  # questions on a picture
RECIPE = Recipe(steps=200, matrix_rate=0.01, other_rate=1.5e-3, hold=0.4, warm_up=10, average=0.95, save_every=25)

Asked = tuple[form.Question, list[Image.Image]]


def ask_about(scenes: Iterable[Scene]) -> dict[str, list[Asked]]:
    """The questions of each kind, in as many pictures as all of its kind must have, with these as the model has them.

    No side is more frequent than another.
    """
    asked: dict[str, list[Asked]] = {kind: [] for kind in PICTURES}
    evening = Evening()
    for place, scene in enumerate(scenes):
        index = index_scene(scene)
        for question in make_questions(index, QUOTA, ASKING, place):
            if len(question.views) == PICTURES[question.task] and evening.takes(question):
                pictures = [picture.resize((SIZE, SIZE), Resampling.BOX) for picture in marks.pictures(index, question)]
                asked[question.task].append((question, pictures))
    return asked


def paper(asked: list[Asked]) -> Paper:
    """Rows for training: what is asked of the very same pictures stands together."""
    rows: dict[tuple, tuple[np.ndarray, list[Question]]] = {}
    for question, pictures in asked:
        pixels = np.stack([np.asarray(picture) for picture in pictures])
        _, questions = rows.setdefault((question.scene, question.views), (pixels, []))
        questions.append(Question(question.task, question.stem, question.said))
    return Paper(np.stack([pixels for pixels, _ in rows.values()]), [some for _, some in rows.values()])


def teach(model: JoyImage, papers: dict[str, Paper], folder: Path, recipe: Recipe = RECIPE) -> None:
    """Train the model's encoder on all papers in each step."""
    encoder = model.encoder
    network = nn.ModuleDict({"model": encoder.model.requires_grad_(True).train()})
    encoder.model.set_attn_implementation("eager")
    source = Source(encoder, torch.empty(0), [], {})
    drawn = Papers(source, papers)

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        total, details = torch.zeros(()), {}
        for name in papers:
            answers, right = answering(
                encoder, drawn.draw(name, generator, recipe.batch(ROWS[name]), ASKED), source.barred
            )
            total = total + answers
            details |= {name: answers.item(), f"{name} right": right}
        return total, details

    network.load_state_dict(train("spatial", network, loss, recipe, folder, others=others))
    encoder.model.set_attn_implementation("sdpa")
    encoder.model.eval().requires_grad_(False)


def marked(model: JoyImage, asked: list[Asked]) -> float:
    """The share of choices whose likeliest option is the right one."""
    right = []
    for question, pictures in asked:
        chances = model.mind.likelihoods(pictures, question.stem, question.options)
        right.append(question.options[int(np.argmax(chances))] == question.said)
    return float(np.mean(right))


def choices(asked: list[Asked]) -> list[Asked]:
    return [each for each in asked if each[0].options]


def row(kind: str, asked: list[Asked], before: float, after: float) -> list[str]:
    chance = float(np.mean([1 / len(question.options) for question, _ in asked]))
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
    papers = {kind: paper(some) for kind, some in ask_about(scenes[: options.trained]).items()}
    print({name: (len(one.pictures), sum(map(len, one.questions))) for name, one in papers.items()}, flush=True)
    teach(model, papers, options.work)
    after = {kind: marked(model, some) for kind, some in exam.items()}
    head = ["question", "asked", "chance", "before", f"after {RECIPE.steps} steps"]
    text = markdown(head, [row(kind, exam[kind], before[kind], after[kind]) for kind in exam])
    options.work.mkdir(parents=True, exist_ok=True)
    (options.work / "results.json").write_text(json.dumps({"before": before, "after": after}, indent=1) + "\n")
    (options.work / "results.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
