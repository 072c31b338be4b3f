"""The kinds of input: the files that they begin as, the damage, and what they go through."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from joyimage.checkpoints import convert
from joyimage.config import MMDiTConfig, WanVAEConfig
from joyimage.mmdit import MMDiT
from joyimage.vae import WanVAE
from tests import quantised_files, tiny_qwen

from .containers import damage_gguf, damage_safetensors, write_safetensors
from .mutations import damage_json
from .pickles import damage_pytorch, saved
from .pictures import OTHERS, damage_picture, originals
from .scans import kinds_of

MMDIT = MMDiTConfig(32, 2, 1, text_dim=32, mlp_size=32, rope_dims=(4, 6, 6))
WIDE = MMDiTConfig(64, 2, 1, text_dim=32, mlp_size=256, rope_dims=(8, 12, 12))  # rows of 256 for GGUF's K types
VAE = WanVAEConfig(base_dim=4, dim_mult=(1, 1, 1, 1), num_res_blocks=1)
BASE_SIZE = {"joyimage.base_size": "64"}

State = dict[str, Tensor]
Damage = Callable[[bytes, Random], bytes]


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    `write` puts undamaged files into an empty folder. `damage` changes a copy of that folder and returns the path that
    is then used. `uses` are names of `uses.USES`; the first decides whether an input counts as loaded.
    """

    write: Callable[[Path], None]
    damage: Callable[[Path, Random], Path]
    uses: tuple[str, ...]


