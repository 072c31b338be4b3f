"""What training reaches on the bundled model: `python -m tools.tiny.new_task`, a quarter of an hour on one core.

Two LoRAs are trained by the library's own trainer and judged by the scenes' truth on held-out combinations:

- "Melt the red cube.": the solid becomes a flat disc in its place. The model does not know the word or the shape. Some
  pairs of the old tasks are mixed in, so that they stay.
- Guidance: text to image and edits in one pass for each step instead of two.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from joyimage import JoyImage
from joyimage.conditioning import Conditioning
from joyimage.training.samples import Sample
from joyimage.training.settings import Training
from joyimage.training.trainer import Progress, train

from . import evaluate, judge
from . import scenes as world
from .data import to_images
from .render import render
from .scenes import CYLINDER, Scenes
from .tasks import TASKS, Pairs, _collect

DISC = np.array([1.25, 1.25, 0.12])  # half extents of a melted solid of size 1
KEPT = 28.0  # dB of what is not melted; the VAE alone leaves 42
MELTING, KNOWN, PROMPTS = 360, 40, 400  # pairs of the new task and of each old one, and prompts
DESCRIBED = 200  # pairs of text to image, which learns few ones by heart and then forgets the others
SEED = 30_000  # of scenes to learn from; those that are judged have `evaluate`'s
STEPS = 12  # of sampling
MELT = Training(
    steps=700, batch_size=16, learning_rate=2e-3, warm_up=20, cool_down=300, rank=16, alpha=16, checkpointing=False,
    sample_every=0, save_every=100,
)  # fmt: skip
GUIDANCE = Training(
    objective="guidance", steps=1000, batch_size=16, learning_rate=3e-3, warm_up=20, cool_down=600, rank=16, alpha=32,
    checkpointing=False, sample_every=0, save_every=100,
)  # fmt: skip


class Melted(Scenes):
    """Scenes whose first solid has melted."""

    @property
    def half(self) -> np.ndarray:
        half = super().half.copy()
        half[:, 0] = DISC * self.size[:, 0, None]
        return half

    def __getitem__(self, index) -> Melted:
        return Melted(**{name: value[index] for name, value in vars(self).items()})


def melted(scenes: Scenes) -> Melted:
    return Melted(**vars(scenes.with_slot(0, kind=CYLINDER)))


def melt(count: int, generator: np.random.Generator, test: bool = False) -> Pairs:
    def propose(n, numbers):
        before = world.draw(n, generator, test=test, numbers=numbers)
        return world.valid(melted(before)), before

    (before,) = _collect(count, generator, propose)
    after = melted(before)
    rendered, first = render(after), render(before)
    texts = [f"Melt the {before.name(i)}." for i in range(count)]
    return Pairs("melt", texts, [first.pixels], rendered.pixels, before, after, rendered, first)


def melts(pairs: Pairs, output: np.ndarray) -> np.ndarray:
    """Whether the disc, and nothing else, is where and as it should be, (N,)."""
    found, truth = judge.colour_masks(pairs, output)
    return (judge.overlap(found, truth) >= judge.OVERLAP) & (judge.untouched(pairs, output) >= KEPT)


class Set(list[Sample]):
    key = ""


def samples(model: JoyImage, pairs: Pairs, conditionings: Sequence[Conditioning]) -> list[Sample]:
    """What the trainer takes; clones, for what comes of the pipeline can't be trained on."""
    with torch.inference_mode():
        latents = torch.cat([model.vae.encode(to_images(part)) for part in torch.from_numpy(pairs.target).split(50)])
    return [
        Sample(latent.clone(), tuple(r[0].clone() for r in c.references), c.positive.clone(), c.negative.clone())
        for latent, c in zip(latents, conditionings, strict=True)
    ]


def drawn(model: JoyImage, task: str, count: int) -> list[Sample]:
    make = {**TASKS, "melt": melt}[task]
    pairs = make(count, np.random.default_rng([SEED, len(task), count]))
    return samples(model, pairs, evaluate.condition(model, pairs))


