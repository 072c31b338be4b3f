"""Quantisers of GGUF's K types, whose format the `gguf` package reads and does not write.

A super-block of 256 weights holds sub-blocks of 16 or 32. A sub-block's own scale (and offset) is a small integer that
multiplies the super-block's float16, so a weight costs 2.6 to 6.6 bits in all. Scales and offsets are found by least
squares: for a handful of ranges the weights are rounded, the line through the rounded ones is fitted, the best kept.
On normally distributed weights the root mean square error is 0.269, 0.145, 0.072, 0.036 and 0.017 of their own for
Q2_K to Q6_K.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SUPER_BLOCK = 256
# Inverse scales that are tried, relative to the one that maps the range of the weights to that of the levels.
TRIALS = tuple(1 + 0.02 * step for step in range(-6, 13, 2))
TINY = 1e-30  # keeps blocks of zeros from dividing by zero


def fit_line(x: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Scale and offset, both at least 0, of `x ~ scale * q - offset` with q in 0 … levels; x is (…, n)."""
    low = x.amin(-1, keepdim=True).clamp(max=0)
    span = (x.amax(-1, keepdim=True) - low).clamp(min=TINY)
    scale, offset = span / levels, -low
    best = _line_error(x, scale, offset, levels)
    mean_x = x.mean(-1, keepdim=True)
    for trial in TRIALS:
        q = ((x - low) * (trial * levels / span)).round_().clamp_(0, levels)
        mean_q = q.mean(-1, keepdim=True)
        centred = q - mean_q
        new_scale = (centred * x).sum(-1, keepdim=True) / centred.square().sum(-1, keepdim=True).clamp(min=TINY)
        new_offset = new_scale * mean_q - mean_x
        # an offset below zero cannot be stored: then the line goes through zero
        through_zero = (q * x).sum(-1, keepdim=True) / q.square().sum(-1, keepdim=True).clamp(min=TINY)
        new_scale = torch.where(new_offset < 0, through_zero, new_scale).clamp(min=0)
        new_offset = new_offset.clamp(min=0)
        error = _line_error(x, new_scale, new_offset, levels)
        better = error < best
        scale, offset = torch.where(better, new_scale, scale), torch.where(better, new_offset, offset)
        best = torch.where(better, error, best)
    return scale[..., 0], offset[..., 0]


def _line_error(x: Tensor, scale: Tensor, offset: Tensor, levels: int) -> Tensor:
    q = ((x + offset) / scale.clamp(min=TINY)).round_().clamp_(0, levels)
    return (q * scale - offset - x).square().sum(-1, keepdim=True)


def fit_scale(x: Tensor, levels: int) -> Tensor:
    """Scale, of either sign, of `x ~ scale * q` with q in -levels … levels - 1; x is (…, n).

    Its sign gives the level that only one side has to the largest weight.
    """
    peak = x.gather(-1, x.abs().argmax(-1, keepdim=True))
    inverse = -levels / torch.where(peak.abs() < TINY, TINY, peak)
    scale, best = torch.zeros_like(peak), torch.zeros_like(peak)
    for trial in TRIALS:
        q = (x * (inverse * trial)).round_().clamp_(-levels, levels - 1)
        product, square = (q * x).sum(-1, keepdim=True), q.square().sum(-1, keepdim=True).clamp(min=TINY)
        gain = product.square() / square  # what the fit takes off the squared error
        better = gain > best
        scale, best = torch.where(better, product / square, scale), torch.where(better, gain, best)
    return scale[..., 0]


def _half(x: Tensor) -> tuple[Tensor, Tensor]:
    """A scale as stored, its two bytes, and as read back."""
    stored = x.clamp(max=torch.finfo(torch.float16).max).half()
    return stored[..., None].view(torch.uint8), stored.float()


def _ratio(x: Tensor, unit: Tensor) -> Tensor:
    return x / torch.where(unit == 0, 1, unit)


