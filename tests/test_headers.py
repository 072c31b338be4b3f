"""What headers tell: the shapes of networks before they are built, without torch, each file opened once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import tiny_qwen
import torch
import transformers
from loadable import FORMATS as WRITTEN
from quantised_files import write_gguf
from safetensors.torch import load_file, save_file
from test_checkpoints import RELEASED, write_sparse
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from joyimage import JoyImage, JoyImageError, tiny
from joyimage.checkpoints import base_size, convert, files, load_encoder, load_mmdit, open_model
from joyimage.checkpoints.folders import open_component
from joyimage.checkpoints.outlines import outline
from joyimage.checkpoints.qwen import EncoderConfig
from joyimage.checkpoints.shapes import encoder_shapes, mmdit_shapes, vae_shapes
from joyimage.config import MMDiTConfig, WanVAEConfig
from joyimage.errors import CheckpointError
from joyimage.memory import Needs
from joyimage.memory import budget as budgets
from joyimage.mmdit import MMDiT
from joyimage.planning import plan_model
from joyimage.quantisation.formats import why_kept
from joyimage.vae import WanVAE

# -- shapes -----------------------------------------------------------------------------------------------------------


def shapes_of(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}


@pytest.mark.parametrize(
    "sizes",
    [
        MMDiTConfig(),
        MMDiTConfig(32, 2, 2, 16, 16, 24, 128, (1, 2, 2), (4, 6, 6)),
        MMDiTConfig(30, 3, 1, 5, 7, 11, 13, (1, 3, 1), (2, 4, 4)),
    ],
)
def test_shapes_of_the_mmdit_are_those_of_the_network(sizes):
    assert mmdit_shapes(sizes) == shapes_of(MMDiT(sizes, device="meta"))


@pytest.mark.parametrize(
    "sizes",
    [
        WanVAEConfig(),
        WanVAEConfig(base_dim=4, dim_mult=(1, 2), num_res_blocks=1),
        WanVAEConfig(base_dim=6, dim_mult=(1,), num_res_blocks=3),
        WanVAEConfig(4, (1, 1, 3, 2, 2), 2, 3, (0.0,) * 3, (1.0,) * 3),
    ],
)
def test_shapes_of_the_vae_are_those_of_the_network(sizes):
    assert vae_shapes(sizes) == shapes_of(WanVAE(sizes, device="meta"))


def qwen(entries: dict) -> Qwen3VLForConditionalGeneration:
    if transformers.__version__.startswith("4."):  # which wants the rotary embedding under its former name
        rope = {"rope_type": "default", "mrope_section": [4, 2, 2]}
        entries = entries | {"text_config": entries.get("text_config", {}) | {"rope_scaling": rope}}
    with torch.device("meta"):
        return Qwen3VLForConditionalGeneration(Qwen3VLConfig(**json.loads(json.dumps(entries))))


def released(size: str) -> dict:
    text, vision, deepstack, tied = RELEASED[size]
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    return {
        "text_config": {**dict(zip(names, text, strict=True)), "tie_word_embeddings": tied},
        "vision_config": {
            **dict(zip(("hidden_size", "intermediate_size", "depth"), vision, strict=True)),
            "out_hidden_size": text[0],
            "deepstack_visual_indexes": deepstack,
        },
        "tie_word_embeddings": tied,
    }


ODD = {
    "text_config": {
        "vocab_size": 77, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 6,
        "num_key_value_heads": 3, "head_dim": 10, "attention_bias": True,
    },
    "vision_config": {
        "depth": 2, "hidden_size": 12, "intermediate_size": 20, "num_heads": 3, "in_channels": 4, "patch_size": 6,
        "temporal_patch_size": 3, "spatial_merge_size": 3, "out_hidden_size": 24, "num_position_embeddings": 25,
        "deepstack_visual_indexes": [1],
    },
}  # fmt: skip


@pytest.mark.parametrize("entries", [*map(released, RELEASED), ODD, {}], ids=[*RELEASED, "odd", "defaults"])
def test_shapes_of_the_encoder_are_those_of_the_network(entries):
    """Also where the configuration leaves entries out, in favour of transformers' own defaults."""
    network = qwen(entries)
    sizes = EncoderConfig.of({"model_type": "qwen3_vl", **entries}, head=not entries.get("tie_word_embeddings"))
    expected = shapes_of(network)
    assert sizes.tied == (network.lm_head.weight is network.get_input_embeddings().weight)
    assert encoder_shapes(sizes) == expected


@pytest.mark.parametrize(
    "entries", [{"text_config": 3}, {"vision_config": {"depth": "deep"}}, {"text_config": {"vocab_size": -1}}]
)
def test_a_configuration_that_tells_no_sizes_is_refused(entries):
    with pytest.raises(ValueError, match="config"):
        EncoderConfig.of({"model_type": "qwen3_vl", **entries}, head=True)


