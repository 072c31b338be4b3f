"""Weights with scales of blocks, in plain order or that of tensor cores: against plain sums and comfy-kitchen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from quantised_files import json_tensor, kitchen, mxfp8, nvfp4
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from joyimage.checkpoints import convert, inspect, load_mmdit
from joyimage.checkpoints.files import open_weights
from joyimage.config import MMDiTConfig
from joyimage.errors import CheckpointError
from joyimage.mmdit import MMDiT
from joyimage.quantisation import layers
from joyimage.quantisation.formats import FORMATS, QUANTISED, Scale, why_kept
from joyimage.quantisation.tensor import UNPACK, QuantizedTensor, stored_tensor, swizzled, unswizzled

LAYOUTS = {"mxfp8": (mxfp8, "TensorCoreMXFP8Layout"), "nvfp4": (nvfp4, "TensorCoreNVFP4Layout")}
ODD = MMDiTConfig(96, 2, 2, text_dim=48, mlp_size=200, rope_dims=(8, 20, 20))  # 200 is no multiple of 16


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_every_quantised_format_can_be_unpacked():
    assert UNPACK.keys() == {form.name for form in FORMATS.values() if form.kind == QUANTISED}


# -- any shape of block -----------------------------------------------------------------------------------------------


def in_blocks(weight: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values in e4m3, scales of blocks, and the weight that they stand for, one block after the other."""
    down, across = -(-weight.shape[0] // rows), -(-weight.shape[1] // columns)
    values, scales, whole = torch.empty_like(weight), torch.empty(down, across), torch.empty_like(weight)
    for i in range(down):
        for j in range(across):
            part = slice(i * rows, (i + 1) * rows), slice(j * columns, (j + 1) * columns)
            scales[i, j] = weight[part].abs().max() / 448
            values[part] = (weight[part] / scales[i, j]).to(torch.float8_e4m3fn).float()
            whole[part] = values[part] * scales[i, j]
    return values.to(torch.float8_e4m3fn), scales, whole


@pytest.mark.parametrize("at_once", [2**24, 7 * 200, 1])
@pytest.mark.parametrize("rows, columns", [(128, 128), (1, 32), (64, 200), (300, 7), (16, 1000)])
def test_scales_of_any_blocks_are_cut_rightly(monkeypatch, rows, columns, at_once):
    """Rows and columns are no multiples of the blocks, and pieces end inside of blocks."""
    monkeypatch.setattr("joyimage.quantisation.tensor.UNPACKED_AT_ONCE", at_once)
    weight = draw(300, 200) * torch.logspace(-3, 3, 300)[:, None]
    values, scales, expected = in_blocks(weight, rows, columns)
    form = replace(FORMATS["float8_e4m3fn"], scales=(Scale(rows, columns),))
    packed = stored_tensor(values, [scales], form, (300, 200))
    assert torch.equal(packed.dense(torch.float32), expected)
    assert torch.equal(packed.dense(torch.bfloat16), expected.bfloat16())
    index = torch.tensor([299, 0, 127, 128, 299])
    assert torch.equal(packed.rows(index), expected[index])
    linear, embedding = layers.Linear(200, 300, bias=False), layers.Embedding(300, 200)
    linear.pack(packed)
    embedding.pack(packed)
    x = draw(5, 200, seed=1)
    torch.testing.assert_close(linear(x), x @ expected.T)
    assert torch.equal(embedding(index), expected[index])


def test_scales_of_two_kinds_of_blocks_are_both_applied(monkeypatch):
    monkeypatch.setattr("joyimage.quantisation.tensor.UNPACKED_AT_ONCE", 1000)
    values, scales, _ = in_blocks(draw(300, 200), 128, 128)
    rows, columns = draw(300, 1, seed=1), draw(1, 10, seed=2)
    kinds = Scale(rows=1), Scale(columns=20), Scale(128, 128)
    packed = stored_tensor(values, [rows, columns, scales], replace(FORMATS["float8_e4m3fn"], scales=kinds), (300, 200))
    blocks = scales.repeat_interleave(128, 0)[:300].repeat_interleave(128, 1)[:, :200]
    expected = values.float() * rows * columns.repeat_interleave(20, 1) * blocks
    torch.testing.assert_close(packed.dense(torch.float32), expected)


def test_scales_of_blocks_can_be_scaled_again():
    weight = draw(300, 200)
    values, scales, expected = in_blocks(weight, 128, 128)
    form = replace(FORMATS["float8_e4m3fn"], scales=(Scale(128, 128), Scale(suffix="_scale_2")))
    packed = QuantizedTensor(values.view(torch.uint8), (scales, torch.tensor(0.5)), form, (300, 200))
    assert torch.equal(packed.dense(torch.float32), expected / 2)
    layer = layers.Linear(200, 300, bias=False)
    layer.pack(packed)
    assert {name for name, _ in layer.named_buffers()} == {"weight_scale", "weight_scale_2"}
    assert torch.equal(layer.packed.dense(torch.float32), expected / 2)


def test_scales_of_tensor_cores_there_and_back():
    scales = torch.randint(0, 256, (200, 9), dtype=torch.uint8)
    assert torch.equal(unswizzled(swizzled(scales, (256, 12)))[:200, :9], scales)


# -- ComfyUI's mxfp8 and nvfp4 ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network() -> MMDiT:
    torch.manual_seed(0)
    model = MMDiT(ODD)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


def matrices(model: MMDiT) -> list[str]:
    return [name for name, tensor in model.state_dict().items() if not why_kept("mmdit", name, tuple(tensor.shape))]


def velocity(model: MMDiT) -> Tensor:
    return model(draw(1, 16, 1, 4, 6), torch.tensor([731.25]), draw(1, 5, 48), [draw(1, 16, 1, 4, 4, seed=2)])


@pytest.mark.parametrize("form", LAYOUTS)
def test_a_file_gives_what_comfy_kitchen_makes_of_it(network, tmp_path, form):
    """To the bit, weights and velocity, where both sides of some matrices are filled up."""
    save, layout = LAYOUTS[form][0], kitchen(LAYOUTS[form][1])
    path = save(tmp_path / "a", network.state_dict(), matrices(network))
    loaded, reference = load_mmdit(path, dtype=torch.float32), load_mmdit(path, dtype=torch.float32)
    assert loaded.config == ODD
    for name in matrices(network):
        weight = network.get_parameter(name)
        rows, columns = weight.shape
        expected = layout.dequantize(*layout.quantize(weight))[:rows, :columns]
        packed = loaded.get_submodule(name.removesuffix(".weight")).packed
        assert packed.shape == (rows, columns) and packed.data.dtype == torch.uint8
        assert torch.equal(packed.dense(torch.float32), expected)
        reference.get_submodule(name.removesuffix(".weight")).weight = nn.Parameter(expected, requires_grad=False)
    assert torch.equal(velocity(loaded), velocity(reference))
    (part,) = inspect(path).parts
    assert not part.problem and part.dtypes[form] == len(matrices(network))


def raw(tensor: Tensor) -> tuple:
    return tensor.dtype, tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("form", LAYOUTS)
def test_a_file_is_converted_there_and_back(network, tmp_path, form):
    """As it is, to the byte in all but notes; and into another format from what it stands for."""
    save, _ = LAYOUTS[form]
    path = save(tmp_path / "a.safetensors", network.state_dict(), matrices(network))
    convert(path, tmp_path / "b.safetensors")
    before, after = load_file(path), load_file(tmp_path / "b.safetensors")
    assert after.keys() == {name for name in before if not name.endswith(".comfy_quant")}
    assert all(raw(after[name]) == raw(before[name]) for name in after)
    convert(path, tmp_path / "c.safetensors", format="fp32")
    loaded = [load_mmdit(tmp_path / f"{name}.safetensors", dtype=torch.float32) for name in "abc"]
    assert torch.equal(velocity(loaded[0]), velocity(loaded[1]))
    for name in matrices(network):
        packed = loaded[0].get_submodule(name.removesuffix(".weight")).packed
        assert torch.equal(packed.dense(torch.float32), loaded[2].get_parameter(name))
    # some processors add up in another order where a matrix lies elsewhere in memory
    torch.testing.assert_close(velocity(loaded[0]), velocity(loaded[2]), atol=1e-5, rtol=1e-5)


def spoiled(network: MMDiT, folder: Path, form: str, change: Callable[[dict[str, Tensor], str], None]) -> Path:
    path = LAYOUTS[form][0](folder / "a", network.state_dict(), matrices(network))
    state = load_file(path)
    change(state, "double_blocks.0.attn.img_attn_qkv.weight")
    save_file(state, path)
    return path


@pytest.mark.parametrize("form", LAYOUTS)
def test_scales_that_are_missing_or_of_another_shape_are_refused(network, tmp_path, form):
    path = spoiled(network, tmp_path, form, lambda state, name: state.pop(f"{name}_scale"))
    with pytest.raises(CheckpointError, match=rf"stored as {form} without weight_scale, which is not supported"):
        load_mmdit(path)
    path = spoiled(network, tmp_path, form, lambda state, name: state.update({f"{name}_scale": torch.ones(3, 4)}))
    with pytest.raises(CheckpointError, match=rf"stored as {form} with scales \(3, 4\)"):
        load_mmdit(path)
    path = spoiled(
        network, tmp_path, form, lambda state, name: state.update({f"{name}_scale": state[f"{name}_scale"].float()})
    )
    with pytest.raises(CheckpointError, match=r"with scales \(\d+, \d+\) float32"):
        load_mmdit(path)
    path = spoiled(network, tmp_path, form, lambda state, name: state.update({name: state[name].view(torch.int8)}))
    with pytest.raises(CheckpointError, match=rf"stored as {form} in int8, which is not supported"):
        load_mmdit(path)


def test_the_note_may_be_in_the_header_and_the_scales_be_bytes(network, tmp_path):
    path = mxfp8(tmp_path / "a", network.state_dict(), matrices(network))
    state = {name: tensor for name, tensor in load_file(path).items() if not name.endswith(".comfy_quant")}
    state = {name: t.view(torch.uint8) if name.endswith("_scale") else t for name, t in state.items()}
    layers = {name.removesuffix(".weight"): {"format": "mxfp8"} for name in matrices(network)}
    save_file(state, tmp_path / "b", metadata={"_quantization_metadata": json.dumps({"layers": layers})})
    loaded = [load_mmdit(file, dtype=torch.float32) for file in (tmp_path / "b", path)]
    assert torch.equal(velocity(loaded[0]), velocity(loaded[1]))


def test_what_else_lies_beside_a_layer_is_not_passed_over(network, tmp_path):
    """Factors of the inputs that are no scales of the weight."""
    path = spoiled(
        network, tmp_path, "nvfp4", lambda state, name: state.update({f"{name[:-7]}.pre_quant_scale": torch.ones(96)})
    )
    with pytest.raises(CheckpointError, match=r"1 unexpected: .*pre_quant_scale"):
        load_mmdit(path)
    assert open_weights(path).info["double_blocks.0.attn.img_attn_qkv.weight"].shape == (288, 96)


def test_a_note_of_a_layer_without_its_kind_of_weight_is_no_matter(network, tmp_path):
    path = spoiled(
        network, tmp_path, "mxfp8", lambda state, name: state.update({"img_in.comfy_quant": json_tensor({"a": 1})})
    )
    with pytest.raises(CheckpointError, match=r"1 unexpected: img_in\.comfy_quant"):
        load_mmdit(path)