def success(task: str, pairs: Pairs, output: np.ndarray) -> float:
    """The share of scenes where all that a judge says of a task is right."""
    if task == "melt":
        return float(melts(pairs, output).mean())
    said = [values for values in judge.verdicts(pairs, output).values() if values.dtype == bool]
    return float(said[0].mean())


class Exam:
    """Held-out scenes of one task, encoded once."""

    def __init__(self, model: JoyImage, task: str, count: int):
        self.task = task
        self.pairs = (
            melt(count, np.random.default_rng([evaluate.SEED, 77]), True)
            if task == "melt"
            else evaluate.test_pairs(task, count)
        )
        self.conditionings = evaluate.condition(model, self.pairs)

    def take(self, model: JoyImage, guidance: float, sheet: Path | None = None) -> float:
        output = evaluate.outputs(model, self.conditionings, steps=STEPS, guidance_scale=guidance)
        if sheet is not None:
            evaluate.save(_sheet(self.pairs, output), sheet)
        return success(self.task, self.pairs, output)


def _sheet(pairs: Pairs, output: np.ndarray, rows: int = 10):
    columns = [reference[:rows] for reference in pairs.references] + [output[:rows], pairs.target[:rows]]
    tiles = np.concatenate([np.concatenate(list(column), axis=0) for column in columns], axis=1)
    return evaluate.Image.fromarray(tiles).resize((3 * tiles.shape[1], 3 * tiles.shape[0]), 0)


def shown(name: str, folder: Path):
    began = time.perf_counter()

    def tell(progress: Progress) -> None:
        if progress.step % 50 == 0:
            seconds = time.perf_counter() - began
            print(
                f"{name} {progress.stage} {progress.step}/{progress.steps} loss {progress.loss:.4f} {seconds:.0f} s",
                flush=True,
            )

    return tell


def fit(model: JoyImage, name: str, data: list[Sample], settings: Training, folder: Path) -> dict[str, float]:
    """Train, save, and put the LoRA on the model; returns how long it took."""
    made = Set(data)
    made.key = name
    began, worked = time.perf_counter(), time.process_time()
    file = train(model.mmdit, made, settings, folder / name, callback=shown(name, folder), notes={"base": "tiny"})
    took = {"seconds": time.perf_counter() - began, "processor seconds": time.process_time() - worked}
    path = file.save(folder / f"{name}.safetensors")
    model.set_loras(path)
    return {**took, "bytes": path.stat().st_size}


def new_task(model: JoyImage, folder: Path, count: int, settings: Training = MELT) -> dict:
    data = drawn(model, "melt", MELTING)
    for task in TASKS:
        data += drawn(model, task, DESCRIBED if task == "generate" else KNOWN)
    exams = [Exam(model, task, count) for task in ("melt", *TASKS)]
    before = {exam.task: exam.take(model, 4.0) for exam in exams}
    print(before, flush=True)
    took = fit(model, "melt", data, settings, folder)
    after = {exam.task: exam.take(model, 4.0, folder / f"{exam.task}.png") for exam in exams}
    model.set_loras()
    print(after, flush=True)
    return {"before": before, "after": after, **took}


def guidance(model: JoyImage, folder: Path, count: int, settings: Training = GUIDANCE) -> dict:
    data = drawn(model, "generate", PROMPTS)
    exam = Exam(model, "generate", count)
    before = {scale: exam.take(model, scale) for scale in (1.0, 4.0)}
    print(before, flush=True)
    took = fit(model, "guidance", data, settings, folder)
    after = exam.take(model, 1.0, folder / "guidance.png")
    model.set_loras()
    print(after, flush=True)
    return {"at guidance 1": before[1.0], "at guidance 4": before[4.0], "distilled, at 1": after, **took}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.tiny.new_task", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="held-out scenes of each task")
    parser.add_argument("--only", choices=("melt", "guidance"))
    parser.add_argument("--folder", type=Path, default=Path("build/tiny/new-task"))
    options = parser.parse_args(arguments)
    model = JoyImage.load("tiny")
    parts = {"melt": new_task, "guidance": guidance}
    found = {
        name: part(model, options.folder, options.count) for name, part in parts.items() if options.only in (None, name)
    }
    text = json.dumps(found, indent=2)
    (options.folder / "results.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