# -- sizes in memory --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", WRITTEN)
def test_an_outline_measures_as_the_loaded_network_does(tmp_path, form):
    """To the byte, scales included, on sizes that blocks do and do not divide."""
    sizes = MMDiTConfig(128, 2, 2, text_dim=48, mlp_size=200, rope_dims=(16, 24, 24))
    state = {name: torch.randn(shape) for name, shape in mmdit_shapes(sizes).items()}
    chosen = [name for name, tensor in state.items() if not why_kept("mmdit", name, tuple(tensor.shape))]
    path = WRITTEN[form].write(tmp_path / "a", state, chosen)
    networks = outline(open_component(path, "mmdit")), load_mmdit(path, compute_device="cuda")
    parts = [budgets.measure("mmdit", network, {"blocks": network.double_blocks}) for network in networks]
    assert parts[0] == parts[1]
    assert len({budgets.unpacking(network, 2) for network in networks}) == 1
    assert len({budgets.itemsize(network) for network in networks}) == 1


@pytest.mark.parametrize("tied", [False, True])
def test_an_outline_of_an_encoder_measures_as_the_loaded_one_does(tmp_path, tied):
    tokens = tiny_qwen.tokenizer()
    model = tiny_qwen.model(tokens, tie_word_embeddings=tied)
    model.config.tie_word_embeddings = tied
    model.config.save_pretrained(tmp_path)
    tokens.save_pretrained(tmp_path)
    state = {name: tensor for name, tensor in model.state_dict().items() if not (tied and name == "lm_head.weight")}
    matrices = [name for name, tensor in state.items() if tensor.ndim == 2]  # embeddings of text and places among them
    write_gguf(tmp_path / "a.gguf", state, matrices, "Q8_0")
    loaded = load_encoder(tmp_path, compute_device="cuda").model
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == tied
    others = [outline(open_component(tiny.FILES[name], name)) for name in ("mmdit", "vae")]
    results = []
    for network in (outline(open_component(tmp_path, "encoder")), loaded):
        needs = Needs(network, *others)
        whole, idle = needs.part("encoder"), needs.part("encoder", needs.idle["encoder"])
        results.append((whole, idle, needs.encoder(65536, 100), needs.weights))
    assert results[0] == results[1]


# -- without torch ----------------------------------------------------------------------------------------------------

RUN = """
import sys
from joyimage.cli import main
code = main(sys.argv[1:])
print(sorted({"torch", "transformers"} & sys.modules.keys()), file=sys.stderr)
sys.exit(code)
"""


def run(*arguments: str | Path) -> str:
    """What a command prints, if it has imported neither torch nor transformers."""
    done = subprocess.run([sys.executable, "-c", RUN, *map(str, arguments)], capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (0, ["[]"]), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> dict[str, Path]:
    """Headers of the published model over holes: the MMDiT's has 894 tensors."""
    folder = tmp_path_factory.mktemp("published")
    shapes = {
        "mmdit": mmdit_shapes(MMDiTConfig()),
        "vae": vae_shapes(WanVAEConfig()),
        "encoder": shapes_of(qwen(released("8B"))),
    }
    for name, each in shapes.items():
        write_sparse(folder / name, each)
    return {name: folder / name for name in shapes}


def test_inspect_needs_no_torch(published):
    assert "hidden_size 4096" in run("inspect", published["mmdit"])
    (report,) = json.loads(run("inspect", "--json", published["encoder"]))
    assert report["parts"][0]["config"]["vocab_size"] == 151936 and not report["parts"][0]["problem"]


def test_plan_needs_no_torch(published):
    parts = [text for name, path in published.items() for text in (f"--{name}", path)]
    plan = json.loads(run("plan", "--memory", "12GB", "--dtype", "float16", "--json", *parts))
    assert 32.2e9 < next(part["weights"] for part in plan["parts"] if part["name"] == "mmdit") < 32.8e9
    assert "expected peak" in run("plan", "--memory", "60MB", "--size", "64x64", "--device", "cpu")


def test_notes_of_quantised_layers_need_no_torch(tmp_path):
    state = load_file(tiny.FILES["mmdit"])
    name = "double_blocks.0.attn.img_attn_qkv"
    state[f"{name}.weight"] = state[f"{name}.weight"].to(torch.float8_e4m3fn)
    state[f"{name}.weight_scale"] = torch.tensor(1.0)
    state[f"{name}.comfy_quant"] = torch.tensor([*b'{"format": "float8_e4m3fn"}'], dtype=torch.uint8)
    save_file(state, tmp_path / "a.safetensors")
    assert "1 float8_e4m3fn" in run("inspect", tmp_path / "a.safetensors")


# -- each file once ---------------------------------------------------------------------------------------------------


@pytest.fixture
def read(monkeypatch) -> Counter[Path]:
    """How often the header of each file has been read."""
    counts: Counter[Path] = Counter()

    def counted(reader):
        def open_counted(path: Path):
            counts[path.resolve()] += 1
            return reader(path)

        return open_counted

    monkeypatch.setattr(files, "READERS", tuple((matches, counted(reader)) for matches, reader in files.READERS))
    return counts


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model in Diffusers' layout, the encoder in shards."""
    folder, tokens = tmp_path_factory.mktemp("model"), tiny_qwen.tokenizer()
    for name, place in (("mmdit", "transformer"), ("vae", "vae")):
        (folder / place).mkdir()
        shutil.copy(tiny.FILES[name], folder / place / "diffusion_pytorch_model.safetensors")
    tiny_qwen.model(tokens).save_pretrained(folder / "text_encoder", max_shard_size="200KB")
    tokens.save_pretrained(folder / "tokenizer")
    return folder


def test_a_plan_is_of_the_weights_and_not_of_a_configuration_that_contradicts_them(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "model")
    config = other / "text_encoder" / "config.json"
    told = json.loads(config.read_text(encoding="utf-8"))
    told["text_config"]["vocab_size"] = 2**60
    config.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"text_encoder: does not fit .*embed_tokens.* instead of"):
        plan_model(other, memory="1GB", device="cpu")


