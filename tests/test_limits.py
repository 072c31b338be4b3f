"""Files that would cost far more than their size, or that are of a kind this library does not read: refused by name."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from joyimage import JoyImage, JoyImageError, tiny
from joyimage.checkpoints import inspect, limits, load_encoder, load_mmdit
from joyimage.cli import main
from joyimage.errors import CheckpointError, MissingFileError

LAYER = "double_blocks.0.attn.img_attn_qkv.weight"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return JoyImage.load("tiny", device="cpu").mmdit.state_dict()


def header(path: Path, entries: dict | bytes) -> Path:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    return path


def gguf(path: Path, values: bytes, count: int = 1, tensors: int = 0) -> Path:
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, tensors, count) + values)
    return path


def name(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def many_tensors(path: Path) -> Path:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return header(path, {f"{i}": empty for i in range(limits.MAX_TENSORS + 1)})


def nested_lists(path: Path) -> Path:
    return header(path, b'{"a":[' + b"[]," * 2**19 + b"[]]}")


def long_header(path: Path) -> Path:
    return header(path, b'{"__metadata__":{"a":"' + b"x" * limits.MAX_HEADER_BYTES + b'"}}')


def strings_in_gguf(path: Path) -> Path:
    return gguf(
        path, name("tokens") + struct.pack("<IIQ", 9, 8, limits.MAX_STRINGS + 1) + bytes(8 * limits.MAX_STRINGS)
    )


def tensors_in_gguf(path: Path) -> Path:
    return gguf(path, b"", 0, 2**40)


def split_gguf(path: Path) -> Path:
    return gguf(path, name("split.count") + struct.pack("<IH", 2, 2))


def llama_gguf(path: Path) -> Path:
    entry = name("blk.0.attn_q.weight") + struct.pack("<IQIQ", 1, 4, 0, 0)
    return gguf(path, entry + bytes(64), 0, 1)


def itself(path: Path) -> Path:
    loop: dict = {"a": torch.zeros(2)}
    loop["model"] = loop
    torch.save(loop, path)
    return path


def odd_tensor(tensor) -> object:
    def make(path: Path) -> Path:
        torch.save({"a": torch.zeros(2), "odd": tensor}, path)
        return path

    return make


def bitsandbytes(path: Path) -> Path:
    quantised = {"a.weight": torch.zeros(8, 1, dtype=torch.uint8)}
    quantised["a.weight.quant_state.bitsandbytes__nf4"] = torch.zeros(8, dtype=torch.uint8)
    save_file(quantised, path)
    return path


def unsigned(path: Path) -> Path:
    return header(path, {"a": {"dtype": "F6_E9", "shape": [0], "data_offsets": [0, 0]}})


REFUSED = {
    "more tensors than any model": (many_tensors, ".safetensors", "at most 65,536 are read|most 131,072"),
    "lists without number": (nested_lists, ".safetensors", r"524,290 of the sign '\[', and at most"),
    "a header of many megabytes": (long_header, ".safetensors", "its header has .* bytes, and at most"),
    "strings without number": (strings_in_gguf, ".gguf", "a list of 1,048,577 strings"),
    "tensors without number": (tensors_in_gguf, ".gguf", "it lists 1,099,511,627,776 tensors"),
    "a piece of a split GGUF": (split_gguf, ".gguf", "one of several pieces; join them"),
    "llama.cpp's names": (llama_gguf, ".gguf", "as llama.cpp names it"),
    "a dictionary in itself": (itself, ".pth", "holds no tensors"),
    "a sparse tensor": (odd_tensor(torch.eye(2).to_sparse()), ".pth", "odd is sparse"),
    "an expanded tensor": (
        odd_tensor(torch.zeros(1).expand(2**40)),
        ".pth",
        "odd is sparse, nested, without data or a view",
    ),
    "a tensor without data": (odd_tensor(torch.empty(2**40, device="meta")), ".pth", "odd is|damaged|refused"),
    "bitsandbytes": (bitsandbytes, ".safetensors", r"quantised by bitsandbytes \(nf4\)"),
    "an unknown dtype": (unsigned, ".safetensors", "a is stored as 'F6_E9', which is not supported"),
}


@pytest.mark.parametrize(("make", "suffix", "message"), REFUSED.values(), ids=REFUSED)
def test_is_refused_by_name(tmp_path, capsys, make, suffix, message):
    path = make(tmp_path / f"a{suffix}")
    with pytest.raises(CheckpointError, match=message) as refused:
        load_mmdit(path)
    assert path.name in str(refused.value)
    assert main(["inspect", str(path)]) in (0, 2)  # another model's file is reported, and no error
    assert path.name in "".join(capsys.readouterr())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes with names of files")
def test_a_pipe_is_refused_unread(tmp_path):
    os.mkfifo(tmp_path / "a.safetensors")
    for read in (inspect, load_mmdit):
        with pytest.raises(CheckpointError, match="is neither a regular file nor a folder"):
            read(tmp_path / "a.safetensors")


@pytest.mark.parametrize("path", ["x" * 300, "a\0b", "~nobody-of-this-name/a"])
def test_what_is_no_name_is_a_missing_file(path):
    for read in (inspect, load_mmdit, JoyImage.load):
        with pytest.raises(MissingFileError, match="no such file or folder"):
            read(path)


def test_a_folder_that_may_not_be_searched_is_said(monkeypatch):
    def forbidden(*_):
        raise PermissionError

    monkeypatch.setattr(Path, "exists", forbidden)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: may not be read"):
        load_mmdit("a.safetensors")


@pytest.mark.parametrize("path", [5, None, {}, b"a"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(CheckpointError, match="is no path"):
        load_mmdit(path)


def test_a_folder_called_like_an_index_is_passed_over(tmp_path, state):
    (tmp_path / "model.safetensors.index.json").mkdir()
    save_file(state, tmp_path / "a.safetensors")
    assert load_mmdit(tmp_path).config == load_mmdit(tiny.FILES["mmdit"]).config
    assert load_mmdit(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("part", "entry", "value"),
    [
        ("text_config", "num_hidden_layers", 20_000),
        ("text_config", "num_hidden_layers", 10**12),
        ("vision_config", "depth", 10**12),
        ("vision_config", "deepstack_visual_indexes", list(range(100_000))),
        ("text_config", "vocab_size", 2**62),
        ("text_config", "hidden_size", 2**62),
    ],
)
def test_a_config_beyond_the_weights_is_refused_before_a_network_is_built(tmp_path, monkeypatch, part, entry, value):
    model = tiny.build()[2].model
    config = model.config.to_dict()
    config[part][entry] = value
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(nn.Module, "__init__", lambda *_, **__: pytest.fail("a network is built"))
    with pytest.raises(CheckpointError, match=r"a\.safetensors: (its config\.json says|does not fit)"):
        load_encoder(tmp_path / "a.safetensors", tokenizer=tiny.TOKENIZER)


def test_weights_under_another_name_of_training_scripts_are_found(tmp_path, state):
    torch.save({"epoch": 3, "model_state_dict": {"module": state}}, tmp_path / "a.pth")
    loaded = load_mmdit(tmp_path / "a.pth")
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())


def in_squares(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values in e4m3, the scales of squares of 128 x 128, and the weight that they stand for."""
    rows, columns = weight.shape
    scales = torch.empty(-(-rows // 128), -(-columns // 128))
    values, meant = torch.empty_like(weight), torch.empty_like(weight)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            part = slice(128 * i, 128 * i + 128), slice(128 * j, 128 * j + 128)
            scales[i, j] = weight[part].abs().max() / 448
            values[part] = (weight[part] / scales[i, j]).to(torch.float8_e4m3fn).float()
            meant[part] = values[part] * scales[i, j]
    return values.to(torch.float8_e4m3fn), scales, meant


def test_fp8_with_scales_of_squares_loads_as_its_makers_mean_it(tmp_path, state):
    """DeepSeek's and Qwen's own, who call such a scale an inverse one."""
    values, scales, meant = in_squares(state[LAYER])
    save_file(state | {LAYER: values, f"{LAYER}_scale_inv": scales}, tmp_path / "a.safetensors")
    loaded = load_mmdit(tmp_path / "a.safetensors", dtype=torch.float32)
    packed = loaded.double_blocks[0].attn.img_attn_qkv.packed
    assert packed is not None and torch.equal(packed.dense(torch.float32), meant)
    assert "1 float8_e4m3fn" in str(inspect(tmp_path / "a.safetensors"))


def test_the_bundled_model_is_taken_whole(tmp_path, capsys):
    for option in ({"mmdit": "/nowhere.safetensors"}, {"dtype": torch.bfloat16}, {"tokenizer": tmp_path}):
        with pytest.raises(JoyImageError, match=f"leave out {next(iter(option))}"):
            JoyImage.load("tiny", **option)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    assert main(["edit", str(tmp_path / "a.png"), "Remove it.", "--mmdit", "/nowhere.safetensors"]) == 2
    assert "leave out mmdit" in capsys.readouterr().err
