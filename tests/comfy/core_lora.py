"""Run by ComfyUI's Python, `core_lora.py COMFYUI MODEL INPUTS LORA…`: what core's own class and loader make of LoRAs.

INPUTS is a .pt with the arguments of a forward. Prints {file: …} of the outputs, saved beside each LoRA as .out.pt.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
model_file, inputs_file, *loras = (Path(file) for file in sys.argv[2:])
sys.argv = ["main.py", "--cpu", "--use-pytorch-cross-attention"]
import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
import comfy.sd  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    inputs = torch.load(inputs_file, weights_only=True)
    for file in loras:
        loaded = comfy.sd.load_diffusion_model(str(model_file), {"dtype": torch.float32})
        assert type(loaded.model).__name__ == "JoyImage"
        patched, _ = comfy.sd.load_lora_for_models(loaded, None, comfy.utils.load_torch_file(str(file)), 1.0, 0.0)
        patched.patch_model()
        network = patched.model.diffusion_model
        output = network(inputs["latent"], inputs["t"], inputs["context"], inputs["references"], transformer_options={})
        torch.save(output.clone(), file.with_suffix(".out.pt"))


if __name__ == "__main__":
    main()
