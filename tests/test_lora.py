"""LoRA in every naming, over plain and quantised weights, against weights that were changed by hand."""

from __future__ import annotations

import contextlib
import copy
import json
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import tiny_qwen
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from joyimage import JoyImage, lora
from joyimage.checkpoints import convert, load_mmdit
from joyimage.cli import main
from joyimage.config import MMDiTConfig
from joyimage.errors import CheckpointError, JoyImageError
from joyimage.images import read_parameters
from joyimage.mmdit import MMDiT

LAYERS = {  # name: (out, in), ranks differ
    "double_blocks.0.attn.img_attn_qkv": (96, 32),
    "double_blocks.1.attn.txt_attn_proj": (32, 32),
    "double_blocks.1.img_mlp.net.0.proj": (128, 32),
    "condition_embedder.time_proj": (192, 32),
    "proj_out": (64, 32),
}
IMG_IN = "img_in"  # a kernel (32, 16, 1, 2, 2)
State = dict[str, Tensor]
Rename = Callable[[str], str]


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.2


@pytest.fixture(scope="module")
def network() -> MMDiT:
    return make_network()


def make_network() -> MMDiT:
    torch.manual_seed(0)
    model = MMDiT(MMDiTConfig(32, 2, 2, 16, 16, 24, 128, (1, 2, 2), (4, 6, 6)))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


