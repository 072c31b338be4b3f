"""What loads: every component in every layout and format, as files in the wild have them. docs/weights.md lists them.

The networks are small and have random weights; `write` makes a file or folder of one of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tiny_qwen
import torch
from PIL import Image
from quantised_files import (
    fp8_comfy,
    fp8_e5m2,
    fp8_noted,
    fp8_plain,
    fp8_rows,
    fp8_scale_weight,
    fp8_squares,
    fp8_unmarked,
    fp8_without_note,
    gguf_of,
    int8,
    int8_convrot,
    int8_whole,
    mxfp8,
    nvfp4,
    plain,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Qwen3VLForConditionalGeneration

from joyimage.checkpoints.vae_keys import original_to_diffusers, video_kernels
from joyimage.config import MMDiTConfig, WanVAEConfig
from joyimage.encoder import Encoder
from joyimage.mmdit import MMDiT
from joyimage.quantisation.formats import why_kept
from joyimage.vae import WanVAE

State = dict[str, Tensor]
Results = list[Tensor]
Rename = Callable[[State], Mapping[str, str]]  # the network's names -> those in the file

# --- formats ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """A format: what writes it, the bound on the relative error of a forward against bf16, and its row in the docs."""

    write: Callable[[Path, State, set[str]], Path]
    bound: float
    row: str = ""
    gguf: bool = False
    matrices_only: bool = False  # kernels, and so the VAE, stay as they are

    @property
    def quantised(self) -> bool:
        return self.row not in ("", FLOATING)


FLOATING = "fp64, fp32, fp16, bf16"
FP8 = (
    "fp8 e4m3, no scales, or one for each matrix, row or square of 128 x 128, in the namings of ComfyUI, DeepSeek and "
    "Qwen"
)
INT8 = "ComfyUI's int8 with a scale for each matrix or row"
MXFP8 = "ComfyUI's `mxfp8`: float8 e4m3, an exponent for each 32 columns"
NVFP4 = "ComfyUI's `nvfp4`: four bits, a scale for each 16 columns and one for all"
FORMATS = {
    "fp64": Form(plain(torch.float64), 1e-6, FLOATING),
    "fp32": Form(plain(torch.float32), 1e-6, FLOATING),
    "fp16": Form(plain(torch.float16), 1e-3, FLOATING),  # of weights that bf16 has; the smallest are rounded
    "bf16": Form(plain(torch.bfloat16), 1e-6, FLOATING),
    "fp8": Form(fp8_plain, 3e-2, FP8),
    "fp8, scale_weight": Form(fp8_scale_weight, 3e-2, FP8),
    "fp8, scale_weight without a marker": Form(fp8_unmarked, 3e-2, FP8),
    "fp8, weight_scale": Form(fp8_without_note, 3e-2, FP8),
    "fp8, weight_scale and note": Form(fp8_noted, 3e-2, FP8),
    "fp8 in bytes, weight_scale and note": Form(fp8_comfy, 3e-2, FP8),
    "fp8, rows": Form(fp8_rows, 3e-2, FP8),
    "fp8, squares": Form(fp8_squares, 3e-2, FP8),
    "fp8 e5m2": Form(fp8_e5m2, 6e-2, "fp8 e5m2 without scales"),
    "int8, matrix": Form(int8_whole, 3e-2, INT8),
    "int8, rows": Form(int8, 3e-2, INT8),
    "int8_convrot": Form(int8_convrot, 3e-2, "ComfyUI's `int8_convrot`", matrices_only=True),
    "mxfp8": Form(mxfp8, 3e-2, MXFP8, matrices_only=True),
    "nvfp4": Form(nvfp4, 1.2e-1, NVFP4, matrices_only=True),
    **{
        kind: Form(gguf_of(kind), bound, f"GGUF {kind}", gguf=True)
        for kind, bound in (
            ("Q8_0", 1e-2), ("Q6_K", 3e-2), ("Q5_K", 5e-2), ("Q4_K", 1e-1), ("Q3_K", 2e-1), ("Q2_K", 4e-1),
            ("Q5_1", 5e-2), ("Q5_0", 6e-2), ("Q4_1", 1e-1), ("Q4_0", 1.2e-1),
        )
    },
    **{kind: Form(gguf_of(kind), 1e-3, gguf=True) for kind in ("F32", "F16", "BF16")},
}  # fmt: skip

# --- components ------------------------------------------------------------------------------------------------------


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(values: Results, references: Results) -> float:
    """The largest relative error among several results."""
    pairs = zip(values, references, strict=True)
    return max(float((value - reference).norm() / reference.norm()) for value, reference in pairs)


def rounded(model: nn.Module) -> nn.Module:
    """The weights as bfloat16 has them, computing in float32: what all formats are compared with."""
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return model.eval().requires_grad_(False)


MMDIT = MMDiTConfig(256, 2, 2, text_dim=256, mlp_size=256)


def mmdit() -> MMDiT:
    torch.manual_seed(0)
    model = MMDiT(MMDIT)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, 1 if "norm" in name else 0, 0.1 if "norm" in name else 0.06)
    return rounded(model)


def vae() -> WanVAE:
    """Residual branches at a third of their strength beside the trunk, which random ones would drown."""
    torch.manual_seed(0)
    model = WanVAE(WanVAEConfig(base_dim=16, dim_mult=(1, 2), num_res_blocks=1))
    for name, parameter in model.named_parameters():
        if name.endswith(".residual.3.gamma"):
            nn.init.constant_(parameter, 1 / 3)
    return rounded(model)


def encoder() -> Encoder:
    """Its vision tower has the sixteen heads of the released ones, so that shapes tell all of its sizes."""
    tokens = tiny_qwen.tokenizer()
    config = tiny_qwen.config(tokens, hidden_size=256, intermediate_size=256, head_dim=64, initializer_range=0.04)
    config.text_config.rope_scaling["mrope_section"] = [8, 12, 12]  # that of the released sizes, for this head
    config.vision_config.hidden_size, config.vision_config.num_heads = 64, 16
    torch.manual_seed(0)
    return Encoder(rounded(Qwen3VLForConditionalGeneration(config)), tokens)


def velocity(model: MMDiT) -> Results:
    return [model(draw(1, 16, 1, 4, 6), torch.tensor([731.25]), draw(1, 5, 256), [draw(1, 16, 1, 4, 4, seed=2)])]


def latent_and_pixels(model: WanVAE) -> Results:
    return [model.encode(draw(1, 3, 16, 16).clamp(-1, 1)), model.decode(draw(1, 16, 1, 4, 4) / 4)]


def contexts(model: Encoder) -> Results:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 288, 3), dtype=np.uint8))
    return [torch.cat(model.encode(["make the hat red", ""], [image]))]


@dataclass(frozen=True)
class Component:
    """How to make a network, what it computes of fixed inputs, and its names in each naming."""

    make: Callable[[], MMDiT | WanVAE | Encoder]
    forward: Callable[..., Results]
    namings: Mapping[str, Rename]
    prefix: str  # in ComfyUI's whole checkpoints


def each(change: Callable[[str], str]) -> Rename:
    return lambda state: {name: change(name) for name in state}


same = each(lambda name: name)


def of_comfy(name: str) -> str:
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")


COMPONENTS = {
    "mmdit": Component(
        mmdit,
        velocity,
        {"diffusers": same, "original": each(lambda name: name.replace(".attn.", ".")), "comfy": same},
        "model.diffusion_model.",
    ),
    "vae": Component(
        vae,
        latent_and_pixels,
        {"diffusers": original_to_diffusers, "original": same, "comfy": same},
        "vae.",
    ),
    "encoder": Component(
        encoder,
        contexts,
        {"diffusers": same, "original": each(lambda name: name.removeprefix("model.")), "comfy": each(of_comfy)},
        "text_encoders.qwen3vl_8b.transformer.",
    ),
}


def network(model: nn.Module | Encoder) -> nn.Module:
    return model.model if isinstance(model, Encoder) else model


def state_of(component: str, model: nn.Module | Encoder) -> State:
    """A network's weights in the published shapes."""
    state = dict(network(model).state_dict())
    return video_kernels(state) if component == "vae" else state


