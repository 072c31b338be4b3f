"""Products with quantised weights, against the same weights made floating point first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from joyimage.precision import native
from joyimage.quantisation import layers, products
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


def test_gradients_pass_through_a_rotation_that_an_inference_has_made():
    with torch.inference_mode():
        rotate(draw(3, 64, seed=3).double(), 64)
    x = draw(3, 64, seed=3).double().requires_grad_()
    rotate(x, 64).square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())


def test_a_compiler_takes_the_matrix_of_a_rotation_as_it_is():
    graphs = []

    def backend(graph, inputs):
        graphs.append([str(node.target) for node in graph.graph.nodes if node.op.startswith("call")])
        return graph.forward

    layers.Linear(IN, OUT).pack(quantised("int8_convrot", "rows"))  # which tells the compiler
    x = draw(3, 256, seed=3)
    turned = torch.compile(lambda x: rotate(x, 256), backend=backend, fullgraph=True)(x)
    torch.testing.assert_close(turned, rotate(x, 256))
    assert len(graphs) == 1 and len(graphs[0]) == 3  # groups, the product, and back


# -- in parts ---------------------------------------------------------------------------------------------------------

QUANTISED = sorted(name for name, form in FORMATS.items() if form.kind == "quantised")


def any_weight(name: str) -> QuantizedTensor:
    """Bytes of any format whose numbers are finite, with scales where it has them."""
    form = CODES.get(name, FORMATS[name])
    form = replace(form, scales=(SQUARES,)) if name == "float8_e4m3fn" else form
    form = replace(form, scales=(ROWS,)) if name in CODES and not form.scales else form
    count = form.nbytes((OUT, IN)) // OUT
    data = (torch.arange(OUT * count) * 7 % 61).to(torch.uint8).view(OUT, count)  # halves of any two stay finite
    scales = [(draw(*kind.shape((OUT, IN)), seed=2).abs() + 0.1) for kind in form.scales]
    stored = [
        s if kind.dtype == "float32" else (s * 8).to(torch.uint8) for s, kind in zip(scales, form.scales, strict=True)
    ]
    return QuantizedTensor(data, tuple(stored), form, (OUT, IN))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", QUANTISED)
def test_a_processor_works_in_parts_that_its_cache_holds(name, dtype, monkeypatch):
    weight, x, bias = any_weight(name), draw(3, IN, seed=3).to(dtype), draw(OUT, seed=4).to(dtype)
    turned = rotate(x.float(), weight.format.rotation) if weight.format.rotation else x.float()
    whole = products._product(turned, weight, bias.float(), False)
    monkeypatch.setattr(products, "PART_FOR_FEW", 10 * IN)
    monkeypatch.setattr(products, "READ_AS_BYTES", 0)
    parts = list(weight.parts(products.PART_FOR_FEW))
    assert len(parts) > 1 or SQUARES in weight.format.scales
    result = products.exact(x, weight, bias)
    assert result.dtype == dtype
    step = {torch.float32: 2e-5, torch.bfloat16: 2**-7}[dtype]  # of a number's last bit, on which two sums may differ
    torch.testing.assert_close(result, whole.to(dtype), rtol=step, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["float8_e4m3fn", "Q8_0"])
def test_a_few_tokens_in_half_precision_are_rounded_once(name, dtype):
    weight, x = any_weight(name), draw(3, IN, seed=3).to(dtype)
    wanted = (x.double() @ weight.dense(torch.float32).double().T).to(dtype)
    assert (products.exact(x, weight, None) == wanted).float().mean() > 0.98


def test_parts_end_where_scales_of_squares_do():
    weight = replace(any_weight("float8_e4m3fn"), shape=(300, IN), data=torch.zeros(300, IN, dtype=torch.uint8))
    weight = replace(weight, scales=(draw(3, 4, seed=2),))
    parts = list(weight.parts(10 * IN))
    assert [(rows.start, rows.stop) for rows in parts] == [(0, 128), (128, 256), (256, 384)]
    assert [weight.part(rows).shape for rows in parts] == [(128, IN), (128, IN), (44, IN)]
    assert torch.equal(weight.part(parts[2]).scales[0], weight.scales[0][2:])


@pytest.mark.parametrize("tokens", [1, products.READ_AS_BYTES])
@pytest.mark.parametrize("name", ["int8", "int8_convrot"])
def test_a_few_tokens_in_bf16_read_int8_as_it_is_and_stay_exact(name, tokens, monkeypatch):
    weight, x, bias = quantised(name, "rows"), draw(tokens, IN, seed=3).bfloat16(), draw(OUT, seed=4).bfloat16()
    wanted = F.linear(x.float(), weight.dense(torch.float32), bias.float())
    called = []
    original = torch._weight_int8pack_mm
    monkeypatch.setattr(torch, "_weight_int8pack_mm", lambda *given: (called.append(1), original(*given))[1])
    read = error(products.exact(x, weight, bias), wanted)
    turned = rotate(x, weight.format.rotation) if weight.format.rotation else x
    assert read < 1.1 * error(products._product(turned, weight, bias, False), wanted)
    assert called == [1]


@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_bytes_become_the_numbers_that_torch_makes_of_them(stored, dtype):
    data = torch.arange(256, dtype=torch.uint8).view(16, 16)
    torch.testing.assert_close(
        numbers(data, stored, dtype), data.view(stored).to(dtype), rtol=0, atol=0, equal_nan=True
    )