@cache
def network(config: MMDiTConfig = MMDIT) -> MMDiT:
    torch.manual_seed(0)
    model = MMDiT(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


def mmdit_state(config: MMDiTConfig = MMDIT) -> State:
    return dict(network(config).state_dict())


def vae_state() -> State:
    torch.manual_seed(0)
    return {name: tensor.contiguous() for name, tensor in WanVAE(VAE).state_dict().items()}


def matrices(state: State) -> list[str]:
    return [name for name, tensor in state.items() if name.startswith("double_blocks") and tensor.ndim == 2]


# -- single files -----------------------------------------------------------------------------------------------------


def damage_file(folder: Path, random: Random, damage: Damage) -> Path:
    """Damage one of the files in a folder, and use that."""
    path = random.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    path.write_bytes(damage(path.read_bytes(), random))
    return path


def single(form: str) -> Kind:
    """A file of the MMDiT in a format."""
    suffix, damage = (".gguf", damage_gguf) if form.startswith("Q") else (".safetensors", damage_safetensors)
    config = WIDE if form.endswith("_K") else MMDIT

    def write(folder: Path) -> None:
        state = mmdit_state(config)
        SINGLE[form](folder / f"a{suffix}", state, matrices(state))

    return Kind(write, partial(damage_file, damage=damage), ("load mmdit", "lora", *WEIGHTS))


def write_vae(folder: Path) -> None:
    save_file(vae_state(), folder / "a.safetensors")


def damage_pth(folder: Path, random: Random, legacy: bool) -> Path:
    path = folder / "a.pth"
    path.write_bytes(damage_pytorch(load_file(folder / "a.safetensors"), legacy, random))
    (folder / "a.safetensors").unlink()
    return path


def pytorch(legacy: bool) -> Kind:
    def write(folder: Path) -> None:
        save_file(mmdit_state(), folder / "a.safetensors")

    return Kind(write, partial(damage_pth, legacy=legacy), ("load mmdit", "lora", *WEIGHTS))


def write_loras(folder: Path) -> None:
    """Rank 2 for three layers: with alphas, with PEFT's names, with Diffusers' header, and what PEFT puts beside it."""
    shapes = {name.removesuffix(".weight"): tuple(tensor.shape) for name, tensor in mmdit_state().items()}
    chosen = ["proj_out", *(name.removesuffix(".weight") for name in matrices(mmdit_state())[:2])]
    namings = {
        "comfy": ("diffusion_model.", ("lora_down", "lora_up"), {}),
        "adapter_model": ("base_model.model.", ("lora_A", "lora_B"), {}),
        "diffusers": ("transformer.", ("lora_A", "lora_B"), {"lora_adapter_metadata": '{"transformer.lora_alpha": 4}'}),
    }
    for file, (start, (down, up), metadata) in namings.items():
        tensors = {}
        for name in chosen:
            rows, columns = shapes[name]
            tensors[f"{start}{name}.{down}.weight"] = torch.ones(2, columns)
            tensors[f"{start}{name}.{up}.weight"] = torch.ones(rows, 2)
            if file == "comfy":
                tensors[f"{start}{name}.alpha"] = torch.tensor(2.0)
        save_file(tensors, folder / f"{file}.safetensors", metadata)
    patterns = {"rank_pattern": {"proj_out": 2}, "alpha_pattern": {"double_blocks.0": 8}}
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": False, **patterns}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def damage_lora(folder: Path, random: Random) -> Path:
    if random.random() < 0.4:
        damage_json_file(folder / "adapter_config.json", random)
        return folder / "adapter_model.safetensors"
    path = random.choice(sorted(folder.glob("*.safetensors")))
    path.write_bytes(damage_safetensors(path.read_bytes(), random))
    return path


def picture(*forms: str) -> Kind:
    """Each original is a file of its own, and one of them is used."""

    def write(folder: Path) -> None:
        for form in forms:
            for i, data in enumerate(originals(form)):
                (folder / f"{form.lower()}-{i}").write_bytes(data)

    return Kind(
        write, partial(damage_file, damage=damage_picture), ("picture", "inspect command", "edit picture command")
    )


# -- folders ----------------------------------------------------------------------------------------------------------


def damage_json_file(path: Path, random: Random) -> None:
    path.write_bytes(damage_json(path.read_bytes(), random))


def write_shards(folder: Path) -> None:
    """Three shards, and the index that names them."""
    state, weight_map = mmdit_state(), {}
    for i in range(3):
        part = dict(list(state.items())[i::3])
        name = f"model-{i}.safetensors"
        SINGLE["bf16"](folder / name, part, set(part))
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def damage_shards(folder: Path, random: Random) -> Path:
    index = folder / "model.safetensors.index.json"
    if random.random() < 0.6:
        damage_json_file(index, random)
    else:
        damage_file(folder, random, damage_safetensors_or_json)
    if random.random() < 0.2:
        damage_names(folder, random)
    return random.choice((folder, index)) if index.exists() else folder


def damage_safetensors_or_json(data: bytes, random: Random) -> bytes:
    return damage_json(data, random) if data[:1] == b"{" else damage_safetensors(data, random)


def write_encoder(folder: Path) -> None:
    """With its tokenizer in the same folder, as published ones have it."""
    tokens = tiny_qwen.tokenizer()
    tiny_qwen.model(tokens).save_pretrained(folder)
    tokens.save_pretrained(folder)


def write_tokenizer(folder: Path) -> None:
    write_encoder(folder)
    (folder / "tokenizer").mkdir()
    for file in folder.glob("*token*"):
        if file.is_file():
            file.rename(folder / "tokenizer" / file.name)


def damage_texts(folder: Path, random: Random, under: str = "") -> Path:
    """Damage one or two of the JSON files in a folder; now and then their names."""
    files = sorted((folder / under).rglob("*.json"))
    for path in random.sample(files, random.randint(1, min(2, len(files)))):
        damage_json_file(path, random)
    if random.random() < 0.1:
        damage_names(folder, random)
    return folder


def write_model(folder: Path) -> None:
    """A whole model in Diffusers' layout, in a folder `model`."""
    parts, made = folder / "parts", folder / "model"
    (parts / "encoder").mkdir(parents=True)
    write_encoder(parts / "encoder")
    save_file(mmdit_state(), parts / "mmdit.safetensors", BASE_SIZE)
    save_file(vae_state(), parts / "vae.safetensors")
    convert(parts, made, layout="diffusers")
    shutil.rmtree(parts)
    index = {"_class_name": "JoyImageEditPipeline", "transformer": ["diffusers", "JoyImageEditTransformer3DModel"]}
    (made / "model_index.json").write_text(json.dumps(index))
    (made / "scheduler").mkdir()
    scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 4.0, "num_train_timesteps": 1000}
    (made / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))


