"""Products with quantised weights, exact ones and on request those of `rounded`.

| format | exact product |
| --- | --- |
| float8, int8, a scale for all or for each row | codes as they are in the input's dtype, exact there; the scale after |
| int8_convrot | the same; of input and weight, what has fewer rows is rotated |
| everything else: blocks with scales of their own | the weight made floating point first |

The scale after the product costs a multiplication for each output and none for each weight, and rounds the output once
where the weight would have been rounded. A processor does this in parts of the weight that stay in its cache.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import rounded
from .kernels import FEWEST_TOKENS, INT8, SCALED_AFTER, SINGLE, Kernel
from .tensor import QuantizedTensor, numbers, rotate

CODES = {name: getattr(torch, name.removesuffix("_convrot")) for name in SCALED_AFTER}  # what the bytes are
FEW = 64  # tokens up to which a processor spends most of the time on making the weight floating point
PART, PART_FOR_FEW = 2**20, 2**18  # weights that a processor makes floating point at a time
READ_AS_BYTES = 8  # tokens up to which torch's product of bf16 and int8 is the fastest on a processor


def linear(x: Tensor, weight: QuantizedTensor, bias: Tensor | None, kernel: Kernel | None = None) -> Tensor:
    """`x` (…, in) times a quantised weight (out, in), plus `bias` (out,), in the dtype of `x`.

    A `kernel` rounds activations. Without one the product is exact, and so it is where a gradient is needed, and for
    so few tokens that rounding them gains nothing.
    """
    flat = x.reshape(-1, x.shape[-1])  # (tokens, in)
    if kernel is None or kernel.device != x.device.type or needs_gradient(x, bias) or len(flat) < FEWEST_TOKENS:
        product = exact(flat, weight, bias)
    else:
        product = rounded.IMPLEMENTATIONS[kernel.name](flat, weight, bias)
    return product.view(*x.shape[:-1], weight.shape[0])


def needs_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def exact(x: Tensor, weight: QuantizedTensor, bias: Tensor | None) -> Tensor:
    """The product of `x` (tokens, in) as it is."""
    if x.device.type == "cpu" and not needs_gradient(x, bias) and not torch.compiler.is_compiling():
        return _on_processor(x, weight, bias)
    x, turn_weight = _turned(x, weight)
    return _product(x, weight, bias, turn_weight)


def _turned(x: Tensor, weight: QuantizedTensor) -> tuple[Tensor, bool]:
    """`x` and whether to rotate the weight back: else `x` is rotated as it is. What has fewer rows turns."""
    group = weight.format.rotation
    if not group:
        return x, False
    # While it is compiled the number of tokens decides nothing: each way would be a graph.
    turn_weight = not torch.compiler.is_compiling() and len(x) > weight.shape[0]
    return (x if turn_weight else rotate(x, group)), turn_weight


def _on_processor(x: Tensor, weight: QuantizedTensor, bias: Tensor | None) -> Tensor:
    """`exact` in parts of the weight. A few tokens multiply in float32, fastest to unpack to, or by the bytes."""
    if x.dtype == torch.bfloat16 and weight.format.name in INT8 and 0 < len(x) <= READ_AS_BYTES:
        turned = rotate(x, weight.format.rotation) if weight.format.rotation else x
        multiply = torch._weight_int8pack_mm  # pyright: ignore[reportPrivateImportUsage] - torch has no public name for it
        product = multiply(turned, weight.data.view(torch.int8), x.new_ones(len(weight.data)))
        return times_scale(product, weight.scales[0].flatten(), bias)
    few = len(x) <= FEW
    if not few and scaled_after(weight, x.dtype):  # made in one pass: parts would cost more than they keep in the cache
        x, turn_weight = _turned(x, weight)
        return _product(x, weight, bias, turn_weight)
    part, dtype = (PART_FOR_FEW if few else PART), x.dtype
    if few and dtype != torch.float32:
        x, bias = x.float(), None if bias is None else bias.float()
    x, turn_weight = _turned(x, weight)
    result = x.new_empty(len(x), weight.shape[0])
    for rows in weight.parts(part):
        result[:, rows] = _product(x, weight.part(rows), None if bias is None else bias[rows], turn_weight)
    return result.to(dtype)


def _product(x: Tensor, weight: QuantizedTensor, bias: Tensor | None, turn_weight: bool) -> Tensor:
    """`exact` of a weight, or of some of its rows, in one piece. With `turn_weight` the weight is rotated back."""
    if not scaled_after(weight, x.dtype):
        return F.linear(x, weight.dense(x.dtype) if turn_weight else weight.dense_rotated(x.dtype), bias)
    codes = numbers(weight.data, CODES[weight.format.name], x.dtype)
    product = F.linear(x, rotate(codes, weight.format.rotation) if turn_weight else codes)
    if not weight.scales:
        return product if bias is None else product + bias
    return times_scale(product, weight.scales[0].flatten(), bias)


def times_scale(product: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """`product` (…, out) times `scale` (1,) or (out,) float32, plus `bias`; in float32, rounded once."""
    if needs_gradient(product, bias) or torch.compiler.is_compiling():  # a compiler makes one pass of it by itself
        scaled = product * scale if bias is None else torch.addcmul(bias.float(), product.float(), scale)
        return scaled.to(product.dtype)
    if bias is None:
        return product.mul_(scale)
    return torch.addcmul(bias, product, scale, out=product)


def scaled_after(weight: QuantizedTensor, dtype: torch.dtype) -> bool:
    """Whether the scale of a weight can wait until after the product.

    In float16 it can't: sums of codes, up to 448 each, may pass its largest number, 65,504.
    """
    return weight.format.name in CODES and dtype != torch.float16 and weight.format.scales in SINGLE