def _lines(x: Tensor, levels: int, scale_levels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x (B, sub-blocks, n) -> bytes of the two float16 (B, 4), integer scales and offsets (B, sub-blocks), q like x."""
    scale, offset = fit_line(x, levels)
    d_bytes, d = _half(scale.amax(-1, keepdim=True) / scale_levels)
    m_bytes, m = _half(offset.amax(-1, keepdim=True) / scale_levels)
    scales = _ratio(scale, d).round().clamp(0, scale_levels)
    offsets = _ratio(offset, m).round().clamp(0, scale_levels)
    q = _ratio(x + (m * offsets)[..., None], (d * scales)[..., None]).round().clamp(0, levels)
    halves = torch.cat([d_bytes[:, 0], m_bytes[:, 0]], dim=-1)
    return halves, scales.byte(), offsets.byte(), q.byte()


def _scaled(x: Tensor, levels: int, scale_levels: int) -> tuple[Tensor, Tensor, Tensor]:
    """x (B, 16, 16) -> bytes of the float16 (B, 2), signed scales (B, 16), q + levels like x."""
    scale = fit_scale(x, levels)
    peak = scale.gather(-1, scale.abs().argmax(-1, keepdim=True))
    d_bytes, d = _half(peak / -scale_levels)
    scales = _ratio(scale, d).round().clamp(-scale_levels, scale_levels - 1)
    q = _ratio(x, (d * scales)[..., None]).round().clamp(-levels, levels - 1)
    return d_bytes[:, 0], scales, (q + levels).byte()


def _pack(x: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """Small integers (B, n) seen as (B, *shape), joined along the second last axis, the first in the low bits."""
    x = x.reshape(len(x), *shape)
    shifts = torch.arange(0, bits * shape[-2], bits, dtype=torch.uint8, device=x.device)[:, None]
    return (x << shifts).sum(-2, dtype=torch.uint8).flatten(1)


def _six_bit_pairs(scales: Tensor, offsets: Tensor) -> Tensor:
    """Eight scales and eight offsets of six bits -> (B, 12): the first four of each carry the last four's top bits."""
    top_scales, top_offsets = scales[:, 4:] >> 4, offsets[:, 4:] >> 4
    return torch.cat(
        [
            scales[:, :4] | top_scales << 6,
            offsets[:, :4] | top_offsets << 6,
            scales[:, 4:] & 15 | (offsets[:, 4:] & 15) << 4,
        ],
        dim=1,
    )


def quantize_q2_k(x: Tensor) -> Tensor:
    halves, scales, offsets, q = _lines(x.view(-1, 16, 16), levels=3, scale_levels=15)
    return torch.cat([scales | offsets << 4, _pack(q, 2, (2, 4, 32)), halves], dim=1)


def quantize_q3_k(x: Tensor) -> Tensor:
    d, scales, q = _scaled(x.view(-1, 16, 16), levels=4, scale_levels=32)
    scales = (scales + 32).byte()
    low, high = _pack(scales & 15, 4, (2, 8)), _pack(scales >> 4, 2, (4, 4))
    return torch.cat([_pack(q >> 2, 1, (8, 32)), _pack(q & 3, 2, (2, 4, 32)), low, high, d], dim=1)


def quantize_q4_k(x: Tensor) -> Tensor:
    halves, scales, offsets, q = _lines(x.view(-1, 8, 32), levels=15, scale_levels=63)
    return torch.cat([halves, _six_bit_pairs(scales, offsets), _pack(q, 4, (4, 2, 32))], dim=1)


def quantize_q5_k(x: Tensor) -> Tensor:
    halves, scales, offsets, q = _lines(x.view(-1, 8, 32), levels=31, scale_levels=63)
    high, low = _pack(q >> 4, 1, (8, 32)), _pack(q & 15, 4, (4, 2, 32))
    return torch.cat([halves, _six_bit_pairs(scales, offsets), high, low], dim=1)


def quantize_q6_k(x: Tensor) -> Tensor:
    d, scales, q = _scaled(x.view(-1, 16, 16), levels=32, scale_levels=128)
    high, low = _pack(q >> 4, 2, (2, 4, 32)), _pack(q & 15, 4, (2, 2, 64))
    return torch.cat([low, high, scales.to(torch.int8).view(torch.uint8), d], dim=1)


# (super-blocks, 256) float32 -> (super-blocks, bytes) uint8
QUANTIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "Q2_K": quantize_q2_k,
    "Q3_K": quantize_q3_k,
    "Q4_K": quantize_q4_k,
    "Q5_K": quantize_q5_k,
    "Q6_K": quantize_q6_k,
}
