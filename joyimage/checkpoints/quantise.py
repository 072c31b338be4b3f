"""How weights are stored in each format that can be written, and which of them stay in higher precision."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import JoyImageError
from ..quantised import Packed, rotate
from .kquants import QUANTIZERS, SUPER_BLOCK

CHUNK = 2**20  # elements quantised at a time: bounds what the arithmetic needs in between to about 60 MiB
FP8_MAX = torch.finfo(torch.float8_e4m3fn).max
ROTATIONS = (256, 64, 16)  # groups of columns that ConvRot rotates together; ComfyUI's kernels are fastest at 256
LEGACY_BLOCK = 32  # weights that share a scale in GGUF's Q8_0 and older types

# Names of weights that stay in the precision they have, and why. Besides, whatever is no matrix stays: biases, norms
# and modulation tables are 0.02 % of the weights, and each is added to or multiplied into every token.
KEPT: dict[str, tuple[tuple[str, str], ...]] = {
    "mmdit": (
        (r"condition_embedder\.time_", "its six vectors shift, scale and gate every token of every block"),
        (r"condition_embedder\.text_embedder\.", "the first layers of the text: no later one can make up for an error"),
        (r"img_in\.", "the first layer of the picture: 64 numbers become a token"),
        (r"proj_out\.", "the last layer: its errors are errors of the velocity"),
    ),
    "encoder": (
        (r"(.*\.)?embed_tokens\.", "the first layer of the text; its rows are looked up, so its size costs no time"),
        (r"lm_head\.", "the last layer: the likeliest word can hang on the third decimal"),
        (r"(.*\.)?visual\.(patch_embed|pos_embed)\.", "the first layers of a picture"),
        (
            r"(.*\.)?visual\.(merger|deepstack_merger_list)\.",
            "the last layers of a picture: all that text sees of it",
        ),
    ),
    "vae": ((r"", "1.5 % of the weights, whose errors are errors of pixels"),),
}
NO_MATRIX = "biases, norms, tables and kernels: small, and used by every token"
NO_BLOCKS = "rows that do not divide into the format's blocks"


def why_kept(part: str, name: str, shape: tuple[int, ...]) -> str | None:
    """Why the weight `name` (ours) of a part is not quantised; None if it is."""
    reasons = (reason for pattern, reason in KEPT[part] if re.match(pattern, name))
    return next(reasons, None) or (None if len(shape) == 2 else NO_MATRIX)


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
    encode: Callable[[Tensor | Packed], tuple[Tensor, ...]]
    settings: Mapping[str, Any] | None = None
    kept: str | None = None


@dataclass(frozen=True)
class Format:
    """A format that `convert` writes. Without a `dtype` what is not quantised keeps its own.

    `recipes` make the recipe for a matrix from its shape; the first that is not None counts. `file_type` is "gguf" or
    "safetensors".
    """

    name: str
    dtype: torch.dtype | None = None
    recipes: tuple[Callable[[tuple[int, ...]], Recipe | None], ...] = ()
    file_type: str = "safetensors"

    def recipe(self, part: str, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Recipe:
        """How to store the weight `name` (ours), which is of this shape and dtype."""
        same = plain(shape, self.dtype or dtype, self.file_type)
        if not self.recipes:
            return same
        if reason := why_kept(part, name, shape):
            return replace(same, kept=reason)
        made = filter(None, (make(shape) for make in self.recipes))
        return next(made, replace(same, kept=NO_BLOCKS))


TYPE_CODES = {  # in the header of each file type
    "safetensors": {
        torch.float64: "F64",
        torch.float32: "F32",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.float8_e4m3fn: "F8_E4M3",
        torch.float8_e5m2: "F8_E5M2",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.int16: "I16",
        torch.int8: "I8",
        torch.uint8: "U8",
        torch.bool: "BOOL",
    },
    "gguf": {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"},
}


def plain(shape: tuple[int, ...], dtype: torch.dtype, file_type: str = "safetensors") -> Recipe:
    """A tensor as it is, or rounded to another floating dtype; GGUF takes float64 as float32."""
    codes = TYPE_CODES[file_type]
    dtype = dtype if dtype in codes else torch.float32
    piece = Piece("", codes[dtype], shape, math.prod(shape) * dtype.itemsize)
    return Recipe((piece,), lambda weight: (dense(weight).to(dtype),))


def restored(packed: Packed) -> Recipe:
    """A quantised weight as it is; what ComfyUI has renamed since, under its present names."""
    encoding, scale = packed.encoding, packed.scale
    code, name = STORED.get(encoding.name, (encoding.name, None))
    pieces = [Piece("", code, packed.shape, packed.data.nbytes)]
    if scale is None:
        return Recipe(tuple(pieces), lambda weight: (weight.data,))
    pieces.append(Piece("_scale", "F32", tuple(scale.shape), scale.nbytes))
    settings = {"format": name, **rotation(encoding.rotation)}
    return Recipe(tuple(pieces), lambda weight: (weight.data, weight.scale), settings)


# By the encoding's name: dtype in safetensors and ComfyUI's name; GGUF's types have one name everywhere
STORED = {
    "float8_e4m3fn": ("F8_E4M3", "float8_e4m3fn"),
    "float8_e5m2": ("F8_E5M2", "float8_e5m2"),
    "int8": ("I8", "int8_tensorwise"),
    "int8_convrot": ("I8", "int8_tensorwise"),
}


def rotation(group: int) -> dict[str, Any]:
    """ComfyUI's note of a rotation of groups of columns, 0 for none."""
    return {"convrot": True, "convrot_groupsize": group} if group else {}


def dense(weight: Tensor | Packed) -> Tensor:
    return weight.dense(torch.float32) if isinstance(weight, Packed) else weight


def by_rows(weight: Tensor | Packed, quantise: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Apply `quantise` to some float32 rows of a matrix at a time, and join what it gives."""
    weight = dense(weight)
    step = max(1, CHUNK // weight.shape[1])
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

    def encode(weight: Tensor | Packed) -> tuple[Tensor, Tensor]:
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


def _gguf_format(kind: str) -> Format:
    kinds = (kind, FALLBACK[kind]) if kind in FALLBACK else (kind,)
    return Format(f"gguf:{kind}", recipes=tuple(map(ggml, kinds)), file_type="gguf")


FORMATS: dict[str, Format] = {
    "fp32": Format("fp32", torch.float32),
    "bf16": Format("bf16", torch.bfloat16),
    "fp16": Format("fp16", torch.float16),
    "fp8": Format("fp8", recipes=(fp8,)),
    "int8": Format("int8", recipes=(int8,)),
    **{f"gguf:{kind}": _gguf_format(kind) for kind in (*QUANTIZERS, *LEGACY)},
    **{f"gguf:{name}": Format(f"gguf:{name}", dtype, file_type="gguf")
       for name, dtype in (("F32", torch.float32), ("F16", torch.float16), ("BF16", torch.bfloat16))},
}  # fmt: skip
SAME, SAME_GGUF = Format("same"), Format("same", file_type="gguf")  # as the file has it


def format_of(name: str) -> Format:
    """One of `FORMATS` by its name, in any case; raises `JoyImageError` naming them all."""
    found = next((known for key, known in FORMATS.items() if key.lower() == name.lower()), None)
    if found is None:
        raise JoyImageError(f"unknown format {name!r}; choose one of {', '.join(FORMATS)}")
    return found
