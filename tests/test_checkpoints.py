"""Every layout loads to the very network that was saved, and `inspect` tells what each file is."""

from __future__ import annotations

import copy
import json
import resource
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import tiny_qwen
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from joyimage import JoyImage, tiny
from joyimage.checkpoints import find_parts, inspect, load_encoder, load_mmdit, load_vae
from joyimage.checkpoints.qwen import released_config
from joyimage.checkpoints.vae_keys import diffusers_to_original
from joyimage.config import MMDiTConfig
from joyimage.encoder import Encoder
from joyimage.errors import CheckpointError, JoyImageError
from joyimage.mmdit import MMDiT
from joyimage.vae import WanVAE

MMDIT = MMDiTConfig(32, 2, 2, 16, 16, 24, 128, (1, 2, 2), (4, 6, 6), 10000.0)
VAE_SIZES = {"base_dim": 4, "num_res_blocks": 1, "dim_mult": [1, 2], "temperal_downsample": [True]}

State = dict[str, Tensor]


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def from_diffusers(name: str, **sizes) -> nn.Module:
    """A random model of Diffusers; skips where Diffusers does not import beside this transformers."""
    try:
        import diffusers

        torch.manual_seed(0)
        return getattr(diffusers, name)(**sizes)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"Diffusers: {error}")


# --- what is saved ---


@pytest.fixture(scope="module")
def mmdit() -> MMDiT:
    torch.manual_seed(0)
    model = MMDiT(MMDIT)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vae():
    return from_diffusers("AutoencoderKLWan", **VAE_SIZES)


@pytest.fixture(scope="module")
def tokens():
    return tiny_qwen.tokenizer()


@pytest.fixture(scope="module")
def qwen(tokens) -> Qwen3VLForConditionalGeneration:
    """Its vision tower has the sixteen heads of the released ones, so that shapes tell all of its sizes."""
    config = tiny_qwen.config(tokens)
    config.vision_config.hidden_size, config.vision_config.num_heads = 64, 16
    torch.manual_seed(0)
    return Qwen3VLForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def tokenizer_folder(tokens, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    tokens.save_pretrained(folder)
    return folder


def velocity(model: MMDiT) -> Tensor:
    return model(draw(1, 16, 1, 4, 6), torch.tensor([731.25]), draw(1, 5, 24), [draw(1, 16, 1, 4, 4)])


def assert_same(loaded: nn.Module, saved: nn.Module) -> None:
    """The very weights. Outputs may differ in the last bit, as a mapped file aligns its tensors as it likes."""
    state = loaded.state_dict()
    assert state.keys() == saved.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in saved.state_dict().items())
    assert (velocity(loaded) - velocity(saved)).abs().max() <= 1e-6


def contexts(encoder: Encoder) -> Tensor:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 288, 3), dtype=np.uint8))
    return torch.cat(encoder.encode(["make the hat red", ""], [image]))


def assert_same_contexts(loaded: Encoder, saved: Encoder) -> None:
    assert (contexts(loaded) - contexts(saved)).abs().max() <= 1e-5


# --- how it is saved ---


def renamed(state: State, table: dict[str, str]) -> State:
    """Each name with the first matching start replaced."""
    starts = {name: next((start for start in table if name.startswith(start)), "") for name in state}
    return {table.get(start, "") + name[len(start) :]: state[name].clone() for name, start in starts.items()}


def as_safetensors(path: Path, state: State) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def as_pth(path: Path, state: State) -> Path:
    torch.save({"epoch": 3, "model": {"module": state}}, path)
    return path


def as_old_pth(path: Path, state: State) -> Path:
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


def without_attn(state: State) -> State:
    return {name.replace(".attn.", "."): tensor for name, tensor in state.items()}


