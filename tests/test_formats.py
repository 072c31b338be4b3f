"""Quantised weights: parity with the packages that define the formats, where they lie in memory, what is refused."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gguf
import loadable
import numpy as np
import psutil
import pytest
import torch
from loadable import FORMATS, chosen, draw, velocity
from quantised_files import gguf_of, gguf_of_zeros, int8_convrot, json_tensor, kitchen, newer, write_gguf
from safetensors.torch import load_file, save_file
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from joyimage.checkpoints import inspect, load_mmdit
from joyimage.checkpoints.files import open_weights
from joyimage.config import MMDiTConfig
from joyimage.errors import CheckpointError
from joyimage.mmdit import MMDiT
from joyimage.quantisation import layers
from joyimage.quantisation.formats import FORMATS as STORED
from joyimage.quantisation.formats import Format, Scale
from joyimage.quantisation.tensor import UNPACK, QuantizedTensor, rotate, stored_tensor

State = dict[str, Tensor]
MMDIT = MMDiTConfig(256, 2, 2, text_dim=256, mlp_size=256)


@pytest.fixture(scope="module")
def mmdit() -> MMDiT:
    return loadable.mmdit()


# --- parity with the packages that define the formats ---


BLOCKS = {form.number: form for form in STORED.values() if form.ggml}


@pytest.mark.parametrize("number", [number for number, form in BLOCKS.items() if form.supported])
def test_blocks_equal_the_gguf_package_to_the_bit(number):
    form, kind = BLOCKS[number], gguf.GGMLQuantizationType(number)
    assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (form.name, (form.block, form.block_bytes))
    data = finite_blocks(form)
    expected = gguf.dequantize(data, kind)
    assert np.isfinite(expected).all()
    got = UNPACK[form.name](torch.from_numpy(data), (), form).numpy()
    assert np.array_equal(got.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("form", STORED.values(), ids=lambda form: form.name)
def test_sizes_codes_and_numbers_are_those_of_torch_safetensors_and_gguf(form):
    """Of what is refused too: without its size a file would be called damaged."""
    if form.number is not None:
        kind = gguf.GGMLQuantizationType(form.number)
        assert gguf.GGML_QUANT_SIZES[kind] == (form.block, form.block_bytes)
        assert form.code or kind.name == form.name
    if form.code:
        tensor = torch.zeros(3, dtype=newer(form.name))
        assert tensor.element_size() == form.block_bytes and form.block == 1
        data = safetensors_bytes({"a": tensor})
        assert json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["a"]["dtype"] == form.code
        exponents_alone = form.name == "float8_e8m0fnu"
        assert form.floating == (tensor.is_floating_point() and not exponents_alone)


@pytest.mark.parametrize("shape", [(), (1,), (6,), (2, 3), (2, 3, 5, 7)])
def test_weights_of_any_shape_have_their_scales(shape):
    weight = draw(*shape).to(torch.float8_e4m3fn)
    rows = shape[0] if shape else 1
    scales = torch.linspace(0.5, 2, rows)
    for scale, kind in [(torch.tensor(0.25), Scale()), (scales, Scale(rows=1)), (torch.tensor([3.0]), Scale(128, 128))]:
        form = replace(STORED["float8_e4m3fn"], scales=(kind,))
        each = scale.reshape(-1, *[1] * (len(shape) - 1)) if kind.rows == 1 and shape else scale.reshape(-1)[0]
        got = stored_tensor(weight, (scale,), form, shape).dense(torch.float32)
        torch.testing.assert_close(got, weight.float() * each)


def finite_blocks(form: Format) -> np.ndarray:
    """(16, 3 blocks) random bytes; every two bytes lose the top bit of float16's exponent, so no scale is infinite."""
    data = np.random.default_rng(0).integers(0, 256, (64, 3 * form.block_bytes), dtype=np.uint8)
    kind = gguf.GGMLQuantizationType[form.name]
    with np.errstate(all="ignore"):
        return data[np.isfinite(gguf.dequantize(data, kind)).all(1)][:16]


