"""`joyimage train` from a folder of pairs to a LoRA, in every layout; stopped, resumed, refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from training_sets import CAPTIONS, LAYOUTS, folders

from joyimage import JoyImage
from joyimage.cli import build_parser, main
from joyimage.training.settings import Training

ROOT = Path(__file__).parents[1]
PAIRS = ["train", "targets", "--control", "control0"]
FEW = ["--steps", "3", "--warm-up", "0", "--sample-every", "0", "--quiet"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def pairs(tmp_path, monkeypatch) -> Path:
    """A working folder with three targets, their captions and what they are made from."""
    monkeypatch.chdir(folders(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def model() -> JoyImage:
    return JoyImage.load("tiny")


@pytest.fixture
def closed(monkeypatch):
    """Weight files that must not be opened."""

    def opened(*_, **__):
        raise AssertionError("weights were opened")

    monkeypatch.setattr(JoyImage, "load", opened)


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def edited(model: JoyImage, *loras: Path):
    model.set_loras(*loras)
    result = model.edit("control0/0.webp", CAPTIONS[0], steps=2, output="latent")
    model.set_loras()
    return result


def test_from_a_folder_of_pairs_to_an_edit(pairs, model, capsys):
    """With a high rate, so that three steps can be seen."""
    assert main([*PAIRS, *FEW, "--learning-rate", "0.01", "-o", "out/red.safetensors"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{Path('out/red.safetensors')}\n"
    assert "3 of 3 examples can be used" in said.err and "expected peak" in said.err
    assert len(losses(pairs / "out/red-training")) == 3
    assert (edited(model, Path("out/red.safetensors")) - edited(model)).abs().max() > 0.01
    assert (
        main(["edit", "control0/0.webp", CAPTIONS[0], "--lora", "out/red.safetensors", "--steps", "2", "--quiet"]) == 0
    )
    assert "no layer" not in capsys.readouterr().err


def test_the_file_says_how_it_came_about_and_nothing_of_where(pairs, monkeypatch):
    monkeypatch.setenv("JOYIMAGE_REWRITE_KEY", "secret-key")
    given = [
        "train",
        str(pairs / "targets"),
        "--control",
        str(pairs / "control0"),
        "-o",
        str(pairs / "red.safetensors"),
    ]
    assert main([*given, *FEW, "--targets", "img_mlp,txt_mlp", "--no-checkpointing"]) == 0
    told = metadata(pairs / "red.safetensors")
    assert (told["base"], told["steps"], told["rank"]) == ("tiny", "3", "16")
    assert len(told["data"]) == 32
    assert told["command"] == (
        "joyimage train targets --control control0 --model tiny --steps 3 --warm-up 0 --targets img_mlp,txt_mlp "
        "--no-checkpointing --sample-every 0 -o red.safetensors"
    )
    build_parser().parse_args(told["command"].split()[1:])
    assert str(pairs) not in str(told) and "secret" not in str(told)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_and_trained_on(layout, tmp_path, monkeypatch, capsys):
    make, _ = LAYOUTS[layout]
    source = make(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(source), *FEW, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["lora"], told["examples"], told["unusable"]) == ("lora.safetensors", 3, [])
    assert len(losses(tmp_path / "lora-training")) == 3
    assert all(value.isfinite().all() for value in load_file("lora.safetensors").values())


def test_samples_show_before_and_after(pairs):
    steps = [word if word != "--sample-every" else "--save-every" for word in FEW]
    sample = ["--sample", "control0/0.webp", "Remove the box."]
    assert main([*PAIRS, *steps, *sample, "--sample", "A red box."]) == 0
    assert [path.name for path in (pairs / "lora-training" / "samples").iterdir()] == ["step-0000003.png"]


def test_guidance_is_distilled_from_pictures_and_prompts_alone(pairs):
    """The same folder twice: what is to be edited, with instructions beside it."""
    given = ["train", "targets", "--control", "targets", "--objective", "guidance", "--teacher-steps", "2"]
    assert main([*given, *FEW]) == 0
    assert main([*given, *FEW, "--steps", "4"]) == 0  # longer, and the teacher's pictures are there
    assert len(losses(pairs / "lora-training")) == 4
    assert len([*(pairs / "lora-training").glob("teacher-*")]) == 1


def test_a_run_that_is_done_says_so_and_makes_no_samples(pairs, capsys, monkeypatch):
    given = [*PAIRS, *FEW, "--sample-every", "3"]
    assert main(given) == 0
    assert "is done" not in capsys.readouterr().err
    first, sheet = Path("lora.safetensors").read_bytes(), pairs / "lora-training" / "samples" / "step-0000003.png"
    made = sheet.stat().st_mtime_ns
    monkeypatch.delattr(JoyImage, "render")
    assert main(given) == 0
    assert "lora-training holds a run that is done: no step was made anew" in capsys.readouterr().err
    assert Path("lora.safetensors").read_bytes() == first and sheet.stat().st_mtime_ns == made


@pytest.mark.parametrize("naming", [["-o", "lora"], ["-o", "peft.safetensors", "--naming", "peft"]])
def test_pefts_naming_holds_the_same(pairs, model, naming):
    assert main([*PAIRS, *FEW, "--learning-rate", "0.01"]) == 0
    assert main([*PAIRS, *FEW, "--learning-rate", "0.01", "--folder", "lora-training", *naming]) == 0
    own = Path(naming[1]) if "." in naming[1] else Path("lora/adapter_model.safetensors")
    assert all(".lora_A." in name or ".lora_B." in name for name in load_file(own))
    torch.testing.assert_close(edited(model, own), edited(model, Path("lora.safetensors")), atol=1e-5, rtol=0)


# -- stopped and resumed ----------------------------------------------------------------------------------------------

LONG = [*PAIRS, "--steps", "40", "--save-every", "4", "--sample-every", "0", "--ema", "0.9"]


def started(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "joyimage", *LONG, "--quiet"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what runs in the background may be deaf to it
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, preexec_fn=heard)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = folders(tmp_path_factory.mktemp("whole"))
    assert started(folder).wait() == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("end", "code"), [("SIGKILL", -9), ("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.skipif(sys.platform == "win32", reason="it has no such signals")
def test_a_stopped_run_goes_on_to_the_same_curve_and_file(whole, tmp_path, end, code):
    process = started(folders(tmp_path))
    log = tmp_path / "lora-training" / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") >= 6):
        time.sleep(0.005)
    process.send_signal(getattr(signal, end))
    _, said = process.communicate()
    assert process.returncode == code and not (tmp_path / "lora.safetensors").exists()
    if code > 0:
        assert "of 40 steps are kept in lora-training; the same command goes on from there" in said
    assert started(tmp_path).wait() == 0
    assert losses(tmp_path / "lora-training") == losses(whole / "lora-training")
    assert (tmp_path / "lora.safetensors").read_bytes() == (whole / "lora.safetensors").read_bytes()


@pytest.mark.slow
def test_processes_share_the_encoding_and_the_batches(pairs):
    """Two of one sample each make the step of one with two."""
    steps = [*FEW, "--drop-prompts", "0.5"]
    assert main([*PAIRS, *steps, "--accumulation", "2", "-o", "one.safetensors"]) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command = [*launch, "-m", "joyimage", *PAIRS, *steps, "-o", "two.safetensors"]
    done = subprocess.run(command, cwd=pairs, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("two.safetensors") == 1
    assert losses(pairs / "two-training") == pytest.approx(losses(pairs / "one-training"), rel=1e-4)


@pytest.mark.slow
def test_within_a_memory_it_is_the_same_run(pairs, capsys):
    """In one that is too small for all blocks at once."""
    assert main([*PAIRS, "--memory", "22MB", "--device", "cpu", "--dry-run"]) == 0
    assert "stream twice in each step" in capsys.readouterr().out
    assert main([*PAIRS, *FEW]) == 0
    assert main([*PAIRS, *FEW, "-o", "small.safetensors", "--memory", "22MB"]) == 0
    assert losses(pairs / "small-training") == pytest.approx(losses(pairs / "lora-training"), rel=1e-5)


# -- said before work -------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_it_will_take_and_writes_nothing(pairs, closed, capsys):
    (pairs / "targets" / "1.txt").write_text("")
    before = sorted(pairs.rglob("*"))
    assert main([*PAIRS, "--dry-run", "--batch-size", "2"]) == 0
    said = capsys.readouterr().out
    assert "2 of 3 examples can be used" in said and "1.png: its caption 1.txt is empty" in said
    assert "64x64 from 64x64" in said and "16 target, 16 references" in said
    assert "expected peak" in said and "less than 1 ms on H100" in said
    assert main([*PAIRS, "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["set"]["examples"] == 2 and told["plan"]["peak"] > told["plan"]["activations"] > 0
    assert set(told["plan"]["seconds"]) > {"H100", "RTX 4090"}
    assert sorted(pairs.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing does not exist"),
        (["targets", "--control", "missing"], "the folder missing does not exist"),
        (["targets", "--control", "targets/0.txt"], "targets/0.txt does not exist"),
        (["targets/0.txt"], "no training set of a known form"),
        (["targets", "--caption-extension", ".caption"], "there is nothing to train on"),
        ([*PAIRS[1:], "--base-size", "512"], "is too small: 64 x 64"),
        ([*PAIRS[1:], "--base-size", "300"], "base size 300"),
        ([*PAIRS[1:], "--loss", "mask"], "has no mask"),
        (["targets", "--loss", "difference"], "has no control"),
        ([*PAIRS[1:], "--rank", "0"], "rank is 0"),
        ([*PAIRS[1:], "--adapter", "loha"], "adapter is 'loha'"),
        ([*PAIRS[1:], "-o", "lora.pt"], "end the name in .safetensors"),
        ([*PAIRS[1:], "-o", "lora", "--naming", "comfyui"], "a folder has PEFT's naming"),
        ([*PAIRS[1:], "-o", "/proc/joyimage/lora.safetensors"], "nothing can be written"),
        ([*PAIRS[1:], "--memory", "1MB"], "a memory of 1.00 MB is too small"),
        ([*PAIRS[1:], "--memory", "22MB", "--no-checkpointing", "--device", "cpu"], "only with checkpointing"),
        ([*PAIRS[1:], "--sample", "targets/0.png"], "--sample needs a prompt"),
        ([*PAIRS[1:], "--targets", "img_mlp,attention"], "there is no layer 'attention' to train"),
        ([*PAIRS[1:], "--targets", "targets"], "--targets is targets, and means layers, such as img_attn_qkv"),
        ([*PAIRS[1:], "-o", "."], ".: is no name for a LoRA"),
        ([*PAIRS[1:], "-o", ".."], "..: is no name for a LoRA"),
        ([*PAIRS[1:], "--sample", "absent.png", "Remove it."], "absent.png"),
        ([*PAIRS[1:], "--sample", *["targets/0.png"] * 7, "Remove it."], "from 7 pictures; the model takes at most 6"),
        ([*PAIRS[1:], "--model", "absent"], "absent"),
    ],
)
def test_what_cannot_be_used_is_refused_before_weights_are_opened(pairs, closed, capsys, arguments, message):
    assert main(["train", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_folder_in_place_of_a_lora_is_told_its_file(pairs, capsys):
    Path("peft").mkdir()
    Path("peft/adapter_model.safetensors").write_bytes(b"")
    assert main(["edit", "control0/0.webp", "Remove it.", "--lora", "peft"]) == 2
    assert "peft is a folder; name the file in it, peft/adapter_model.safetensors" in capsys.readouterr().err


def test_another_runs_folder_is_refused(pairs, capsys):
    assert main([*PAIRS, *FEW]) == 0
    assert main([*PAIRS, *FEW, "--rank", "4"]) == 2
    assert "lora-training holds a run of rank 16, now 4" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(pairs, closed, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "peft", None)
    assert main([*PAIRS, *FEW]) == 2
    assert 'training needs peft: run `pip install "joyimage[train]"`' in capsys.readouterr().err
    assert main([*PAIRS, "--dry-run"]) == 0


def test_the_options_are_the_settings(capsys):
    parsed = vars(build_parser().parse_args(["train", "targets"]))
    assert {name: parsed[name] for name in Training.names()} == vars(Training())
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert [name for name in Training.names() if Training.help(name) not in text] == []


def test_the_parser_needs_no_torch():
    code = "import sys; from joyimage.cli import build_parser; build_parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT).returncode == 0