@pytest.mark.parametrize("prefix", ["", "diffusion_model.", "transformer."])
@pytest.mark.parametrize(("container", "original"), [(as_pth, False), (as_old_pth, True)])
def test_mmdit_loads_from_pickles_behind_prefixes(mmdit, tmp_path, container, prefix, original):
    """In two wrappers, and as PyTorch saved before 1.6. Other layouts are in tests/test_loads.py."""
    state = without_attn(mmdit.state_dict()) if original else mmdit.state_dict()
    path = container(tmp_path / "weights", renamed(state, {"": prefix}))
    loaded = load_mmdit(path)
    assert loaded.config == MMDIT
    assert_same(loaded, mmdit)
    (part,) = inspect(path).parts
    assert (part.part, part.prefix, part.naming) == ("mmdit", prefix, "original" if original else "diffusers")


def test_mmdit_loads_from_diffusers_shards_with_their_config(tmp_path):
    saved = from_diffusers(
        "JoyImageEditTransformer3DModel",
        hidden_size=32, num_attention_heads=2, num_layers=2, text_dim=24, rope_dim_list=[8, 4, 4], theta=500,
    )  # fmt: skip
    saved.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    loaded = load_mmdit(tmp_path)
    assert (loaded.config.rope_dims, loaded.config.theta) == ((8, 4, 4), 500.0)
    state = loaded.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in saved.state_dict().items())
    assert_same(load_mmdit(next(tmp_path.glob("*.index.json"))), loaded)


@pytest.mark.parametrize(
    ("config", "theta"),
    [
        ({"rope_dim_list": [8, 4, 4], "theta": 500}, 500.0),
        ({"_class_name": "JoyImageEditTransformer3DModel", "rope_dim_list": [8, 4, 4]}, 256.0),  # Diffusers' default
        ({"rope_dim_list": [8, 4, 4]}, 10000.0),
    ],
)
def test_rotary_settings_come_from_the_header(mmdit, tmp_path, config, theta):
    save_file(mmdit.state_dict(), tmp_path / "a", metadata={"config": json.dumps(config)})
    loaded = load_mmdit(tmp_path / "a")
    assert (loaded.config.rope_dims, loaded.config.theta) == ((8, 4, 4), theta)


def test_config_of_another_model_is_passed_over(mmdit, tmp_path):
    as_safetensors(tmp_path / "a", mmdit.state_dict())
    (tmp_path / "config.json").write_text('{"_class_name": "WanTransformer3DModel", "rope_dim_list": [1], "theta": 5}')
    assert load_mmdit(tmp_path).config == MMDIT


@pytest.mark.parametrize(
    ("container", "prefix", "original"), [(as_safetensors, "", False), (as_old_pth, "first_stage_model.", True)]
)
def test_vae_computes_what_diffusers_does(vae, tmp_path, container, prefix, original):
    state = vae.state_dict()
    names = diffusers_to_original(state)
    state = {prefix + (names[name] if original else name): tensor for name, tensor in state.items()}
    loaded = load_vae(container(tmp_path / "weights", state))
    expected = vae.encode(draw(1, 3, 16, 16)[:, :, None]).latent_dist.mean
    mean, std = (torch.tensor(getattr(loaded.config, f"latents_{name}")).view(-1, 1, 1, 1) for name in ("mean", "std"))
    assert loaded.decoder.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert (loaded.encode(draw(1, 3, 16, 16)) - (expected - mean) / std).abs().max() <= 1e-5


def test_vae_statistics_come_from_its_config(vae, tmp_path):
    vae.register_to_config(latents_mean=[0.5] * 16, latents_std=[2.0] * 16)
    vae.save_pretrained(tmp_path)
    config = load_vae(tmp_path).config
    assert (config.latents_mean, config.latents_std) == ((0.5,) * 16, (2.0,) * 16)


ENCODER_NAMINGS = {
    "transformers": {"": ""},
    "comfy": {"model.language_model.": "model.", "model.visual.": "visual."},
    "comfy, head inside": {"model.language_model.": "model.", "model.visual.": "visual.", "lm_head.": "model.lm_head."},
}


