"""The block formats of GGUF files in torch, so that weights become floating point on the device that uses them.

A block is 32 or 256 weights of a row that share a scale, in the K types also 8 or 16 scales of sub-blocks and their
minima. Every function takes blocks (n, block bytes) as uint8 and gives (n, block weights) float32, in the order of
operations of the `gguf` package, whose results it equals to the bit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .quantised import Encoding


def fields(data: Tensor, bits: int, width: int) -> Tensor:
    """Take bytes apart: (n, k) -> (n, k / width, 8 / bits, width), low bits of `width` neighbouring bytes first."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=data.device)
    return (data.unflatten(1, (-1, 1, width)) >> shifts[:, None]) & (2**bits - 1)


def half(data: Tensor) -> Tensor:
    """Two bytes of each block (n, 2) -> their float16 (n, 1) as float32."""
    return data.contiguous().view(torch.float16).float()


def signed(values: Tensor, offset: int) -> Tensor:
    """Unsigned values whose zero is at `offset`, as float32."""
    return (values.to(torch.int8) - offset).float()


def q4_0(blocks: Tensor) -> Tensor:
    d, q = blocks.split([2, 16], dim=1)
    return half(d) * signed(fields(q, 4, 16).flatten(1), 8)


def q4_1(blocks: Tensor) -> Tensor:
    d, m, q = blocks.split([2, 2, 16], dim=1)
    return half(d) * fields(q, 4, 16).flatten(1).float() + half(m)


def q5_0(blocks: Tensor) -> Tensor:
    d, high, low = blocks.split([2, 4, 16], dim=1)
    return half(d) * signed(five_bits(high, low), 16)


def q5_1(blocks: Tensor) -> Tensor:
    d, m, high, low = blocks.split([2, 2, 4, 16], dim=1)
    return half(d) * five_bits(high, low).float() + half(m)


def five_bits(high: Tensor, low: Tensor) -> Tensor:
    return fields(low, 4, 16).flatten(1) | (fields(high, 1, 1).flatten(1) << 4)


def q8_0(blocks: Tensor) -> Tensor:
    d, q = blocks.split([2, 32], dim=1)
    return q.view(torch.int8).float() * half(d)


def q2_k(blocks: Tensor) -> Tensor:
    scales, q, d, dmin = blocks.split([16, 64, 2, 2], dim=1)
    scale = half(d) * (scales & 15).float()  # (n, 16)
    minimum = half(dmin) * (scales >> 4).float()
    values = fields(q, 2, 32).reshape(-1, 16, 16).float()
    return (scale[..., None] * values - minimum[..., None]).flatten(1)


def q3_k(blocks: Tensor) -> Tensor:
    mask, q, low, high, d = blocks.split([32, 64, 8, 4, 2], dim=1)
    scales = fields(low, 4, 8).flatten(1) | (fields(high, 2, 4).flatten(1) << 4)  # six bits each, (n, 16)
    scale = half(d) * signed(scales, 32)
    third = fields(mask, 1, 32).reshape(-1, 16, 16) ^ 1  # the third bit is stored inverted
    values = fields(q, 2, 32).reshape(-1, 16, 16).to(torch.int8) - (third << 2).to(torch.int8)
    return (scale[..., None] * values.float()).flatten(1)


def q4_k(blocks: Tensor) -> Tensor:
    d, dmin, scales, q = blocks.split([2, 2, 12, 128], dim=1)
    return from_sub_blocks(d, dmin, scales, fields(q, 4, 32).reshape(-1, 8, 32))


def q5_k(blocks: Tensor) -> Tensor:
    d, dmin, scales, high, low = blocks.split([2, 2, 12, 32, 128], dim=1)
    values = fields(low, 4, 32).reshape(-1, 8, 32) | (fields(high, 1, 32).reshape(-1, 8, 32) << 4)
    return from_sub_blocks(d, dmin, scales, values)


def from_sub_blocks(d: Tensor, dmin: Tensor, packed: Tensor, values: Tensor) -> Tensor:
    """Eight sub-blocks (n, 8, 32), each with a scale and a minimum of six bits.

    Of the twelve bytes the first four hold the first four scales, the next four the minima; the last four the low
    halves of the others, whose high two bits are the top bits of the first eight bytes.
    """
    a, b, rest = packed.split([4, 4, 4], dim=1)
    scale = torch.cat([a & 63, (rest & 15) | ((a >> 2) & 48)], dim=1)  # (n, 8)
    minimum = torch.cat([b & 63, (rest >> 4) | ((b >> 2) & 48)], dim=1)
    scale, minimum = half(d) * scale.float(), half(dmin) * minimum.float()
    return (scale[..., None] * values.float() - minimum[..., None]).flatten(1)


def q6_k(blocks: Tensor) -> Tensor:
    low, high, scales, d = blocks.split([128, 64, 16, 2], dim=1)
    scale = half(d) * scales.contiguous().view(torch.int8).float()  # (n, 16)
    values = fields(low, 4, 64).reshape(-1, 8, 32) | (fields(high, 2, 32).reshape(-1, 8, 32) << 4)
    return (scale[..., None] * signed(values, 32).reshape(-1, 16, 16)).flatten(1)


def _encoding(name: str, block: int, block_bytes: int, function: Callable[[Tensor], Tensor] | None = None) -> Encoding:
    def unpack(rows: Tensor, _scale: None) -> Tensor:
        return function(rows.reshape(-1, block_bytes)).view(len(rows), -1)

    return Encoding(name, unpack if function else None, block, block_bytes)


# By the number that a GGUF file has for it. What comes without a function is recognised and not supported.
ENCODINGS = {
    2: _encoding("Q4_0", 32, 18, q4_0),
    3: _encoding("Q4_1", 32, 20, q4_1),
    6: _encoding("Q5_0", 32, 22, q5_0),
    7: _encoding("Q5_1", 32, 24, q5_1),
    8: _encoding("Q8_0", 32, 34, q8_0),
    9: _encoding("Q8_1", 32, 40),
    10: _encoding("Q2_K", 256, 84, q2_k),
    11: _encoding("Q3_K", 256, 110, q3_k),
    12: _encoding("Q4_K", 256, 144, q4_k),
    13: _encoding("Q5_K", 256, 176, q5_k),
    14: _encoding("Q6_K", 256, 210, q6_k),
    15: _encoding("Q8_K", 256, 292),
    16: _encoding("IQ2_XXS", 256, 66),
    17: _encoding("IQ2_XS", 256, 74),
    18: _encoding("IQ3_XXS", 256, 98),
    19: _encoding("IQ1_S", 256, 50),
    20: _encoding("IQ4_NL", 32, 18),
    21: _encoding("IQ3_S", 256, 110),
    22: _encoding("IQ2_S", 256, 82),
    23: _encoding("IQ4_XS", 256, 136),
    29: _encoding("IQ1_M", 256, 56),
    34: _encoding("TQ1_0", 256, 54),
    35: _encoding("TQ2_0", 256, 66),
    39: _encoding("MXFP4", 32, 17),
}