@pytest.mark.parametrize("group", [0, 16, 64, 256])
def test_int8_equals_comfy_kitchen(group):
    weight = draw(96, 512)
    options = {"convrot": True, "convrot_groupsize": group} if group else {}
    layout = kitchen("TensorWiseINT8Layout")
    data, params = layout.quantize(weight, per_channel=True, **options)
    form = replace(STORED["int8_convrot" if group else "int8"], scales=(Scale(rows=1),), rotation=group)
    packed = QuantizedTensor(data.view(torch.uint8), (params.scale,), form, (96, 512))
    reference = layout.dequantize(data, params)
    assert (packed.dense(torch.float32) - reference).abs().max() <= 1e-5
    layer, x = layers.Linear(512, 96, bias=False), draw(7, 512, seed=2)
    layer.pack(packed)
    assert loadable.error([layer(x)], [x @ reference.T]) <= 1e-5
    embedding = layers.Embedding(96, 512)
    embedding.pack(packed)
    assert (embedding(torch.tensor([[3, 95], [0, 3]])) - reference[[3, 95, 0, 3]].view(2, 2, 512)).abs().max() <= 1e-5


def test_rotating_twice_gives_the_same():
    assert (rotate(rotate(draw(5, 512), 256), 256) - draw(5, 512)).abs().max() <= 1e-5


def test_large_weights_are_made_floating_point_in_pieces(monkeypatch):
    packed = QuantizedTensor(torch.randint(0, 256, (33, 34 * 4), dtype=torch.uint8), (), STORED["Q8_0"], (33, 128))
    packed.data[:, 1::34] &= 0x3F  # finite scales
    whole = packed.dense(torch.bfloat16)
    monkeypatch.setattr("joyimage.quantisation.tensor.UNPACKED_AT_ONCE", 256)
    assert torch.equal(packed.dense(torch.bfloat16), whole)


# --- what files do differently ---


@pytest.mark.parametrize("architecture", ["wan", "joyimage", "llama"])
def test_gguf_architecture_does_not_matter(mmdit, tmp_path, architecture):
    state = mmdit.state_dict()
    path = write_gguf(tmp_path / "a", state, chosen("mmdit", state), "Q8_0", architecture)
    assert loadable.error(velocity(load_mmdit(path, dtype=torch.float32)), velocity(mmdit)) <= 1e-2


def test_flattened_kernels_get_their_shape_back(mmdit, tmp_path):
    state = mmdit.state_dict()
    path = write_gguf(tmp_path / "a", state | {"img_in.weight": state["img_in.weight"].flatten(1)}, [], "F16")
    assert loadable.error(velocity(load_mmdit(path, dtype=torch.float32)), velocity(mmdit)) <= 1e-3


def test_quantised_weights_stay_where_they_lie(mmdit, tmp_path):
    state = mmdit.state_dict()
    for form in ("fp8", "int8, rows", "Q4_K"):
        path = FORMATS[form].write(tmp_path / "a", state, chosen("mmdit", state))
        weights = open_weights(path)
        names = chosen("mmdit", state)
        expected = sum(weights.info[name].nbytes for name in names)
        loaded = load_mmdit(path)
        layers = [loaded.get_submodule(name.removesuffix(".weight")) for name in names]
        assert sum(layer.weight.nbytes for layer in layers) == expected
        mapped = [addresses(m.addr) for m in psutil.Process().memory_maps(grouped=False) if m.path == str(path)]
        assert all(any(layer.weight.data_ptr() in span for span in mapped) for layer in layers)


def addresses(text: str) -> range:
    """Of a line in /proc/self/maps: "7f00-7fff"."""
    return range(*(int(end, 16) for end in text.split("-")))


def test_converting_the_dtype_leaves_quantised_weights_alone(mmdit, tmp_path):
    path = FORMATS["fp8, rows"].write(tmp_path / "a", mmdit.state_dict(), chosen("mmdit", mmdit.state_dict()))
    loaded = load_mmdit(path)
    layer = loaded.double_blocks[0].attn.img_attn_qkv
    before = layer.weight.clone()
    loaded.to(torch.float16)
    assert torch.equal(layer.weight, before) and layer.weight.dtype == torch.uint8


