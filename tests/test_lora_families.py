"""Every family of LoRA against the library that writes its files, over plain, quantised and streamed weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_lora import draw, make_network, velocity
from torch import Tensor, nn

from joyimage import JoyImage, lora
from joyimage.checkpoints import convert, load_mmdit
from joyimage.errors import CheckpointError
from joyimage.mmdit import MMDiT

State = dict[str, Tensor]
LAYERS = (  # as wide as high, wider, higher, and a kernel (32, 16, 1, 2, 2)
    "double_blocks.1.attn.txt_attn_proj",
    "double_blocks.0.img_mlp.net.2",
    "double_blocks.0.attn.img_attn_qkv",
    "img_in",
)
# algorithm of LyCORIS, with its options
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("locon.LoConModule", {"lora_dim": 4, "alpha": 3}),
    "LoRA, rank-stabilised": ("locon.LoConModule", {"lora_dim": 4, "alpha": 3, "rs_lora": True}),
    "LoRA with a core": ("locon.LoConModule", {"lora_dim": 4, "alpha": 2, "use_tucker": True}),
    "DoRA": ("locon.LoConModule", {"lora_dim": 4, "alpha": 3, "weight_decompose": True}),
    "DoRA by columns": (
        "locon.LoConModule",
        {"lora_dim": 4, "alpha": 3, "weight_decompose": True, "wd_on_out": False},
    ),
    "LoHa": ("loha.LohaModule", {"lora_dim": 3, "alpha": 2}),
    "LoHa with cores": ("loha.LohaModule", {"lora_dim": 3, "alpha": 2, "use_tucker": True}),
    "DoHa": ("loha.LohaModule", {"lora_dim": 3, "alpha": 2, "weight_decompose": True}),
    "LoKr, whole": ("lokr.LokrModule", {"lora_dim": 10000, "alpha": 1, "factor": 4, "full_matrix": True}),
    "LoKr, inner a product": ("lokr.LokrModule", {"lora_dim": 2, "alpha": 3, "factor": 4}),
    "LoKr, both products": ("lokr.LokrModule", {"lora_dim": 1, "alpha": 3, "factor": 8, "decompose_both": True}),
    "LoKr with a core": ("lokr.LokrModule", {"lora_dim": 2, "alpha": 3, "factor": 2, "use_tucker": True}),
    "DoKr": ("lokr.LokrModule", {"lora_dim": 2, "alpha": 3, "factor": 4, "weight_decompose": True}),
    "GLoRA": ("glora.GLoRAModule", {"lora_dim": 4, "alpha": 3}),
    "OFT": ("diag_oft.DiagOFTModule", {"lora_dim": 4}),
    "OFT, bound and rescaled": ("diag_oft.DiagOFTModule", {"lora_dim": 4, "constraint": 1e-2, "rescaled": True}),
    "BOFT": ("boft.ButterflyOFTModule", {"lora_dim": 12}),
    "BOFT, bound and rescaled": ("boft.ButterflyOFTModule", {"lora_dim": 12, "constraint": 1e-2, "rescaled": True}),
    "difference": ("full.FullModule", {}),
}


@pytest.fixture(scope="module")
def network() -> MMDiT:
    return make_network()


def randomise(module: nn.Module, seed: int, size: float = 0.3) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data += size * torch.randn(parameter.shape, generator=generator)


def lycoris_modules(network: MMDiT, family: str) -> dict[str, Any]:
    """One of LyCORIS's modules for each layer, with random tensors."""
    modules = pytest.importorskip("lycoris.modules")
    path, options = FAMILIES[family]
    file, name = path.split(".")
    build = getattr(getattr(modules, file), name)
    made = {}
    for seed, layer in enumerate(LAYERS):
        own = copy.deepcopy(network.get_submodule(layer))
        made[layer] = build(f"lycoris_{layer.replace('.', '_')}", own, **options)
        randomise(made[layer], seed)
        if family == "difference":
            made[layer].apply_to()  # it saves what it differs in from then on
    return made


def tensors_of(module: Any) -> State:
    state = module.custom_state_dict() or module.state_dict()
    return {
        name: torch.as_tensor(tensor).detach().clone() for name, tensor in state.items() if name in module.weight_list
    }


def write(
    path: Path, modules: dict[str, Any], rename: Callable[[str], str] = lambda name: f"diffusion_model.{name}"
) -> Path:
    save_file({f"{rename(n)}.{k}": v.contiguous() for n, m in modules.items() for k, v in tensors_of(m).items()}, path)
    return path