@pytest.mark.parametrize("naming", ENCODER_NAMINGS)
def test_encoder_answers_from_single_files(qwen, tokens, tokenizer_folder, tmp_path, naming):
    state = renamed(renamed(qwen.state_dict(), ENCODER_NAMINGS[naming]), {"": "text_encoders.qwen3vl.transformer."})
    loaded = load_encoder(as_safetensors(tmp_path / "a", state), tokenizer_folder)
    original = Encoder(qwen, tokens)
    assert_same_contexts(loaded, original)
    asked = {"images": (), "question": "What is it?", "max_new_tokens": 8, "temperature": 0}
    assert loaded.answer(**asked) == original.answer(**asked)


@pytest.mark.parametrize("shards", ["10GB", "200KB"])
def test_encoder_loads_from_transformers_folder(tokens, tmp_path, shards):
    model = tiny_qwen.model(tokens)  # two vision heads: only its config.json can tell
    model.save_pretrained(tmp_path / "text_encoder", max_shard_size=shards)
    tokens.save_pretrained(tmp_path / "tokenizer")
    assert_same_contexts(load_encoder(tmp_path / "text_encoder"), Encoder(model, tokens))


def test_encoder_config_in_the_header_is_honoured(tokens, tokenizer_folder, tmp_path):
    model = tiny_qwen.model(tokens)
    save_file(model.state_dict(), tmp_path / "a", metadata={"config": model.config.to_json_string(use_diff=False)})
    loaded = load_encoder(tmp_path / "a", tokenizer_folder)
    assert_same_contexts(loaded, Encoder(model, tokens))


@pytest.mark.parametrize("newer", [False, True])
def test_encoder_config_of_either_transformers_version(tokens, tokenizer_folder, tmp_path, newer):
    """Version 5 writes `rope_parameters` where 4.57 wrote two entries; either reads both."""
    model = tiny_qwen.model(tokens, rope_theta=1e4)
    config = json.loads(model.config.to_json_string(use_diff=False))
    text = {name: value for name, value in config["text_config"].items() if not name.startswith("rope_")}
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    text |= {"rope_parameters": rope | {"rope_theta": 1e4}} if newer else {"rope_scaling": rope, "rope_theta": 1e4}
    save_file(model.state_dict(), tmp_path / "a", metadata={"config": json.dumps(config | {"text_config": text})})
    assert_same_contexts(load_encoder(tmp_path / "a", tokenizer_folder), Encoder(model, tokens))


@pytest.mark.parametrize("keep", ["model.", "language_model."])
def test_encoder_without_head_conditions_and_refuses_to_answer(qwen, tokens, tokenizer_folder, tmp_path, keep):
    state = {name: tensor for name, tensor in qwen.state_dict().items() if name != "lm_head.weight"}
    path = as_safetensors(tmp_path / "a", state if keep == "model." else renamed(state, {"model.": ""}))
    loaded = load_encoder(path, tokenizer_folder)
    assert_same_contexts(loaded, Encoder(qwen, tokens))
    with pytest.raises(JoyImageError, match="head"):
        loaded.answer((), "What is it?")
    assert "cannot answer" in inspect(path).parts[0].what


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tied_head_is_the_embedding(tokens, tmp_path, dtype):
    config = tiny_qwen.config(tokens)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = True
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    tokens.save_pretrained(tmp_path)
    loaded = load_encoder(tmp_path, dtype=dtype)
    assert loaded.model.lm_head.weight is loaded.model.model.language_model.embed_tokens.weight
    assert loaded.model.lm_head.weight.dtype == dtype
    if dtype == torch.float32:
        assert_same_contexts(loaded, Encoder(model, tokens))


RELEASED = {  # text hidden, intermediate, layers, heads, kv heads; vision hidden, intermediate, depth; DeepStack; tied
    "2B": ((2048, 6144, 28, 16, 8), (1024, 4096, 24), [5, 11, 17], True),
    "4B": ((2560, 9728, 36, 32, 8), (1024, 4096, 24), [5, 11, 17], True),
    "8B": ((4096, 12288, 36, 32, 8), (1152, 4304, 27), [8, 16, 24], False),
}


