"""Quantised weights in safetensors: what lies beside them is folded in, so that each weight is one tensor again.

The namings in the wild, for a layer X:

| who | beside `X.weight` |
| --- | --- |
| ComfyUI | `X.weight_scale`, `X.input_scale`, `X.comfy_quant` (JSON as bytes; or in the header, for all layers) |
| scaled fp8 before that | `X.scale_weight`, `X.scale_input`, and one `scaled_fp8` for the whole file |
| fp8 without scales, or others' `weight_scale` alone | nothing, or the scale |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..quantised import Encoding, Packed, fp8, int8, is_rotation
from .weights import TensorInfo, Weights, parse_json

SCALES = ("weight_scale", "scale_weight")
DROPPED = ("input_scale", "scale_input")  # for activations in fp8 or int8: here they stay floating point
CONFIG, MARKER, METADATA = "comfy_quant", "scaled_fp8", "_quantization_metadata"
MAX_CONFIG_BYTES = 4096
DEFAULT_GROUP = 256  # of a rotation, where the file does not say

Config = dict[str, Any]

BY_DTYPE: dict[torch.dtype, Callable[[Config], Encoding]] = {
    torch.float8_e4m3fn: lambda _: fp8(torch.float8_e4m3fn),
    torch.float8_e5m2: lambda _: fp8(torch.float8_e5m2),
    torch.int8: lambda _: int8(),
}
BY_FORMAT: dict[str, Callable[[Config], Encoding]] = {
    "float8_e4m3fn": lambda _: fp8(torch.float8_e4m3fn),
    "float8_e5m2": lambda _: fp8(torch.float8_e5m2),
    "int8_tensorwise": lambda config: int8(_group(config)),
}


def fold(weights: Weights) -> Weights:
    """The same weights with the quantised ones as `Packed`, and without what lay beside them.

    Raises `CheckpointError` for a description of a layer that is no JSON, or a rotation that does not exist.
    """
    configs = _configs(weights)
    info: dict[str, TensorInfo] = {}
    scales: dict[str, str] = {}
    folded = set()
    for name, stored in weights.info.items():
        layer, _, leaf = name.rpartition(".")
        if leaf != "weight" or stored.encoding or (stored.dtype not in BY_DTYPE and layer not in configs):
            continue
        beside = [f"{layer}.{scale}" for scale in SCALES if f"{layer}.{scale}" in weights]
        scale = weights.info[beside[0]] if beside else None
        encoding = _encoding(weights, layer, stored, configs.get(layer, {}), scale)
        if encoding is None:
            continue
        info[name] = dataclasses.replace(stored, encoding=encoding)
        if beside:
            scales[name] = beside[0]
        folded.update(beside, (f"{layer}.{leaf}" for leaf in (*DROPPED, CONFIG)))
    folded.update(name for name in weights if name.rpartition(".")[2] == MARKER)
    if not folded and not info:
        return weights
    kept = {name: info.get(name, stored) for name, stored in weights.info.items() if name not in folded}

    def read(name: str) -> Tensor | Packed:
        if name not in info:
            return weights[name]
        return _packed(weights[name], weights[scales[name]] if name in scales else None, info[name])

    return dataclasses.replace(weights, info=kept, read=read)


def _packed(data: Tensor, scale: Tensor | None, info: TensorInfo) -> Packed:
    rows = info.shape[0] if info.shape else 1
    if scale is not None:
        scale = scale.float()
        scale = scale.reshape(()) if scale.numel() == 1 else scale.reshape(rows, 1)
    return Packed(data.contiguous().view(torch.uint8).reshape(rows, -1), scale, info.encoding, info.shape)


def _encoding(
    weights: Weights, layer: str, stored: TensorInfo, config: Config, scale: TensorInfo | None
) -> Encoding | None:
    """How a layer's weight is stored; None for integers that nothing says the meaning of, or plain floats."""
    if stored.dtype not in (*BY_DTYPE, torch.uint8):
        return None
    name = config.get("format")
    make = BY_DTYPE.get(stored.dtype) if name is None else BY_FORMAT.get(str(name))
    if make is None:
        return None if name is None else Encoding(str(name), None)
    where = f"{weights.files[0]}: {layer} of shape {stored.shape}"
    try:
        encoding = make(config)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where} is described in a way that cannot be used: {error}") from None
    if scale is None:
        return encoding if encoding.name.startswith("float8") else None
    rows = stored.shape[:1] or (1,)
    if scale.shape not in ((), (1,), (1, 1), rows, (*rows, 1)):
        return Encoding(f"{encoding.name} with scales {scale.shape}", None)
    if encoding.rotation and (len(stored.shape) != 2 or stored.shape[1] % encoding.rotation):
        raise CheckpointError(f"{where} cannot be rotated in groups of {encoding.rotation} columns")
    return encoding


def _group(config: Config) -> int:
    """Columns that are rotated together, 0 for none. Older files have this one level down."""
    options = (config.get("params") if isinstance(config.get("params"), dict) else {}) | config
    if not options.get("convrot", False):
        return 0
    size = options.get("convrot_groupsize", DEFAULT_GROUP)
    if not is_rotation(size):
        raise ValueError(f"its rotation has groups of {size!r}, which must be a power of 4")
    return size


def _configs(weights: Weights) -> dict[str, Config]:
    """What the file says of its quantised layers, by their names."""
    configs: dict[str, Config] = {}
    try:
        if text := weights.metadata.get(METADATA):
            layers = parse_json(text).get("layers")
            configs.update({name: _config(value) for name, value in _config(layers).items()})
        for name, info in weights.info.items():
            layer, _, leaf = name.rpartition(".")
            if leaf != CONFIG or info.dtype != torch.uint8:
                continue
            if info.nbytes > MAX_CONFIG_BYTES:
                raise ValueError(f"{name} has {info.nbytes:,} bytes")
            configs[layer] = parse_json(bytes(weights[name].tolist()))
    except ValueError as error:
        raise CheckpointError(
            f"{weights.files[0]}: its description of quantised layers cannot be read ({error}); download it again"
        ) from None
    return configs


def _config(value: Any) -> Config:
    if not isinstance(value, dict):
        raise ValueError(f"a layer is described by {value!r:.40}")
    return value
