"""Training sets made on the spot, in each of the layouts that people have: three edits of drawn pictures."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = ("navy", "teal", "olive")
CAPTIONS = tuple(f"Add a red box to the {colour} picture." for colour in COLOURS)


def source(i: int, side: int = 64) -> Image.Image:
    return Image.new("RGB", (side, side), COLOURS[i])


def target(i: int, side: int = 64) -> Image.Image:
    image = source(i, side)
    ImageDraw.Draw(image).rectangle((0, 0, side // 4 - 1, side // 4 - 1), fill="red")
    return image


def folders(root: Path, controls: int = 1) -> Path:
    """`root/targets` with captions, and `root/control0` and on; suffixes differ."""
    for name in ("targets", *(f"control{k}" for k in range(controls))):
        (root / name).mkdir(parents=True)
    for i, caption in enumerate(CAPTIONS):
        target(i).save(root / "targets" / f"{i}.png")
        (root / "targets" / f"{i}.txt").write_text(caption + "\n", encoding="utf-8")
        for k in range(controls):
            source(i).save(root / f"control{k}" / f"{i}.{('webp', 'bmp')[k % 2]}", lossless=True)
    return root


def numbered(root: Path) -> Path:
    """One folder with two controls for each target, by number."""
    folders(root, 2)
    (root / "control").mkdir()
    for i in range(len(CAPTIONS)):
        for k in range(2):
            source(i).save(root / "control" / f"{i}_{k}.png")
    return root


def ai_toolkit(root: Path) -> Path:
    folders(root, 2)
    (root / "train.yaml").write_text(
        "job: extension\nconfig:\n  process:\n    - type: diffusion_trainer\n      datasets:\n"
        f"        - folder_path: {root / 'targets'}\n          control_path:\n"
        f"            - {root / 'control0'}\n            - {root / 'control1'}\n          caption_ext: txt\n"
    )
    return root / "train.yaml"


def diffusion_pipe(root: Path) -> Path:
    folders(root)
    (root / "dataset.toml").write_text("[[directory]]\npath = 'targets'\ncontrol_path = 'control0'\nnum_repeats = 2\n")
    return root / "dataset.toml"


def musubi(root: Path) -> Path:
    numbered(root)
    (root / "set.toml").write_text(
        '[general]\ncaption_extension = ".txt"\n\n'
        '[[datasets]]\nimage_directory = "targets"\ncontrol_directory = "control"\n'
    )
    return root / "set.toml"


def musubi_lines(root: Path) -> Path:
    numbered(root)
    rows = [
        {
            "image_path": f"targets/{i}.png",
            "control_path_1": f"control/{i}_1.png",
            "control_path_0": f"control/{i}_0.png",
            "caption": caption,
        }
        for i, caption in enumerate(CAPTIONS)
    ]
    (root / "set.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return root / "set.jsonl"


def diffsynth(root: Path) -> Path:
    """A folder with a table that names one control, then lists of two."""
    numbered(root)
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "edit_image", "prompt"))
        for i, caption in enumerate(CAPTIONS):
            two = json.dumps([f"control/{i}_0.png", f"control/{i}_1.png"])
            writer.writerow((f"targets/{i}.png", two if i else "control/0_0.png", caption))
    return root


def tars(root: Path) -> Path:
    """As SpatialEdit's: two tars."""
    root.mkdir(exist_ok=True)
    for i, caption in enumerate(CAPTIONS):
        said = {
            "conversations": [{"from": "human", "value": f"<image>\n{caption}"}, {"from": "gpt", "value": "<image>"}]
        }
        with tarfile.open(root / f"{i // 2}.tar", "a") as tar:
            for name, data in (
                ("json", json.dumps(said).encode()),
                ("0.jpg", encoded(source(i))),
                ("1.jpg", encoded(target(i))),
            ):
                member = tarfile.TarInfo(f"scene/{i}.{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return root


def encoded(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=95)
    return data.getvalue()


# name -> what makes it in an empty folder and says what to read, how many controls each example has
LAYOUTS: dict[str, tuple[Callable[[Path], Path], tuple[int, ...]]] = {
    "ai-toolkit": (ai_toolkit, (2, 2, 2)),
    "diffusion-pipe": (diffusion_pipe, (1, 1, 1)),
    "musubi-tuner": (musubi, (2, 2, 2)),
    "musubi-tuner's lines": (musubi_lines, (2, 2, 2)),
    "diffsynth": (diffsynth, (1, 2, 2)),
    "spatialedit": (tars, (1, 1, 1)),
    "pictures alone": (lambda root: folders(root) / "targets", (0, 0, 0)),
}
