"""Training on of the small Qwen3-VL for the closed loop: to judge edits, plan views, answer from several pictures.

It begins with weights that know the questions on one picture, goes on being asked them, and keeps the contexts that it
gave before, so that the MMDiT which learned from those still understands it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from joyimage import JoyImage
from joyimage.encoder import Encoder
from joyimage.encoder.chat import closing, opening

from . import papers as exams
from . import questions
from .encoder import IGNORED, SEEN, TAUGHT, Exams, Source, answering, apart, others
from .papers import Paper
from .render import render
from .tasks import TASKS
from .training import Recipe, train

RECIPE = Recipe(steps=1900, matrix_rate=0.004, other_rate=6e-4, average=0.995, hold=0.4, save_every=50, half=True)
# At the end the contexts come back to what the MMDiT knows: half a decibel of the camera's pictures hangs on it.
SETTLING = Recipe(steps=250, matrix_rate=0.0015, other_rate=2e-4, average=0.98, hold=0.3, save_every=100, half=True)
SETTLED, SETTLING_PROMPTS = 200.0, 24  # how much the distance from the teacher's contexts weighs then, and prompts
PAIRS = 450  # of each task, that the editor tries
PICTURES, PROMPTS, ROWS, ASKED = 10, 8, 20, 3  # of the questions known before, prompts, rows of a paper, questions each
# How often a paper is drawn; each names its questions in the log.
SHARES = {"edits": 4.0, "compositions": 1.5, "pictures": 4.0, "names": 0.5, "plans": 1.2, "views": 1.6, "hidden": 0.7}
PAINTED = 0.4  # of the pictures, in which one object has a colour that scenes do not have
TURN, GAIN = 7.0, (0.88, 1.1)  # degrees of hue, and factors of light, by which pictures are varied
ATTEMPTED = {"steps": 4, "guidance_scale": 4.0}
FINER = {"steps": 8, "guidance_scale": 4.0}  # of pictures from a text alone, whose slips are of another kind when rough


def make(model: JoyImage, folder: Path, seed: int, count: int) -> dict[str, Paper]:
    """The papers, kept in a folder; `count` pairs of each task, and more or fewer of what is made faster or slower."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, maker) in enumerate(MAKERS.items()):
        file = folder / f"{name}.pt"
        if not file.exists():
            made = maker(model, count, np.random.default_rng([seed, 501, number]))
            for paper, part in made.items():
                torch.save(vars(part), folder / f"{paper}.part")
                (folder / f"{paper}.part").rename(folder / f"{paper}.pt")
                print(f"{paper}: {len(part.pictures)} rows", flush=True)
    return {name: Paper(**torch.load(folder / f"{name}.pt", weights_only=False)) for name in SHARES}


def make_edits(model: JoyImage, count: int, generator: np.random.Generator) -> dict[str, Paper]:
    made = dict(exams.edits(model, count, generator, **ATTEMPTED))
    composed = made.pop("compose")
    return {"edits": Paper.joined(list(made.values())), "compositions": composed}


def make_pictures(model: JoyImage, count: int, generator: np.random.Generator) -> dict[str, Paper]:
    pairs = TASKS["generate"](12 * count, generator)
    made, good = exams.attempts(model, pairs, **FINER)
    print(f"generate: {good.mean():.2f} of the editor's are right", flush=True)
    true = exams.judged_pictures(pairs, pairs.target, np.ones(len(good), dtype=bool), generator)
    few = slice(0, 2 * count)
    parts = [exams.judged_pictures(pairs, made, good, generator), Paper(true.pictures[few], true.questions[few])]
    return {"pictures": Paper.joined(parts)}


def make_views(model: JoyImage, count: int, generator: np.random.Generator) -> dict[str, Paper]:
    """Views of both kinds, the true ones and the editor's, and plans."""
    views, plans = [], []
    for side in exams.SIDES:
        part = exams.seen_from_a_side(3 * count, generator, side)
        first, true = (rendered.pixels for rendered in exams.rendered_pair(part))
        views.append(part.paper(first, true))
        plans.append(part.plans(first, generator))
        some = slice(0, count)
        own = exams.viewed(model, first[some], part.motion, **ATTEMPTED)
        views.append(part[some].paper(first[some], own))
    part = exams.hiding(count, generator)
    first, true = (rendered.pixels for rendered in exams.rendered_pair(part))
    plans.append(part.plans(first, generator))
    return {"views": Paper.joined(views), "hidden": part.paper(first, true), "plans": Paper.joined(plans)}


