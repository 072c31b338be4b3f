"""Weights quantised in memory, as files in each format would bring them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from joyimage.quantisation import layers, recipes
from joyimage.quantisation.formats import FORMATS, ROWS, WHOLE, why_kept
from joyimage.quantisation.tensor import QuantizedTensor, stored_tensor


def int8(weight: Tensor) -> QuantizedTensor:
    """With a scale for each row and no rotation."""
    scale = weight.abs().amax(1, keepdim=True) / 127
    form = replace(FORMATS["int8"], scales=(ROWS,))
    return stored_tensor((weight / scale).round().to(torch.int8), [scale], form, tuple(weight.shape))


def int8_convrot(weight: Tensor) -> QuantizedTensor:
    recipe = recipes.int8(tuple(weight.shape))
    group = (recipe.settings or {})["convrot_groupsize"]
    form = replace(FORMATS["int8_convrot"], scales=(ROWS,), rotation=group)
    codes, scale = recipe.encode(weight)
    return stored_tensor(codes, [scale], form, tuple(weight.shape))


def fp8(weight: Tensor) -> QuantizedTensor:
    codes, scale = recipes.fp8(tuple(weight.shape)).encode(weight)
    return stored_tensor(codes, [scale], replace(FORMATS["float8_e4m3fn"], scales=(WHOLE,)), tuple(weight.shape))


def blocks(name: str) -> Callable[[Tensor], QuantizedTensor]:
    """A block type of GGUF's."""

    def quantise(weight: Tensor) -> QuantizedTensor:
        recipe = recipes.ggml(name)(tuple(weight.shape))
        assert recipe is not None, f"rows of {weight.shape[1]} do not divide into blocks of {name}"
        return stored_tensor(recipe.encode(weight)[0], (), FORMATS[name], tuple(weight.shape))

    return quantise


# By the format's name
QUANTISERS: dict[str, Callable[[Tensor], QuantizedTensor]] = {
    "int8": int8,
    "int8_convrot": int8_convrot,
    "float8_e4m3fn": fp8,
    "Q8_0": blocks("Q8_0"),
    "Q4_K": blocks("Q4_K"),
}


def matrices(network: nn.Module, component: str) -> dict[str, Tensor]:
    """The float32 weights, by their layers' names, that a quantised file of a component has quantised."""
    found = {name: module for name, module in network.named_modules() if isinstance(module, layers.Linear)}
    return {
        name: layer.weight.detach().float()
        for name, layer in found.items()
        if layer.packed is None and not why_kept(component, f"{name}.weight", tuple(layer.weight.shape))
    }


def pack(network: nn.Module, weights: dict[str, Tensor], form: str) -> None:
    """Keep these weights quantised in their layers."""
    for name, weight in weights.items():
        layer = network.get_submodule(name)
        assert isinstance(layer, layers.Linear)
        layer.pack(QUANTISERS[form](weight))
