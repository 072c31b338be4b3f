"""Run by ComfyUI's Python, `cards_probe.py COMFYUI`: prints what MultiGPU CFG Split makes of our MODEL, as JSON.

The processor stands for both cards, under two names.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any
from unittest import mock

from probes import PACK, difference, draw, import_host, library

SHORTCUTS = [{}, {"reference_every": 2}, {"block_cache": 0.2}, {"guidance_every": 2}, {"forecast": 2}]
WEIGHT = "diffusion_model.double_blocks.1.attn.img_attn_qkv.weight"


def sampled(host, model, **shortcuts):
    """A latent in six steps, of which guidance acts in some."""
    import torch

    def prompt(seed: int, length: int) -> list:
        references = [draw(1, 16, 1, 8, 6, seed=2), draw(1, 16, 1, 4, 10, seed=3)]
        return [[draw(1, length, 128, seed=seed), {"reference_latents": references}]]

    module = importlib.import_module(".sampling", host.__name__)
    chosen = library("settings").Shortcuts(**shortcuts)
    guider = module.guider(model, prompt(5, 9), prompt(6, 4), 4.0, 1.0, (0.2, 0.9), chosen)
    sigmas = module.schedule(6, 1.5, "original", 1.0)
    return module.sample(guider, "euler", sigmas, {"samples": torch.zeros(1, 16, 1, 8, 8)}, 3)["samples"]


def compared(host, model) -> list[dict[str, Any]]:
    import comfy.model_management
    import torch
    from comfy_extras.nodes_multigpu import MultiGPUCFGSplitNode

    cards = [torch.device("cpu"), torch.device("cpu", 0)]
    with mock.patch.object(comfy.model_management, "get_all_torch_devices", lambda exclude_current=False: cards):
        (split,) = MultiGPUCFGSplitNode.execute(model, 2).args
    (other,) = split.get_additional_models_with_key("multigpu")
    networks = model.model.diffusion_model, other.model.diffusion_model
    results = []
    for shortcuts in SHORTCUTS:
        expected, forwards = sampled(host, model, **shortcuts), [0, 0]

        def count(module, _inputs, forwards=forwards):
            forwards[networks.index(module)] += 1

        hooks = [network.register_forward_pre_hook(count) for network in networks]
        apart = difference(sampled(host, split, **shortcuts), expected)
        for hook in hooks:
            hook.remove()
        results.append({"shortcuts": shortcuts, "difference": apart, "forwards": forwards})
    return results


def main() -> None:
    host = import_host(sys.argv[1])
    import torch

    torch.set_num_threads(1)
    model = importlib.import_module(".nodes.host.model", PACK).load_mmdit(None)
    patched = model.clone()
    patched.add_patches({WEIGHT: (draw(*model.model.state_dict()[WEIGHT].shape),)}, 0.02)
    print(json.dumps({"plain": compared(host, model), "patched": compared(host, patched)}))


if __name__ == "__main__":
    main()
