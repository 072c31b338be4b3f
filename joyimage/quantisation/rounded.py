"""Products whose activations are rounded, each the implementation of a row of `kernels.KERNELS`.

They take `x` (tokens, in), floating, and a weight (out, in), and give (tokens, out) in the dtype of `x`. Activations
get a scale for each token, so that no token's error hangs on the others in the batch: its largest magnitude over the
largest number of the format, or for int8 what spreads its numbers over all codes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from ..kitchen import has_cuda_kernels
from ..versions import torch_version
from .formats import SWIZZLE_COLUMNS, SWIZZLE_ROWS, rounded_up
from .kernels import Hardware
from .tensor import QuantizedTensor, rotate, swizzled

LEAST = 1e-12  # scale of a token of zeros
ROWS_OF_ONES = 32  # where one would do: CUDA's product of int8 takes no fewer than 17
AT_ONCE = 256  # tokens on a processor, whose sums then stay in its cache: 1.8 times as fast as all of 2,348

Product = Callable[[Tensor, QuantizedTensor, "Tensor | None"], Tensor]


@functools.lru_cache(maxsize=16)
def hardware(device: torch.device) -> Hardware:
    """What a device has."""
    version = torch_version()
    if device.type == "cpu":
        # torch has no public name for it; before it had this one, what it can't tell is no
        vnni = getattr(torch.cpu, "_is_vnni_supported", lambda: False)()
        return Hardware("cpu", vnni=vnni, torch=version)
    if device.type != "cuda" or torch.version.hip:
        return Hardware(device.type if device.type != "cuda" else "rocm", torch=version)
    kitchen = has_cuda_kernels("int8_linear", "scaled_mm_mxfp8", "scaled_mm_nvfp4")
    return Hardware("cuda", torch.cuda.get_device_capability(device), kitchen=kitchen, torch=version)


def as_int8(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (n, in) as int8 codes, with a float32 scale and middle for each, (n, 1): `codes * scale + middle`.

    The middle lies between its least and its largest number, so that hardly a code is left unused: what comes out of a
    GELU lies on one side, and would be rounded twice as coarsely around 0. It is a multiple of the scale, so that 0 is
    exact: beside one huge number all others are rounded to it, and must not all be off by as much.
    """
    # apart: torch's `aminmax` takes a processor ten times as long as both
    low, high = x.amin(-1, keepdim=True).float(), x.amax(-1, keepdim=True).float()
    scale = ((high - low) / 253).clamp(min=LEAST)
    steps = ((low + high) / (2 * scale)).round()  # of the middle; 253 and not 254 leave room for its rounding
    return torch.addcmul(-steps, x.float(), scale.reciprocal()).round_().to(torch.int8), scale, steps * scale