def as_lycoris_does(network: MMDiT, modules: dict[str, Any], strength: float) -> MMDiT:
    """The network with LyCORIS's modules in the place of its layers, as they were while they trained."""
    changed = copy.deepcopy(network)
    for name, module in modules.items():
        layer = changed.get_submodule(name)
        module.org_forward, module.multiplier = layer.forward, strength
        layer.forward = module.eval().forward
    return changed


def apply(network: MMDiT, path: Path, strength: float = 1.0, merge: bool = False) -> lora.Applied:
    return lora.match([network], [(lora.read(path), strength)]).apply(torch.float32, merge)


def difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize("merge", [False, True], ids=["on the fly", "merged"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_does_what_lycoris_does(network, tmp_path, family, merge, strength):
    if strength != 1 and family.startswith("Do"):
        pytest.skip("LyCORIS keeps the difference whole at every strength; see the test of straight lines")
    modules = lycoris_modules(network, family)
    path = write(tmp_path / "lora.safetensors", modules)
    before = velocity(network)
    with torch.no_grad():
        wanted = velocity(as_lycoris_does(network, modules, strength))
        work = apply(network, path, strength, merge)
        changed = velocity(network)
        work.remove()
    assert difference(changed, wanted) < 1e-5
    assert difference(changed, before) > 1e-2
    assert torch.equal(velocity(network), before)


@pytest.mark.parametrize("strength", [0.0, 0.3, -0.5])
def test_dora_goes_in_a_straight_line_from_the_weight_before(network, tmp_path, strength):
    path = write(tmp_path / "lora.safetensors", lycoris_modules(network, "DoRA"))
    before = {name: network.get_submodule(name).weight.clone() for name in LAYERS}
    after = weights_with(network, path, 1.0)
    at = weights_with(network, path, strength)
    for name in LAYERS:
        torch.testing.assert_close(at[name], before[name] + strength * (after[name] - before[name]), atol=1e-6, rtol=0)


def weights_with(network: MMDiT, path: Path, strength: float) -> State:
    work = apply(network, path, strength, merge=True)
    weights = {name: network.get_submodule(name).weight.clone() for name in LAYERS}
    work.remove()
    return weights


PEFT: dict[str, Callable[[Any], Any]] = {
    "LoRA": lambda peft: peft.LoraConfig(r=3, lora_alpha=5, init_lora_weights=False),
    "LoRA with a bias": lambda peft: peft.LoraConfig(r=3, lora_alpha=5, lora_bias=True, init_lora_weights=False),
    "DoRA": lambda peft: peft.LoraConfig(r=3, lora_alpha=5, use_dora=True, init_lora_weights=False),
    "LoHa": lambda peft: peft.LoHaConfig(r=3, alpha=5, init_weights=False),
    "LoHa with cores": lambda peft: peft.LoHaConfig(r=3, alpha=5, use_effective_conv2d=True, init_weights=False),
    "LoKr": lambda peft: peft.LoKrConfig(r=2, alpha=5, decompose_both=True, decompose_factor=4, init_weights=False),
    "LoKr, whole": lambda peft: peft.LoKrConfig(r=64, alpha=5, decompose_factor=4, init_weights=False),
    "LoKr of its own ranks": lambda peft: peft.LoKrConfig(
        r=2, alpha=5, rank_pattern={"img_mlp.net.2": 3}, alpha_pattern={"img_mlp.net.2": 7}, init_weights=False
    ),
}


@pytest.mark.parametrize("merge", [False, True], ids=["on the fly", "merged"])
@pytest.mark.parametrize("kind", PEFT)
def test_what_peft_saves_does_what_peft_does(network, tmp_path, kind, merge):
    peft = pytest.importorskip("peft")
    config = PEFT[kind](peft)
    kernels = isinstance(config, peft.LoraConfig)  # PEFT's others take none of three dimensions
    config.target_modules = list(LAYERS if kernels else LAYERS[:-1])
    torch.manual_seed(0)
    trained = peft.get_peft_model(copy.deepcopy(network), config)
    for name, parameter in trained.named_parameters():
        if "magnitude" in name:
            parameter.data *= 1.5
    trained.save_pretrained(tmp_path)
    before = velocity(network)
    with torch.no_grad():
        wanted = velocity(trained.merge_and_unload())
        work = apply(network, tmp_path / "adapter_model.safetensors", merge=merge)
        changed = velocity(network)
        work.remove()
    assert difference(changed, wanted) < 1e-5
    assert difference(changed, before) > 1e-2
    assert torch.equal(velocity(network), before)


@pytest.mark.parametrize("form", ["fp8", "int8", "gguf:Q8_0"])
@pytest.mark.parametrize("family", ["LoRA", "DoRA", "LoHa", "LoKr, inner a product", "GLoRA", "OFT", "difference"])
def test_quantised_weights_are_changed_as_if_they_were_plain(network, tmp_path, family, form):
    save_file(network.state_dict(), tmp_path / "plain.safetensors")
    quantised = tmp_path / f"quantised.{'gguf' if 'gguf' in form else 'safetensors'}"
    convert(tmp_path / "plain.safetensors", quantised, format=form)
    model = load_mmdit(quantised, dtype=torch.float32)
    dense = copy.deepcopy(network)
    for name, layer in model.named_modules():
        if packed := getattr(layer, "packed", None):
            dense.get_submodule(name).weight.copy_(packed.dense(torch.float32))
    path = write(tmp_path / "lora.safetensors", lycoris_modules(network, family))
    stored = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = velocity(model)
    merged = apply(dense, path, 0.8, merge=True)
    wanted = velocity(dense)
    merged.remove()
    work = apply(model, path, 0.8)
    changed = velocity(model)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in stored.items() if "bias" not in name)
    work.remove()
    assert (changed - wanted).norm() < 1e-3 * wanted.norm()
    assert difference(changed, before) > 1e-2
    assert torch.equal(velocity(model), before)


def test_a_layer_has_its_weight_back_when_it_fails(network, tmp_path):
    path = write(tmp_path / "lora.safetensors", lycoris_modules(network, "OFT"))
    before = velocity(network)
    work = apply(network, path)
    with pytest.raises(RuntimeError):
        network.get_submodule(LAYERS[0])(torch.ones(2, 5))
    work.remove()
    assert torch.equal(velocity(network), before)


def test_families_follow_each_other_in_the_order_given(network, tmp_path):
    paths = []
    for family in ("OFT", "LoRA"):
        paths.append(write(tmp_path / f"{family}.safetensors", lycoris_modules(network, family)))
    layer = network.get_submodule(LAYERS[0])
    one = weights_with(network, paths[0], 1.0)[LAYERS[0]]
    kept = layer.weight
    layer.weight = nn.Parameter(one, requires_grad=False)
    wanted = weights_with(network, paths[1], 0.5)[LAYERS[0]]
    layer.weight = kept
    found = lora.match([network], [(lora.read(paths[0]), 1.0), (lora.read(paths[1]), 0.5)])
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(5))
    work = found.apply(torch.float32)
    changed = layer(x)
    work.remove()
    torch.testing.assert_close(changed, x @ wanted.T + layer.bias, atol=1e-5, rtol=1e-5)


