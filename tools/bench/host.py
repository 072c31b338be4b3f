"""Run by ComfyUI's Python, `host.py COMFYUI FILE SIZES`: core's MODEL and the pack's from the same file, in turn.

Prints {"ours": seconds, "core": seconds, "difference": of their results} as the last line. SIZES is JSON: `latent`, the
`text` tokens of a prompt and their width, `repeats`, and whether there is a GPU. Each run is one forward with one
reference, as the host's samplers call it.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def probes():
    """How the tests import the pack inside ComfyUI."""
    spec = importlib.util.spec_from_file_location("probes", ROOT / "tests" / "comfy" / "probes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(comfyui: str, path: str, sizes: str) -> None:
    given = json.loads(sizes)
    host = probes().import_host(comfyui, () if given["gpu"] else ("--cpu",))
    import comfy.model_management
    import comfy.sd
    import torch

    torch.set_num_threads(1)
    device = comfy.model_management.get_torch_device()
    models = {"ours": host.load_mmdit(Path(path)), "core": comfy.sd.load_diffusion_model(path)}
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device)

    latent, reference = (draw(1, 16, 1, given["latent"], given["latent"]) for _ in range(2))
    context, sigma = draw(1, given["text"], given["width"]), torch.full((1,), 0.73, device=device)

    def forward(name: str) -> torch.Tensor:
        conds = {"c_crossattn": context, "ref_latents": [reference]}
        return models[name].model.apply_model(latent, sigma, transformer_options={}, **conds)

    def timed(name: str) -> float:
        clock = time.perf_counter if given["gpu"] else time.process_time
        started = clock()
        forward(name)
        if given["gpu"]:
            torch.cuda.synchronize()
        return clock() - started

    with torch.inference_mode():
        results = {}
        for name, model in models.items():
            comfy.model_management.load_models_gpu([model])
            results[name] = forward(name).float()
        seconds = {name: [] for name in models}
        for _ in range(given["repeats"]):
            for name, model in models.items():
                comfy.model_management.load_models_gpu([model])  # on a GPU that holds one of them only
                timed(name)
                seconds[name].append(timed(name))
    found = {name: statistics.median(values) for name, values in seconds.items()}
    print(json.dumps(found | {"difference": (results["ours"] - results["core"]).abs().max().item()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
