"""The bundled model as a program: its files, the demo, its evaluation, and how it is made anew. What its weights
succeed at is in tests/model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from joyimage import JoyImage, demo, tiny
from joyimage.checkpoints import convert
from joyimage.cli import main
from joyimage.demo import EXAMPLES, asset
from tools.tiny import evaluate, pack, samples

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model() -> JoyImage:
    return JoyImage.load("tiny", device="cpu")


def test_the_evaluation_writes_its_tables_and_sheets(tmp_path, capsys):
    evaluate.main(f"--count 8 --tasks move camera generate --steps 2 --no-questions --folder {tmp_path}".split())
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert (tmp_path / "results.md").read_text() in printed
    assert {"move / object in the box", "camera / PSNR", "generate / order", "vae / PSNR"} <= set(results["figures"])
    assert {"move / 1", "camera / 2", "generate / 3"} <= set(results["by number of objects"])
    assert all((tmp_path / f"{task}.png").exists() for task in ("move", "camera", "generate"))


# --- the files ---


def test_the_weights_are_small_and_say_their_size():
    assert sum(path.stat().st_size for path in tiny.FILES.values()) <= pack.LIMIT
    for path in tiny.FILES.values():
        with safe_open(path, "pt") as file:
            assert file.metadata()["joyimage.base_size"] == "64"


def moved(model: JoyImage) -> torch.Tensor:
    example = EXAMPLES[0]
    return model.edit(example.picture(), example.instruction, steps=4, output="latent")


def test_they_load_as_any_files_do(model):
    parts = {part: path for part, path in tiny.FILES.items()}
    loaded = JoyImage.load(**parts, tokenizer=tiny.TOKENIZER, device="cpu", dtype=torch.float32)
    assert loaded.base_size == 64
    assert torch.equal(moved(loaded), moved(model))


@pytest.mark.parametrize("layout", ["comfy", "diffusers"])
def test_converted_they_make_the_same_picture(model, tmp_path, layout):
    convert(tiny.FOLDER, tmp_path / "converted", layout=layout)
    loaded = JoyImage.load(tmp_path / "converted", device="cpu", dtype=torch.float32)
    assert loaded.base_size == 64
    torch.testing.assert_close(moved(loaded), moved(model), atol=1e-5, rtol=0)


# --- the demo ---


def test_the_demo(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "-o", "out", "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["answer"] == model.ask(asset(demo.ASKED), demo.QUESTION, temperature=0) != ""
    sheet = Image.open(report["contact-sheet"])
    assert sheet.width > 800 and sheet.height > 1000
    for example in EXAMPLES:
        before, after = (
            np.asarray(Image.open(Path("out") / f"{example.name}-{end}.png")) for end in ("input", "output")
        )
        assert before.shape == after.shape == (64, 64, 3)
        assert (before != after).any()


def test_the_demos_pictures_are_scenes_that_training_never_showed():
    for example in EXAMPLES:
        pairs, index = samples.pairs(example.name)
        assert example.instruction == pairs.texts[index]
        assert np.array_equal(asset(f"{example.name}.png"), pairs.rendered_before.pixels[index])
        assert example.box is None or example.box == tuple(pairs.box[index])


# --- making it anew ---


def test_all_stages_run_and_their_result_loads(tmp_path):
    from tools.tiny.__main__ import main as make

    folders = ["--folder", str(tmp_path / "work"), "--output", str(tmp_path / "out")]
    make([*folders, "--steps", "50", "--pairs", "12", "--small"])
    for name in ("vae", "encoder", "mmdit"):
        lines = [
            json.loads(line)["loss"] for line in (tmp_path / "work" / f"{name}.log.jsonl").read_text().splitlines()
        ]
        assert len(lines) == 50 and np.mean(lines[-10:]) < np.mean(lines[:10])
        assert (tmp_path / "work" / f"{name}.png").exists()
    parts = {part: tmp_path / "out" / path.name for part, path in tiny.FILES.items()}
    model = JoyImage.load(**parts, tokenizer=tmp_path / "out" / "tokenizer", device="cpu")
    assert model.edit(Image.new("RGB", (64, 64)), "Remove the red cube.", steps=1)[0].size == (64, 64)