# -- single tensors, and what trainers call them ----------------------------------------------------------------------

LAYER = LAYERS[0]


def changed_parameters(network: MMDiT, tmp_path: Path, tensors: State, strength: float = 1.0) -> State:
    """What a file adds to the parameters that it changes."""
    save_file(tensors, tmp_path / "lora.safetensors")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    work = apply(network, tmp_path / "lora.safetensors", strength, merge=True)
    after = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    work.remove()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    return {name: after[name] - before[name] for name in before if not torch.equal(after[name], before[name])}


def test_differences_of_norms_biases_and_tables_count(network, tmp_path):
    block = "diffusion_model.double_blocks.0"
    tensors = {
        f"{block}.attn.img_attn_q_norm.diff": draw(16, seed=1),
        f"{block}.attn.img_attn_qkv.diff_b": draw(96, seed=2),
        f"{block}.img_mod.modulate_table.diff": draw(1, 6, 32, seed=3),
        "diffusion_model.img_in.diff_b": draw(32, seed=4),
        f"{block}.attn.txt_attn_k_norm.w_norm": draw(16, seed=5),
    }
    found = changed_parameters(network, tmp_path, tensors, 0.5)
    wanted = {
        "double_blocks.0.attn.img_attn_q_norm.weight": draw(16, seed=1),
        "double_blocks.0.attn.img_attn_qkv.bias": draw(96, seed=2),
        "double_blocks.0.img_mod.modulate_table": draw(1, 6, 32, seed=3),
        "img_in.bias": draw(32, seed=4),
        "double_blocks.0.attn.txt_attn_k_norm.weight": draw(16, seed=5),
    }
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], 0.5 * tensor, atol=1e-6, rtol=0)


