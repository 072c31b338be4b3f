"""Quantisers, through the readers of the packages that define the formats."""

from __future__ import annotations

import gguf
import pytest
import torch

from joyimage.config import MMDiTConfig
from joyimage.errors import JoyImageError
from joyimage.mmdit import MMDiT
from joyimage.quantisation.formats import why_kept
from joyimage.quantisation.recipes import CONVERSIONS, FALLBACK, conversion
from joyimage.quantisation.tensor import rotate

LAYER = "double_blocks.0.attn.img_attn_qkv.weight"
# bounds of the root mean square error, relative to that of normally distributed weights
NORMAL_ERROR = {
    "Q2_K": 0.275,
    "Q3_K": 0.147,
    "Q4_K": 0.0735,
    "Q5_K": 0.0375,
    "Q6_K": 0.0180,
    "Q4_0": 0.095,
    "Q4_1": 0.085,
    "Q5_0": 0.046,
    "Q5_1": 0.041,
    "Q8_0": 0.0060,
}


def weights(kind: str, rows: int = 64, columns: int = 512) -> torch.Tensor:
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) * 0.02
    return {"normal": x, "positive": x.abs() + 0.01, "outlier": x + (torch.arange(columns) % 97 == 3) * x * 30}[kind]


def recipe(name: str, shape: tuple[int, ...]):
    return CONVERSIONS[name].recipe("mmdit", LAYER, shape, "float32")


def through(name: str, x: torch.Tensor) -> torch.Tensor:
    """Quantised, then read by the gguf package."""
    made = recipe(f"gguf:{name}", tuple(x.shape))
    (data,) = made.encode(x)
    assert (made.pieces[0].type, made.pieces[0].nbytes) == (name, data.nbytes)
    return torch.from_numpy(gguf.quants.dequantize(data.numpy(), gguf.GGMLQuantizationType[name]))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("name, bound", NORMAL_ERROR.items())
def test_block_types_keep_normal_weights(name, bound):
    x = weights("normal")
    assert relative(through(name, x), x) < bound


@pytest.mark.parametrize("kind", ["positive", "outlier"])
@pytest.mark.parametrize("name", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_k_types_keep_odd_distributions_no_worse_than_twice(name, kind):
    x = weights(kind)
    assert relative(through(name, x), x) < 2 * NORMAL_ERROR[name]


@pytest.mark.parametrize("name", NORMAL_ERROR)
@pytest.mark.parametrize("value", [0.0, 0.75, -0.75, 1e-8])
def test_constant_blocks_survive(name, value):
    x = torch.full((4, 256), value)
    x[1] = 0
    read = through(name, x)
    assert read[1].count_nonzero() == 0
    assert (read - x).abs().max() <= max(0.07 * abs(value), 2e-7)


def test_quantised_rows_do_not_depend_on_their_neighbours():
    x = weights("outlier", rows=3)
    together, alone = through("Q4_K", x), through("Q4_K", x[1:2])
    assert torch.equal(together[1:2], alone)


def test_fp8_uses_its_whole_range():
    x = weights("normal")
    values, scale = recipe("fp8", tuple(x.shape)).encode(x)
    assert values.float().abs().max() == 448
    assert relative(values.float() * scale, x) < 0.028


def test_fp8_of_zeros_is_zeros():
    values, scale = recipe("fp8", (4, 16)).encode(torch.zeros(4, 16))
    assert values.float().count_nonzero() == 0 and scale == 1


@pytest.mark.parametrize("columns, group", [(512, 256), (192, 64), (48, 16), (24, 0)])
def test_int8_is_what_comfy_kitchen_makes(columns, group):
    quantization = pytest.importorskip("comfy_kitchen.backends.eager.quantization")
    x = weights("outlier", columns=columns)
    made = recipe("int8", tuple(x.shape))
    values, scale = made.encode(x)
    if group:
        theirs = quantization.quantize_int8_convrot_weight(x, group)
        back = rotate(values.float() * scale, group)
    else:
        theirs = quantization.quantize_int8_rowwise(x)
        back = values.float() * scale
    assert made.settings.get("convrot_groupsize", 0) == group
    assert (values.int() - theirs[0].int()).abs().max() <= 1 and (values != theirs[0]).float().mean() < 1e-4
    torch.testing.assert_close(scale, theirs[1], rtol=1e-5, atol=0)
    assert relative(back, x) < 0.02


def test_a_large_weight_is_quantised_in_pieces_that_change_nothing():
    x = weights("normal", rows=4200, columns=512)  # three chunks
    values, scale = recipe("int8", tuple(x.shape)).encode(x)
    some, its_scale = recipe("int8", (8, 512)).encode(x[4192:])
    assert torch.equal(values[4192:], some) and torch.equal(scale[4192:], its_scale)


@pytest.mark.parametrize("name, fallback", FALLBACK.items())
def test_rows_that_are_no_super_blocks_fall_back(name, fallback):
    assert recipe(f"gguf:{name}", (8, 96)).pieces[0].type == fallback
    plain = recipe(f"gguf:{name}", (8, 40))
    assert plain.pieces[0].type == "F32" and "blocks" in plain.kept


def test_every_sensitive_weight_is_kept():
    with torch.device("meta"):
        network = MMDiT(MMDiTConfig(32, 2, 2, 16, 16, 24, 128, (1, 2, 2), (4, 6, 6)))
    quantised = {name for name, p in network.named_parameters() if why_kept("mmdit", name, tuple(p.shape)) is None}
    layers = ("attn.{}_attn_qkv", "attn.{}_attn_proj", "{}_mlp.net.0.proj", "{}_mlp.net.2")
    assert quantised == {
        f"double_blocks.{i}.{layer.format(stream)}.weight"
        for i in (0, 1)
        for layer in layers
        for stream in ("img", "txt")
    }


@pytest.mark.parametrize(
    "name, kept",
    [
        ("model.language_model.layers.3.mlp.up_proj.weight", False),
        ("model.visual.blocks.0.attn.qkv.weight", False),
        ("model.language_model.embed_tokens.weight", True),
        ("lm_head.weight", True),
        ("model.visual.pos_embed.weight", True),
        ("model.visual.merger.linear_fc2.weight", True),
        ("model.visual.deepstack_merger_list.1.linear_fc1.weight", True),
    ],
)
def test_the_encoder_keeps_its_first_and_last_layers(name, kept):
    assert bool(why_kept("encoder", name, (64, 64))) == kept


def test_formats_have_names_in_any_case_and_others_are_refused():
    assert conversion("GGUF:q4_k") is CONVERSIONS["gguf:Q4_K"]
    with pytest.raises(JoyImageError, match=r"unknown format 'q4'; choose one of fp32, .*gguf:Q4_K"):
        conversion("q4")


def test_conversions_are_called_what_they_are_asked_for_by():
    assert {name: made.name for name, made in CONVERSIONS.items()} == {name: name for name in CONVERSIONS}