def make_names(_model: JoyImage, count: int, generator: np.random.Generator) -> dict[str, Paper]:
    drawn = exams.world.draw(4 * count, generator)
    return {"names": exams.named(drawn, render(drawn).pixels)}


MAKERS = {"names": make_names, "pictures": make_pictures, "views": make_views, "edits": make_edits}


class Papers:
    """Batches of questions from papers, drawn by a generator."""

    def __init__(self, source: Source, papers: dict[str, Paper]):
        self.source, self.papers = source, papers
        chat = source.encoder.chat
        self.closing = chat.ids(closing())
        self.openings, self.asked = {}, {}
        for name, paper in papers.items():
            images = paper.pictures.shape[1]
            grids = [(SEEN // 64, SEEN // 64)] * images
            self.openings[name] = chat.ids(opening(paper.system, images, ""), grids)
            self.asked[name] = [[(chat.ids([q.text]), chat.ids([q.answer])) for q in some] for some in paper.questions]

    def draw(self, name: str, generator: torch.Generator, rows: int = ROWS, most: int = ASKED) -> Exams:
        """A batch of so many rows, each with `most` of its questions."""
        head, asked, source = self.openings[name], self.asked[name], self.source
        picks = torch.randint(len(asked), (rows,), generator=generator).tolist()
        columns: dict[str, list[list[int]]] = {"ids": [], "segments": [], "labels": [], "rules": []}
        for pick in picks:
            row = [list(head), [0] * len(head), [IGNORED] * len(head), [0] * len(head)]
            order = torch.randperm(len(asked[pick]), generator=generator).tolist()[:most]
            for number, k in enumerate(order, start=1):
                source.add_question(row, number, *asked[pick][k], self.closing)
            for column, values in zip(columns.values(), row, strict=True):
                column.append(values)
        return source.exams(varied(torch.from_numpy(self.papers[name].pictures[picks]), generator), columns)


def varied(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (N, k, H, W, 3) uint8 with slightly other hues and another light, the same for those of one row."""
    n = len(pictures)
    angle = (torch.rand(n, generator=generator) * 2 - 1) * torch.pi / 180 * TURN
    gain = GAIN[0] + torch.rand(n, generator=generator) * (GAIN[1] - GAIN[0])
    third, root = 1 / 3, 3**-0.5
    axis = torch.tensor([[0, -root, root], [root, 0, -root], [-root, root, 0]])
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    matrix = cos * torch.eye(3) + (1 - cos) * torch.full((3, 3), third) + sin * axis  # a turn around gray
    return (
        torch.einsum("nkhwc,ndc->nkhwd", pictures.float() * gain[:, None, None, None, None], matrix)
        .round()
        .clamp(0, 255)
    )


def fit(
    encoder: Encoder, source: Source, papers: Papers, folder: Path, recipe: Recipe, teacher: Encoder, *,
    name: str = "loop", taught: float = TAUGHT, prompts: int = PROMPTS, **options,
) -> Encoder:  # fmt: skip
    """Train on from the encoder's weights; it comes back with the averaged ones. `name` is that of the run's files."""
    model = encoder.model.requires_grad_(True).train()
    model.set_attn_implementation("eager")
    network = nn.ModuleDict({"model": model})
    names, weights = list(SHARES), torch.tensor(list(SHARES.values()))

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        known = source.questions(generator, recipe.batch(PICTURES))
        known = Exams(known.ids, varied(known.images, generator), *known.marks)
        answers, right = answering(encoder, known, source.barred)
        drawn = names[int(torch.multinomial(weights, 1, generator=generator))]
        paper = papers.draw(drawn, generator, recipe.batch(ROWS))
        new, new_right = answering(encoder, paper, source.barred)
        batch, lengths, _, _ = source.prompted(generator, recipe.batch(prompts))
        away = apart(encoder, teacher, batch, lengths)
        details = {"answers": answers.item(), "right": right, "away": away.item()}
        return answers + new + taught * away, {**details, f"{drawn}": new.item(), f"{drawn} right": new_right}

    averaged = train(name, network, loss, recipe, folder, others=others, **options)
    network.load_state_dict(averaged)
    model.set_attn_implementation("sdpa")
    encoder.model.eval().requires_grad_(False)
    return encoder


def asked_before(count: int, seed: int) -> tuple[Tensor, list[list[questions.Question]]]:
    """The questions on one picture, some of whose objects have been painted over."""
    generator = np.random.default_rng([seed, 99, 1])
    exam = questions.painted(questions.make(count, generator, every_object=True), PAINTED, generator)
    return torch.from_numpy(exam.pixels), exam.questions