def factors(seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """(down, up) of each layer, its rank from 2 to 7."""
    made = {}
    for i, (name, (out, into)) in enumerate(LAYERS.items()):
        made[name] = draw(2 + i, into, seed=seed + i), draw(out, 2 + i, seed=seed + 50 + i)
    made[IMG_IN] = draw(7, 16, 1, 2, 2, seed=seed + 30), draw(32, 7, 1, 1, 1, seed=seed + 31)
    return made


def by_hand(network: MMDiT, scales: dict[str, float], seed: int = 0) -> MMDiT:
    changed = copy.deepcopy(network)
    for name, (down, up) in factors(seed).items():
        weight = changed.get_submodule(name).weight
        weight.add_((up.flatten(1) @ down.flatten(1)).view_as(weight), alpha=scales[name])
    return changed


def velocity(model: MMDiT) -> Tensor:
    dtype = model.img_in.weight.dtype
    inputs = draw(1, 16, 1, 4, 6, seed=7), torch.tensor([731.25]), draw(1, 5, 24, seed=8).to(dtype)
    return model(*inputs, [draw(1, 16, 1, 4, 4, seed=9)]).float()


def without_attn(name: str) -> str:
    return name.replace(".attn.", ".")


def kohya(name: str) -> str:
    return "lora_unet_" + name.replace(".", "_")


def state(rename: Rename, down: str, up: str, alpha: float | None = None, seed: int = 0) -> State:
    made = {}
    for name, (a, b) in factors(seed).items():
        made |= {f"{rename(name)}.{down}": a, f"{rename(name)}.{up}": b}
        if alpha is not None:
            made[f"{rename(name)}.alpha"] = torch.tensor(alpha)
    return made


DOTTED = ("lora_A.weight", "lora_B.weight")
ARROWS = ("lora_down.weight", "lora_up.weight")
NAMINGS: dict[str, tuple[Rename, tuple[str, str]]] = {
    "peft": (lambda name: f"base_model.model.{name}", DOTTED),
    "peft while training": (
        lambda name: f"base_model.model.{name}",
        ("lora_A.default.weight", "lora_B.default.weight"),
    ),
    "diffusers": (lambda name: f"transformer.{name}", DOTTED),
    "comfy": (lambda name: f"diffusion_model.{name}", ARROWS),
    "comfy model": (lambda name: f"model.diffusion_model.{name}", ARROWS),
    "kohya": (kohya, ARROWS),
    "bare": (lambda name: name, ("lora.down.weight", "lora.up.weight")),
}


def save(path, tensors: State, metadata=None):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    return path


def apply(network: MMDiT, *files, merge: bool = False) -> lora.Applied:
    found = lora.match([network], [(lora.read(path), strength) for path, strength in files])
    return found.apply(torch.float32, merge)


def velocity_with(network: MMDiT, path) -> Tensor:
    """The velocity while a file's updates are applied, and not afterwards."""
    work = apply(network, (path, 1.0))
    changed = velocity(network)
    work.remove()
    return changed


def difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


@pytest.mark.parametrize("merge", [False, True], ids=["on the fly", "merged"])
@pytest.mark.parametrize("inner", [str, without_attn], ids=["attn", "no attn"])
@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_changes_the_layers_it_names(network, tmp_path, naming, inner, merge):
    rename, ends = NAMINGS[naming]
    path = save(tmp_path / "lora.safetensors", state(lambda name: rename(inner(name)), *ends))
    before, wanted = velocity(network), velocity(by_hand(network, dict.fromkeys(factors(), 0.8)))
    work = apply(network, (path, 0.8), merge=merge)
    changed = velocity(network)
    work.remove()
    assert difference(changed, wanted) < 1e-5
    assert difference(changed, before) > 0.1
    assert torch.equal(velocity(network), before)


def test_alpha_is_divided_by_the_rank_of_each_layer(network, tmp_path):
    path = save(tmp_path / "lora.safetensors", state(kohya, *ARROWS, alpha=3.0))
    scales = {name: 3.0 / len(down) for name, (down, _) in factors().items()}
    wanted = velocity(by_hand(network, scales))
    assert difference(velocity_with(network, path), wanted) < 1e-5


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("place", ["folder", "header"])
def test_peft_alpha_comes_from_the_configuration(network, tmp_path, place, rslora):
    ranks = {name: len(down) for name, (down, _) in factors().items()}
    config = {"lora_alpha": 6, "use_rslora": rslora, "alpha_pattern": {"proj_out": 12}, "rank_pattern": ranks}
    rename, ends = NAMINGS["peft" if place == "folder" else "diffusers"]
    metadata = None
    if place == "folder":
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    else:
        metadata = {"lora_adapter_metadata": json.dumps({f"transformer.{k}": v for k, v in config.items()})}
    save(tmp_path / "adapter_model.safetensors", state(rename, *ends), metadata)
    power = 0.5 if rslora else 1
    scales = {n: (12 if n == "proj_out" else 6) / len(down) ** power for n, (down, _) in factors().items()}
    wanted = velocity(by_hand(network, scales))
    work = apply(network, (tmp_path / "adapter_model.safetensors", 1.0))
    changed = velocity(network)
    work.remove()
    assert difference(changed, wanted) < 2e-5


PATTERNS = [
    {"double_blocks\\.\\d+\\.attn\\.img_attn_qkv": 8},
    {"qkv": 8},  # no whole part of a name: PEFT passes it over
    {"img_attn_qkv": 8, "double_blocks.0.attn.img_attn_qkv": 2},  # the first in the file counts, which is sorted
    {".*attn.*": 8},
    {"double_blocks.0.attn.img_attn_qkv|proj_out": 2},
    {"out": 8, "nothing": 3},
]


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("patterns", PATTERNS, ids=str)
def test_alpha_is_what_peft_takes(network, tmp_path, patterns, rslora):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=4, lora_alpha=4, target_modules=list(LAYERS), alpha_pattern=patterns, use_rslora=rslora,
        rank_pattern={"proj_out": 2}, init_lora_weights=False,
    )  # fmt: skip
    torch.manual_seed(0)
    peft.get_peft_model(copy.deepcopy(network), config).save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        work = apply(network, (tmp_path / "adapter_model.safetensors", 1.0))
    changed = velocity(network)
    work.remove()
    wanted = velocity(peft.PeftModel.from_pretrained(copy.deepcopy(network), tmp_path).merge_and_unload())
    assert difference(wanted, velocity(network)) > 1e-3
    assert difference(changed, wanted) < 2e-5


@pytest.mark.parametrize("name", ["lora_alpha", "network_alpha", "ss_network_alpha"])
def test_alpha_in_the_header_counts(network, tmp_path, name):
    rename, ends = NAMINGS["comfy"]
    path = save(tmp_path / "lora.safetensors", state(rename, *ends), {name: "3.0"})
    scales = {name: 3.0 / len(down) for name, (down, _) in factors().items()}
    wanted = velocity(by_hand(network, scales))
    assert difference(velocity_with(network, path), wanted) < 1e-5
    save(path, state(rename, *ends), {name: "many"})
    with pytest.raises(CheckpointError, match=f"the {name} in its header is 'many'"):
        lora.read(path)