def test_a_kernel_may_be_flattened(network, tmp_path):
    down, up = draw(4, 64, seed=1), draw(32, 4, seed=2)
    tensors = {"diffusion_model.img_in.lora_down.weight": down, "diffusion_model.img_in.lora_up.weight": up}
    found = changed_parameters(network, tmp_path, tensors)
    torch.testing.assert_close(found["img_in.weight"], (up @ down).reshape(32, 16, 1, 2, 2), atol=1e-6, rtol=0)


def test_a_value_takes_the_place_of_the_weight(network, tmp_path):
    value = draw(32, 32, seed=1)
    found = changed_parameters(network, tmp_path, {f"diffusion_model.{LAYER}.set_weight": value})
    torch.testing.assert_close(found[f"{LAYER}.weight"], value - network.get_submodule(LAYER).weight, atol=1e-6, rtol=0)


def test_old_glora_has_its_pairs_the_other_way_round(network, tmp_path):
    a1, a2, b1, b2 = draw(3, 32, seed=1), draw(32, 3, seed=2), draw(3, 32, seed=3), draw(32, 3, seed=4)
    pairs = {"a1.weight": a1, "a2.weight": a2, "b1.weight": b1, "b2.weight": b2, "alpha": torch.tensor(6.0)}
    tensors = {f"diffusion_model.{LAYER}.{name}": tensor for name, tensor in pairs.items()}
    found = changed_parameters(network, tmp_path, tensors)
    weight = network.get_submodule(LAYER).weight
    torch.testing.assert_close(found[f"{LAYER}.weight"], 2 * (weight @ a2 @ a1 + b2 @ b1), atol=1e-5, rtol=0)


def test_glora_with_a_core(network, tmp_path):
    a1, a2, b1, b2 = draw(32, 3, seed=1), draw(3, 32, seed=2), draw(32, 3, seed=3), draw(3, 32, seed=4)
    core, alpha = draw(3, 3, seed=5), torch.tensor(6.0)
    parts = {"a1.weight": a1, "a2.weight": a2, "b1.weight": b1, "b2.weight": b2, "bm.weight": core, "alpha": alpha}
    found = changed_parameters(network, tmp_path, {f"lycoris_{LAYER}.{name}": part for name, part in parts.items()})
    weight = network.get_submodule(LAYER).weight
    torch.testing.assert_close(found[f"{LAYER}.weight"], 2 * (weight @ a1 @ a2 + b1 @ core @ b2), atol=1e-5, rtol=0)


NAMINGS = {
    "compiled": lambda name: f"transformer._orig_mod.{name}",
    "compiled, kohya": lambda name: "lora_unet__orig_mod_" + name.replace(".", "_"),
    "diffsynth": lambda name: f"dit.{name}",
    "diffsynth pipe": lambda name: f"pipe.dit.{name}",
    "distributed": lambda name: f"module.{name}",
    "peft in a wrapper": lambda name: f"module.base_model.model.{name}",
    "lycoris": lambda name: "lycoris_" + name.replace(".", "_"),
    "onetrainer": lambda name: "lora_transformer_" + name.replace(".", "_"),
    "bare": lambda name: name,
}
ENDS = [
    ("lora_down.weight", "lora_up.weight"),
    ("lora_A.weight", "lora_B.weight"),
    ("lora_A.default.weight", "lora_B.default.weight"),
    ("lora_A.my_style.weight", "lora_B.my_style.weight"),
    ("lora_A", "lora_B"),
    ("lora.down.weight", "lora.up.weight"),
    ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
]


@pytest.mark.parametrize("ends", ENDS, ids=lambda ends: ends[0])
@pytest.mark.parametrize("naming", NAMINGS)
def test_every_spelling_of_a_layer_is_read(network, tmp_path, naming, ends):
    down, up = draw(3, 32, seed=1), draw(32, 3, seed=2)
    name = NAMINGS[naming](LAYER)
    found = changed_parameters(network, tmp_path, {f"{name}.{ends[0]}": down, f"{name}.{ends[1]}": up})
    assert found.keys() == {f"{LAYER}.weight"}
    torch.testing.assert_close(found[f"{LAYER}.weight"], up @ down, atol=1e-6, rtol=0)


