"""Run by ComfyUI's Python, `core_loaders.py COMFYUI FILE…`: runs what ComfyUI's own loaders make of weight files.

Beside each lies a .pt with the part, inputs and the output to expect. Prints {file: relative difference of the output}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
files = [Path(file) for file in sys.argv[2:]]
sys.argv = ["main.py", "--cpu", "--use-pytorch-cross-attention"]
import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
import comfy.sd  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402


def velocity(file: Path, inputs: dict) -> torch.Tensor:
    """Of the network in the MODEL that UNETLoader makes."""
    model = comfy.sd.load_diffusion_model(str(file), {"dtype": torch.float32}).model
    assert type(model).__name__ == "JoyImage"
    network = model.diffusion_model.to(torch.float32)
    return network(inputs["latent"], inputs["t"], inputs["context"], inputs["references"], transformer_options={})


def pixels(file: Path, inputs: dict) -> torch.Tensor:
    """What the VAE that VAELoader makes decodes, in [0, 1]."""
    state, metadata = comfy.utils.load_torch_file(str(file), return_metadata=True)
    return comfy.sd.VAE(sd=state, metadata=metadata, dtype=torch.float32).decode(inputs["latent"])


RUN = {"mmdit": velocity, "vae": pixels}


def main() -> None:
    torch.set_num_threads(1)
    results = {}
    with torch.inference_mode():
        for file in files:
            expected = torch.load(file.with_suffix(".pt"), weights_only=True)
            value = RUN[expected["part"]](file, expected["inputs"]).reshape(expected["output"].shape).float()
            results[file.name] = ((value - expected["output"]).norm() / expected["output"].norm()).item()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