@pytest.mark.parametrize("size", RELEASED)
def test_released_sizes_are_read_off_the_shapes(size):
    text, vision, deepstack, tied = RELEASED[size]
    text_names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    config = {
        "text_config": {
            **dict(zip(text_names, text, strict=True)), "vocab_size": 151936, "head_dim": 128, "rope_theta": 5_000_000,
            "rope_scaling": {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [24, 20, 20]},
        },
        "vision_config": {
            **dict(zip(("hidden_size", "intermediate_size", "depth"), vision, strict=True)), "num_heads": 16,
            "out_hidden_size": text[0], "deepstack_visual_indexes": deepstack, "patch_size": 16, "in_channels": 3,
            "temporal_patch_size": 2, "spatial_merge_size": 2, "num_position_embeddings": 2304,
        },
        "tie_word_embeddings": tied, "image_token_id": 151655, "vision_start_token_id": 151652,
    }  # fmt: skip
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**copy.deepcopy(config)))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    if tied:
        del shapes["lm_head.weight"]  # as in the files
    found = released_config(shapes)
    found["vision_config"]["deepstack_visual_indexes"] = list(found["vision_config"]["deepstack_visual_indexes"])
    for key, value in config.items():
        assert (value.items() <= found[key].items()) if isinstance(value, dict) else value == found[key]


# --- dtype, device and memory ---


def test_dtype_is_the_files_own_unless_given(mmdit, tmp_path, monkeypatch):
    monkeypatch.setattr("joyimage.precision.native", lambda *_: True)
    state = {name: tensor.bfloat16() for name, tensor in mmdit.state_dict().items()}
    state["double_blocks.0.img_mod.modulate_table"] = state["double_blocks.0.img_mod.modulate_table"].float()
    path = as_safetensors(tmp_path / "a", state)
    for given, expected in ((None, torch.bfloat16), (torch.float32, torch.float32)):
        dtypes = {name: parameter.dtype for name, parameter in load_mmdit(path, dtype=given).named_parameters()}
        time = {name for name in dtypes if "time_embedder" in name}
        assert {dtypes.pop(name) for name in time} == {torch.float32}
        assert set(dtypes.values()) == {expected}


@pytest.mark.parametrize("container", [as_safetensors, as_pth])
def test_weights_are_views_of_one_mapping(mmdit, tmp_path, container):
    path = container(tmp_path / "a", mmdit.state_dict())
    model = load_mmdit(path)
    spans = [(p.data_ptr(), p.data_ptr() + p.nbytes) for p in model.parameters()]
    assert max(end for _, end in spans) - min(start for start, _ in spans) <= path.stat().st_size
    assert str(path) in {mapped.path for mapped in psutil.Process().memory_maps()}


def test_loaded_network_is_ready_for_inference(mmdit, tmp_path):
    loaded = load_mmdit(as_safetensors(tmp_path / "a", mmdit.state_dict()), device="cpu")
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_layers_come_from_operations(mmdit, tmp_path):
    class Linear(nn.Linear):
        pass

    class Operations:
        Conv3d, RMSNorm = nn.Conv3d, nn.RMSNorm

    Operations.Linear = Linear
    loaded = load_mmdit(as_safetensors(tmp_path / "a", mmdit.state_dict()), operations=Operations)
    assert type(loaded.proj_out) is Linear
    assert_same(loaded, mmdit)


# --- folders and inspect ---


@pytest.fixture
def model_folder(mmdit, vae, qwen, tokens, tmp_path):
    """Saves MMDiT, VAE, encoder and tokenizer to their places in a folder and returns the folder."""

    def save(places: tuple[str, ...], original: bool = False, containers=(as_safetensors, as_safetensors)) -> Path:
        states = {"mmdit": mmdit.state_dict(), "vae": vae.state_dict()}
        if original:
            names = diffusers_to_original(states["vae"])
            states = {
                "mmdit": without_attn(states["mmdit"]),
                "vae": {names[name]: tensor for name, tensor in states["vae"].items()},
            }
        for place, state, container in zip(places, states.values(), containers, strict=False):
            (tmp_path / place).parent.mkdir(exist_ok=True)
            container(tmp_path / place, state)
        qwen.save_pretrained(tmp_path / places[2], max_shard_size="200KB")
        tokens.save_pretrained(tmp_path / places[3])
        return tmp_path

    return save


