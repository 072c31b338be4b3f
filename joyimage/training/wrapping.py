"""PEFT's layer around our own `Linear`, whose weight may be kept quantised, and its DoRA over such a weight.

PEFT takes them through its mapping of custom modules. Only `adapter` imports this, once PEFT is known to be there.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners import lora
from peft.tuners.lora.dora import DoraLinearLayer
from peft.tuners.lora.variants import DoraLinearVariant
from torch import Tensor, nn

from ..quantisation.layers import Linear


def floating(layer: Linear) -> nn.Module:
    """The layer itself, or one like it whose weight is floating point if its own is quantised."""
    if (packed := layer.packed) is None:
        return layer
    plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    plain.weight = nn.Parameter(packed.dense(torch.float32), requires_grad=False)
    plain.bias = layer.bias
    return plain


class Dora(DoraLinearLayer):
    """The magnitudes (out,) of one layer."""

    def get_lora_weight(self, lora_A: nn.Linear, lora_B: nn.Linear, adapter_name: str | None = None) -> Tensor:
        """(out, in). PEFT's own comes by way of a unit matrix (in, in), a gigabyte for the published MLP."""
        return lora_B.weight @ lora_A.weight

    def update_layer(self, *, base_layer: Linear, **options: Any) -> None:
        super().update_layer(base_layer=floating(base_layer), **options)

    def forward(self, x: Tensor, *, base_layer: Linear, **options: Any) -> Tensor:
        return super().forward(x, base_layer=floating(base_layer), **options)


class DoraVariant(DoraLinearVariant):
    @staticmethod
    def init(module: lora.Linear, adapter_name: str, **_: Any) -> None:
        magnitudes = Dora(fan_in_fan_out=False)
        layer = module.get_base_layer()
        assert isinstance(layer, Linear)
        magnitudes.update_layer(
            base_layer=layer,
            lora_A=module.lora_A[adapter_name].weight,
            lora_B=module.lora_B[adapter_name].weight,
            scaling=module.scaling[adapter_name],
        )
        module.lora_magnitude_vector[adapter_name] = magnitudes


class AdaptedLinear(lora.Linear):
    """Our `Linear` with updates of low rank beside it."""

    @property
    def lora_variants(self) -> dict[tuple[str, ...], Any]:
        return {(): None, ("use_dora",): DoraVariant}


CUSTOM: dict[type[nn.Module], type[nn.Module]] = {Linear: AdaptedLinear}