def as_e4m3(x: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (n, in) as float8 e4m3 codes and a float32 scale for each, (n, 1)."""
    scale = (x.abs().amax(-1, keepdim=True).float() / 448).clamp(min=LEAST)
    return (x * scale.reciprocal()).clamp(-448, 448).to(torch.float8_e4m3fn), scale


def int8_product(x: Tensor, weight: QuantizedTensor, bias: Tensor | None) -> Tensor:
    """With the sums of `torch._int_mm`, which are whole numbers and exact."""
    if weight.format.rotation:
        x = rotate(x, weight.format.rotation)
    codes, scale = weight.data.view(torch.int8).T, weight.scales[0].flatten()
    ones = _int_mm(codes.new_ones(ROWS_OF_ONES, len(codes)), codes)[0]  # the sum of each row of the weight
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return _int8_tokens(x, codes, ones, scale, bias)
    result = x.new_empty(len(x), codes.shape[1])
    for start in range(0, len(x), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        result[part] = _int8_tokens(x[part], codes, ones, scale, bias)
    return result


def _int_mm(a: Tensor, b: Tensor) -> Tensor:
    return torch._int_mm(a, b)  # pyright: ignore[reportPrivateImportUsage] - torch has no public name for it


def _int8_tokens(x: Tensor, codes: Tensor, ones: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    tokens, token_scale, middle = as_int8(x)
    product = _int_mm(tokens, codes).float().mul_(token_scale).addcmul_(middle, ones.float())
    product = product.mul_(scale) if bias is None else torch.addcmul(bias.float(), product, scale)
    return product.to(x.dtype)


def e4m3_product(x: Tensor, weight: QuantizedTensor, bias: Tensor | None) -> Tensor:
    """By `torch._scaled_mm`, whose scales for rows go with a result in bfloat16 only."""
    tokens, token_scale = as_e4m3(x)
    codes = weight.data.view(torch.float8_e4m3fn)
    scale = weight.scales[0].flatten() if weight.scales else token_scale.new_ones(1)
    scale = scale.expand(1, len(codes)).contiguous()
    multiply = torch._scaled_mm  # pyright: ignore[reportPrivateImportUsage] - torch has no public name for it before 2.10
    product = multiply(tokens, codes.T, token_scale, scale, out_dtype=torch.bfloat16).to(x.dtype)
    return product if bias is None else product + bias


def kitchen_int8(x: Tensor, weight: QuantizedTensor, bias: Tensor | None) -> Tensor:
    """Rotation, rounding, product and scales by comfy-kitchen, which has them in two kernels."""
    form, scale = weight.format, weight.scales[0].flatten()
    options = (_dtype_code(x.dtype), bool(form.rotation), form.rotation or 256)
    return torch.ops.comfy_kitchen.int8_linear(x, weight.data.view(torch.int8), scale, bias, *options)


def kitchen_mxfp8(x: Tensor, weight: QuantizedTensor, bias: Tensor | None) -> Tensor:
    import comfy_kitchen

    half = _half(x)
    tokens, token_scales = comfy_kitchen.quantize_mxfp8(half, pad_32x=True)
    codes, scales = weight.data.view(torch.float8_e4m3fn), tiles(weight.scales[0]).view(torch.float8_e8m0fnu)
    product = comfy_kitchen.scaled_mm_mxfp8(tokens, codes, token_scales, scales, None, half.dtype)
    return _finished(product, x, bias)


def kitchen_nvfp4(x: Tensor, weight: QuantizedTensor, bias: Tensor | None) -> Tensor:
    import comfy_kitchen

    half = _half(x)
    whole = (half.abs().amax().float() / (448 * 6)).clamp(min=LEAST)  # largest scale of a block, largest code
    tokens, token_scales = comfy_kitchen.quantize_nvfp4(half, whole, pad_16x=True)
    scales = tiles(weight.scales[0]).view(torch.float8_e4m3fn)
    product = comfy_kitchen.scaled_mm_nvfp4(
        tokens, weight.data, whole, weight.scales[1], token_scales, scales, out_dtype=half.dtype
    )
    return _finished(product, x, bias)


def tiles(scales: Tensor) -> Tensor:
    """Scales of blocks (rows, blocks) in the order in which tensor cores read them, filled up."""
    shape = rounded_up(scales.shape[0], SWIZZLE_ROWS), rounded_up(scales.shape[1], SWIZZLE_COLUMNS)
    return swizzled(scales, shape)


def _half(x: Tensor) -> Tensor:
    return x.bfloat16() if x.dtype == torch.float32 else x


def _finished(product: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    """Without the tokens that were filled up, in the dtype of `x`, plus the bias."""
    product = product[: len(x)].to(x.dtype)
    return product if bias is None else product + bias


def _dtype_code(dtype: torch.dtype) -> int:
    """comfy-kitchen's number of a dtype."""
    return {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}[dtype]


# By a row's name
IMPLEMENTATIONS: dict[str, Product] = {
    "torch._int_mm": int8_product,
    "torch._scaled_mm": e4m3_product,
    "comfy-kitchen int8_linear": kitchen_int8,
    "comfy-kitchen scaled_mm_mxfp8": kitchen_mxfp8,
    "comfy-kitchen scaled_mm_nvfp4": kitchen_nvfp4,
}