PAIR = {f"{LAYER}.lora_down.weight": torch.ones(2, 32), f"{LAYER}.lora_up.weight": torch.ones(32, 2)}
HALVES = {
    "LoHa": {f"{LAYER}.hada_w1_a": torch.ones(32, 2), f"{LAYER}.hada_w1_b": torch.ones(2, 32)},
    "LoKr": {f"{LAYER}.lokr_w1": torch.ones(2, 2), f"{LAYER}.lokr_w2_a": torch.ones(16, 2)},
    "GLoRA": {**PAIR, f"{LAYER}.a1.weight": torch.ones(32, 2)},
    "DoRA": {f"{LAYER}.dora_scale": torch.ones(32, 1)},
    "alpha": {f"{LAYER}.alpha": torch.tensor(2.0)},
}


@pytest.mark.parametrize("family", HALVES)
def test_half_an_update_is_refused(network, tmp_path, family):
    save_file(HALVES[family], tmp_path / "lora.safetensors")
    with pytest.raises(CheckpointError, match=r"txt_attn_proj.* is half of an update"):
        lora.read(tmp_path / "lora.safetensors")


@pytest.mark.parametrize("end", ["", ".weight", ".default", ".default.weight"])
def test_the_norms_of_a_kernels_rows_come_in_every_spelling(network, tmp_path, end):
    """PEFT has them as (1, out, 1, …), with the adapter's name while it trains."""
    name, norms = "base_model.model.img_in", draw(32, seed=3).abs() + 0.5
    pair = {"lora_A.weight": draw(2, 16, 1, 2, 2, seed=1), "lora_B.weight": draw(32, 2, 1, 1, 1, seed=2)}
    tensors = {f"{name}.{key}": tensor for key, tensor in pair.items()}
    tensors[f"{name}.lora_magnitude_vector{end}"] = norms.view(1, 32, 1, 1, 1)
    found = changed_parameters(network, tmp_path, tensors)
    after = network.img_in.weight + found["img_in.weight"]
    torch.testing.assert_close(after.flatten(1).norm(dim=1), norms, atol=1e-5, rtol=0)


