"""ComfyUI's own JoyImage MODEL and the pack's, on the same weights in one process of ComfyUI's Python."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file

from tools.server import find_comfyui

from .budgets import TEXT_TOKENS
from .columns import Size
from .networks import random_mmdit

SCRIPT = Path(__file__).with_name("host.py")
MINUTES = 5
BLOCKS_ON_GPU = 8  # of 40: two models of the published width must fit, and be written to a file and read


def compare(size: Size, repeats: int) -> dict:
    """Seconds of a forward with one reference: ours, core's, their ratio and the difference of their results.

    Where there is no ComfyUI it says so in "refused".
    """
    found = find_comfyui()
    if found is None:
        return {"refused": "no ComfyUI: make comfyui brings one"}
    gpu = size.device == "cuda"
    config = replace(size.config, num_layers=BLOCKS_ON_GPU) if gpu else size.config
    given = {"latent": size.latent, "text": TEXT_TOKENS[0], "width": config.text_dim, "repeats": repeats, "gpu": gpu}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mmdit.safetensors"
        save_file(random_mmdit(config, None, size.dtype).state_dict(), path)
        command = [found.python, str(SCRIPT), str(found.path), str(path), json.dumps(given)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 * MINUTES)
    if done.returncode:
        raise RuntimeError(f"{SCRIPT.name} failed in {found.path}:\n{done.stderr[-4000:]}")
    seconds = json.loads(done.stdout.splitlines()[-1])
    return seconds | {"blocks": config.num_layers, "ratio": seconds["ours"] / seconds["core"]}