FOLDERS = {
    "diffusers": (("transformer/a.safetensors", "vae/a.safetensors", "text_encoder", "tokenizer"), {}),
    "original": (
        ("transformer/transformer.pth", "vae/Wan2.1_VAE.pth", "JoyAI-Image-Und", "JoyAI-Image-Und"),
        {"original": True, "containers": (as_pth, as_old_pth)},
    ),
    "folder": (("x", "y", "z", "z"), {}),
}


@pytest.mark.parametrize("layout", FOLDERS)
def test_parts_of_a_model_folder_are_found_and_load(model_folder, mmdit, qwen, tokens, layout):
    places, options = FOLDERS[layout]
    folder = model_folder(places, **options)
    if layout == "diffusers":
        (folder / "model_index.json").write_text("{}")
        (folder / "scheduler").mkdir()
    parts = find_parts(folder)
    expected = dict(
        zip(("mmdit", "vae", "encoder", "tokenizer"), (place.split("/")[0] for place in places), strict=True)
    )
    assert {part: path.relative_to(folder).parts[0] for part, path in parts.items()} == expected
    assert_same(load_mmdit(parts["mmdit"]), mmdit)
    assert isinstance(load_vae(parts["vae"]), WanVAE)
    assert_same_contexts(load_encoder(parts["encoder"]), Encoder(qwen, tokens))
    report = inspect(folder)
    assert (report.layout, {part.part for part in report.parts}) == (layout, {"mmdit", "vae", "encoder"})
    assert "Complete" in str(report) and not any(part.problem for part in report.parts)
    assert len(str(report).splitlines()) <= 24


def test_part_is_found_inside_a_whole_model(model_folder, mmdit):
    folder = model_folder(FOLDERS["diffusers"][0])
    assert_same(load_mmdit(folder), mmdit)


def test_all_parts_in_one_file(mmdit, vae, qwen, tokenizer_folder, tmp_path):
    path = as_safetensors(
        tmp_path / "a",
        renamed(mmdit.state_dict(), {"": "model.diffusion_model."})
        | renamed(vae.state_dict(), {"": "vae."})
        | renamed(qwen.state_dict(), {"": "text_encoders.qwen3vl.transformer."}),
    )
    assert find_parts(path) == {"mmdit": path, "vae": path, "encoder": path}
    assert_same(load_mmdit(path), mmdit)
    assert isinstance(load_vae(path), WanVAE)
    assert load_encoder(path, tokenizer_folder).model.lm_head.weight.equal(qwen.lm_head.weight)


def test_the_same_part_twice_is_ambiguous(mmdit, tmp_path):
    for name in ("a", "b"):
        as_safetensors(tmp_path / name, mmdit.state_dict())
    for use in (find_parts, load_mmdit):
        with pytest.raises(CheckpointError, match=r"JoyImage MMDiT twice, in .*a and in .*b; give one of them"):
            use(tmp_path)


def test_pickles_beside_safetensors_are_left_alone(mmdit, tmp_path):
    as_safetensors(tmp_path / "model.safetensors", mmdit.state_dict())
    torch.save({"optimizer": Path("x")}, tmp_path / "training_args.bin")
    assert_same(load_mmdit(tmp_path), mmdit)


