"""The block formats of GGUF files in torch, so that weights become floating point on the device that uses them.

A block is 32 or 256 weights of a row that share a scale, in the K types also 8 or 16 scales of sub-blocks and their
minima. Every function takes blocks (n, block bytes) as uint8 and gives (n, block weights) float32, in the order of
operations of the `gguf` package, whose results it equals to the bit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .formats import FORMATS


def fields(data: Tensor, bits: int, width: int) -> Tensor:
    """Take bytes apart: (n, k) -> (n, k / width, 8 / bits, width), low bits of `width` neighbouring bytes first."""
    if data.device.type == "cpu":  # which shifts by one number for all four times as fast as by a tensor
        bytes_ = data.unflatten(1, (-1, width))
        return torch.stack([(bytes_ >> shift) & (2**bits - 1) for shift in range(0, 8, bits)], dim=2)
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
    return signed(fields(q, 4, 16).flatten(1), 8).mul_(half(d))


def q4_1(blocks: Tensor) -> Tensor:
    d, m, q = blocks.split([2, 2, 16], dim=1)
    return fields(q, 4, 16).flatten(1).float().mul_(half(d)).add_(half(m))


def q5_0(blocks: Tensor) -> Tensor:
    d, high, low = blocks.split([2, 4, 16], dim=1)
    return signed(five_bits(high, low), 16).mul_(half(d))


def q5_1(blocks: Tensor) -> Tensor:
    d, m, high, low = blocks.split([2, 2, 4, 16], dim=1)
    return five_bits(high, low).float().mul_(half(d)).add_(half(m))


def five_bits(high: Tensor, low: Tensor) -> Tensor:
    return fields(low, 4, 16).flatten(1) | (fields(high, 1, 1).flatten(1) << 4)


def q8_0(blocks: Tensor) -> Tensor:
    d, q = blocks.split([2, 32], dim=1)
    return q.view(torch.int8).float().mul_(half(d))


def q2_k(blocks: Tensor) -> Tensor:
    scales, q, d, dmin = blocks.split([16, 64, 2, 2], dim=1)
    scale = half(d) * (scales & 15).float()  # (n, 16)
    minimum = half(dmin) * (scales >> 4).float()
    values = fields(q, 2, 32).reshape(-1, 16, 16).float()
    return values.mul_(scale[..., None]).sub_(minimum[..., None]).flatten(1)


def q3_k(blocks: Tensor) -> Tensor:
    mask, q, low, high, d = blocks.split([32, 64, 8, 4, 2], dim=1)
    scales = fields(low, 4, 8).flatten(1) | (fields(high, 2, 4).flatten(1) << 4)  # six bits each, (n, 16)
    scale = half(d) * signed(scales, 32)
    third = fields(mask, 1, 32).reshape(-1, 16, 16) ^ 1  # the third bit is stored inverted
    values = fields(q, 2, 32).reshape(-1, 16, 16).to(torch.int8) - (third << 2).to(torch.int8)
    return values.float().mul_(scale[..., None]).flatten(1)


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
    return values.float().mul_(scale[..., None]).sub_(minimum[..., None]).flatten(1)


def q6_k(blocks: Tensor) -> Tensor:
    low, high, scales, d = blocks.split([128, 64, 16, 2], dim=1)
    scale = half(d) * scales.contiguous().view(torch.int8).float()  # (n, 16)
    values = fields(low, 4, 64).reshape(-1, 8, 32) | (fields(high, 2, 32).reshape(-1, 8, 32) << 4)
    return signed(values, 32).reshape(-1, 16, 16).mul_(scale[..., None]).flatten(1)


# By the format's name
UNPACK_BLOCKS: dict[str, Callable[[Tensor], Tensor]] = {
    "Q4_0": q4_0,
    "Q4_1": q4_1,
    "Q5_0": q5_0,
    "Q5_1": q5_1,
    "Q8_0": q8_0,
    "Q2_K": q2_k,
    "Q3_K": q3_k,
    "Q4_K": q4_k,
    "Q5_K": q5_k,
    "Q6_K": q6_k,
}


def unpack_rows(name: str) -> Callable[..., Tensor]:
    """What unpacks rows (n, row bytes) of a format to (n, columns), as `tensor.Unpack`; scales are in the blocks."""
    function, size = UNPACK_BLOCKS[name], FORMATS[name].block_bytes

    def unpack(data: Tensor, *_) -> Tensor:
        return function(data.reshape(-1, size)).view(len(data), -1)

    return unpack