def test_inspect_tells_formats_by_kind_of_layer(mmdit, tmp_path):
    path = FORMATS["Q4_K"].write(tmp_path / "a", mmdit.state_dict(), chosen("mmdit", mmdit.state_dict()))
    (part,) = inspect(path).parts
    assert part.kinds["attention"] == {"Q4_K": 8} and part.kinds["MLP"] == {"Q4_K": 8}
    assert part.kinds["modulation tables"] == {"float16": 4}
    assert "attention: 8 Q4_K" in str(part) and len(str(part).splitlines()) < 24


# --- what is refused ---

BAD_LAYERS = {
    "not supported": {"format": "convrot_w4a4"},
    "power of 4": {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 48},
    "in groups of 4096": {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 4096},
}


@pytest.mark.parametrize("message", BAD_LAYERS)
def test_unusable_descriptions_are_named(mmdit, tmp_path, message):
    state = mmdit.state_dict()
    tensors = load_file(int8_convrot(tmp_path / "a", state, chosen("mmdit", state)))
    tensors["double_blocks.0.attn.img_attn_qkv.comfy_quant"] = json_tensor(BAD_LAYERS[message])
    save_file(tensors, tmp_path / "a")
    with pytest.raises(CheckpointError, match=message):
        load_mmdit(tmp_path / "a")


def test_scales_of_another_shape_are_refused(mmdit, tmp_path):
    state = mmdit.state_dict()
    tensors = load_file(FORMATS["fp8, rows"].write(tmp_path / "a", state, chosen("mmdit", state)))
    tensors["double_blocks.0.attn.img_attn_qkv.weight_scale"] = torch.ones(6, 2)
    save_file(tensors, tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"scales \(6, 2\), which is not supported"):
        load_mmdit(tmp_path / "a")


@pytest.mark.parametrize("kind", ["IQ4_XS", "IQ2_XXS"])
def test_other_gguf_types_are_named(mmdit, tmp_path, kind):
    state = mmdit.state_dict()
    gguf_of_zeros(tmp_path / "a", state, chosen("mmdit", state), kind)
    with pytest.raises(CheckpointError, match=f"stored as {kind}, which is not supported"):
        load_mmdit(tmp_path / "a")


@pytest.mark.parametrize("cut", [10, 200, -1000])
def test_truncated_gguf_is_refused(mmdit, tmp_path, cut):
    path = gguf_of("Q8_0")(tmp_path / "a", mmdit.state_dict(), chosen("mmdit", mmdit.state_dict()))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match="truncated"):
        load_mmdit(path)


def test_empty_tensors_with_endless_sides_are_refused(tmp_path):
    """Their elements are none and their strides overflow."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}}).encode()
    (tmp_path / "a").write_bytes(len(header).to_bytes(8, "little") + header)
    dims = struct.pack("<QcIQQIQ", 1, b"a", 2, 0, 2**63, 0, 0)
    (tmp_path / "b").write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 1, 0) + dims + bytes(64))
    for name in "ab":
        with pytest.raises(CheckpointError, match=r"a has the shape|a of shape"):
            inspect(tmp_path / name)


# --- memory ---

PEAK = """
import re, sys, torch
from joyimage.checkpoints import load_mmdit
torch.set_num_threads(1)
def memory(entry):
    return 1024 * int(re.search(entry + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
before = memory("VmRSS")
model = load_mmdit(sys.argv[1])
for name, tensor in (*model.named_parameters(), *model.named_buffers()):
    tensor.view(torch.uint8).sum()  # every page is touched: what is mapped counts
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell a process's peak")
@pytest.mark.slow
def test_loading_fp8_peaks_little_above_the_file(tmp_path):
    """On 1 GiB of zeros that take no disk."""
    shapes = MMDiT(MMDiTConfig(2048, 16, 10, text_dim=1024, mlp_size=8192), device="meta").state_dict()
    names, header, end = set(chosen("mmdit", shapes)), {}, 0
    for name, tensor in shapes.items():
        kind, size = ("F8_E4M3", 1) if name in names else ("BF16", 2)
        begin, end = end, end + size * tensor.numel()
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (tmp_path / "a").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    done = subprocess.run([sys.executable, "-c", PEAK, tmp_path / "a"], capture_output=True, text=True, check=True)
    assert 2**30 < end < int(done.stdout) <= 1.15 * end
