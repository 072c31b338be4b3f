"""How well the bundled model does: `python -m tools.tiny.evaluate`, on scenes and combinations it was never trained on.

Success is judged by the scene engine's ground truth and by colour segmentation (`judge`), never by a network. Prints
tables in Markdown and writes contact sheets: input, instruction, output, truth.
"""

from __future__ import annotations

import argparse
import json
import os
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont

from joyimage import JoyImage
from joyimage.boxes import parse_boxes
from joyimage.conditioning import Conditioning
from joyimage.errors import JoyImageError
from joyimage.vae import WanVAE

from . import judge, questions
from .data import to_images
from .scenes import SIZE, SLOTS
from .tasks import TASKS, Pairs

SEED = 20_000  # of the scenes: no training run comes near it
COUNT = 200
STEPS, GUIDANCE = 40, 4.0
BATCH = 50
SHEET_ROWS, SCALE = 12, 2
COMPARED = ("move", "recolour", "rotate", "generate")  # what settings are compared on
# The bounds that the model is meant to reach, as fractions and decibels.
BOUNDS = {
    ("move", "object in the box"): 0.92, ("move", "box gone"): 0.98, ("recolour", "recoloured"): 0.92,
    ("remove", "removed"): 0.95, ("rotate", "right view"): 0.80, ("camera", "yaw direction"): 0.95,
    ("camera", "PSNR"): 22.0, ("generate", "colours and shapes"): 0.80, ("all", "untouched PSNR"): 30.0,
    ("vae", "object PSNR"): 28.0, ("questions", "all but locate"): 0.90, ("questions", "locate"): 0.80,
}  # fmt: skip

Results = dict[tuple[str, str], float]


def test_pairs(task: str, count: int = COUNT) -> Pairs:
    """The same held-out scenes every time."""
    return TASKS[task](count, np.random.default_rng([SEED, list(TASKS).index(task)]), True)


def condition(model: JoyImage, pairs: Pairs) -> list[Conditioning]:
    pictures = [[Image.fromarray(r[i]) for r in pairs.references] for i in range(len(pairs.texts))]
    return model.condition(pictures, pairs.texts, size=(SIZE, SIZE))


def outputs(
    model: JoyImage, conditionings: list[Conditioning], seeds: Sequence[int] | None = None, **options
) -> np.ndarray:
    """The model's pictures (N, SIZE, SIZE, 3) uint8; sample i has seed i unless seeds are given."""
    seeds = range(len(conditionings)) if seeds is None else seeds
    options = {"steps": STEPS, "guidance_scale": GUIDANCE, "batch_size": BATCH, **options}
    made: list[Image.Image] = []
    for start in range(0, len(conditionings), BATCH):
        part = slice(start, start + BATCH)
        made += model.render(conditionings[part], seed=list(seeds[part]), **options)
    return np.stack([np.asarray(picture) for picture in made])


def means(task: str, pairs: Pairs, output: np.ndarray) -> Results:
    return {(task, name): float(values.mean()) for name, values in judge.verdicts(pairs, output).items()}


def by_number(pairs: Pairs, output: np.ndarray) -> Results:
    """The share of scenes with so many objects in which every judge says yes."""
    good = np.all([v for v in judge.verdicts(pairs, output).values() if v.dtype == bool], axis=0)
    number = pairs.before.count
    if pairs.task == "camera":
        number = number[pairs.details["yaw"] != 0]  # the others have no direction to judge
    return {(pairs.task, str(n)): float(good[number == n].mean()) for n in range(1, SLOTS + 1) if (number == n).any()}


