"""Weight files in every format, as their usual writers make them: chosen weights quantised, the rest in bfloat16."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save as save_bytes
from safetensors.torch import save_file
from torch import Tensor

from joyimage.quantisation.kquants import QUANTIZERS

State = dict[str, Tensor]
Names = Collection[str]
Quantise = Callable[[str, Tensor], State]  # a weight by its name -> the tensors that stand for it
FP8 = torch.float8_e4m3fn


def kitchen(layout: str) -> Any:
    """comfy-kitchen's class of this name; a test is skipped without the package, which wants a newer torch."""
    return getattr(pytest.importorskip("comfy_kitchen.tensor"), layout)


def newer(name: str) -> torch.dtype:
    """A dtype; a test is skipped where torch lacks it, or safetensors its code."""
    try:
        save_bytes({"a": torch.zeros(1).to(getattr(torch, name))})
    except (AttributeError, KeyError):
        pytest.skip(f"this torch or safetensors writes no {name}")
    return getattr(torch, name)


def closed(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_of_zeros(path: Path, state: State, chosen: Names, kind: str) -> Path:
    """A GGUF whose chosen weights lie in blocks of a type that need not be one we read."""
    code = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, "wan")
    for name, tensor in state.items():
        if name in chosen:
            row = np.zeros((len(tensor), gguf.GGML_QUANT_SIZES[code][1]), np.uint8)
            writer.add_tensor(name, row, raw_dtype=code)
        else:
            writer.add_tensor(name, tensor.numpy())
    return closed(writer, path)


def layer(name: str) -> str:
    return name.removesuffix(".weight")


def prefix_of(state: State) -> str:
    return "model.diffusion_model." if next(iter(state)).startswith("model.diffusion_model.") else ""


def json_tensor(value: dict) -> Tensor:
    return torch.tensor([*json.dumps(value).encode()], dtype=torch.uint8)


def rows(tensor: Tensor, limit: float) -> Tensor:
    return tensor.float().flatten(1).abs().amax(1, keepdim=True).clamp_min(1e-12) / limit


def over(tensor: Tensor, scale: Tensor) -> Tensor:
    return tensor.float() / (scale.view(-1, *[1] * (tensor.ndim - 1)) if scale.ndim else scale)


def write(path: Path, state: State, chosen: Names, quantise: Quantise, extra=None, metadata=None) -> Path:
    result: State = dict(extra or {})
    for name, tensor in state.items():
        result |= quantise(name, tensor) if name in chosen else {name: tensor.to(torch.bfloat16)}
    save_file({name: tensor.contiguous() for name, tensor in result.items()}, path, metadata)
    return path


def plain(dtype: torch.dtype) -> Callable[[Path, State, Names], Path]:
    """Every weight in one floating dtype."""
    return lambda path, state, chosen: write(
        path, {name: tensor.to(dtype) for name, tensor in state.items()}, state, lambda name, tensor: {name: tensor}
    )


def fp8_plain(path: Path, state: State, chosen: Names) -> Path:
    return write(path, state, chosen, lambda name, tensor: {name: tensor.to(FP8)})


def fp8_e5m2(path: Path, state: State, chosen: Names) -> Path:
    return write(path, state, chosen, lambda name, tensor: {name: tensor.to(torch.float8_e5m2)})


def fp8_scale_weight(path: Path, state: State, chosen: Names) -> Path:
    """The older naming: a marker, and scales of weights and inputs."""

    def quantise(name: str, tensor: Tensor) -> State:
        scale = tensor.float().abs().max() / 448
        scales = {f"{layer(name)}.scale_weight": scale, f"{layer(name)}.scale_input": torch.ones(1)}
        return {name: over(tensor, scale).to(FP8), **scales}

    return write(path, state, chosen, quantise, {f"{prefix_of(state)}scaled_fp8": torch.zeros(2, dtype=FP8)})