def test_another_adapters_configuration_beside_a_file_does_not_count(network, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 64, "lora_alpha": 16}))
    path = save(tmp_path / "pytorch_lora_weights.safetensors", state(*NAMINGS["diffusers"][:1], *DOTTED))
    wanted = velocity(by_hand(network, dict.fromkeys(factors(), 1.0)))
    assert difference(velocity_with(network, path), wanted) < 1e-5


def test_a_configuration_of_another_rank_is_said(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 64, "lora_alpha": 16}))
    path = save(tmp_path / "adapter_model.safetensors", state(*NAMINGS["peft"][:1], *DOTTED))
    with pytest.warns(
        UserWarning, match=r"adapter_model.*its configuration says rank 64 where its tensors have another"
    ):
        lora.read(path)


@pytest.mark.parametrize("pattern", ["(", "(" * 3000 + ")" * 3000, "a{99999999999}"], ids=["open", "nested", "long"])
def test_a_pattern_that_is_none_is_refused(tmp_path, pattern):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 1, "alpha_pattern": {pattern: 3}}))
    path = save(tmp_path / "adapter_model.safetensors", state(*NAMINGS["peft"][:1], *DOTTED))
    with pytest.raises(CheckpointError, match=r"the alpha_pattern of its configuration: '[a(].*is no pattern"):
        lora.read(path)


ENDLESS = [{"([a-z0-9_.]+)+!": 3}, {"(a|a)*(a|a)*!": 3}, {".*.*.*.*.*.*.*!": 3}, {"(?:.{1,9}){1,9}!": 3}]


@pytest.mark.parametrize("patterns", [*ENDLESS, {f"a{i}": 3 for i in range(3000)}], ids=lambda p: next(iter(p)))
@pytest.mark.parametrize("name", ["alpha_pattern", "rank_pattern"])
def test_patterns_that_would_run_for_hours_are_refused(tmp_path, name, patterns):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 1, "r": 1, name: patterns}))
    path = save(tmp_path / "adapter_model.safetensors", state(*NAMINGS["peft"][:1], *DOTTED))
    with pytest.raises(CheckpointError, match=f"the {name} of its configuration.*(repeats too much|over 2,048)"):
        lora.read(path)


@pytest.mark.parametrize("merge", [False, True], ids=["on the fly", "merged"])
def test_several_add_up_with_their_strengths(network, tmp_path, merge):
    rename, ends = NAMINGS["comfy"]
    files = [save(tmp_path / f"{seed}.safetensors", state(rename, *ends, seed=seed)) for seed in (0, 7)]
    once = by_hand(network, dict.fromkeys(factors(), 0.7))
    wanted = velocity(by_hand(once, dict.fromkeys(factors(), -0.4), seed=7))
    before = velocity(network)
    work = apply(network, (files[0], 0.7), (files[1], -0.4), merge=merge)
    changed = velocity(network)
    work.remove()
    assert difference(changed, wanted) < 1e-5
    assert torch.equal(velocity(network), before)


@pytest.mark.parametrize("form", ["fp8", "int8", "gguf:Q8_0"])
def test_quantised_weights_stay_so_and_are_updated_on_the_fly(network, tmp_path, form):
    save(tmp_path / "plain.safetensors", network.state_dict())
    quantised = tmp_path / f"quantised.{'gguf' if 'gguf' in form else 'safetensors'}"
    convert(tmp_path / "plain.safetensors", quantised, format=form)
    model = load_mmdit(quantised, dtype=torch.float32)
    path = save(tmp_path / "lora.safetensors", state(kohya, *ARROWS))
    dense = copy.deepcopy(network)
    for name, layer in model.named_modules():
        if packed := getattr(layer, "packed", None):
            dense.get_submodule(name).weight.copy_(packed.dense(torch.float32))
    stored = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before, wanted = velocity(model), velocity(by_hand(dense, dict.fromkeys(factors(), 1.0)))
    work = apply(model, (path, 1.0), merge=True)  # merges what is plain
    changed = velocity(model)
    assert all(torch.equal(model.state_dict()[n], stored[n]) for n in stored if stored[n].dtype == torch.uint8)
    work.remove()
    assert difference(changed, wanted) < 1e-4
    assert torch.equal(velocity(model), before)