def vae_quality(vae: WanVAE, pairs: Pairs) -> tuple[Results, np.ndarray]:
    """Of pictures that only went through the VAE, and those pictures."""
    images = to_images(torch.from_numpy(pairs.target))
    decoded = rearrange(vae.decode(vae.encode(images)), "b c h w -> b h w c")
    pictures = ((decoded + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
    shown = pairs.rendered.slots.sum(-1) > 0.5
    seen = shown.any((1, 2))
    whole = judge.psnr(pictures, pairs.target, np.ones_like(shown))
    return {
        ("vae", "PSNR"): float(whole.mean()),
        ("vae", "object PSNR"): float(judge.psnr(pictures, pairs.target, shown)[seen].mean()),
    }, pictures


def answers(model: JoyImage, count: int, test: bool = True) -> Results:
    """Shares of right answers, each kind of question asked of at most `count` pictures.

    Without `test` the pictures are as new, but of objects in colours that training showed.
    """
    exam = questions.make(4 * count, np.random.default_rng([SEED, 77]), test=test)
    right: dict[str, list[bool]] = {}
    for pixels, asked in zip(exam.pixels, exam.questions, strict=True):
        picture = Image.fromarray(pixels)
        for question in asked:
            marks = right.setdefault(question.kind, [])
            if len(marks) < count:
                said = model.ask(picture, question.text, temperature=0, max_new_tokens=60)
                marks.append(correct(question, said))
    found = {("questions", kind): float(np.mean(marks)) for kind, marks in right.items()}
    others = [np.mean(marks) for kind, marks in right.items() if kind not in ("locate", "describe")]
    return {**found, ("questions", "all but locate"): float(np.mean(others))}


def correct(question: questions.Question, said: str) -> bool:
    """Word for word; a box if it overlaps the true one by more than half."""
    if question.box is None:
        return said.strip() == question.answer
    try:
        box = parse_boxes(said, SIZE, SIZE)[0]
    except JoyImageError:
        return False
    masks = judge.inside(np.array([box, question.box]))
    return bool(judge.overlap(masks[:1], masks[1:])[0] > 0.5)


def settings() -> Iterator[tuple[str, dict]]:
    """What is compared: schedules and numbers of steps, solvers, guidance."""
    for schedule in ("original", "diffusers"):
        for steps in (4, 8, 16, 30, 40):
            yield f"{schedule}, {steps} steps", {"schedule": schedule, "steps": steps}
    for solver in ("heun", "dpmpp_2m", "unipc"):
        for steps in (4, 8, 16):
            yield f"{solver}, {steps} steps", {"solver": solver, "steps": steps}
    for scale in (1.0, 2.0, 4.0, 7.0):
        for rescale in (1.0, 0.0) if scale > 1 else (1.0,):
            name = f"guidance {scale:g}" + (", not rescaled" if rescale == 0 else "")
            yield name, {"guidance_scale": scale, "rescale": rescale, "steps": 16}


def compare(model: JoyImage, count: int) -> list[tuple[str, Results]]:
    made = {task: test_pairs(task, count) for task in COMPARED}
    conditionings = {task: condition(model, pairs) for task, pairs in made.items()}
    rows = []
    for name, options in settings():
        found: Results = {}
        for task, pairs in made.items():
            found.update(means(task, pairs, outputs(model, conditionings[task], **options)))
        rows.append((name, found))
        print(name, {" ".join(k): round(v, 3) for k, v in found.items()}, flush=True)
    return rows


def sheet(pairs: Pairs, output: np.ndarray, path: Path) -> None:
    """Rows of references, instruction, output, truth; a red mark where a judge says no."""
    font = ImageFont.load_default(12)
    side, words = SIZE * SCALE, 300
    verdict = [v for v in judge.verdicts(pairs, output).values() if v.dtype == bool and len(v) == len(output)]
    good = np.all(verdict, axis=0) if verdict else np.ones(len(output), dtype=bool)
    columns = len(pairs.references) + 2
    image = Image.new("RGB", (columns * (side + 6) + words, min(SHEET_ROWS, len(output)) * (side + 6)), "white")
    draw = ImageDraw.Draw(image)
    for row in range(min(SHEET_ROWS, len(output))):
        y, x = row * (side + 6), 0
        for reference in pairs.references:
            image.paste(_large(reference[row], side), (x, y))
            x += side + 6
        draw.multiline_text((x + 6, y + 6), _wrapped(pairs.texts[row]), fill="black", font=font)
        x += words
        for picture in (output[row], pairs.target[row]):
            image.paste(_large(picture, side), (x, y))
            x += side + 6
        if not good[row]:
            draw.rectangle((x - 2 * (side + 6), y, x - side - 7, y + side - 1), outline="red", width=2)
    save(image, path)


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.fill(line, 46) for line in text.splitlines())


def _large(pixels: np.ndarray, side: int) -> Image.Image:
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    image.save(partial, format="PNG")
    os.replace(partial, path)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def table(found: Results, ceiling: Results) -> str:
    """Each figure, what is the best that the VAE lets through, and the bound."""
    rows = [
        [*key, *(_shown(key, v) for v in (value, ceiling.get(key), BOUNDS.get(key)))] for key, value in found.items()
    ]
    return markdown(["task", "figure", "measured", "through the VAE alone", "bound"], rows)


def _shown(key: tuple[str, str], value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f} dB" if "PSNR" in key[1] else f"{100 * value:.1f} %"


def crowding(numbers: Results) -> str:
    """Each task's share of scenes in which all is right, by the number of objects."""
    columns = [str(n) for n in range(1, SLOTS + 1)]
    tasks = dict.fromkeys(task for task, _ in numbers)
    rows = [[task, *(_shown((task, n), numbers.get((task, n))) for n in columns)] for task in tasks]
    return markdown(["task", *columns[:-1], f"{columns[-1]} objects"], rows)


def exam_table(found: Results, familiar: Results) -> str:
    """Answers on held-out combinations, and on ones that training showed."""
    rows = [
        [key[1], *(_shown(key, v) for v in (value, familiar[key], BOUNDS.get(key)))] for key, value in found.items()
    ]
    return markdown(["question", "held-out combinations", "seen ones", "bound"], rows)


def evaluate(
    model: JoyImage, count: int, folder: Path, tasks=tuple(TASKS), **options
) -> tuple[Results, Results, Results]:
    """The figures, what the VAE alone would reach of them, and shares by the number of objects."""
    found: Results = {}
    ceiling: Results = {}
    numbers: Results = {}
    for task in tasks:
        began = time.perf_counter()
        pairs = test_pairs(task, count)
        output = outputs(model, condition(model, pairs), **options)
        found.update(means(task, pairs, output))
        numbers.update(by_number(pairs, output))
        quality, decoded = vae_quality(model.vae, pairs)
        ceiling.update(means(task, pairs, decoded))
        if task == "move":
            found.update(quality)
        sheet(pairs, output, folder / f"{task}.png")
        shown = {k[1]: round(v, 3) for k, v in found.items() if k[0] == task}
        print(task, shown, f"{time.perf_counter() - began:.0f} s", flush=True)
    untouched = [v for k, v in found.items() if k[1] == "untouched PSNR"]
    if untouched:
        found["all", "untouched PSNR"] = float(np.mean(untouched))
    return found, ceiling, numbers


def named(found: Results) -> dict[str, float]:
    return {" / ".join(key): round(value, 4) for key, value in found.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny", help="a folder with weights instead of the bundled ones")
    parser.add_argument("--count", type=int, default=COUNT, help="scenes of each task")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--no-questions", action="store_true")
    parser.add_argument(
        "--compare", type=int, metavar="N", help=f"also compare settings, on N scenes of {', '.join(COMPARED)}"
    )
    parser.add_argument("--folder", type=Path, default=Path("build/tiny/evaluation"), help="for sheets and results")
    options = parser.parse_args(arguments)
    model = JoyImage.load(options.model)
    found, ceiling, numbers = evaluate(
        model, options.count, options.folder, options.tasks, steps=options.steps, guidance_scale=options.guidance
    )
    text = f"{table(found, ceiling)}\n\n{crowding(numbers)}"
    results = {"figures": named(found), "by number of objects": named(numbers)}
    if not options.no_questions:
        asked, familiar = (answers(model, options.count, test) for test in (True, False))
        text += f"\n\n{exam_table(asked, familiar)}"
        results |= {"questions": named(asked), "questions, seen combinations": named(familiar)}
    if options.compare:
        rows = compare(model, options.compare)
        results["settings"] = {name: named(row) for name, row in rows}
        names = list(rows[0][1])
        cells = [[name, *(_shown(k, row[k]) for k in names)] for name, row in rows]
        text += f"\n\n{markdown(['settings', *map(' '.join, names)], cells)}"
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (options.folder / "results.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