def chosen(component: str, state: State) -> set[str]:
    """What writers quantise: all matrices but the sensitive ones. Of a VAE, which has no matrices, the kernels that are
    not on the trunk: there errors of 2.6 % each in fp8 would add up beyond any bound."""
    if component == "vae":
        return {name for name in state if ".residual." in name and name.endswith(".weight")}
    return {
        name for name in state if name.endswith(".weight") and not why_kept(component, name, tuple(state[name].shape))
    }


# --- layouts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Whose names, behind which prefix, and in what files."""

    naming: str
    contain: Callable[[Path], Path] = lambda path: path  # makes it of a safetensors file
    prefix: str | None = ""  # None for that of the component in ComfyUI's whole checkpoints
    gguf: bool = False


def in_folder(path: Path) -> Path:
    """A folder of its own, under the name that Diffusers gives it."""
    folder = path.with_name("part")
    folder.mkdir()
    path.rename(folder / "diffusion_pytorch_model.safetensors")
    return folder


def in_shards(path: Path) -> Path:
    """Two files and an index. The scales may be in another shard than their weights."""
    folder, tensors = path.with_name("part"), load_file(path)
    folder.mkdir()
    shards: list[State] = [{}, {}]
    for i, (name, tensor) in enumerate(sorted(tensors.items())):
        shards[i % 2][name] = tensor
    weight_map = {name: f"{i}.safetensors" for i, shard in enumerate(shards) for name in shard}
    for i, shard in enumerate(shards):
        save_file(shard, folder / f"{i}.safetensors", metadata=header(path))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    path.unlink()
    return folder