def damage_model(folder: Path, random: Random) -> Path:
    """The texts most often, else a part's weights, or where things lie."""
    model, way = folder / "model", random.random()
    if way < 0.6:
        return damage_texts(model, random)
    if way < 0.8:
        path = random.choice(sorted(model.rglob("*.safetensors")))
        path.write_bytes(damage_safetensors(path.read_bytes(), random))
    else:
        damage_names(model, random)
    return model


def damage_names(folder: Path, random: Random) -> None:
    """Something else where a file was: nothing, nothing in it, a folder, a loop, another file, a copy."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    victim, other = random.choice(files), random.choice(files)
    changes: tuple[Callable[[], object], ...] = (
        victim.unlink,
        lambda: victim.write_bytes(b""),
        lambda: (victim.unlink(), victim.mkdir()),
        lambda: (victim.unlink(), victim.symlink_to(victim.name)),
        lambda: (victim.unlink(), victim.symlink_to("..")),
        lambda: victim.write_bytes(other.read_bytes()),
        lambda: (victim.parent / ("x" * 200 + victim.suffix)).write_bytes(victim.read_bytes()),
        lambda: (victim.parent / "a.index.json").write_bytes(b'{"weight_map": {"a": "a.index.json"}}'),
        lambda: (victim.parent / f"a{victim.suffix}").write_bytes(victim.read_bytes()),
        lambda: (victim.parent / "a.safetensors").write_bytes(write_safetensors(b"{}", {})),
        lambda: (victim.parent / "training_args.bin").write_bytes(saved({"a": torch.ones(1)}, False) or b""),
    )
    random.choice(changes)()


# -- the table --------------------------------------------------------------------------------------------------------

WEIGHTS = ("inspect", "inspect command", "convert command")
FOLDER = ("inspect", "plan", "inspect command", "convert command")
SINGLE = {
    "bf16": quantised_files.plain(torch.bfloat16),
    "fp8 plain": quantised_files.fp8_plain,
    "fp8 scale_weight": quantised_files.fp8_scale_weight,
    "fp8 comfy": quantised_files.fp8_comfy,
    "fp8 of squares": quantised_files.fp8_squares,
    "int8": quantised_files.int8,
    "int8_convrot": quantised_files.int8_convrot,
    "mxfp8": quantised_files.mxfp8,
    "nvfp4": quantised_files.nvfp4,
    "Q8_0": quantised_files.gguf_of("Q8_0"),
    "Q4_K": quantised_files.gguf_of("Q4_K"),
}

KINDS: dict[str, Kind] = {
    **{f"gguf {form}" if form[0] == "Q" else f"safetensors {form}": single(form) for form in SINGLE},
    "safetensors vae": Kind(write_vae, partial(damage_file, damage=damage_safetensors), ("load vae", *WEIGHTS)),
    "pth": pytorch(legacy=False),
    "pth before 1.6": pytorch(legacy=True),
    "shards": Kind(write_shards, damage_shards, ("load mmdit", "lora", *WEIGHTS)),
    "encoder folder": Kind(write_encoder, damage_texts, ("load encoder", *WEIGHTS)),
    "tokenizer folder": Kind(
        write_tokenizer, partial(damage_texts, under="tokenizer"), ("load encoder", "inspect", "inspect command")
    ),
    "diffusers folder": Kind(write_model, damage_model, ("load model", *FOLDER)),
    "lora": Kind(write_loras, damage_lora, ("lora", "inspect", "inspect command", "edit lora command")),
    **{
        f"picture {form.lower()}": picture(form)
        for form in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "DDS", "AVIF", "ICO")
    },
    "picture others": picture(*OTHERS),
    **{kind: Kind(*made, ("scene", "data command")) for kind, made in kinds_of(damage_names).items()},
}
