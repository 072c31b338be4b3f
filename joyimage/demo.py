"""`joyimage demo`: three spatial edits of bundled pictures and one question, with the bundled model."""

from __future__ import annotations

import json
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from . import spatial
from .images import load, save_png
from .pipeline import JoyImage

ASSETS = Path(__file__).parent / "assets"
STEPS = 40
SCALE = 4  # of the 64-pixel pictures on the contact sheet
MARGIN, WORDS = 16, 330  # pixels: around everything, and for the text beside the pictures


@dataclass(frozen=True)
class Example:
    """One edit: a picture in `assets/`, what to do to it, and the box (left, top, right, bottom) to draw first."""

    name: str
    instruction: str
    box: tuple[int, int, int, int] | None = None

    def picture(self) -> Image.Image:
        picture = asset(f"{self.name}.png")
        return spatial.draw_box(picture, self.box) if self.box else picture


EXAMPLES = (
    Example("move", spatial.move_object("pink cylinder"), (27, 6, 43, 28)),
    Example("rotate", spatial.rotate_object("purple car", "right")),
    Example("camera", spatial.camera(60, 0, "out")),
)
ASKED, QUESTION = "rotate.png", "Which is nearer to the camera, the purple car or the orange cylinder?"


def asset(name: str) -> Image.Image:
    """A picture of the folder `assets/`, by its file name."""
    return load(ASSETS / name)


def run(folder: Path, *, quiet: bool = False, as_json: bool = False) -> None:
    """Write each edit's input and output, and `contact-sheet.png` with all of them, into `folder`."""
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    model = JoyImage.load("tiny")
    paths: dict[str, str] = {}

    def keep(name: str, image: Image.Image, **parameters) -> None:
        path = (folder / f"{name}.png").resolve()
        save_png(image, path, {"model": "tiny", **parameters})
        paths[name] = str(path)

    rows = []
    for example in EXAMPLES:
        picture = example.picture()
        (edited,) = model.edit(picture, example.instruction, steps=STEPS, seed=0, progress=not quiet)
        keep(f"{example.name}-input", picture)
        keep(f"{example.name}-output", edited, prompt=example.instruction, steps=STEPS, seed=0)
        rows.append((example.instruction, picture, edited))
    answer = model.ask(asset(ASKED), QUESTION, temperature=0)
    keep("contact-sheet", contact_sheet(rows, (asset(ASKED), QUESTION, answer)))
    seconds = time.perf_counter() - started
    if as_json:
        print(json.dumps({"question": QUESTION, "answer": answer, "seconds": round(seconds, 3), **paths}, indent=2))
        return
    for example in EXAMPLES:
        print(f"{example.name:<14} {paths[f'{example.name}-output']}")
    print(f"{'question':<14} {QUESTION} {answer}")
    print(f"{'contact sheet':<14} {paths['contact-sheet']}")
    print(f"{'took':<14} {seconds:.1f} s")
    print("The tiny model knows small pictures of coloured solids only; real photographs take the real weights.")


def contact_sheet(
    edits: list[tuple[str, Image.Image, Image.Image]], asked: tuple[Image.Image, str, str]
) -> Image.Image:
    """A row for each edit (instruction, input, output), and one for a picture, a question and its answer."""
    side = max(edits[0][1].size) * SCALE
    columns = (MARGIN, MARGIN + WORDS, MARGIN + WORDS + side + 3 * MARGIN)
    width, top = columns[2] + side + MARGIN, 3 * MARGIN
    sheet = Image.new("RGB", (width, top + (len(edits) + 1) * (side + MARGIN)), "white")
    draw = ImageDraw.Draw(sheet)
    head, body = ImageFont.load_default(20), ImageFont.load_default(17)
    for x, title in zip(columns, ("instruction", "input", "output"), strict=True):
        draw.text((x, MARGIN), title, fill="gray", font=head)
    for text, *pictures in edits:
        _row(sheet, draw, top, text, pictures, columns, side, body)
        top += side + MARGIN
    picture, question, answer = asked
    _row(sheet, draw, top, question, [picture], columns, side, body)
    draw.text((columns[2], top + side // 2), answer, fill="black", font=ImageFont.load_default(32), anchor="lm")
    return sheet


def _row(sheet, draw, top: int, text: str, pictures: list[Image.Image], columns, side: int, font) -> None:
    wrapped = "\n".join(textwrap.fill(line, 36) for line in text.splitlines())
    draw.multiline_text((columns[0], top + side // 2), wrapped, fill="black", font=font, anchor="lm", spacing=6)
    for x, picture in zip(columns[1:], pictures, strict=False):
        sheet.paste(picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS), (x, top))
    y, left = top + side // 2, columns[1] + side + MARGIN // 2
    right = columns[2] - MARGIN // 2
    draw.line((left, y, right - 6, y), fill="gray", width=4)
    draw.polygon([(right, y), (right - 12, y - 8), (right - 12, y + 8)], fill="gray")
