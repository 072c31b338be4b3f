"""What networks compute in where a processor has no instructions for what their files hold."""

from __future__ import annotations

import warnings

import psutil
import pytest
import torch

from joyimage import JoyImage, precision, spatial, tiny
from joyimage.checkpoints import load_encoder, load_mmdit, load_vae
from joyimage.demo import asset
from joyimage.memory.budget import itemsize
from joyimage.quantisation.layers import Linear

QUESTION = "How many objects are there?"


@pytest.fixture
def plain_processor(monkeypatch):
    """A processor that computes in float32 alone."""
    monkeypatch.setattr(
        precision, "native", lambda dtype, device: dtype == torch.float32 or str(device or "cpu") != "cpu"
    )


@pytest.fixture
def layer_by_layer(plain_processor, monkeypatch):
    """And networks that are too large to be cast whole."""
    monkeypatch.setattr("joyimage.checkpoints.load.WHOLE", 0)


@pytest.mark.parametrize(
    ("flags", "bfloat16", "float16"),
    [
        ((), False, False),
        (("_is_avx512_bf16_supported",), True, False),
        (("_is_amx_tile_supported",), True, False),
        (("_is_amx_tile_supported", "_is_amx_fp16_supported"), True, True),
    ],
)
def test_what_a_processor_can_is_asked_of_it(monkeypatch, flags, bfloat16, float16):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_amx_fp16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda can=name in flags: can, raising=False)
    assert precision.native(torch.bfloat16, "cpu") is precision.native(torch.bfloat16, None) is bfloat16
    assert precision.native(torch.float16, "cpu") is float16
    assert precision.native(torch.float32, "cpu") and precision.native(torch.bfloat16, "cuda")


def test_older_torch_that_cannot_tell_computes_in_float32(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert precision.compute_dtype(None, torch.bfloat16, "cpu") == torch.float32


def test_a_dtype_that_is_asked_for_is_obeyed_with_a_note(plain_processor):
    with pytest.warns(UserWarning, match="bfloat16 as asked.*no instructions"):
        model = load_mmdit(tiny.FILES["mmdit"], dtype=torch.bfloat16)
    assert model.double_blocks[0].attn.img_attn_qkv.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("native", [True, False])
def test_without_one_the_files_own_is_taken_where_it_is_fast(monkeypatch, native):
    monkeypatch.setattr(precision, "native", lambda *_: native)
    expected = torch.bfloat16 if native else torch.float32
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mmdit = load_mmdit(tiny.FILES["mmdit"])
        encoder = load_encoder(tiny.FILES["encoder"], tiny.TOKENIZER)
        vae = load_vae(tiny.FILES["vae"])
    assert mmdit.double_blocks[0].attn.img_attn_qkv.weight.dtype == expected
    assert encoder.encode(["a cube"])[0].dtype == expected
    assert next(vae.parameters()).dtype == (torch.float16 if native else torch.float32)


def test_a_gpu_decides_although_the_weights_lie_in_main_memory(plain_processor):
    model = load_mmdit(tiny.FILES["mmdit"], device="cpu", compute_device="cuda")
    assert {p.dtype for p in model.double_blocks.parameters()} == {torch.bfloat16}


def test_matrices_stay_as_the_file_has_them(layer_by_layer):
    path = tiny.FILES["mmdit"]
    model = load_mmdit(path)
    layers = [m for m in model.double_blocks.modules() if isinstance(m, Linear)]
    assert {layer.weight.dtype for layer in layers} == {torch.bfloat16}
    places = [m.addr for m in psutil.Process().memory_maps(grouped=False) if m.path == str(path)]
    spans = [range(*(int(end, 16) for end in place.split("-"))) for place in places]
    assert all(any(layer.weight.data_ptr() in span for span in spans) for layer in layers)  # views of the mapped file
    kept = {layer.weight for layer in layers}
    assert {p.dtype for p in model.double_blocks.parameters() if p not in kept} == {torch.float32}
    assert itemsize(model) == 4  # bytes of its activations


@pytest.mark.slow
def test_results_are_those_of_networks_cast_whole(layer_by_layer):
    whole = JoyImage.load("tiny")
    parts = {part: tiny.FILES[part] for part in ("mmdit", "vae", "encoder")}
    model = JoyImage.load(**parts, tokenizer=tiny.TOKENIZER, device="cpu")
    assert model.encoder.model.lm_head.weight.dtype == torch.bfloat16
    assert model.dtype == torch.float32
    boxed = spatial.draw_box(asset("move.png"), (27, 6, 43, 28))
    options = {"steps": 2, "base_size": 64, "output": "latent"}
    ours, theirs = (one.edit(boxed, spatial.move_object("pink cylinder"), **options) for one in (model, whole))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    answers = {one.ask(asset("rotate.png"), QUESTION, temperature=0) for one in (model, whole)}
    assert len(answers) == 1 and answers != {""}
