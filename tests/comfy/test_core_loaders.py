"""ComfyUI's own loaders take what `convert --layout comfy` writes, and compute what the library does."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from pieces import NO_VNNI, int8_is_exact
from torch import Tensor, nn

from joyimage.checkpoints import convert, load_mmdit
from joyimage.config import MMDiTConfig
from joyimage.mmdit import MMDiT
from tools.client import RUN_SECONDS

BOUNDS = {
    "bf16": 1e-5,
    "fp8": 1e-5,
    "int8": 1e-2,  # ComfyUI rounds activations to 8 bits as well
    "vae": 1e-4,
}


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network() -> MMDiT:
    """The smallest that ComfyUI takes for its JoyImage: heads of 128 channels, text of 4096."""
    torch.manual_seed(0)
    model = MMDiT(MMDiTConfig(256, 2, 2, 16, 16, 4096, 1024))
    for name, parameter in model.named_parameters():
        if name.endswith("modulate_table"):
            nn.init.normal_(parameter, std=0.5)
    return model.eval().requires_grad_(False)


def write_mmdits(folder: Path) -> list[Path]:
    state = {name: tensor.bfloat16() for name, tensor in network().state_dict().items()}
    source = folder / "transformer.pth"
    torch.save({name.replace(".attn.", "."): tensor for name, tensor in state.items()}, source)
    inputs = {
        "latent": draw(1, 16, 1, 8, 6, seed=1),
        "t": torch.tensor([731.25]),
        "context": draw(1, 7, 4096, seed=2),
        "references": [draw(1, 16, 1, 4, 10, seed=3)],
    }
    files = []
    for form in ("bf16", "fp8", "int8"):
        file = folder / f"{form}.safetensors"
        convert(source, file, format=form)
        output = load_mmdit(file, dtype=torch.float32)(*inputs.values())
        torch.save({"part": "mmdit", "inputs": inputs, "output": output}, file.with_suffix(".pt"))
        files.append(file)
    return files


def write_vae(folder: Path) -> Path:
    """From Diffusers' naming and three-dimensional kernels, the layers for video included."""
    import diffusers

    torch.manual_seed(0)
    saved = diffusers.AutoencoderKLWan(base_dim=16).eval()
    saved.save_pretrained(folder / "theirs")
    file = folder / "vae.safetensors"
    convert(folder / "theirs", file)
    latent = draw(1, 16, 1, 4, 4, seed=4)
    with torch.no_grad():
        image = saved.decode(latent).sample  # (1, 3, 1, 32, 32) in [-1, 1]; nothing is normalised on either side
    output = (image[0, :, 0].permute(1, 2, 0) / 2 + 0.5).clamp(0, 1)
    torch.save({"part": "vae", "inputs": {"latent": latent}, "output": output}, file.with_suffix(".pt"))
    return file


@pytest.fixture(scope="module")
def differences(comfyui, tmp_path_factory) -> dict[str, float]:
    folder = tmp_path_factory.mktemp("converted")
    with torch.inference_mode():
        files = write_mmdits(folder)
    files.append(write_vae(folder))
    script = Path(__file__).with_name("core_loaders.py")
    command = [comfyui.python, str(script), str(comfyui.path), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5 * RUN_SECONDS)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name, bound", BOUNDS.items())
def test_core_loads_it_and_computes_the_same(differences, name, bound):
    if name.startswith("int8") and not int8_is_exact():
        pytest.skip(NO_VNNI)
    assert differences[f"{name}.safetensors"] <= bound
