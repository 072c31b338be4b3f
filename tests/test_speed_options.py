"""Options of speed on the command line: they reach the library, and a picture tells which were taken."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from joyimage import JoyImage, compiling, loading
from joyimage.cli import main
from joyimage.compiling import compile_blocks
from joyimage.images import read_parameters
from joyimage.settings import PRESETS, SHORTCUTS
from joyimage.versions import torch_version

COMMAND = ["generate", "a red cube", "--size", "64x64", "--steps", "6", "--quiet", "--device", "cpu", "-o", "a.png"]
OPTIONS = {"size": (64, 64), "steps": 6}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOYIMAGE_MODEL", raising=False)


@pytest.fixture(scope="module")
def model():
    return JoyImage.load("tiny", device="cpu")


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        ([], {}),
        (["--fast"], {"preset": "fast", **PRESETS["fast"]}),
        (["--preset", "fast", "--forecast", "2"], {"preset": "fast", **PRESETS["fast"], "forecast": 2}),
        (["--guidance-every", "2", "--block-cache", "0.3"], {"guidance_every": 2, "block_cache": 0.3}),
    ],
)
def test_a_picture_is_made_with_the_shortcuts_given_and_tells_them(model, arguments, taken):
    assert main([*COMMAND, *arguments]) == 0
    told = read_parameters("a.png")
    assert {name: value for name, value in told.items() if name in ("preset", *SHORTCUTS)} == taken
    (expected,) = model.generate("a red cube", **OPTIONS, **taken)
    assert Image.open("a.png").tobytes() == expected.tobytes()
    (exact,) = model.generate("a red cube", **OPTIONS)
    assert (expected.tobytes() != exact.tobytes()) == bool(taken)


def test_attention_is_that_named(monkeypatch, capsys):
    names = []
    named = loading.attention_by_name
    monkeypatch.setattr(loading, "attention_by_name", lambda name, device: names.append(name) or named(name, device))
    assert main([*COMMAND, "--attention", "math"]) == 0
    assert names == ["math"]
    assert main([*COMMAND, "--attention", "cudnn"]) == 2
    assert "attention 'cudnn' does not run on cpu" in capsys.readouterr().err


@pytest.mark.skipif(torch_version() < compiling.LEAST_TORCH, reason="compile needs a newer torch")
def test_compile_runs_compiled_blocks_of_the_same_numbers(model, monkeypatch):
    graphs = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(loading, "check_compiler", lambda device, _: compiling.check_compiler(device, backend))
    monkeypatch.setattr(loading, "compile_blocks", lambda mmdit, device, _: compile_blocks(mmdit, device, backend))
    try:
        assert main([*COMMAND, "--steps", "2", "--compile"]) == 0
    finally:
        compiling.compiled_blocks.cache_clear()
        torch._dynamo.reset()
    assert graphs
    (expected,) = model.generate("a red cube", **OPTIONS | {"steps": 2})
    pixels = [torch.tensor(list(image.tobytes()), dtype=torch.int) for image in (Image.open("a.png"), expected)]
    assert (pixels[0] - pixels[1]).abs().max() <= 1


def test_compile_is_refused_before_anything_loads(monkeypatch, capsys):
    monkeypatch.setattr(compiling, "LEAST_TORCH", (99, 0))
    assert main([*COMMAND, "--compile", "--model", "nowhere"]) == 2
    assert "compile needs torch" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--forecast", "0"], ["--preset", "turbo"], ["--block-cache", "-1"]])
def test_values_that_cannot_be_used_are_refused(arguments, capsys):
    assert main([*COMMAND, *arguments]) == 2
    assert arguments[0].strip("-").replace("-", "_") in capsys.readouterr().err
