"""Products with quantised weights, against the same weights made floating point first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from joyimage.precision import native
from joyimage.quantisation import products
from joyimage.quantisation.formats import FORMATS, ROWS, SQUARES, WHOLE
from joyimage.quantisation.tensor import QuantizedTensor, numbers, rotate, stored_tensor

IN, OUT = 512, 96
SCALES = {"none": (), "whole": (WHOLE,), "rows": (ROWS,)}
CODES = {name: FORMATS[name] for name in products.CODES}


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def quantised(name: str, scales: str) -> QuantizedTensor:
    """Random codes of a format, over all of its range, with scales that are no powers of two."""
    form = replace(CODES[name], scales=SCALES[scales])
    data = (draw(OUT, IN, seed=1) * 40).clamp(-127, 127).to(products.CODES[name])
    count = {"none": 0, "whole": 1, "rows": OUT}[scales]
    scale = draw(max(1, count), seed=2).abs() * 0.01 + 0.003
    return stored_tensor(data, [scale.view(kind.shape((OUT, IN))) for kind in form.scales], form, (OUT, IN))


def error(value: Tensor, wanted: Tensor) -> float:
    return ((value.float() - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tokens", [1, 40, 200])  # fewer and more than the weight has rows: what is rotated differs
@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("name", CODES)
def test_the_scale_may_wait_until_after_the_product(name, scales, tokens, bias):
    weight, x = quantised(name, scales), draw(2, tokens, IN, seed=3)
    offset = draw(OUT, seed=4) if bias else None
    assert products.scaled_after(weight, torch.float32)
    wanted = F.linear(x, weight.dense(torch.float32), offset)
    assert error(products.linear(x, weight, offset), wanted) < 2e-6


@pytest.mark.parametrize("name", CODES)
def test_in_bf16_it_rounds_no_more_than_a_weight_made_floating_point(name):
    if not native(torch.bfloat16, "cpu"):
        pytest.skip("this processor has no instructions for bf16")
    weight, x, bias = quantised(name, "rows"), draw(4, 64, IN, seed=3), draw(OUT, seed=4)
    x, bias = x.bfloat16(), bias.bfloat16()
    wanted = F.linear(x.float(), weight.dense(torch.float32), bias.float())
    turned = rotate(x, weight.format.rotation) if weight.format.rotation else x
    before = error(F.linear(turned, weight.dense_rotated(torch.bfloat16), bias), wanted)
    assert error(products.linear(x, weight, bias), wanted) < 1.1 * before


@pytest.mark.parametrize("name", CODES)
def test_in_float16_large_codes_do_not_overflow(name):
    weight = quantised(name, "rows")
    x = torch.full((3, IN), 4.0).half()
    largest = {"float8_e4m3fn": 0x7E, "float8_e5m2": 0x7B}.get(name, 0x7F)  # 448, 57344, 127
    large = replace(weight, data=torch.full_like(weight.data, largest))
    large = replace(large, scales=(large.scales[0] * 1e-4,))
    assert not products.scaled_after(large, torch.float16)
    assert products.linear(x, large, None).isfinite().all()


def test_scales_of_blocks_do_not_wait():
    form = replace(FORMATS["float8_e4m3fn"], scales=(SQUARES,))
    scale = draw(*SQUARES.shape((OUT, IN)), seed=2).abs()
    weight = stored_tensor(draw(OUT, IN, seed=1).to(torch.float8_e4m3fn), [scale], form, (OUT, IN))
    x = draw(3, IN, seed=3)
    assert not products.scaled_after(weight, torch.float32)
    assert error(products.linear(x, weight, None), x @ weight.dense(torch.float32).T) < 1e-6


@pytest.mark.parametrize("name", CODES)
def test_gradients_pass_through_a_quantised_product(name):
    weight, x = quantised(name, "rows"), draw(5, IN, seed=3).requires_grad_()
    upstream = draw(5, OUT, seed=6)
    products.linear(x, weight, draw(OUT, seed=4)).backward(upstream)
    assert x.grad is not None
    assert error(x.grad, upstream @ weight.dense(torch.float32)) < 2e-6


@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_bytes_become_the_numbers_that_torch_makes_of_them(stored, dtype):
    data = torch.arange(256, dtype=torch.uint8).view(16, 16)
    torch.testing.assert_close(
        numbers(data, stored, dtype), data.view(stored).to(dtype), rtol=0, atol=0, equal_nan=True
    )