def test_inspect_reads_no_tensor_of_a_real_size_file(tmp_path):
    """The header of the published 16B MMDiT over a hole of 32 GB: reading it would show in memory and time."""
    shapes = {name: tuple(parameter.shape) for name, parameter in MMDiT(device="meta").named_parameters()}
    path = tmp_path / "big.safetensors"
    write_sparse(path, shapes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = inspect(path)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < 200e6
    (part,) = report.parts
    assert (part.part, part.tensors, part.dtypes) == ("mmdit", len(shapes), {"bfloat16": len(shapes)})
    assert part.bytes == path.stat().st_size - 8 - header_length(path) and part.bytes > 32e9
    assert part.config["num_layers"] == 40 and part.config["rope_dims"] == (16, 56, 56)
    assert not part.problem and "--mmdit" in report.advice
    assert json.loads(json.dumps(report.as_dict()))["parts"][0]["tensors"] == len(shapes)


def write_sparse(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    header, position = {}, 0
    for name, shape in shapes.items():
        end = position + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + position)


def header_length(path: Path) -> int:
    return int.from_bytes(path.open("rb").read(8), "little")


def test_inspect_names_what_is_missing_and_unexpected(mmdit, tmp_path):
    state = mmdit.state_dict()
    del state["double_blocks.1.attn.txt_attn_proj.bias"]
    report = inspect(as_safetensors(tmp_path / "a", state | {"extra.weight": torch.ones(1)}))
    (part,) = report.parts
    assert part.missing == ("double_blocks.1.attn.txt_attn_proj.bias",) and part.unexpected == ("extra.weight",)
    assert "extra.weight" in str(report) and "would not load" in report.advice


def test_inspect_names_another_model(tmp_path):
    path = as_safetensors(tmp_path / "a", {"double_blocks.0.img_attn.qkv.weight": torch.ones(1)})
    assert "Flux" in str(inspect(path)) and inspect(path).parts[0].part == "unknown"


def test_inspect_says_what_cannot_be_computed_in(mmdit, tmp_path):
    state = {name: tensor.to(torch.int8) for name, tensor in mmdit.state_dict().items()}
    path = as_safetensors(tmp_path / "a", state)
    assert "int8" in inspect(path).parts[0].problem
    with pytest.raises(CheckpointError, match="int8"):
        load_mmdit(path)


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer_class": "OfALaterRelease"},
        {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<|im_start|>"], "backend": "tokenizers"},
        {"added_tokens_decoder": 3},
    ],
    ids=str,
)
def test_a_tokenizer_saved_by_another_transformers_loads(qwen, tokens, tokenizer_folder, tmp_path, change):
    folder = tmp_path / "tokenizer"
    shutil.copytree(tokenizer_folder, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | change))
    path = as_safetensors(tmp_path / "a.safetensors", qwen.state_dict())
    (tmp_path / "config.json").write_text(qwen.config.to_json_string())
    loaded = load_encoder(path, folder)
    assert_same_contexts(loaded, Encoder(qwen, tokens))
    assert loaded.answer((), "What is it?", max_new_tokens=4, temperature=0) == Encoder(qwen, tokens).answer(
        (), "What is it?", max_new_tokens=4, temperature=0
    )


# --- what a file cannot tell ---


def test_theta_is_given_where_the_file_does_not_say_it(mmdit, tmp_path):
    path = as_safetensors(tmp_path / "a.safetensors", mmdit.state_dict())
    assert load_mmdit(path).config.theta == 10000
    with_theta = load_mmdit(path, theta=256)
    assert with_theta.config == replace(load_mmdit(path).config, theta=256.0)
    assert not torch.allclose(velocity(with_theta), velocity(load_mmdit(path)))
    other = MMDiT(with_theta.config)
    other.load_state_dict(mmdit.state_dict())
    assert torch.allclose(velocity(other), velocity(with_theta), atol=1e-6)


@pytest.mark.parametrize("theta", [0, 1, -5, "a", float("nan"), float("inf"), True])
def test_a_theta_that_is_none_is_refused(tmp_path, theta):
    for load in (JoyImage.load, load_mmdit):
        with pytest.raises(JoyImageError, match="theta is"):
            load(tiny.FILES["mmdit"], theta=theta)
