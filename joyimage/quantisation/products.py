"""Products with quantised weights: which format is multiplied how.

| format | product |
| --- | --- |
| float8, int8, a scale for all or for each row | codes as they are in the input's dtype, exact there; the scale after |
| int8_convrot | the same; of input and weight, what has fewer rows is rotated |
| everything else: blocks with scales of their own | the weight made floating point first |

The scale after the product costs a multiplication for each output and none for each weight, and rounds the output once
where the weight would have been rounded.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .formats import ROWS, WHOLE
from .tensor import QuantizedTensor, numbers, rotate

CODES = {  # what the codes of a format are, one to a byte
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
    "int8": torch.int8,
    "int8_convrot": torch.int8,
}


def linear(x: Tensor, weight: QuantizedTensor, bias: Tensor | None) -> Tensor:
    """`x` (…, in) times a quantised weight (out, in), plus `bias` (out,), in the dtype of `x`."""
    group = weight.format.rotation
    turn_weight = group and x.numel() > weight.shape[0] * x.shape[-1]  # what has fewer rows is turned
    if group and not turn_weight:
        x = rotate(x, group)
    if not scaled_after(weight, x.dtype):
        return F.linear(x, weight.dense(x.dtype) if turn_weight else weight.dense_rotated(x.dtype), bias)
    codes = numbers(weight.data, CODES[weight.format.name], x.dtype)
    product = F.linear(x, rotate(codes, group) if turn_weight else codes)
    if not weight.scales:
        return product if bias is None else product + bias
    return times_scale(product, weight.scales[0].flatten(), bias)


def times_scale(product: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """`product` (…, out) times `scale` (1,) or (out,) float32, plus `bias`; in float32, rounded once."""
    if product.requires_grad or torch.compiler.is_compiling():  # a compiler makes one pass of it by itself
        scaled = product * scale if bias is None else torch.addcmul(bias.float(), product.float(), scale)
        return scaled.to(product.dtype)
    if bias is None:
        return product.mul_(scale)
    return torch.addcmul(bias, product, scale, out=product)


def scaled_after(weight: QuantizedTensor, dtype: torch.dtype) -> bool:
    """Whether the scale of a weight can wait until after the product.

    In float16 it can't: sums of codes, up to 448 each, may pass its largest number, 65,504.
    """
    kinds = weight.format.scales
    return weight.format.name in CODES and dtype != torch.float16 and kinds in ((), (WHOLE,), (ROWS,))
