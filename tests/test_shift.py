"""Shift and steps of the schedule: a folder's own are the default, what is given wins, and a picture tells which."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from joyimage import CheckpointError, JoyImage, JoyImageError, tiny
from joyimage.checkpoints import convert, inspect, own_shift, own_steps
from joyimage.cli import main
from joyimage.images import read_parameters
from joyimage.sampling import levels, schedule
from joyimage.settings import Sampling

PUBLISHED, ORIGINAL = 1.5, 4.0  # of the folder for Diffusers, and of the original one: both are official
SMALL = {"steps": 2, "size": (64, 64), "output": "latent"}


def scheduler(folder: Path, text: str) -> Path:
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def transformer(tmp_path) -> Path:
    """A folder with an MMDiT where Diffusers has it."""
    (tmp_path / "transformer").mkdir()
    shutil.copy(tiny.FILES["mmdit"], tmp_path / "transformer" / "diffusion_pytorch_model.safetensors")
    return tmp_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A whole model with the other official shift."""
    folder = tmp_path_factory.mktemp("model")
    for part, place in (("mmdit", "transformer"), ("vae", "vae"), ("encoder", "text_encoder")):
        (folder / place).mkdir()
        shutil.copy(tiny.FILES[part], folder / place)
    shutil.copytree(tiny.TOKENIZER, folder / "tokenizer")
    return scheduler(folder, json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": ORIGINAL}))


@pytest.mark.parametrize(
    ("text", "shift"),
    [
        (None, PUBLISHED),
        ("{}", PUBLISHED),
        ('{"shift": null}', PUBLISHED),
        ('{"shift": 1.5}', PUBLISHED),
        ('{"shift": 4.0}', ORIGINAL),
        ('{"shift": 3}', 3.0),
    ],
)
def test_a_folder_says_the_shift(transformer, text, shift):
    if text is not None:
        scheduler(transformer, text)
    for path in (transformer, transformer / "transformer", next((transformer / "transformer").iterdir())):
        assert own_shift(path) == shift
    (part,) = inspect(transformer).parts
    assert part.config["shift"] == shift and f"shift {shift}" in str(part) and not part.problem


@pytest.mark.parametrize(
    ("text", "steps"),
    [(None, 40), ("{}", 40), ('{"num_inference_steps": null}', 40), ('{"num_inference_steps": 8, "shift": 3}', 8)],
)
def test_a_folder_says_the_steps(transformer, text, steps):
    if text is not None:
        scheduler(transformer, text)
    assert own_steps(transformer) == own_steps(transformer / "transformer") == steps
    (part,) = inspect(transformer).parts
    assert part.config["steps"] == steps and f"steps {steps}" in str(part) and not part.problem


@pytest.mark.parametrize("value", ["0", "-4", "8.5", '"8"', "true", "1e400"])
def test_steps_that_are_none_are_refused_by_name(transformer, value):
    scheduler(transformer, f'{{"num_inference_steps": {value}}}')
    with pytest.raises(CheckpointError, match=r"scheduler_config\.json: .*steps is"):
        own_steps(transformer)
    assert "scheduler_config.json" in inspect(transformer).parts[0].problem


@pytest.mark.parametrize(
    "text", ['{"shift": 0}', '{"shift": -4}', '{"shift": NaN}', '{"shift": "4"}', '{"shift": true}', "[4]", "{", ""]
)
def test_a_folder_that_says_nonsense_is_refused_by_name(transformer, text):
    scheduler(transformer, text)
    with pytest.raises(CheckpointError, match=r"scheduler_config\.json: "):
        own_shift(transformer)
    assert "scheduler_config.json" in inspect(transformer).parts[0].problem
    with pytest.raises(CheckpointError, match=r"scheduler_config\.json: "):
        JoyImage.load(transformer, vae=tiny.FILES["vae"], encoder=tiny.FILES["encoder"], tokenizer=tiny.TOKENIZER)


def test_settings_leave_the_shift_to_the_model():
    assert Sampling().shift is None
    assert torch.equal(levels(Sampling(steps=4)), schedule(4, PUBLISHED))
    assert torch.equal(levels(Sampling(steps=4), ORIGINAL), schedule(4, ORIGINAL))
    assert torch.equal(levels(Sampling(steps=4, shift=PUBLISHED), ORIGINAL), schedule(4, PUBLISHED))
    assert levels(Sampling(steps=4), ORIGINAL).tolist() == pytest.approx([1, 12 / 13, 0.8, 4 / 7, 0])


def test_a_model_has_its_folders_shift_unless_another_is_given(folder):
    model = JoyImage.load(folder, device="cpu", dtype=torch.float32)
    other = JoyImage.load("tiny", device="cpu")
    assert (model.shift, other.shift) == (ORIGINAL, PUBLISHED)
    picture = Image.new("RGB", (64, 64), "teal")
    (conditioning,) = model.condition(picture, "Remove the cup.")
    makers = (
        lambda model, **options: model.edit(picture, "Remove the cup.", **SMALL, **options),
        lambda model, **options: model.generate("a red cube", **SMALL, **options),
        lambda model, **options: model.render([conditioning], steps=2, output="latent", **options),
        lambda model, **options: torch.cat(model.sample([conditioning], [0], steps=2, **options)),
    )
    for make in makers:
        assert torch.equal(make(model), make(other, shift=ORIGINAL))
        assert torch.equal(make(model, shift=PUBLISHED), make(other))
        assert not torch.equal(make(model), make(other))


@pytest.mark.parametrize("own", [{"shift": 0}, {"steps": 0}, {"steps": 2.5}])
def test_a_model_of_an_impossible_schedule_is_not_made(own):
    ((name, value),) = own.items()
    with pytest.raises(JoyImageError, match=f"{name} is {value}"):
        JoyImage(*tiny.build("cpu"), **own)


def test_a_distilled_models_folder_is_all_that_it_takes(folder, tmp_path, monkeypatch):
    """Its steps and shift without a word, one pass for each step at guidance 1; what is given wins."""
    distilled = tmp_path / "distilled"
    shutil.copytree(folder, distilled)
    scheduler(distilled, '{"shift": 3.0, "num_inference_steps": 4}')
    model, plain = JoyImage.load(distilled, device="cpu", dtype=torch.float32), JoyImage.load("tiny", device="cpu")
    forwards = []
    model.mmdit.register_forward_pre_hook(lambda *_: forwards.append(1))
    options = {"size": (64, 64), "output": "latent", "guidance_scale": 1.0}
    expected = plain.generate("a cube", steps=4, shift=3.0, **options)
    assert torch.equal(model.generate("a cube", **options), expected) and len(forwards) == 4
    model.generate("a cube", steps=2, **options)
    assert len(forwards) == 6
    monkeypatch.chdir(tmp_path)
    command = ["generate", "a cube", "--base-size", "64", "--quiet", "--model", str(distilled), "-o", "out.png"]
    assert main(command) == 0
    assert read_parameters("out.png")["steps"] == 4
    output = tmp_path / "alone.safetensors"
    convert(distilled / "transformer", output)
    assert (own_steps(output), own_shift(output)) == (4, 3.0)


def test_the_command_line_says_and_keeps_the_shift(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["generate", "a red cube", "--steps", "1", "--base-size", "64", "--quiet", "--model", str(folder)]
    for name, more, shift in (("own", [], ORIGINAL), ("given", ["--shift", "1.5"], PUBLISHED)):
        assert main([*command, *more, "-o", f"{name}.png"]) == 0
        assert read_parameters(f"{name}.png")["shift"] == shift
    assert main(["generate", "a red cube", "--steps", "1", "--quiet", "-o", "tiny.png"]) == 0
    assert read_parameters("tiny.png")["shift"] == PUBLISHED
    capsys.readouterr()
    assert main(["inspect", str(folder)]) == 0
    assert re.search(r"theta 10000\.0, shift 4\.0, steps 40$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("form", [None, "fp8", "gguf:F32"])
def test_a_converted_file_keeps_the_shift_of_its_folder(transformer, tmp_path, form):
    scheduler(transformer, '{"shift": 4.0}')
    output = tmp_path / "alone" / ("out.gguf" if form == "gguf:F32" else "out.safetensors")
    output.parent.mkdir()
    convert(transformer / "transformer", output, format=form)
    assert own_shift(output) == ORIGINAL
    again = output.with_stem("again")
    convert(output, again)
    assert own_shift(again) == ORIGINAL


def test_a_shift_in_a_header_that_is_none_is_named(transformer):
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(tiny.FILES["mmdit"], framework="pt") as file:
        metadata, state = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    (path,) = (transformer / "transformer").iterdir()
    save_file(state, path, metadata | {"joyimage.shift": "much"})
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .*'much'"):
        own_shift(path)