def weight_files(folder: Path) -> dict[Path, int]:
    return {path.resolve(): 1 for path in folder.rglob("*.safetensors")}


def test_loading_a_folder_opens_each_file_once(folder, read):
    JoyImage.load(folder, device="cpu")
    assert read == weight_files(folder) and len(read) > 4


def test_planning_for_a_folder_opens_each_file_once(folder, read):
    plan_model(folder, memory="1GB", device="cpu")
    assert read == weight_files(folder)


def test_a_part_from_elsewhere_opens_no_file_twice(folder, read):
    """The folder's own is opened, since nothing but its content tells what it is."""
    model = open_model(folder, vae=tiny.FILES["vae"], mmdit=folder / "transformer")
    assert model["vae"].path == tiny.FILES["vae"] and model.tokenizer == folder / "tokenizer"
    assert read == weight_files(folder) | {tiny.FILES["vae"].resolve(): 1}


def test_one_file_for_all_parts_is_opened_once(folder, read, tmp_path):
    state = {f"vae.{name}": tensor for name, tensor in load_file(tiny.FILES["vae"]).items()}
    state |= {f"diffusion_model.{name}": tensor for name, tensor in load_file(tiny.FILES["mmdit"]).items()}
    save_file(state, tmp_path / "a")
    model = open_model(mmdit=tmp_path / "a", vae=tmp_path / "a", encoder=folder / "text_encoder", tokenizer="tokens")
    assert {name: source.component for name, source in model.items()} == {name: name for name in model}
    assert model.tokenizer == Path("tokens")
    assert set(read.values()) == {1}


def test_open_sources_load_and_tell_their_base_size(folder, read):
    model = open_model(folder, mmdit=tiny.FILES["mmdit"])
    before = read.total()
    assert load_mmdit(model["mmdit"]).config.hidden_size == 160
    assert base_size(model["mmdit"], "mmdit") == tiny.BASE_SIZE
    assert read.total() == before
    with pytest.raises(CheckpointError, match=r"holds a Wan 2\.1 VAE, not a JoyImage MMDiT"):
        load_mmdit(model["vae"])


def test_parts_that_nobody_gives_are_named():
    with pytest.raises(JoyImageError, match="no mmdit and no encoder given"):
        open_model(vae="nowhere")


@pytest.mark.parametrize(
    ("device", "by"),
    [("cpu", "torch._int_mm on CPU with AVX512-VNNI; else exact"), ("cuda", "torch._int_mm on CUDA"), ("mps", "exact")],
)
def test_inspect_and_plan_say_what_multiplies_quantised_weights(device, by, tmp_path):
    paths = {name: tmp_path / f"{name}.safetensors" for name in tiny.FILES}
    for name, path in tiny.FILES.items():
        convert(path, paths[name], format="int8")
    (report,) = json.loads(run("inspect", "--json", paths["mmdit"]))
    products = report["parts"][0]["products"]["int8_convrot"]
    assert products["exact"] == "codes as they are, the scale after" and "torch._int_mm" in products["8bit"]
    assert "products of int8_convrot, exact: codes as they are" in run("inspect", paths["mmdit"])
    (report,) = json.loads(run("inspect", "--json", paths["vae"]))
    assert not report["parts"][0]["products"]
    parts = [text for name, path in paths.items() for text in (f"--{name}", path)]
    text = run("plan", "--memory", "1GB", "--size", "64x64", "--device", device, *parts, "--products", "8bit")
    assert by in next(line for line in text.splitlines() if line.startswith("products of int8_convrot: "))
    exact = json.loads(run("plan", "--memory", "1GB", "--size", "64x64", "--device", device, "--json", *parts))
    assert exact["products"] == {"int8_convrot": "codes as they are, the scale after"}
