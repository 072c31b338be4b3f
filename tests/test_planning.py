"""Plans for several devices, told from headers: what each holds is what its process will take."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from joyimage import JoyImageError, tiny
from joyimage.cli import main
from joyimage.memory.budget import kept_references, mmdit_activations
from joyimage.parallel.shares import exchanged, share_of_memory, speed
from joyimage.parallel.worker import Room
from joyimage.planning import plan_model

SIZE = (512, 512)
TOKENS = 2 * 32 * 32 + 300 + 8 * 8  # of the target and a reference, a prompt, and what the encoder sees


def planned(**devices: int):
    return plan_model("tiny", memory="1GB", device="cpu", size=SIZE, **devices)


def test_guidance_on_two_devices_halves_its_steps_alone_and_shares_no_forward_out():
    alone, two = planned(), planned(guidance_devices=2)
    assert alone.several is None and alone.placements == two.placements
    assert (two.several.devices, two.several.speed, two.several.exchanged) == (2, 1, 0)
    assert "takes 50 % of one device's time at best, one without 100 %: computed" in str(two)
    assert "not measured" in str(two) and "sends" not in str(two)


@pytest.mark.parametrize(("guidance", "sequence", "each"), [(None, 2, 2), (None, 5, 5), (2, 4, 2)])
def test_a_sequence_takes_of_each_device_what_its_process_plans(guidance, sequence, each):
    plan, network = planned(guidance_devices=guidance, sequence_devices=sequence), tiny.mmdit()
    shared = share_of_memory(TOKENS, each)
    room = Room(network, torch.device("cpu"), 10**9, sequence)
    room.enter(shared, 0)
    assert plan.several.placement == room._placement == plan.placements[1]
    room.leave()
    assert plan.several.placement.activations == mmdit_activations(network.config, shared, 4)
    assert plan.several.speed == speed(network.config, TOKENS, 32 * 32, each)
    assert plan.several.exchanged == exchanged(network.config, TOKENS, 32 * 32, each, 4)
    assert plan.several.devices == sequence


def test_kept_references_are_shared_out_too():
    """Keys and values of a process's share of the reference's tokens, beside its activations."""
    options = {"memory": "1GB", "device": "cpu", "size": SIZE, "reference_every": 2}
    plan, config = plan_model("tiny", sequence_devices=2, **options), tiny.mmdit().config
    kept = plan.several.placement.activations - planned(sequence_devices=2).several.placement.activations
    assert kept == kept_references(config, 32 * 32 // 2, 4)


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ({"sequence_devices": 6}, "6 devices, and the model's attention has 5 heads"),
        ({"sequence_devices": 1}, "names one device"),
        ({"guidance_devices": 3}, "names 3 devices; give two"),
        ({"guidance_devices": 2, "sequence_devices": 3}, "give an even number"),
    ],
)
def test_devices_that_no_run_takes_are_in_no_plan(devices, message):
    with pytest.raises(JoyImageError, match=message):
        planned(**devices)


def test_the_command_takes_devices_by_number_or_name_wherever_they_are(capsys):
    told = []
    for devices in ("4", "cuda:0,cuda:1,cuda:2,cuda:3"):
        options = ["--guidance-devices", "2", "--sequence-devices", devices, "--json"]
        assert main(["plan", "--model", "tiny", "--memory", "1GB", *options]) in (None, 0)
        told.append(json.loads(capsys.readouterr().out)["several"])
    assert told[0] == told[1] and told[0]["devices"] == 4
    assert told[0]["computed_guided_step_speed"] == pytest.approx(2 * told[0]["computed_forward_speed"], abs=0.01)


def test_a_plan_needs_no_torch():
    code = (
        "import sys; from joyimage.planning import plan_model\n"
        "plan_model('tiny', memory='1GB', sequence_devices=4); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
