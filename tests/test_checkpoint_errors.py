"""Files that cannot be used: every one is refused with our own error, which names the file and the problem."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import tiny_qwen
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from joyimage.checkpoints import find_parts, inspect, load_encoder, load_mmdit, load_vae
from joyimage.checkpoints.files import open_weights
from joyimage.config import MMDiTConfig, WanVAEConfig
from joyimage.errors import CheckpointError, MissingFileError
from joyimage.mmdit import MMDiT
from joyimage.vae import WanVAE

LOADERS = [load_mmdit, load_vae, load_encoder, inspect, find_parts]


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return MMDiT(MMDiTConfig(32, 2, 2, 16, 16, 24, 128, (1, 2, 2), (4, 6, 6))).state_dict()


@pytest.fixture
def vae_state() -> dict[str, torch.Tensor]:
    state = WanVAE(WanVAEConfig(base_dim=4, dim_mult=(1, 2), num_res_blocks=1)).state_dict()
    return {name: tensor.contiguous() for name, tensor in state.items()}


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory) -> Path:
    """An encoder in two shards and more, with its tokenizer in the same folder."""
    folder, tokens = tmp_path_factory.mktemp("encoder"), tiny_qwen.tokenizer()
    tiny_qwen.model(tokens).save_pretrained(folder, max_shard_size="300KB")
    tokens.save_pretrained(folder)
    return folder


@pytest.fixture
def encoder(encoder_folder, tmp_path) -> Path:
    return Path(shutil.copytree(encoder_folder, tmp_path / "encoder"))


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


# --- paths and formats ---


@pytest.mark.parametrize("loader", LOADERS)
def test_missing_file(loader, tmp_path):
    with pytest.raises(MissingFileError, match=r"nowhere\.safetensors: no such file"):
        loader(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("loader", LOADERS[:3])
def test_folder_without_weights(loader, tmp_path):
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(MissingFileError, match="holds no weights"):
        loader(tmp_path)


def test_folder_with_other_parts_only(vae_state, tmp_path):
    for name in ("vae", "other"):
        (tmp_path / name).mkdir()
    save_file(vae_state, tmp_path / "vae" / "a.safetensors")
    save_file({"blocks.0.attn1.norm_q.weight": torch.ones(1)}, tmp_path / "other" / "a.safetensors")
    with pytest.raises(MissingFileError, match=r"no weights of a JoyImage MMDiT \(found: vae\)"):
        load_mmdit(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "only 0 bytes"),
        (b"\x10\x00", "only 2 bytes"),
        (b"GGUF" + bytes(60), "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"PK\x03\x04" + bytes(60), "zip archive without PyTorch weights"),
        (b"\xff" * 64, "not a weight file"),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_impostors_are_named(tmp_path, name, content, message):
    with pytest.raises(CheckpointError, match=rf"{name}: .*{message}"):
        load_mmdit(write(tmp_path / name, content))


# --- safetensors ---


@pytest.mark.parametrize("keep", [0.001, 0.1, 0.9, 0.9999])
def test_truncated_safetensors(state, tmp_path, keep):
    content = save(state)
    path = write(tmp_path / "cut.safetensors", content[: int(len(content) * keep)])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors: .*truncated"):
        load_mmdit(path)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BROKEN_HEADERS = {
    "no object": ([1], "unknown|not a weight file"),
    "no JSON": (b"{'a': 1}", "broken safetensors header"),
    "no UTF-8": (b'{"\xff": 1}', "broken safetensors header"),
    "nested without end": (b'{"a":' + b"[" * 100_000, "nested too deeply|broken"),
    "metadata": ({"__metadata__": {"a": 1}}, "not a map of strings"),
    "entry": ({"a": [1]}, "entry of a is malformed"),
    "entry without shape": ({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, "entry of a is malformed"),
    "dtype": ({"a": ENTRY | {"dtype": "Q4"}}, "stored as 'Q4', which is not supported"),
    "dtype is a list": ({"a": ENTRY | {"dtype": []}}, "malformed"),
    "negative shape": ({"a": ENTRY | {"shape": [-1, -2]}}, r"shape \[-1, -2\]"),
    "huge shape": ({"a": ENTRY | {"shape": [0, 2**70]}}, "shape"),
    "shape of strings": ({"a": ENTRY | {"shape": ["2"]}}, "shape"),
    "bytes": ({"a": ENTRY | {"shape": [3]}}, "takes 12 bytes, not 8"),
    "overlap": ({"a": ENTRY, "b": ENTRY | {"data_offsets": [4, 12]}}, "b overlaps"),
    "gap": ({"a": ENTRY, "b": ENTRY | {"data_offsets": [12, 20]}}, "b leaves a gap"),
    "beyond the end": ({"a": ENTRY | {"shape": [200], "data_offsets": [0, 800]}}, "truncated"),
    "bytes at the end": ({"a": ENTRY}, "bytes follow the last tensor"),
}


@pytest.mark.parametrize("case", BROKEN_HEADERS)
def test_broken_safetensors_header(tmp_path, case):
    header, message = BROKEN_HEADERS[case]
    path = write(tmp_path / "a.safetensors", safetensors(header, bytes(16)))
    with pytest.raises(CheckpointError, match=rf"a\.safetensors: .*({message})"):
        open_weights(path)


def test_header_length_that_looks_like_json(tmp_path):
    """A length of 123 bytes starts the file with "{"."""
    header = json.dumps({"a": ENTRY}).encode().ljust(ord("{"))
    assert open_weights(write(tmp_path / "a", safetensors(header, bytes(8))))["a"].tolist() == [0, 0]


def test_name_that_is_no_unicode(tmp_path):
    """Python's JSON takes a lone surrogate; safetensors does not, nor does any file or terminal."""
    for header in ({"\ud800": ENTRY}, {"a": ENTRY, "__metadata__": {"a": "\ud800"}}):
        with pytest.raises(CheckpointError, match="a: broken safetensors header"):
            open_weights(write(tmp_path / "a", safetensors(header, bytes(8))))


