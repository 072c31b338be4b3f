"""A whole model over several devices: the same pictures, the same options, and nothing left behind when one fails."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from processes import running
from safetensors.torch import save_file

from joyimage import JoyImage, batching, tiny
from joyimage.cli import flags, main
from joyimage.errors import JoyImageError
from joyimage.inputs import usable_device
from joyimage.parallel import team
from joyimage.parallel.team import Process
from joyimage.parallel.worker import Room

pytestmark = pytest.mark.slow  # a process takes seconds to start
ROOT = Path(__file__).parents[1]
SIZES = [(64, 64), (80, 64), (64, 96)]
TOLERANCE = 3e-5  # of latents: guidance by 4 and four steps make that of the velocities' 1e-5
SHORTCUTS = [
    {},
    {"guidance_scale": 1.0},
    {"guidance_interval": (0.3, 0.8)},
    {"guidance_every": 2},
    {"forecast": 2},
    {"reference_every": 2},
    {"block_cache": 0.3},
]


@pytest.fixture(autouse=True)
def one_by_one(monkeypatch):
    """Passes that run packed on one device are not bit for bit those that run apart."""
    monkeypatch.setattr(batching, "PACKED_TOKENS", 0)


@pytest.fixture(scope="module")
def pictures():
    torch.manual_seed(0)
    return [Image.effect_noise(size, 80 + i).convert("RGB") for i, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def alone():
    return JoyImage.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def guided():
    return JoyImage.load("tiny", guidance_devices=["cpu", "cpu"])


@pytest.fixture(scope="module")
def split():
    """Each pass over two processes."""
    return JoyImage.load("tiny", guidance_devices=["cpu", "cpu"], sequence_devices=["cpu"] * 4)


def edited(model, pictures, **options):
    return model.edit(pictures, "Make it blue.", **{"steps": 4, "seed": 3, "output": "latent", **options})


def processes(model) -> list[int]:
    return [process._process.pid for process in model._team._processes]


@pytest.mark.parametrize("options", SHORTCUTS, ids=str)
def test_guidance_over_two_devices_is_equal_to_the_bit(alone, guided, pictures, options):
    assert torch.equal(edited(guided, pictures, **options), edited(alone, pictures, **options))


@pytest.mark.parametrize("options", [SHORTCUTS[0], SHORTCUTS[5], SHORTCUTS[6]], ids=str)
def test_parts_of_both_passes_give_what_one_device_gives(alone, split, pictures, options):
    result, expected = edited(split, pictures, **options), edited(alone, pictures, **options)
    torch.testing.assert_close(result, expected, rtol=0, atol=TOLERANCE)


def test_prompts_of_a_batch_run_packed(alone, split):
    prompts = ["a red cube", "a green ball on a large wooden table"]
    options = {"size": (64, 64), "steps": 2, "batch_size": 2, "seed": [1, 2], "output": "latent"}
    torch.testing.assert_close(
        split.generate(prompts, **options), alone.generate(prompts, **options), rtol=0, atol=TOLERANCE
    )


@pytest.mark.parametrize("merge", [False, True])
def test_loras_are_applied_on_all_devices(alone, guided, pictures, tmp_path, merge):
    layer = "transformer.double_blocks.1.img_mlp.net.0.proj"
    out, into = alone.mmdit.double_blocks[1].img_mlp.net[0].proj.weight.shape
    draw = torch.Generator().manual_seed(1)
    down, up = torch.randn(4, into, generator=draw) / 8, torch.randn(out, 4, generator=draw) / 8
    save_file({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}, tmp_path / "lora.safetensors")
    before = edited(alone, pictures)
    try:
        for model in (alone, guided):
            model.set_loras((tmp_path / "lora.safetensors", 0.8), merge=merge)
        result = edited(alone, pictures)
        assert (result - before).abs().max() > 0.01
        assert torch.equal(edited(guided, pictures), result)
    finally:
        for model in (alone, guided):
            model.set_loras()
    assert torch.equal(edited(guided, pictures), before)


def test_a_callback_stops_a_run_and_its_errors_leave_all_devices_at_work(alone, guided, pictures):
    stopping = {"callback": lambda step, *_: step < 1}
    assert torch.equal(edited(guided, pictures, **stopping), edited(alone, pictures, **stopping))
    before = processes(guided)

    def fail(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edited(guided, pictures, callback=fail)
    assert torch.equal(edited(guided, pictures), edited(alone, pictures))
    assert processes(guided) == before


@pytest.mark.parametrize("name", ["guided", "split"])
def test_a_process_that_ends_is_named_and_the_next_run_starts_anew(alone, pictures, request, name):
    model = request.getfixturevalue(name)
    edited(model, pictures, steps=1)
    before = processes(model)

    def kill(step, *_):
        os.kill(before[-1], signal.SIGKILL)

    with pytest.raises(JoyImageError, match="the process for cpu failed: ended by signal 9"):
        edited(model, pictures, callback=kill)
    assert not any(map(running, before))
    result = edited(model, pictures)
    torch.testing.assert_close(result, edited(alone, pictures), rtol=0, atol=TOLERANCE)


def test_what_goes_wrong_in_a_process_is_said(guided, pictures):
    edited(guided, pictures, steps=1)
    guided._team._processes[0].tell("forget", [99])
    with pytest.raises(JoyImageError, match="the process for cpu failed: KeyError: 99; run again"):
        edited(guided, pictures)


def gone(pids: list[int]) -> bool:
    end = time.monotonic() + 30
    while any(map(running, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(running, pids))


def test_processes_end_with_their_model():
    model = JoyImage.load("tiny", sequence_devices=["cpu", "cpu"])
    pids = processes(model)
    assert all(map(running, pids))
    del model
    gc.collect()
    assert gone(pids)


@pytest.mark.parametrize("budget", [12_500_000, 200_000_000])
def test_blocks_stream_on_a_further_device_too(budget):
    """Weights that do not all fit are home again after the run, and those that do are left for the next one."""
    network, cpu = tiny.mmdit(), torch.device("cpu")
    inputs = torch.ones(1, 16, 1, 8, 8), torch.tensor([500.0]), [torch.ones(5, network.config.text_dim)]
    expected = network(*inputs)
    home = {parameter.data_ptr() for parameter in network.parameters()}
    room = Room(network, cpu, budget, processes=2)
    for _ in range(2):
        room.enter(100, 0)
        assert not home & {parameter.data_ptr() for parameter in network.img_in.parameters()}
        # the copies lie elsewhere than the mapped file, and kernels round by where numbers lie
        torch.testing.assert_close(network(*inputs), expected, rtol=0, atol=1e-5)
    room.leave()
    assert {parameter.data_ptr() for parameter in network.parameters()} == home
    with pytest.raises(JoyImageError, match="is too small: the mmdit needs at least"):
        room.enter(10**6, 0)


# -- the command line -------------------------------------------------------------------------------------------------

EDIT = ["edit", "in.png", "Make it blue.", "--quiet", "-o", "out.png"]


@pytest.fixture
def folder(tmp_path, monkeypatch, pictures):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOYIMAGE_MODEL", raising=False)
    pictures[0].save("in.png")
    return tmp_path


def test_a_command_takes_devices(folder, alone, pictures):
    command = [sys.executable, "-m", "joyimage", *EDIT, "--steps", "2", "--sequence-devices", "cpu,cpu"]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    (expected,) = alone.edit(pictures[0], "Make it blue.", steps=2)
    made, same = (torch.tensor(list(image.tobytes())) for image in (Image.open("out.png"), expected))
    assert (made - same).abs().max() <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--guidance-devices", "cpu"], "names 1 device; give two"),
        (["--guidance-devices", "meta,meta"], "the device meta holds no numbers"),
        (["--guidance-devices", "vulkan,vulkan"], "has no device vulkan; use cpu"),
        (["--sequence-devices", "hpu,hpu"], "has no device hpu; use cpu"),
        (["--sequence-devices", "cpu,nowhere"], "there is no device"),
        (["--sequence-devices", ","], "give a list of devices"),
    ],
)
def test_devices_that_cannot_be_used_are_refused_before_anything_loads(folder, capsys, arguments, message):
    assert main([*EDIT, *arguments, "--model", "absent"]) == 2
    assert message in capsys.readouterr().err


def test_more_processes_than_heads_are_refused_before_any_starts(folder, capsys, monkeypatch):
    monkeypatch.setattr(team, "Process", None)
    assert main([*EDIT, "--sequence-devices", ",".join(["cpu"] * 6)]) == 2
    assert "the model's attention has 5 heads" in capsys.readouterr().err


def test_a_number_of_devices_is_at_most_that_of_the_machine(folder, capsys, monkeypatch):
    monkeypatch.setattr(flags, "processors", lambda: 3)
    assert flags.devices("3") == ["cpu"] * 3
    with pytest.raises(SystemExit):
        main([*EDIT, "--sequence-devices", "64"])
    assert "64 devices, of 3 processors here" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert flags.devices("2") == ["cuda:0", "cuda:1"]
    with pytest.raises(argparse.ArgumentTypeError, match="3 devices, of 2 GPUs here"):
        flags.devices("3")


def test_a_card_that_is_not_there_is_named_with_those_that_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(JoyImageError, match="there is no device cuda:7: torch finds cuda:0 to cuda:1"):
        usable_device("cuda:7")


def test_a_process_that_is_lost_before_it_joins_is_named(split, monkeypatch):
    """Stopped first, so that the leader is certain to wait for it."""
    answer = Process.answer

    def stopped(self, seconds=None):
        said = answer(self, seconds)
        if said == "ready":
            os.kill(self._process.pid, signal.SIGSTOP)
            threading.Timer(1, self._process.kill).start()
        return said

    monkeypatch.setattr(Process, "answer", stopped)
    split._team.close()
    with pytest.raises(JoyImageError, match="the process for cpu failed: ended by signal 9"):
        split.generate("a red cube", steps=1)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_runs_on_when_a_command_is_stopped(folder, how):
    command = [sys.executable, "-m", "joyimage", *EDIT, "--steps", "100000", "--sequence-devices", "cpu,cpu"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    end = time.monotonic() + 100
    while not (pids := [int(pid) for pid in children.read_text().split()]) and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert pids and gone(pids)
    if how == signal.SIGINT:
        assert process.returncode == 130 and errors.endswith("joyimage: interrupted; nothing half-written is left\n")
    assert sorted(os.listdir(folder)) == ["in.png"]
