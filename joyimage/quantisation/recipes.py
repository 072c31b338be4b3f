"""How weights are written in each format that `convert` offers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import JoyImageError
from .formats import FORMATS, NO_BLOCKS, SQUARES, Format, why_kept
from .kquants import QUANTIZERS, SUPER_BLOCK
from .tensor import QuantizedTensor, dense, rotate, swizzled

QUANTISED_AT_ONCE = 2**20  # weights: bounds what the arithmetic needs in between to about 60 MiB
FP8_MAX = torch.finfo(torch.float8_e4m3fn).max
ROTATIONS = (256, 64, 16)  # groups of columns that ConvRot rotates together; ComfyUI's kernels are fastest at 256
LEGACY_BLOCK = 32  # weights that share a scale in GGUF's Q8_0 and older types
IN_GGUF = ("float32", "float16", "bfloat16")  # the dtypes that are written there


@dataclass(frozen=True)
class Piece:
    """One stored tensor of a weight: what goes behind the weight's name, its type in the header, shape and bytes."""

    suffix: str
    type: str
    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True)
class Recipe:
    """How a weight of one shape is stored.

    `encode` turns it into the tensors of `pieces`. `settings` is ComfyUI's note of a quantised layer, `kept` says why a
    weight is not quantised.
    """

    pieces: tuple[Piece, ...]
    encode: Callable[[Tensor | QuantizedTensor], tuple[Tensor, ...]]
    settings: Mapping[str, Any] | None = None
    kept: str | None = None


@dataclass(frozen=True)
class Conversion:
    """One of what `convert` offers. Without a `dtype`, by its name, what is not quantised keeps its own.

    `recipes` make the recipe for a matrix from its shape; the first that is not None counts. `file_type` is "gguf" or
    "safetensors".
    """

    name: str
    dtype: str | None = None
    recipes: tuple[Callable[[tuple[int, ...]], Recipe | None], ...] = ()
    file_type: str = "safetensors"

    def recipe(self, component: str, name: str, shape: tuple[int, ...], dtype: str) -> Recipe:
        """How to store the weight `name` (ours), which is of this shape and dtype."""
        same = plain(shape, self.dtype or dtype, self.file_type)
        if not self.recipes:
            return same
        if reason := why_kept(component, name, shape):
            return replace(same, kept=reason)
        made = filter(None, (make(shape) for make in self.recipes))
        return next(made, replace(same, kept=NO_BLOCKS))


def plain(shape: tuple[int, ...], dtype: str, file_type: str = "safetensors") -> Recipe:
    """A tensor as it is, or rounded to another floating dtype; GGUF takes float64 as float32."""
    form = FORMATS[dtype if file_type == "safetensors" or dtype in IN_GGUF else "float32"]
    piece = Piece("", form.code, shape, form.nbytes(shape))
    return Recipe((piece,), lambda weight: (dense(weight).to(getattr(torch, form.name)),))


