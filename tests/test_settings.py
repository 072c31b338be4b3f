"""One home for settings: signatures, the command line, the nodes and the library's tables say what stands there."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import torch
from PIL import Image

from joyimage import JoyImage, JoyImageError, images, sampling, settings, spatial
from joyimage.cli import build_parser, main
from joyimage.cli.commands import given_shortcuts
from joyimage.encoder import Encoder
from joyimage.settings import Answering, Sampling

# What must be refused, and the word of the message by which one finds it.
WRONG = {
    "steps": (0, "steps is 0"),
    "guidance_scale": (float("nan"), "guidance scale"),
    "rescale": (1.5, "rescale"),
    "guidance_interval": ((0.8, 0.2), "guidance interval"),
    "shift": (0, "shift is 0"),
    "schedule": ("linear", "schedule 'linear'"),
    "sigmas": ([0.5, 0.6], "sigmas must fall"),
    "timesteps": ([2000], "timesteps: 2000"),
    "solver": ("magic", "solver 'magic'"),
    "strength": (0, "strength is 0"),
    "forecast": (0, "forecast is 0"),
    "guidance_every": (2.0, "guidance_every is 2.0"),
    "reference_every": (True, "reference_every is True"),
    "block_cache": (-0.1, "block_cache is -0.1"),
    "preset": ("turbo", "preset 'turbo'.*exact, fast"),
}
TOO_MUCH = [
    (lambda: Sampling(steps=10**10), "steps is 10000000000; give at most 100,000"),
    (lambda: settings.check_output("pil", 10**9), "count is 1000000000; give at most 10,000"),
    (lambda: images.check_size((16, 10**6)), "16384 pixels a side are the most"),
]
ANSWERS = {"max_new_tokens": 0, "temperature": -1, "top_p": 0, "top_k": -1, "seed": -1}


def parameters(function) -> dict:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def test_needs_no_torch():
    code = "import sys, joyimage.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("method", [JoyImage.edit, JoyImage.generate])
def test_signatures_show_every_setting_with_its_default(method):
    shown = parameters(method)
    assert {name: shown[name] for name in Sampling.names()} == {
        name: getattr(Sampling, name) for name in Sampling.names()
    }
    assert inspect.Parameter.VAR_KEYWORD not in {p.kind for p in inspect.signature(method).parameters.values()}


@pytest.mark.parametrize("name", ["preset", "solver", "schedule"])
def test_a_word_that_is_no_word_is_refused(name):
    with pytest.raises(JoyImageError, match=name):
        Sampling(**{name: ["euler"]})


@pytest.mark.parametrize("method", [JoyImage.ask, Encoder.answer])
def test_answers_have_the_same_defaults_everywhere(method):
    shown = parameters(method)
    assert {name: shown[name] for name in Answering.names()} == {
        name: getattr(Answering, name) for name in Answering.names()
    }


def test_the_command_line_has_the_same_defaults_and_says_them():
    for command, kind in (("edit a.png x", Sampling), ("generate x", Sampling), ("ask a.png x", Answering)):
        parsed = build_parser().parse_args(command.split())
        options = vars(parsed) | (given_shortcuts(parsed) if kind is Sampling else {})
        assert {name: options[name] for name in kind.names()} == {name: getattr(kind, name) for name in kind.names()}


@pytest.mark.parametrize("command", ["edit", "generate", "ask"])
def test_the_help_names_default_and_choices(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for kind in (Answering,) if command == "ask" else (Sampling,):
        for name in set(kind.names()) - {"strength", "guidance_interval", "sigmas", "timesteps"}:
            assert kind.help(name) in text
    if command != "ask":
        assert all(each in text for each in (*settings.SOLVERS, *settings.SCHEDULES))


def test_tables_hold_what_the_settings_name():
    assert tuple(sampling.SOLVERS) == settings.SOLVERS
    assert tuple(sampling.SCHEDULES) == settings.SCHEDULES
    assert spatial.VIEWS == settings.VIEWS and spatial.ZOOMS == settings.ZOOMS
    assert images.BASE_SIZES == settings.BASE_SIZES
    assert all(isinstance(getattr(torch, name), torch.dtype) for name in settings.DTYPES)


def test_every_default_lies_in_its_range():
    for kind in (Sampling, Answering):
        kind()
        for name in kind.names():
            default = getattr(kind, name)
            if isinstance(default, str):
                assert default in kind.choices(name)
            elif isinstance(default, int | float):
                assert kind.range(name).least <= default <= kind.range(name).most


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_named(name):
    value, message = WRONG[name]
    with pytest.raises(JoyImageError, match=message):
        Sampling(**{name: value})


@pytest.mark.parametrize(("make", "message"), TOO_MUCH, ids=[message for _, message in TOO_MUCH])
def test_what_would_fill_the_memory_before_anything_is_made_is_refused(make, message):
    with pytest.raises(JoyImageError, match=message):
        make()


@pytest.mark.parametrize("name", ANSWERS)
def test_a_wrong_way_to_answer_is_named(name):
    with pytest.raises(JoyImageError, match=name):
        Answering(**{name: ANSWERS[name]})


@pytest.mark.parametrize("levels", [[], 0.5, [[0.5, 0.2]], ["a"], [float("nan")], torch.zeros(2, 2)], ids=str)
def test_what_is_no_list_of_levels_is_refused(levels):
    with pytest.raises(JoyImageError, match="sigmas"):
        Sampling(sigmas=levels)
    with pytest.raises(JoyImageError, match="sigmas"):
        sampling.custom_schedule(levels)


@pytest.mark.parametrize("interval", [0.5, (0.2,), (0.1, 0.2, 0.3), ("a", "b"), None])
def test_what_is_no_interval_is_refused(interval):
    with pytest.raises(JoyImageError, match="guidance interval"):
        Sampling(guidance_interval=interval)


@pytest.mark.parametrize("value", [True, 2.0, "40"])
def test_steps_are_whole_numbers(value):
    with pytest.raises(JoyImageError, match="steps"):
        Sampling(steps=value)


def test_an_unknown_option_is_named():
    with pytest.raises(JoyImageError, match="'step'; did you mean steps"):
        Sampling.of({"step": 5})
    with pytest.raises(TypeError, match="'step'"):
        JoyImage.__new__(JoyImage).edit([], "x", step=5)


@pytest.fixture
def closed(monkeypatch):
    """Weight files that must not be opened."""

    def opened(*_, **__):
        raise AssertionError("weights were opened")

    monkeypatch.setattr(JoyImage, "load", opened)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "steps is 0"),
        (["--solver", "magic"], "solver 'magic'"),
        (["--schedule", "linear"], "schedule 'linear'"),
        (["--sigmas", "0.5,0.6"], "sigmas must fall"),
        (["--size", "100x100"], "multiples of 16"),
        (["--base-size", "300"], "base size 300"),
        (["--seed", "-1"], "seed is -1"),
        (["--count", "0"], "count is 0"),
        (["--strength", "2"], "strength is 2"),
        (["--lora", "missing.safetensors"], "missing.safetensors"),
        (["--output", "/proc/joyimage/x.png"], "nothing can be written"),
        (["--output", "x.webp"], "PNG"),
        (["--move", "cup", "--box", "900,900,990,990"], "box"),
    ],
)
def test_the_command_line_refuses_before_weights_are_opened(closed, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save("photo.png")
    instruction = [] if "--move" in arguments else ["Remove the cup."]
    assert main(["edit", "photo.png", *instruction, *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["edit", "absent.png", "Remove the cup."],
        ["edit", "absent.png", "--move", "cup", "--box", "0,0,9,9"],
        ["ask", "absent.png", "What is it?"],
        ["rewrite", "Remove the cup.", "--image", "absent.png"],
    ],
)
def test_a_missing_picture_is_refused_before_weights_are_opened(closed, capsys, command):
    assert main(command) == 2
    assert "absent.png" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["edit", "photo.png", " "], ["generate", ""], ["edit", *["photo.png"] * 7, "x"]])
def test_prompts_are_refused_before_weights_are_opened(closed, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save("photo.png")
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "is empty" in error or "at most 6" in error


@pytest.mark.parametrize(
    ("images", "instruction", "message"),
    [
        (5, "x", "images cannot be 5"),
        (None, "x", "images cannot be None"),
        ([["absent.png"], 5], "x", "images cannot be 5"),
        ([[]], "x", "an edit has no image"),
        ([["absent.png"], []], "x", "an edit has no image"),
        ("absent.png", None, "the prompt cannot be None"),
        ("absent.png", 5, "the prompt cannot be 5"),
        ("absent.png", ["x", 5], "prompt 2 of 2 must be text, not int"),
        ("absent.png", [], "no prompt given"),
        ("absent.png", "\udce9", "is no character"),
    ],
)
def test_wrong_types_are_refused_by_name(images, instruction, message):
    with pytest.raises(JoyImageError, match=message):
        JoyImage.__new__(JoyImage).edit(images, instruction)


@pytest.mark.parametrize(
    "option",
    [
        {"steps": 0},
        {"output": "jpeg"},
        {"solver": "magic"},
        {"count": 0},
        {"seed": -1},
        {"seed": [1, 2]},
        {"seed": "a"},
        {"seed": None},
        {"seed": 1.5},
        {"seed": {}},
        {"steps": "a"},
        {"steps": True},
        {"shift": "a"},
        {"strength": None},
        {"solver": None},
        {"solver": []},
        {"schedule": 5},
        {"output": None},
        {"output": []},
        {"count": 1.5},
        {"batch_size": 0},
        {"batch_size": "a"},
        {"base_size": "a"},
        {"base_size": 300},
        {"base_size": []},
        {"size": 5},
        {"size": (64,)},
        {"size": ("a", 64)},
        {"negative_prompt": 5},
        {"guidance_scale": "a"},
        {"rescale": None},
        {"sigmas": 5},
        {"timesteps": "a"},
        {"latent": 5},
        {"callback": 5},
    ],
)
def test_the_library_refuses_before_any_work(option):
    """On a model without networks: whatever is touched fails in another way."""
    with pytest.raises(JoyImageError, match=next(iter(option)).replace("_", "[ _]")):
        JoyImage.__new__(JoyImage).edit("absent.png", "x", **option)


HUGE = 10**400  # no float holds it


@pytest.mark.parametrize("name", ["guidance_scale", "rescale", "shift", "strength", "sigmas", "timesteps"])
def test_whole_numbers_that_no_float_holds_are_refused(name):
    value = [HUGE] if name in ("sigmas", "timesteps") else HUGE
    with pytest.raises(JoyImageError, match=name.replace("_", " ")):
        Sampling(**{name: value})


@pytest.mark.parametrize("name", ["temperature", "top_p"])
def test_so_they_are_for_answers(name):
    with pytest.raises(JoyImageError, match=name):
        Answering(**{name: HUGE})
