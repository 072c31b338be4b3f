"""ComfyUI's own node for several cards, MultiGPU CFG Split, with our MODEL, guider and shortcuts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tools.client import RUN_SECONDS


@pytest.fixture(scope="module")
def probed(comfyui):
    """What `cards_probe.py` found in ComfyUI's Python."""
    if not (comfyui.path / "comfy_extras" / "nodes_multigpu.py").is_file():
        pytest.skip("this ComfyUI has no MultiGPU CFG Split")
    command = [comfyui.python, str(Path(__file__).with_name("cards_probe.py")), str(comfyui.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5 * RUN_SECONDS)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["plain", "patched"])
def test_two_cards_give_what_one_gives(probed, kind):
    """To the bit, each prompt on one of the cards; in the steps without guidance the first works alone."""
    assert len(probed[kind]) == 5
    for result in probed[kind]:
        assert result["difference"] == 0, result
        positive, negative = result["forwards"]
        assert positive > negative > 0, result