def fp8_comfy(path: Path, state: State, chosen: Names) -> Path:
    """ComfyUI's: a description beside each layer, a scale of one element, the values in a container of bytes."""

    def quantise(name: str, tensor: Tensor) -> State:
        scale = (tensor.float().abs().max() / 448).view(1)
        return {
            name: over(tensor, scale[0]).to(FP8).view(torch.uint8),
            f"{layer(name)}.weight_scale": scale,
            f"{layer(name)}.input_scale": torch.tensor(0.5),
            f"{layer(name)}.comfy_quant": json_tensor({"format": "float8_e4m3fn"}),
        }

    return write(path, state, chosen, quantise)


def fp8_noted(path: Path, state: State, chosen: Names) -> Path:
    """The same with the values in their own dtype, and a scale without axes."""

    def quantise(name: str, tensor: Tensor) -> State:
        scale = tensor.float().abs().max() / 448
        note = {f"{layer(name)}.comfy_quant": json_tensor({"format": "float8_e4m3fn"})}
        return {name: over(tensor, scale).to(FP8), f"{layer(name)}.weight_scale": scale, **note}

    return write(path, state, chosen, quantise)


def fp8_unmarked(path: Path, state: State, chosen: Names) -> Path:
    """Others', who write `scale_weight` without a marker for the file."""

    def quantise(name: str, tensor: Tensor) -> State:
        scale = tensor.float().abs().max() / 448
        return {name: over(tensor, scale).to(FP8), f"{layer(name)}.scale_weight": scale}

    return write(path, state, chosen, quantise)


def fp8_without_note(path: Path, state: State, chosen: Names) -> Path:
    """Others', who write `weight_scale` and say nothing of it."""

    def quantise(name: str, tensor: Tensor) -> State:
        scale = tensor.float().abs().max() / 448
        return {name: over(tensor, scale).to(FP8), f"{layer(name)}.weight_scale": scale}

    return write(path, state, chosen, quantise)