def header(path: Path) -> dict[str, str] | None:
    with safe_open(path, "pt") as file:
        return file.metadata()


def in_pth(path: Path, wrappers: tuple[str, ...] = ()) -> Path:
    """As training scripts save it. The notes in a header of safetensors have no place there."""
    content = load_file(path)
    for wrapper in wrappers:
        content = {"epoch": 3, wrapper: content}
    torch.save(content, path.with_suffix(".pth"))
    path.unlink()
    return path.with_suffix(".pth")


WRAPPERS = ("module", "model", "state_dict", "model_state_dict", "ema")
LAYOUTS = {
    "Diffusers folder": Layout("diffusers", in_folder),
    "Diffusers folder, sharded": Layout("diffusers", in_shards),
    "original, .safetensors": Layout("original"),
    "original, .pth": Layout("original", in_pth),
    "ComfyUI single file": Layout("comfy"),
    "ComfyUI single file with its prefixes": Layout("comfy", prefix=None),
    "GGUF": Layout("original", gguf=True),
    "GGUF with ComfyUI's prefixes": Layout("comfy", prefix=None, gguf=True),
    **{f"original, .pth in {name}": Layout("original", partial(in_pth, wrappers=(name,))) for name in WRAPPERS},
    **{f"original behind {name}": Layout("original", prefix=f"{name}.") for name in WRAPPERS},
}  # fmt: skip
PLACES = [name for name in LAYOUTS if not name.endswith(WRAPPERS)]  # what docs/weights.md lists


def fits(layout: str, form: str) -> bool:
    return LAYOUTS[layout].gguf == FORMATS[form].gguf


def write(component: str, state: State, form: str, layout: str, folder: Path, names: set[str] | None = None) -> Path:
    """A component's weights in a layout and format. `names` are those to quantise, if not what is usual."""
    place = LAYOUTS[layout]
    prefix = COMPONENTS[component].prefix if place.prefix is None else place.prefix
    renamed = {name: prefix + new for name, new in COMPONENTS[component].namings[place.naming](state).items()}
    names = chosen(component, state) if names is None else names
    path = folder / f"weights.{'gguf' if place.gguf else 'safetensors'}"
    FORMATS[form].write(path, {renamed[name]: state[name] for name in state}, {renamed[name] for name in names})
    return place.contain(path)
