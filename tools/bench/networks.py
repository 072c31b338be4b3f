"""Networks with random weights, made where they run: in floating point, or quantised as a file would bring them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from joyimage.config import MMDiTConfig
from joyimage.mmdit import MMDiT
from joyimage.quantisation import layers
from joyimage.quantisation.formats import why_kept
from joyimage.quantisation.tensor import QuantizedTensor
from tools.quantise import QUANTISERS

STD = 0.02


def random_mmdit(
    config: MMDiTConfig, form: str | None, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu"
) -> MMDiT:
    """A network whose weights are all cut from the same noise, which takes no time to draw.

    With `form`, one of `tools.quantise.QUANTISERS`, its matrices are quantised: one of each size is, and copied.
    """
    with torch.device("meta"):
        model = MMDiT(config, operations=layers, dtype=dtype)
    largest = max(parameter.numel() for parameter in model.parameters())
    noise = STD * torch.randn(largest, generator=torch.Generator(device).manual_seed(0), device=device)
    made: dict[torch.Size, QuantizedTensor] = {}
    for path, module in model.named_modules():
        for name, empty in list(module.named_parameters(recurse=False)):
            value = noise[: empty.numel()].view(empty.shape)
            if form and isinstance(module, layers.Linear) and not why_kept("mmdit", f"{path}.{name}", empty.shape):
                if empty.shape not in made:
                    made[empty.shape] = QUANTISERS[form](value.cpu())
                one = made[empty.shape]
                scales = tuple(scale.to(device, copy=True) for scale in one.scales)
                module.pack(replace(one, data=one.data.to(device, copy=True), scales=scales))
            else:
                setattr(module, name, nn.Parameter(value.to(empty.dtype, copy=True), requires_grad=False))
    return model.eval()