def restored(form: Format, shape: tuple[int, ...]) -> Recipe:
    """A quantised weight as it is; what ComfyUI has renamed since, under its present names."""
    if form.ggml:  # one name everywhere
        return Recipe((Piece("", form.name, shape, form.nbytes(shape)),), lambda weight: (weight.data,))
    whole = form.filled_up(shape)
    size = whole if form.block == 1 else (whole[0], form.nbytes(whole) // whole[0])
    pieces = [Piece("", FORMATS[form.stored or form.name].code, size, form.nbytes(whole))]
    for kind in form.scales:
        size, number = kind.stored_shape(whole), FORMATS[kind.dtype]
        pieces.append(Piece(kind.suffix, number.code, size, number.nbytes(size)))
    noted = form.scales and SQUARES not in form.scales  # of which ComfyUI has no note
    settings = {"format": form.comfy, **rotation(form.rotation)} if noted else None
    return Recipe(tuple(pieces), lambda weight: _as_stored(weight, pieces), settings)


def _as_stored(weight: Tensor | QuantizedTensor, pieces: Sequence[Piece]) -> tuple[Tensor, ...]:
    """The tensors of a quantised weight, filled up to what a file has; a plain one is its own."""
    if isinstance(weight, Tensor):
        return (weight,)
    data = weight.data
    if data.nbytes != pieces[0].nbytes:
        data = data.new_zeros(pieces[0].shape)
        data[: len(weight.data), : weight.data.shape[1]] = weight.data
    kinds = zip(weight.scales, weight.format.scales, pieces[1:], strict=True)
    return data, *(swizzled(scale, piece.shape) if kind.swizzled else scale for scale, kind, piece in kinds)


def rotation(group: int) -> dict[str, Any]:
    """ComfyUI's note of a rotation of groups of columns, 0 for none."""
    return {"convrot": True, "convrot_groupsize": group} if group else {}


def by_rows(weight: Tensor | QuantizedTensor, quantise: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Apply `quantise` to some float32 rows of a matrix at a time, and join what it gives."""
    weight = dense(weight)
    step = max(1, QUANTISED_AT_ONCE // weight.shape[1])
    joined: tuple[Tensor, ...] = ()
    for start in range(0, len(weight), step):
        parts = quantise(weight[start : start + step].float())
        joined = joined or tuple(part.new_empty(len(weight), *part.shape[1:]) for part in parts)
        for whole, part in zip(joined, parts, strict=True):
            whole[start : start + step] = part
    return joined


# -- fp8 and int8, as ComfyUI reads them ------------------------------------------------------------------------------


def fp8(shape: tuple[int, ...]) -> Recipe:
    """float8 e4m3 with one scale: three bits of mantissa, 2.6 % off on average."""

    def encode(weight: Tensor | QuantizedTensor) -> tuple[Tensor, Tensor]:
        weight = dense(weight)
        low, high = weight.aminmax()
        peak = torch.maximum(-low, high).float()
        scale = torch.where(peak > 0, peak / FP8_MAX, 1.0)
        (values,) = by_rows(weight, lambda rows: ((rows / scale).clamp_(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn),))
        return values, scale

    pieces = Piece("", "F8_E4M3", shape, math.prod(shape)), Piece("_scale", "F32", (), 4)
    return Recipe(pieces, encode, {"format": "float8_e4m3fn"})


def int8(shape: tuple[int, ...]) -> Recipe:
    """ComfyUI's int8_convrot: groups of columns rotated so that no outlier sets the scale, then a scale for each row.

    With rows that no rotation fits it is int8 with a scale for each row.
    """
    group = next((group for group in ROTATIONS if shape[1] % group == 0), 0)

    def quantise(rows: Tensor) -> tuple[Tensor, Tensor]:
        rows = rotate(rows, group) if group else rows
        scale = (rows.abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-30)
        return (rows / scale).round_().clamp_(-128, 127).to(torch.int8), scale

    pieces = Piece("", "I8", shape, math.prod(shape)), Piece("_scale", "F32", (shape[0], 1), 4 * shape[0])
    settings = {"format": "int8_tensorwise", **rotation(group)}
    return Recipe(pieces, lambda weight: by_rows(weight, quantise), settings)


# -- GGUF -------------------------------------------------------------------------------------------------------------

# What llama.cpp stores where rows are no multiple of a super-block: the older type of the next higher size.
FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
LEGACY = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")


def gguf_package() -> ModuleType:
    try:
        import gguf
    except ImportError:
        raise JoyImageError("GGUF files need the package gguf; install it with: pip install gguf") from None
    return gguf


def ggml(kind: str) -> Callable[[tuple[int, ...]], Recipe | None]:
    """What makes recipes for one of GGUF's block types; rows must be a multiple of the block."""
    block = SUPER_BLOCK if kind in QUANTIZERS else LEGACY_BLOCK

    def make(shape: tuple[int, ...]) -> Recipe | None:
        if shape[1] % block:
            return None
        gguf = gguf_package()
        code = gguf.GGMLQuantizationType[kind]
        block_bytes = gguf.GGML_QUANT_SIZES[code][1]

        def quantise(rows: Tensor) -> tuple[Tensor]:
            if kind in QUANTIZERS:
                return (QUANTIZERS[kind](rows.reshape(-1, block)).view(len(rows), -1),)
            return (torch.from_numpy(gguf.quants.quantize(np.ascontiguousarray(rows), code)),)

        piece = Piece("", kind, shape, math.prod(shape) // block * block_bytes)
        return Recipe((piece,), lambda weight: by_rows(weight, quantise))

    return make


def _gguf(kind: str) -> Conversion:
    kinds = (kind, FALLBACK[kind]) if kind in FALLBACK else (kind,)
    return Conversion(f"gguf:{kind}", recipes=tuple(map(ggml, kinds)), file_type="gguf")


CONVERSIONS: dict[str, Conversion] = {
    "fp32": Conversion("fp32", "float32"),
    "bf16": Conversion("bf16", "bfloat16"),
    "fp16": Conversion("fp16", "float16"),
    "fp8": Conversion("fp8", recipes=(fp8,)),
    "int8": Conversion("int8", recipes=(int8,)),
    **{f"gguf:{kind}": _gguf(kind) for kind in (*QUANTIZERS, *LEGACY)},
    **{f"gguf:{FORMATS[name].code}": Conversion(f"gguf:{FORMATS[name].code}", name, file_type="gguf")
       for name in IN_GGUF},
}  # fmt: skip
SAME, SAME_GGUF = Conversion("same"), Conversion("same", file_type="gguf")  # as the file has it


def conversion(name: str) -> Conversion:
    """One of `CONVERSIONS` by its name, in any case; raises `JoyImageError` naming them all."""
    found = next((known for key, known in CONVERSIONS.items() if key.lower() == name.lower()), None)
    if found is None:
        raise JoyImageError(f"unknown format {name!r}; choose one of {', '.join(CONVERSIONS)}")
    return found