SMALL = save({"a": torch.ones(3, 2), "b": torch.ones(2, dtype=torch.bfloat16)}, metadata={"config": "{}"})


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(SMALL)), st.binary(max_size=8), st.integers(0, 8))
def test_mutated_safetensors_raise_nothing_else(tmp_path_factory, position, inserted, removed):
    path = tmp_path_factory.getbasetemp() / "mutated"
    path.write_bytes(SMALL[:position] + inserted + SMALL[position + removed :])
    try:
        weights = open_weights(path)
        assert all(weights[name].shape == weights.info[name].shape for name in weights)
    except CheckpointError:
        pass


# --- pickles ---


class MakesFolder:
    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def zipped(path: Path, payload: object) -> None:
    torch.save({"weight": torch.ones(1), "payload": payload}, path)


def legacy(path: Path, payload: object) -> None:
    torch.save({"payload": payload}, path, _use_new_zipfile_serialization=False)


def plain(path: Path, payload: object) -> None:
    path.write_bytes(pickle.dumps({"payload": payload}))


@pytest.mark.parametrize("dump", [zipped, legacy, plain])
@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickle_that_would_run_code_is_refused(tmp_path, loader, dump):
    dump(tmp_path / "evil.pth", MakesFolder(tmp_path / "ran"))
    with pytest.raises(CheckpointError, match=r"evil\.pth: refused: .*could run code"):
        loader(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_refused_pickle_names_the_call(tmp_path):
    zipped(tmp_path / "evil.pth", MakesFolder(tmp_path / "ran"))
    with pytest.raises(CheckpointError, match="mkdir"):
        load_mmdit(tmp_path / "evil.pth")


def test_damaged_pth(state, tmp_path):
    torch.save(state, tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    with pytest.raises(CheckpointError, match=r"a\.pth: damaged PyTorch file"):
        load_mmdit(write(tmp_path / "a.pth", content[: len(content) // 2]))


def test_pth_without_tensors(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        load_mmdit(tmp_path / "a.pth")


# --- another model, missing and extra names ---

OTHERS = {
    "Flux": "model.diffusion_model.double_blocks.0.img_attn.qkv.weight",
    "Stable Diffusion XL": "model.diffusion_model.label_emb.0.0.weight",
    "Stable Diffusion 1 or 2": "model.diffusion_model.input_blocks.0.0.weight",
    "Stable Diffusion 3": "joint_blocks.0.context_block.attn.qkv.weight",
    "Wan video": "blocks.0.self_attn.norm_q.weight",
    "Qwen-Image": "transformer_blocks.0.img_mod.1.weight",
    "Z-Image": "noise_refiner.0.attention.qkv.weight",
    "Hunyuan": "txt_in.individual_token_refiner.blocks.0.mlp.fc1.weight",
    "Wan 2.2 VAE": "encoder.downsamples.0.downsamples.0.residual.0.gamma",
    "the VAE of Stable Diffusion": "first_stage_model.decoder.mid.block_1.norm1.weight",
    "Qwen2.5-VL": "visual.merger.ln_q.weight",
    "Qwen3 without vision": "model.layers.0.self_attn.q_norm.weight",
    "T5": "encoder.block.0.layer.0.SelfAttention.q.weight",
    "CLIP": "text_model.encoder.layers.0.self_attn.q_proj.weight",
    "LoRA": "base_model.model.double_blocks.0.attn.img_attn_qkv.lora_A.weight",
}


@pytest.mark.parametrize("model", OTHERS)
@pytest.mark.parametrize("loader", LOADERS[:3])
def test_another_models_checkpoint_is_named(tmp_path, loader, model):
    save_file({OTHERS[model]: torch.ones(1), "other.bias": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=rf"looks like .*{model}.*\({OTHERS[model]}\), not a"):
        loader(tmp_path / "a.safetensors")


def test_unknown_checkpoint_shows_a_name(tmp_path):
    save_file({"mystery.weight": torch.ones(1)}, tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"no model known here \(its first tensor is mystery\.weight\)"):
        load_mmdit(tmp_path / "a")


def test_another_part_is_named(state, vae_state, encoder, tmp_path):
    save_file(state, tmp_path / "mmdit")
    save_file(vae_state, tmp_path / "vae")
    for loader, path, message in (
        (load_mmdit, tmp_path / "vae", "looks like a Wan 2.1 VAE, not a JoyImage MMDiT"),
        (load_vae, encoder, "looks like a Qwen3-VL encoder, not a Wan 2.1 VAE"),
        (load_encoder, tmp_path / "mmdit", "looks like a JoyImage MMDiT, not a Qwen3-VL encoder"),
    ):
        with pytest.raises(CheckpointError, match=message):
            loader(path)


def test_missing_and_extra_names_are_listed(state, tmp_path):
    gone = [name for name in state if name.startswith("double_blocks.1.") and "_mod." not in name]
    assert len(gone) > 12
    kept = {f"model.diffusion_model.{name}": tensor for name, tensor in state.items() if name not in gone}
    save_file(kept | {"model.diffusion_model.extra.weight": torch.ones(1), "stray": torch.ones(1)}, tmp_path / "a")
    with pytest.raises(CheckpointError) as caught:
        load_mmdit(tmp_path / "a")
    message = str(caught.value)
    assert f"{len(gone)} missing: " in message and message.count("double_blocks.1.") == 12 and ", …" in message
    assert "2 unexpected: model.diffusion_model.extra.weight, stray" in message


@pytest.mark.parametrize("name", ["img_in.weight", "proj_out.weight", "double_blocks.0.attn.img_attn_q_norm.weight"])
def test_missing_name_that_sizes_are_read_from(state, tmp_path, name):
    del state[name]
    save_file(state, tmp_path / "a")
    with pytest.raises(CheckpointError, match=rf"a: .*{name}.* is missing"):
        load_mmdit(tmp_path / "a")


def test_config_knows_how_many_blocks_there_must_be(state, tmp_path):
    save_file(state, tmp_path / "a", metadata={"config": '{"num_layers": 3}'})
    with pytest.raises(CheckpointError, match=r"has 2 blocks, its config\.json says 3"):
        load_mmdit(tmp_path / "a")


def test_absurd_block_number(state, tmp_path):
    state["double_blocks.999999999.attn.img_attn_proj.bias"] = torch.ones(1)
    save_file(state, tmp_path / "a")
    with pytest.raises(CheckpointError, match="numbers a block 999999999"):
        load_mmdit(tmp_path / "a")


def test_shape_mismatch_is_listed(state, tmp_path):
    state["double_blocks.1.txt_mlp.net.2.bias"] = torch.ones(7)
    save_file(state, tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"double_blocks\.1\.txt_mlp\.net\.2\.bias \(7,\) instead of \(32,\)"):
        load_mmdit(tmp_path / "a")


def test_two_namings_in_one_file(state, tmp_path):
    name = "double_blocks.0.attn.img_attn_proj.bias"
    state = {name.replace(".attn.", "."): tensor for name, tensor in state.items()} | {name: torch.ones(32)}
    save_file(state, tmp_path / "a")
    with pytest.raises(CheckpointError):
        load_mmdit(tmp_path / "a")


def test_integers_are_no_weights(state, tmp_path):
    state["proj_out.weight"] = state["proj_out.weight"].to(torch.int8)
    save_file(state, tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"1 weights are int8, not floating point: proj_out\.weight"):
        load_mmdit(tmp_path / "a", dtype=torch.bfloat16)


def test_vae_names_are_checked_too(vae_state, tmp_path):
    del vae_state["decoder.head.2.bias"]
    save_file(vae_state, tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"1 missing: decoder\.head\.2\.bias"):
        load_vae(tmp_path / "a")


# --- shards and configurations ---


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


@pytest.mark.parametrize("loader", LOADERS)
def test_missing_shard_is_named(encoder, loader):
    gone = shards(encoder)[1]
    gone.unlink()
    with pytest.raises(MissingFileError, match=rf"{gone.name}: this shard, .* is missing"):
        loader(encoder)


def test_one_shard_of_several_is_not_a_checkpoint(encoder):
    with pytest.raises(CheckpointError, match=r"is one shard of several; give the folder"):
        load_encoder(shards(encoder)[0])


def test_tensor_that_is_not_in_its_shard(encoder):
    first, second = shards(encoder)[:2]
    shutil.copy(first, second)
    with pytest.raises(CheckpointError, match="not in the shard"):
        load_encoder(encoder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"weight_map": {"a": "../../etc/passwd"}}', "not a file beside it"),
        ('{"weight_map": {"a": 3}}', "not a file beside it"),
        ('{"weight_map": []}', "no weight_map"),
        ("{}", "no weight_map"),
        ("[1]", "not a JSON object"),
        ('{"weight_map": {', "not a JSON object"),
    ],
)
def test_broken_index(encoder, content, message):
    (encoder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=rf"index\.json: .*{message}"):
        load_encoder(encoder)


@pytest.mark.parametrize("content", ['{"rope_dim_list": [4,', "[]", "\x00\x01"])
def test_config_that_is_no_json(state, tmp_path, content):
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json: not a JSON object"):
        load_mmdit(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"rope_dim_list": ["x"]},
        {"rope_dim_list": 3},
        {"num_layers": "2"},
        {"theta": "high"},
        {"rope_dim_list": [4, 4, 4]},
        {"rope_dim_list": [4, 2, 2, 0]},
        {"theta": 10**400},
        {"theta": float("nan")},
        {"theta": float("inf")},
        {"theta": 0},
    ],
)
def test_config_with_unusable_entries(state, tmp_path, config):
    save_file(state, tmp_path / "a", metadata={"config": json.dumps(config)})
    with pytest.raises(CheckpointError, match=r"a: "):
        load_mmdit(tmp_path / "a")


@pytest.mark.parametrize("name", ["latents_mean", "latents_std"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_statistics_that_are_no_numbers(vae_state, tmp_path, name, value):
    save_file(vae_state, tmp_path / "a", metadata={"config": json.dumps({name: [value] * 16})})
    with pytest.raises(CheckpointError, match=r"a: (latents_mean must be finite|its config\.json has an entry)"):
        load_vae(tmp_path / "a")


@pytest.mark.parametrize(
    "name", ["proj_out.weight", "condition_embedder.text_embedder.linear_1.weight", "img_in.weight"]
)
@pytest.mark.parametrize("shape", [(), (3,), (0, 4)])
def test_sizes_are_read_from_matrices_only(state, tmp_path, name, shape):
    save_file(state | {name: torch.ones(shape)}, tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"a: (not a JoyImage MMDiT|does not fit|.* is empty)"):
        load_mmdit(tmp_path / "a")
    assert inspect(tmp_path / "a").parts[0].problem


def test_config_in_the_header_that_is_no_json(state, tmp_path):
    save_file(state, tmp_path / "a", metadata={"config": "rope"})
    with pytest.raises(CheckpointError, match="the config in its header is no JSON object"):
        load_mmdit(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "qwen2_5_vl"}, "model_type is 'qwen2_5_vl'"),
        ({"vision_config": "large"}, "has an entry that cannot be used"),
        ({"text_config": 3}, "has an entry that cannot be used"),
        ({"vision_config": {"num_heads": 3}}, r"vision_config\.hidden_size is 32, not a multiple of 12"),
        ({"vision_config": {"num_heads": 0}}, "not a multiple of 0"),
        ({"text_config": {"num_key_value_heads": 3}}, r"num_attention_heads is 4, not a multiple of 3"),
        ({"text_config": {"head_dim": 15}}, r"head_dim is 15, not a multiple of 2"),
    ],
)
def test_encoder_config_that_is_unusable(encoder, change, message):
    config = json.loads((encoder / "config.json").read_text())
    parts = {name: config[name] | entries for name, entries in change.items() if isinstance(entries, dict)}
    (encoder / "config.json").write_text(json.dumps(config | change | parts))
    with pytest.raises(CheckpointError, match=message):
        load_encoder(encoder)


def test_labels_of_a_classifier_are_passed_over(encoder):
    """transformers would make a name for each of a billion."""
    config = json.loads((encoder / "config.json").read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        part["num_labels"] = 10**9
    (encoder / "config.json").write_text(json.dumps(config))
    assert load_encoder(encoder).model.config.num_labels < 10


# --- tokenizers ---


def test_encoder_without_tokenizer_says_which_folder_to_give(encoder):
    for file in encoder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(MissingFileError, match=r"tokenizer=, a folder that holds tokenizer\.json, or vocab\.json"):
        load_encoder(encoder)


def test_tokenizer_folder_without_tokenizer(encoder, tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no tokenizer; give a folder that holds tokenizer\.json"):
        load_encoder(encoder, tmp_path)
    with pytest.raises(MissingFileError, match="no such file or folder"):
        load_encoder(encoder, tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["{", "{}", '{"model": 3}'])
def test_broken_tokenizer(encoder, content):
    (encoder / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match="not a tokenizer that transformers can read"):
        load_encoder(encoder)


def test_tokenizer_of_another_model(encoder, tmp_path):
    other = tiny_qwen.tokenizer()
    other.backend_tokenizer.add_tokens(["<|another|>"] * 1)
    folder = tmp_path / "other"
    other.save_pretrained(folder)
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace("<|image_pad|>", "<image>"))
    with pytest.raises(CheckpointError, match=f"{folder}: wrong tokenizer"):
        load_encoder(encoder, folder)