def fp8_squares(path: Path, state: State, chosen: Names) -> Path:
    """DeepSeek's and Qwen's own, of matrices: a scale for each square of 128 x 128."""

    def quantise(name: str, tensor: Tensor) -> State:
        if tensor.ndim != 2:
            return {name: tensor.bfloat16()}
        down, across = (-(-side // 128) for side in tensor.shape)
        padded = torch.zeros(128 * down, 128 * across)
        padded[: tensor.shape[0], : tensor.shape[1]] = tensor.float()
        scales = padded.view(down, 128, across, 128).abs().amax((1, 3)).clamp_min(1e-12) / 448
        spread = scales.repeat_interleave(128, 0).repeat_interleave(128, 1)[: tensor.shape[0], : tensor.shape[1]]
        return {name: (tensor.float() / spread).to(FP8), f"{name}_scale_inv": scales}

    return write(path, state, chosen, quantise)


def fp8_rows(path: Path, state: State, chosen: Names) -> Path:
    """A scale for each row, and the description in the header."""

    def quantise(name: str, tensor: Tensor) -> State:
        scale = rows(tensor, 448)
        return {name: over(tensor, scale).to(FP8), f"{layer(name)}.weight_scale": scale}

    layers = {layer(name): {"format": "float8_e4m3fn"} for name in chosen}
    return write(path, state, chosen, quantise, metadata={"_quantization_metadata": json.dumps({"layers": layers})})


def int8_whole(path: Path, state: State, chosen: Names) -> Path:
    """ComfyUI's `int8_tensorwise` with a scale for each matrix."""

    def quantise(name: str, tensor: Tensor) -> State:
        scale = tensor.float().abs().max() / 127
        note = {f"{layer(name)}.comfy_quant": json_tensor({"format": "int8_tensorwise"})}
        return {name: over(tensor, scale).round().to(torch.int8), f"{layer(name)}.weight_scale": scale, **note}

    return write(path, state, chosen, quantise)


def int8(path: Path, state: State, chosen: Names) -> Path:
    """ComfyUI's `int8_tensorwise` with a scale for each row."""

    def quantise(name: str, tensor: Tensor) -> State:
        scale = rows(tensor, 127)
        return {
            name: over(tensor, scale).round().to(torch.int8),
            f"{layer(name)}.weight_scale": scale.squeeze(1),
            f"{layer(name)}.comfy_quant": json_tensor({"format": "int8_tensorwise"}),
        }

    return write(path, state, chosen, quantise)


def int8_convrot(path: Path, state: State, chosen: Names) -> Path:
    """What comfy-kitchen makes of it: groups of columns rotated, a scale for each row. Kernels stay bfloat16."""

    def quantise(name: str, tensor: Tensor) -> State:
        group = next((size for size in (256, 64, 16) if tensor.ndim == 2 and tensor.shape[1] % size == 0), 0)
        if not group:
            return {name: tensor.to(torch.bfloat16)}
        data, params = kitchen("TensorWiseINT8Layout").quantize(
            tensor.float(), per_channel=True, convrot=True, convrot_groupsize=group
        )
        config = {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": group}
        return {
            name: data,
            f"{layer(name)}.weight_scale": params.scale,
            f"{layer(name)}.comfy_quant": json_tensor(config),
        }

    return write(path, state, chosen, quantise)


def mxfp8(path: Path, state: State, chosen: Names) -> Path:
    """comfy-kitchen's, of matrices: an exponent for each 32 columns, in tensor cores' order, odd sizes filled up."""
    return write(path, state, chosen, lambda name, tensor: by_kitchen(name, tensor, "mxfp8", "TensorCoreMXFP8Layout"))


def nvfp4(path: Path, state: State, chosen: Names) -> Path:
    """The same with two numbers in a byte, scales of 16 columns each and one for all."""
    return write(path, state, chosen, lambda name, tensor: by_kitchen(name, tensor, "nvfp4", "TensorCoreNVFP4Layout"))


def by_kitchen(name: str, tensor: Tensor, form: str, layout: str) -> State:
    if tensor.ndim != 2:
        return {name: tensor.to(torch.bfloat16)}
    made = kitchen(layout)
    stored = made.state_dict_tensors(*made.quantize(tensor.float()))
    note = {f"{layer(name)}.comfy_quant": json_tensor({"format": form})}
    return {f"{name}{suffix}": value for suffix, value in stored.items()} | note


def gguf_of(kind: str) -> Callable[[Path, State, Names], Path]:
    return lambda path, state, chosen: write_gguf(path, state, chosen, kind)


def write_gguf(path: Path, state: State, chosen: Names, kind: str, architecture: str = "wan") -> Path:
    """As the usual converters do: prefix off, matrices quantised where rows divide into blocks, small rest in F32.

    Kernels whose rows do not divide are cut into rows that do, and their shape noted.
    """
    quantisation = gguf.GGMLQuantizationType[kind]
    block, _ = gguf.GGML_QUANT_SIZES[quantisation]
    writer = gguf.GGUFWriter(path, architecture)
    for name, tensor in state.items():
        array = tensor.float().numpy()
        if name not in chosen or array.size % block or (array.ndim == 2 and array.shape[-1] % block):
            writer.add_tensor(name, array if array.ndim == 1 else array.astype(np.float16))
            continue
        if array.ndim > 2:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", [int(n) for n in array.shape])
            array = array.reshape(-1, block)
        data = quantise_gguf(array, quantisation)
        writer.add_tensor(name, data, raw_dtype=quantisation)
    return closed(writer, path)


def quantise_gguf(array: np.ndarray, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    """(rows, columns) float32 -> (rows, bytes); K types with ours, which the gguf package lacks."""
    if kind.name not in QUANTIZERS:
        return gguf.quantize(np.ascontiguousarray(array), kind)
    return QUANTIZERS[kind.name](torch.from_numpy(array).reshape(-1, 256)).numpy().reshape(len(array), -1)