WRONG = {
    "two families": ({**PAIR, f"{LAYER}.lokr_w1": torch.ones(2, 2)}, "are of two families"),
    "two adapters": (
        {**PAIR, f"{LAYER}.lora_A.other.weight": torch.ones(2, 32)}, "of the same layer; the file mixes"
    ),
    "core of another rank": ({**PAIR, f"{LAYER}.lora_mid.weight": torch.ones(3, 3)}, "do not go together as a LoRA"),
    "blocks that are not square": ({f"{LAYER}.oft_blocks": torch.ones(4, 8, 7)}, "do not go together as a OFT"),
    "other size, LoHa": (
        {f"{LAYER}.hada_w{i}_{k}": torch.ones(*s) for i in (1, 2) for k, s in (("a", (32, 2)), ("b", (2, 31)))},
        r"weight is another, here it is \(32, 32\)",
    ),
    "other size, OFT": ({f"{LAYER}.oft_blocks": torch.ones(4, 7, 7)}, r"weight is another, here it is \(32, 32\)"),
    "other norms": ({**PAIR, f"{LAYER}.dora_scale": torch.ones(31, 1)}, r"here it is \(32, 32\)"),
    "turned round": ({f"{LAYERS[1]}.diff": torch.ones(128, 32)}, r"here it is \(32, 128\)"),
    "another shape told": ({**PAIR, f"{LAYER}.reshape_weight": torch.tensor([32, 64])}, r"weight is \(32, 64\), here"),
    "bias of another size": ({f"{LAYER}.diff_b": torch.ones(31)}, r"bias is \(31,\), here it is \(32,\)"),
    "bias of a norm": ({"double_blocks.0.attn.img_attn_q_norm.diff_b": torch.ones(16)}, "for a bias, and this layer"),
    "PEFT's OFT": ({f"{LAYER}.oft_R.weight": torch.ones(4, 28)}, "kind OFT as PEFT writes it .* not supported"),
    "VeRA": ({f"base_model.model.{LAYER}.vera_lambda_b": torch.ones(4)}, "is of the kind VeRA"),
    "IA3": ({f"lycoris_{LAYER}.on_input": torch.ones(1)}, "is of the kind IA3"),
    "Bone": ({f"{LAYER}.bone_block": torch.ones(8, 32)}, "is of the kind Bone"),
    "T-LoRA": ({**PAIR, f"{LAYER}.lambda_layer": torch.ones(1, 2)}, "is of the kind T-LoRA"),
    "two cores": ({f"{LAYER}.lokr_t1": torch.ones(2, 2, 1, 1)}, "is of the kind LoKr with two Tucker cores"),
    "rows": ({f"{LAYER}.lora_embedding_A": torch.ones(2, 32)}, "is of the kind LoRA of an embedding"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_can_not_be_applied_is_refused_by_name(network, tmp_path, case):
    tensors, message = WRONG[case]
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(CheckpointError, match=f"lora.safetensors.*{message}"):
        apply(network, tmp_path / "lora.safetensors")


# By what we call it: PEFT's configuration, and what it cannot do without
ONLY_PEFT = {
    "IA3": ("IA3Config", {"feedforward_modules": []}),
    "AdaLoRA": ("AdaLoraConfig", {"total_step": 10}),
    "VeRA": ("VeraConfig", {}),
    "PVeRA": ("PveraConfig", {}),
    "VB-LoRA": ("VBLoRAConfig", {"vector_length": 16, "num_vectors": 8}),
    "FourierFT": ("FourierFTConfig", {"n_frequency": 10}),
    "WaveFT": ("WaveFTConfig", {"n_frequency": 10}),
    "HRA": ("HRAConfig", {}),
    "MiSS": ("MissConfig", {"r": 8}),
    "RandLoRA": ("RandLoraConfig", {}),
    "C3A": ("C3AConfig", {"block_size": 16}),
    "DeLoRA": ("DeloraConfig", {}),
    "RoAd": ("RoadConfig", {"group_size": 16}),
    "GLoRA as PEFT writes it": ("GloraConfig", {}),
    "OFT as PEFT writes it": ("OFTConfig", {"oft_block_size": 8}),
    "BOFT as PEFT writes it": ("BOFTConfig", {"boft_block_size": 8}),
}


@pytest.mark.filterwarnings("ignore")  # PEFT looks for CUDA
@pytest.mark.parametrize("kind", ONLY_PEFT)
def test_what_only_peft_applies_is_refused_by_name(network, tmp_path, kind):
    peft = pytest.importorskip("peft")
    name, options = ONLY_PEFT[kind]
    if not hasattr(peft, name):
        pytest.skip(f"this PEFT has no {name}")
    config = getattr(peft, name)(target_modules=[LAYER.split(".")[-1]], **options)
    peft.get_peft_model(copy.deepcopy(network), config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=f"is of the kind {kind}"):
        lora.read(tmp_path / "adapter_model.safetensors")


def test_the_shape_of_the_layer_may_be_told(network, tmp_path):
    tensors = {**PAIR, f"{LAYER}.reshape_weight": torch.tensor([32, 32])}
    found = changed_parameters(network, tmp_path, tensors)
    torch.testing.assert_close(found[f"{LAYER}.weight"], torch.full((32, 32), 2.0), atol=1e-6, rtol=0)


# -- the whole model --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["LoKr, inner a product", "DoRA"])
def test_streamed_blocks_change_their_weights_too(tmp_path, family):
    path = write(tmp_path / "lora.safetensors", tiny_modules(family))
    results = []
    for memory in (None, "20MB"):
        model = JoyImage.load("tiny", device="cpu", memory=memory)
        before = latent(model)
        model.set_loras((str(path), 0.7))
        results.append(latent(model))
        model.set_loras()
        assert torch.equal(latent(model), before)
        assert difference(results[-1], before) > 1e-2
    assert torch.equal(*results)


def tiny_modules(family: str) -> dict[str, Any]:
    """For a layer of each block of the bundled model."""
    model = JoyImage.load("tiny", device="cpu")
    modules = pytest.importorskip("lycoris.modules")
    path, options = FAMILIES[family]
    file, name = path.split(".")
    made = {}
    for i in range(len(model.mmdit.double_blocks)):
        layer = f"double_blocks.{i}.img_mlp.net.2"
        own = copy.deepcopy(model.mmdit.get_submodule(layer)).float()
        made[layer] = getattr(getattr(modules, file), name)(layer.replace(".", "_"), own, **options)
        randomise(made[layer], i, 0.1)  # more would multiply the rounding of a whole run beyond its bounds
    return made


def latent(model: JoyImage) -> Tensor:
    return model.generate("a cup", size=(64, 64), steps=1, output="latent")
