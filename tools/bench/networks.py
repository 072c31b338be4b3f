"""Networks with random weights, made where they run: in floating point, or quantised as a file would bring them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from joyimage.config import MMDiTConfig
from joyimage.mmdit import MMDiT
from joyimage.quantisation import layers
from joyimage.quantisation.formats import why_kept
from joyimage.quantisation.tensor import QuantizedTensor
from tools.quantise import QUANTISERS

STD = 0.02
ROWS = 256  # quantised of each size of weight


def random_mmdit(
    config: MMDiTConfig, form: str | None, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu"
) -> MMDiT:
    """A network whose weights are all cut from the same noise, which takes no time to draw.

    With `form`, one of `tools.quantise.QUANTISERS`, its matrices are quantised: some rows of one of each size, repeated
    and copied.
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
                    made[empty.shape] = quantised(value.cpu(), form)
                one = made[empty.shape]
                scales = tuple(scale.to(device, copy=True) for scale in one.scales)
                module.pack(replace(one, data=one.data.to(device, copy=True), scales=scales))
            else:
                setattr(module, name, nn.Parameter(value.to(empty.dtype, copy=True), requires_grad=False))
    return model.eval()


def quantised(weight: Tensor, form: str) -> QuantizedTensor:
    """A weight (rows, columns) whose first rows are quantised and repeated: all of the published ones take minutes."""
    rows, columns = weight.shape
    if rows % ROWS:
        return QUANTISERS[form](weight)
    some, times = QUANTISERS[form](weight[:ROWS]), rows // ROWS
    scales = tuple(scale if scale.numel() == 1 else scale.repeat(times, 1) for scale in some.scales)
    return replace(some, data=some.data.repeat(times, 1), scales=scales, shape=(rows, columns))