@pytest.mark.parametrize(
    "start, layers",
    [
        ("text_encoder.model.", "language_model.layers"),
        ("text_encoders.qwen3vl_8b.transformer.model.", "layers"),
        ("base_model.model.model.", "language_model.layers"),
        ("lora_te_", "layers"),
        ("lora_te1_model_", "language_model.layers"),
    ],
)
def test_the_encoder_is_updated_where_keys_say_so(network, tmp_path, start, layers):
    qwen = tiny_qwen.model(tiny_qwen.tokenizer())
    down, up = draw(3, 32, seed=1), draw(64, 3, seed=2)
    name = f"{layers}.1.mlp.up_proj"
    name = start + (name.replace(".", "_") if start.startswith("lora_") else name)
    path = save(tmp_path / "lora.safetensors", {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up})
    layer = qwen.model.language_model.layers[1].mlp.up_proj
    x = draw(2, 32, seed=3)
    before = layer(x)
    work = lora.match([network, qwen], [(lora.read(path), 0.5)]).apply(torch.float32)
    changed = layer(x)
    work.remove()
    torch.testing.assert_close(changed, before + 0.5 * x @ down.T @ up.T, atol=1e-5, rtol=0)
    assert torch.equal(layer(x), before)


def test_updates_are_part_of_the_layer_and_not_of_its_weights(network, tmp_path):
    path = save(tmp_path / "lora.safetensors", state(kohya, *ARROWS))
    keys = network.state_dict().keys()
    work = apply(network, (path, 1.0))
    assert network.state_dict().keys() == keys
    assert {name for name, _ in network.proj_out.named_buffers()} == {"lora_down", "lora_up"}
    work.remove()
    assert not dict(network.proj_out.named_buffers())


def test_keys_that_match_nothing_are_listed(network, tmp_path):
    tensors = state(kohya, *ARROWS)
    tensors |= {"lora_unet_double_blocks_9_img_mlp_net_2.lora_down.weight": torch.ones(2, 2)}
    tensors |= {"lora_unet_double_blocks_9_img_mlp_net_2.lora_up.weight": torch.ones(2, 2), "notes.diff": torch.ones(1)}
    path = save(tmp_path / "lora.safetensors", tensors)
    with pytest.warns(UserWarning, match=r"3 keys match nothing .*double_blocks_9_img_mlp_net_2.*notes\.diff"):
        lora.match([network], [(lora.read(path), 1.0)])


HALF = {"proj_out.lora_down.weight": torch.ones(2, 32)}


@pytest.mark.parametrize(
    "tensors, message",
    [
        ({"a.weight": torch.ones(2, 2)}, "is no LoRA"),
        ({"transformer_blocks.0.to_q.lora_A.weight": torch.ones(2, 2),
          "transformer_blocks.0.to_q.lora_B.weight": torch.ones(2, 2)}, "of another model: none .*to_q"),
        (HALF, "half of an update"),
        ({**HALF, "proj_out.lora_up.weight": torch.ones(64, 3)}, "do not go together as a LoRA"),
        ({**HALF, "proj_out.lora_up.weight": torch.ones(65, 2)}, r"weight is \(65, 32\), here it is \(64, 32\)"),
        ({**HALF, "proj_out.lora_up.weight": torch.ones(64, 2), "proj_out.alpha": torch.ones(2)}, "not one number"),
        ({**HALF, "proj_out.lora_up.weight": torch.ones(64, 2), "proj_out.alpha": torch.tensor(torch.inf)}, "scale is"),
        ({**HALF, "proj_out.dora_scale": torch.ones(64)}, "half of an update"),
        ({**HALF, "proj_out.lora_up.weight": torch.ones(64, 2, dtype=torch.int32)}, "is stored as int32"),
        ({"proj_out.lokr_w1": torch.ones(2, 2)}, "half of an update"),
        ({**HALF, "diffusion_model.proj_out.lora_A.weight": torch.ones(2, 32)}, "mixes namings"),
    ],
)  # fmt: skip
def test_unusable_files_are_refused_by_name_and_reason(network, tmp_path, tensors, message):
    path = save(tmp_path / "lora.safetensors", tensors)
    with pytest.raises(CheckpointError, match=f"lora.safetensors.*{message}"):
        lora.match([network], [(lora.read(path), 1.0)])


@pytest.mark.parametrize("alpha", ["sixteen", float("inf"), 10**400, [4]])
def test_an_alpha_that_is_no_number_is_refused(tmp_path, alpha):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": alpha, "alpha_pattern": [1]}))
    path = save(tmp_path / "adapter_model.safetensors", state(*NAMINGS["peft"][:1], *DOTTED))
    with pytest.raises(CheckpointError, match=r"lora_alpha of base_model\S+ is .*no number to use"):
        lora.read(path)


