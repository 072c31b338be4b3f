"""Files that would cost far more than their size, or that are of a kind this library does not read: refused by name."""

from __future__ import annotations

import json
import os
import struct
import zipfile
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


def archive(pickled: bytes, kind: int = zipfile.ZIP_STORED):
    """A file of PyTorch's with this pickle in it."""

    def make(path: Path) -> Path:
        with zipfile.ZipFile(path, "w", kind) as made:
            for name, content in {"data.pkl": pickled, "version": b"3\n", "data/0": bytes(2**20)}.items():
                made.writestr(f"archive/{name}", content)
        return path

    return make


def two_pickles(path: Path) -> Path:
    """torch looks for one without regard to capitals."""
    with zipfile.ZipFile(archive(b"\x80\x02}.")(path), "a") as made:
        made.writestr("archive/DATA.PKL", b"\x80\x02" + BYTES)
    return path


def named(*names: str):
    return lambda path: header(path, {name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for name in names})


def strings_in_many_lists(path: Path) -> Path:
    half = limits.MAX_STRINGS // 2 + 1
    one = struct.pack("<IIQ", 9, 8, half) + bytes(8 * half)
    return gguf(path, name("tokens") + one + name("merges") + one, 2)


def long_text_in_gguf(path: Path) -> Path:
    size = limits.MAX_JSON_BYTES + 1
    return gguf(path, name("a") + struct.pack("<IQ", 8, size) + b"x" * size)


BYTES = b"cbuiltins\nbytearray\n(\x8a\x05\x00\x00\x00\x00\x02tR."  # a pickle that takes 8 GB of memory
VAE_NAMES = ("encoder.mid_block.resnets.0.norm1.gamma", "encoder.down_blocks.0.norm1.gamma")


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
    "bitsandbytes": (bitsandbytes, ".safetensors", r"quantised by bitsandbytes to 4 bits \(a.*nf4\)"),
    "blocks without number": (
        named(*VAE_NAMES, "decoder.up_blocks.999999999.resnets.0.norm1.gamma"),
        ".safetensors",
        r"a\.safetensors: it numbers a block decoder\.up_blocks\.999999999 among 3 tensors",
    ),
    "a number of five thousand digits": (
        named(*VAE_NAMES, f"decoder.up_blocks.{'1' * 5000}.b"),
        ".safetensors",
        "no name",
    ),
    "a name that moves the cursor": (named("a\x1b[2J"), ".safetensors", r"calls a tensor a\\x1b\[2J, which is no name"),
    "strings in many lists": (strings_in_many_lists, ".gguf", "a list of 524,289 strings"),
    "a text of many megabytes": (long_text_in_gguf, ".gguf", "a text of 8,388,609 bytes, and at most"),
    "a pickle of empty lists": (archive(b"\x80\x02" + b"]" * 2**20 + b"."), ".pth", "over 524,288 steps to unpickle"),
    "a pickle of many bytes": (archive(b"\x80\x02" + bytes(limits.MAX_PICKLE_BYTES)), ".pth", "has 8,388,610 bytes"),
    "a compressed archive": (archive(b"\x80\x02}.", zipfile.ZIP_DEFLATED), ".pth", "data.pkl in it is compressed"),
    "bytes that a pickle asks for": (archive(b"\x80\x02" + BYTES), ".pth", "refused: it calls builtins bytearray"),
    "the same in another pickle": (two_pickles, ".pth", "refused: it calls builtins bytearray"),
    "the same before 1.6": (
        lambda path: (path.write_bytes(b"\x80\x02" + BYTES), path)[1],
        ".pth",
        "refused: it calls builtins bytearray",
    ),
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


def test_a_file_that_may_not_be_read_is_said(tmp_path, monkeypatch, state):
    """Alone, in a folder, and as a configuration beside weights."""
    save_file(state, tmp_path / "a.safetensors")
    (tmp_path / "config.json").write_text("{}")
    for forbidden in ("a.safetensors", "config.json"):

        def opened(self, *options, name=forbidden, before=Path.open):
            if self.name == name:
                raise PermissionError(13, "Permission denied", str(self))
            return before(self, *options)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", opened)
            for path in (tmp_path, tmp_path / "a.safetensors"):
                for read in (inspect, load_mmdit):
                    with pytest.raises(CheckpointError, match=rf"{forbidden}: cannot be read: Permission denied"):
                        read(path)


def test_an_index_of_any_size_beside_a_file_costs_nothing(tmp_path, state):
    """It is looked at for the file's name; this one is a hole of a terabyte."""
    save_file(state, tmp_path / "a.safetensors")
    with (tmp_path / "b.index.json").open("wb") as file:
        file.truncate(2**40)
    assert load_mmdit(tmp_path / "a.safetensors")


def test_files_of_a_folder_are_not_looked_for_among_each_other(tmp_path, monkeypatch):
    """Reading takes a time that grows with their number, and not with its square."""
    for i in range(20):
        named("a")(tmp_path / f"{i}.safetensors")
    listed = []
    before = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: (listed.append(self), before(self, pattern))[1])
    assert len(inspect(tmp_path).parts) == 20
    assert len(listed) == 1


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
