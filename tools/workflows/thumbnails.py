"""The templates' pictures: before and after, made by the bundled model on drawn scenes, which each picture says."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from joyimage import JoyImage, prompts, spatial
from joyimage.boxes import box_from_json
from joyimage.images import load
from joyimage.training.caching import cache
from joyimage.training.examples import Example
from joyimage.training.settings import Training
from joyimage.training.trainer import train

from ..tiny import example_scenes, example_trials, examples
from ..tiny.scenes import SIZE
from .try_it import TRAINING, WISH

VIEW = 800, 600
QUALITY = 85
BACKGROUND, TEXT, QUIET, LINE = "#20242c", "#f2f4f8", "#98a2b3", "#3b4250"
AREA = 30, 30, 770, 430  # of the pictures: left, top, right, bottom
GAP, ARROW = 14, 56
NOTE = "bundled model, drawn scene"
SCENE = 0  # the one that the Try it templates open with
VIEWED, VIEWED_SEED = 15, 1  # one whose objects change places from the left, and noise from which they stay whole
WIDENED, BORDER = 2, 16  # one with room at its sides, and the pixels that are added at each
STEPS = example_trials.STEPS


@dataclass(frozen=True)
class Shown:
    """What a thumbnail shows: pictures before and after, and the words that led from one to the other."""

    before: Sequence[Image.Image]
    after: Sequence[Image.Image]
    words: str


class Maker:
    """The bundled model on one of the example scenes."""

    def __init__(self) -> None:
        self.model = JoyImage.load("tiny")
        self.entries, self.scenes = examples.load_scenes()
        self.entry = self.entries[SCENE]
        self.scene = load(examples.FOLDER / self.entry["file"])

    def edit(self, images, instruction: str) -> Image.Image:
        (made,) = self.model.edit(images, instruction, steps=STEPS, seed=example_trials.NOISE_SEED, progress=False)
        return made

    def edited(self, instruction: str, words: str | None = None) -> Shown:
        return Shown([self.scene], [self.edit(self.scene, instruction)], words or instruction)

    def moved(self) -> Shown:
        box = box_from_json(example_scenes.BOX, SIZE, SIZE)
        before = spatial.draw_box(self.scene, box)
        return Shown([before], [self.edit(before, spatial.move_object(self.entry["object"]))], self.move_words())

    def move_words(self) -> str:
        return f"Move the {self.entry['object']} into the red box"

    def turned(self) -> Shown:
        instruction = spatial.rotate_object(self.entry["car"], example_scenes.VIEW)
        return self.edited(instruction, f"Rotate the {self.entry['car']}: {example_scenes.VIEW} side")

    def sides(self) -> Shown:
        views = ("front", "right", "rear", "left")
        made = [self.edit(self.scene, spatial.rotate_object(self.entry["car"], view)) for view in views]
        return Shown([self.scene], made, "One picture, all sides")

    def camera(self) -> Shown:
        return self.edited(spatial.camera(45, 0, example_scenes.ZOOM), "Camera: 45 degrees to the right, farther out")

    def orbit(self) -> Shown:
        made = [self.edit(self.scene, spatial.camera(yaw, 0, example_scenes.ZOOM)) for yaw in example_scenes.YAWS]
        return Shown([self.scene], made, "An orbit of views in one run")

    def swapped(self) -> Shown:
        box = example_trials.located(self.model, np.asarray(self.scene), self.entry["car"])
        empty = self.edit(self.scene, self.entry["removal"])
        marked = spatial.draw_box(empty, box)
        made = self.edit(marked, spatial.move_object(self.entry["object"]))
        return Shown([self.scene], [made], f"Put the {self.entry['object']} where the {self.entry['car']} is")

    def chosen(self) -> Shown:
        box = box_from_json(example_scenes.BOX, SIZE, SIZE)
        before = spatial.draw_box(self.scene, box)
        instruction = spatial.move_object(self.entry["object"])
        made = self.model.edit(before, instruction, count=4, seed=example_trials.NOISE_SEED, steps=STEPS)
        return Shown([before], made, f"{self.move_words()}: the best of four")

    def reasoned(self) -> Shown:
        entry = self.entries[VIEWED]
        scene = load(examples.FOLDER / entry["file"])
        question = f"Seen from the left, is the {entry['object']} to the left or to the right of the {entry['car']}?"
        said = self.model.reason(scene, question, steps=STEPS, seed=VIEWED_SEED, temperature=0)
        return Shown([scene], said.pictures, f"{question}\n{said.text.capitalize()}.")

    def asked(self) -> Shown:
        said = self.model.ask(self.scene, self.entry["question"], temperature=0)
        return Shown([self.scene], [], f"{self.entry['question']}\n{said[0].upper()}{said[1:]}.")

    def drawn(self) -> Shown:
        (made,) = self.model.generate(
            self.entry["description"], steps=STEPS, seed=example_trials.NOISE_SEED, progress=False
        )
        return Shown([], [made], self.entry["description"])

    def inpainted(self) -> Shown:
        (before,) = self.drawn().after
        box = example_trials.located(self.model, np.asarray(before), self.entry["object"])
        mask = Image.new("L", before.size)
        mask.paste(255, box)
        made = Image.composite(self.edit(before, self.entry["recolouring"]), before, mask)
        return Shown([before], [made], self.entry["recolouring"])

    def composed(self) -> Shown:
        pictures = [load(examples.FOLDER / self.entries[i]["file"]) for i in (SCENE, 5)]
        words = f"Place the {self.entries[5]['object']} from image 2 to the left of the {self.entry['car']} in image 1."
        return Shown(pictures, [self.edit(pictures, words)], words)

    def widened(self) -> Shown:
        entry = self.entries[WIDENED]
        scene = load(examples.FOLDER / entry["file"])
        before = ImageOps.expand(scene, (BORDER, 0), (128, 128, 128))
        (made,) = self.model.edit(
            scene,
            prompts.OUTPAINT + entry["description"],
            outpaint=(BORDER, 0, BORDER, 0),
            steps=STEPS,
            seed=example_trials.NOISE_SEED,
            progress=False,
        )
        return Shown([before], [made], "Fill the border")

    def learned(self) -> Shown:
        """As the template: trained on all scenes but the one that is shown."""
        strip = load(examples.FOLDER / examples.CLEARED)
        pairs = [
            Example(strip.crop((0, SIZE * i, SIZE, SIZE * (i + 1))), WISH, (load(examples.FOLDER / entry["file"]),))
            for i, entry in enumerate(self.entries)
            if i != SCENE
        ]
        before = self.edit(self.scene, WISH)
        with TemporaryDirectory() as folder:
            samples = cache(self.model, pairs, Path(folder, "cache"))
            lora = train(self.model.mmdit, samples, Training(**TRAINING), Path(folder, "run"))
            self.model.set_loras((lora.save(Path(folder, "lora.safetensors")), 1.0))
            after = self.edit(self.scene, WISH)
            self.model.set_loras()
        return Shown([before], [after], f"{WISH}\nNew words, learned from {len(pairs)} pairs.")


THUMBNAILS: dict[str, Callable[[Maker], Shown]] = {
    "1 Try it - Move an object": Maker.moved,
    "2 Try it - Rotate and orbit": Maker.orbit,
    "3 Try it - Ask, locate and move": Maker.swapped,
    "4 Try it - Text to image, inpaint": Maker.inpainted,
    "5 Try it - Train a LoRA": Maker.learned,
    "Ask about an image": Maker.asked,
    "Best of four": Maker.chosen,
    "Character turnaround": Maker.sides,
    "Edit an image": lambda maker: maker.edited(maker.entry["recolouring"]),
    "Edit with three images": Maker.composed,
    "Inpaint by mask": Maker.inpainted,
    "Locate and move an object": Maker.swapped,
    "Move an object": Maker.moved,
    "Move an object (app)": Maker.moved,
    "Move the camera": Maker.camera,
    "Move the camera (app)": Maker.camera,
    "Orbit in eight views": Maker.orbit,
    "Outpaint": Maker.widened,
    "Reason with views": Maker.reasoned,
    "Rewrite the prompt and edit": lambda maker: maker.edited(maker.entry["removal"], "A short wish, rewritten first"),
    "Rotate an object": Maker.turned,
    "Text to image": Maker.drawn,
}


def draw(shown: Shown) -> Image.Image:
    """Before, an arrow, after; the words below, and in the corner what made it."""
    image = Image.new("RGB", VIEW, BACKGROUND)
    pen = ImageDraw.Draw(image)
    left, top, right, bottom = AREA
    sides = [group for group in (shown.before, shown.after) if group]
    room = (right - left - ARROW * (len(sides) - 1)) // len(sides)
    for number, group in enumerate(sides):
        x = left + number * (room + ARROW)
        place(image, group, (x, top, x + room, bottom))
        if number:
            arrow(pen, x - ARROW, (top + bottom) // 2)
    font = ImageFont.load_default(26)
    lines = [piece for line in shown.words.splitlines() for piece in textwrap.wrap(line, 56)]
    pen.multiline_text((left, bottom + 26), "\n".join(lines), TEXT, font, spacing=8)
    pen.text((right, VIEW[1] - 14), NOTE, QUIET, ImageFont.load_default(16), anchor="rd")
    return image


def place(image: Image.Image, pictures: Sequence[Image.Image], area: tuple[int, int, int, int]) -> None:
    """Pictures in rows of two at most, as large as the area allows, in its middle."""
    left, top, right, bottom = area
    columns = 1 if len(pictures) == 1 else 2
    rows = -(-len(pictures) // columns)
    width, height = pictures[0].size
    cell = (right - left - GAP * (columns - 1)) / columns, (bottom - top - GAP * (rows - 1)) / rows
    scale = min(cell[0] / width, cell[1] / height)
    size = int(width * scale), int(height * scale)
    x0 = left + (right - left - columns * size[0] - GAP * (columns - 1)) // 2
    y0 = top + (bottom - top - rows * size[1] - GAP * (rows - 1)) // 2
    for i, picture in enumerate(pictures):
        at = x0 + (i % columns) * (size[0] + GAP), y0 + (i // columns) * (size[1] + GAP)
        image.paste(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC), at)
        ImageDraw.Draw(image).rectangle((at[0] - 1, at[1] - 1, at[0] + size[0], at[1] + size[1]), outline=LINE)


def arrow(pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
    pen.line((x + 10, y, x + ARROW - 14, y), TEXT, 4)
    pen.polygon([(x + ARROW - 20, y - 11), (x + ARROW - 20, y + 11), (x + ARROW - 6, y)], TEXT)


def save(names: Sequence[str], folder: Path) -> None:
    """Write NAME.jpg for each of the templates into `folder`. Raises `KeyError` for one that has no picture."""
    maker = Maker()
    for name in names:
        partial = folder / f"{name}.part"
        draw(THUMBNAILS[name](maker)).save(partial, format="JPEG", quality=QUALITY, optimize=True)
        os.replace(partial, folder / f"{name}.jpg")