def test_a_strength_must_be_a_number(network, tmp_path):
    path = save(tmp_path / "lora.safetensors", state(kohya, *ARROWS))
    with pytest.raises(JoyImageError, match="strength is nan"):
        lora.match([network], [(lora.read(path), float("nan"))])


@pytest.fixture(scope="module")
def small_file(tmp_path_factory) -> bytes:
    shapes = {"lora_down.weight": (2, 32), "lora_up.weight": (64, 2), "alpha": ()}
    tensors = {f"diffusion_model.proj_out.{name}": torch.ones(shape).half() for name, shape in shapes.items()}
    metadata = {"lora_adapter_metadata": json.dumps({"diffusion_model.lora_alpha": 4})}
    return save(tmp_path_factory.mktemp("fuzz") / "lora.safetensors", tensors, metadata).read_bytes()


@settings(deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, 900),
)
def test_a_mutated_file_is_read_or_refused(network, small_file, tmp_path, changes, cut):
    data = bytearray(small_file)
    for place, value in changes:
        data[place] = value
    path = tmp_path / "mutated"
    path.write_bytes(data[: len(data) - max(0, cut - 800)])
    with contextlib.suppress(JoyImageError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lora.match([network], [(lora.read(path), 1.0)])


# --- the whole model ---


@pytest.fixture
def both_parts(tmp_path) -> str:
    """A LoRA for the bundled model's MMDiT and encoder."""
    layers = {f"diffusion_model.double_blocks.{i}.img_mlp.net.2": (160, 640) for i in range(4)}
    layers["text_encoder.model.language_model.layers.1.mlp.up_proj"] = 384, 128
    tensors = {}
    for seed, (name, (out, into)) in enumerate(layers.items()):
        tensors |= {
            f"{name}.lora_A.weight": draw(4, into, seed=seed),
            f"{name}.lora_B.weight": draw(out, 4, seed=50 + seed),
        }
    return str(save(tmp_path / "both.safetensors", tensors))


def latent(model: JoyImage) -> Tensor:
    return model.generate("a cup", size=(64, 64), steps=1, output="latent")


def test_a_model_uses_the_loras_that_are_set_and_no_others(both_parts):
    model = JoyImage.load("tiny", device="cpu")
    before = latent(model)
    model.set_loras((both_parts, 0.7))
    changed = latent(model)
    model.set_loras((both_parts, 0.3), (both_parts, 0.4), merge=True)
    merged = latent(model)
    with pytest.raises(JoyImageError):
        model.set_loras(both_parts, "missing.safetensors")
    assert torch.equal(latent(model), merged)
    model.set_loras()
    assert difference(changed, before) > 0.05
    assert difference(merged, changed) < 1e-4
    assert torch.equal(latent(model), before)


def test_streamed_blocks_bring_their_updates_along(both_parts):
    resident, streamed = JoyImage.load("tiny", device="cpu"), JoyImage.load("tiny", device="cpu", memory="20MB")
    before = latent(streamed)
    for model in (resident, streamed):
        model.set_loras(both_parts)
    assert torch.equal(latent(streamed), latent(resident))
    streamed.set_loras()
    assert torch.equal(latent(streamed), before)


@pytest.mark.slow
def test_the_command_line_takes_loras_with_their_strengths(both_parts, tmp_path, monkeypatch):
    monkeypatch.delenv("JOYIMAGE_MODEL", raising=False)
    command = ["generate", "a cup", "--size", "64x64", "--steps", "1", "--quiet", "--device", "cpu", "-o"]
    loras = {
        "none": [],
        "one": ["--lora", f"{both_parts}:1.5"],
        "two": ["--lora", both_parts, "--lora", f"{both_parts}:-1"],
    }
    for name, options in loras.items():
        assert main([*command, str(tmp_path / f"{name}.png"), *options]) == 0
    pixels = {name: np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int) for name in loras}
    assert abs(pixels["two"] - pixels["none"]).max() <= 1  # the two cancel
    assert abs(pixels["one"] - pixels["none"]).max() > 5
    assert read_parameters(tmp_path / "one.png")["loras"] == [[both_parts, 1.5]]
    assert main([*command, str(tmp_path / "x.png"), "--lora", str(tmp_path / "none.png")]) == 2
