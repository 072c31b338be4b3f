"""What is recognised and does not load, with the words that say what it is and what to get instead."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gguf
import numpy as np
import torch
from quantised_files import gguf_of_zeros, json_tensor, newer
from safetensors.torch import save_file
from torch import Tensor, nn

from joyimage.config import MMDiTConfig, WanVAEConfig
from joyimage.mmdit import MMDiT
from joyimage.vae import WanVAE

State = dict[str, Tensor]
Change = Callable[[str, Tensor], Mapping[str, Tensor]]  # a matrix by its layer's name -> what stands in its place


@dataclass(frozen=True)
class Refused:
    """What a file is given as, what writes it into a folder, and what the message holds."""

    component: str
    write: Callable[[Path], Path]
    message: str  # a regular expression


def small() -> State:
    return MMDiT(MMDiTConfig(32, 2, 1, text_dim=32, mlp_size=32, rope_dims=(4, 6, 6))).state_dict()


def quantised(change: Change, folder: Path) -> Path:
    """An MMDiT whose blocks' matrices somebody else has quantised."""
    state: State = {}
    for name, tensor in small().items():
        matrix = name.startswith("double_blocks") and tensor.ndim == 2
        state |= change(name.removesuffix(".weight"), tensor) if matrix else {name: tensor}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "other.safetensors")
    return folder / "other.safetensors"


def names(*given: str, folder: Path, suffix: str = "safetensors") -> Path:
    """A file of another model, which a name is enough to tell."""
    path = folder / f"other.{suffix}"
    state = {name: torch.ones(2, 2) for name in (*given, "other.bias")}
    if suffix == "pth":
        torch.save({"params_ema": state}, path)
    elif suffix == "gguf":
        write_gguf(path, {name: tensor.numpy() for name, tensor in state.items()})
    else:
        save_file(state, path)
    return path


def write_gguf(path: Path, tensors: dict[str, np.ndarray], **values: int) -> None:
    writer = gguf.GGUFWriter(path, "qwen3vl")
    for name, value in values.items():
        writer.add_uint16(name.replace("_", "."), value)
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def half_gguf(folder: Path) -> Path:
    write_gguf(folder / "a-00001-of-00002.gguf", {"a": np.ones((2, 32), np.float32)}, split_count=2, split_no=0)
    return folder / "a-00001-of-00002.gguf"


def odd_gguf(folder: Path) -> Path:
    """Blocks that are not read."""
    state = small()
    chosen = [name for name in state if name.endswith("img_attn_qkv.weight")]
    return gguf_of_zeros(folder / "other.gguf", state, chosen, "IQ4_NL")


def begins(content: bytes, name: str, folder: Path) -> Path:
    (folder / name).write_bytes(content + bytes(64))
    return folder / name


class Small(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def exported(folder: Path) -> Path:
    torch.export.save(torch.export.export(nn.Linear(4, 4), (torch.ones(1, 4),)), folder / "other.pt2")
    return folder / "other.pt2"


def scripted(folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch advises against it; such files are still about
        torch.jit.trace(nn.Linear(4, 4), torch.ones(1, 4)).save(str(folder / "other.pt"))
    return folder / "other.pt"


def pickled(folder: Path) -> Path:
    torch.save(Small(), folder / "other.pt")
    return folder / "other.pt"


def wan_vae(folder: Path) -> Path:
    state = WanVAE(WanVAEConfig(base_dim=4, dim_mult=(1, 2), num_res_blocks=1)).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "vae.safetensors")
    return folder / "vae.safetensors"


def mmdit(folder: Path) -> Path:
    save_file(small(), folder / "mmdit.safetensors")
    return folder / "mmdit.safetensors"


def noted(form: str) -> Change:
    return lambda layer, tensor: {
        f"{layer}.weight": tensor.to(torch.int8),
        f"{layer}.weight_scale": torch.ones(1),
        f"{layer}.comfy_quant": json_tensor({"format": form}),
    }


def packed(layer: str, **more: Tensor) -> State:
    return {f"{layer}.{name}": tensor.clone() for name, tensor in more.items()}


BYTES, INTS, FLOATS = torch.ones(4, 4, dtype=torch.uint8), torch.ones(4, 4, dtype=torch.int32), torch.ones(4, 4)
FORMAT = "get a file in fp8, int8, GGUF or bf16"
EDIT = r"get one from https://huggingface\.co/Comfy-Org/JoyAI-Image-Edit"
WEIGHTS = "get the weights as safetensors or GGUF"


def of_another_model(component: str, what: str, *given: str, suffix: str = "safetensors") -> Refused:
    return Refused(component, lambda folder: names(*given, folder=folder, suffix=suffix), f"looks like {what}.*{EDIT}")


QUANTISERS: dict[str, tuple[Change, str]] = {
    "bitsandbytes nf4": (
        lambda layer, _: packed(
            layer, **{"weight": BYTES, "weight.absmax": FLOATS, "weight.quant_state.bitsandbytes__nf4": BYTES}
        ),
        f"quantised by bitsandbytes to 4 bits.*{FORMAT}",
    ),
    "bitsandbytes int8": (
        lambda layer, tensor: packed(layer, weight=tensor.to(torch.int8), SCB=FLOATS),
        f"quantised by bitsandbytes to int8.*{FORMAT}",
    ),
    "GPTQ": (
        lambda layer, _: packed(layer, qweight=INTS, qzeros=INTS, scales=FLOATS, g_idx=INTS),
        f"quantised by GPTQ.*{FORMAT}",
    ),
    "AWQ": (
        lambda layer, _: packed(layer, qweight=INTS, qzeros=INTS, scales=FLOATS),
        f"quantised by AWQ.*{FORMAT}",
    ),
    "SVDQuant": (
        lambda layer, _: packed(layer, qweight=BYTES, wscales=FLOATS, lora_down=FLOATS, lora_up=FLOATS, smooth=FLOATS),
        f"quantised by SVDQuant, for nunchaku.*{FORMAT}",
    ),
    "optimum-quanto": (
        lambda layer, _: packed(layer, **{"weight._data": BYTES, "weight._scale": FLOATS}),
        f"quantised by optimum-quanto.*{FORMAT}",
    ),
    "convrot_w4a4": (noted("convrot_w4a4"), "stored as convrot_w4a4, which is not supported.*get a file in fp8"),
    "asym_w4a8_int8": (noted("asym_w4a8_int8"), "stored as asym_w4a8_int8, which is not supported.*get a file in fp8"),
    "int8 without scales": (
        lambda layer, tensor: {f"{layer}.weight": tensor.to(torch.int8)},
        "weights are int8, not floating point.*get one in bf16, fp8",
    ),
    "F8_E8M0": (
        lambda layer, tensor: {f"{layer}.weight": tensor.abs().to(newer("float8_e8m0fnu"))},
        "weights are float8_e8m0fnu, not floating point.*get one in bf16, fp8",
    ),
    "U32": (
        lambda layer, tensor: {f"{layer}.weight": torch.zeros(tensor.shape, dtype=newer("uint32"))},
        "weights are uint32, not floating point.*get one in bf16, fp8",
    ),
}
REFUSED = {
    **{name: Refused("mmdit", partial(quantised, change), text) for name, (change, text) in QUANTISERS.items()},
    "GGUF in blocks of another kind": Refused("mmdit", odd_gguf, "stored as IQ4_NL, which is not supported.*GGUF Q2_K"),
    "half a GGUF": Refused("encoder", half_gguf, "one of several pieces; join them with `llama-gguf-split --merge`"),
    "a language model of llama.cpp": of_another_model(
        "encoder", "a language model as llama.cpp names it", "blk.0.attn_q.weight", suffix="gguf"
    ),
    "ONNX": Refused("mmdit", partial(begins, b"\x08\x07\x12\x07pytorch", "a.onnx"), f"is an ONNX model; {WEIGHTS}"),
    "TensorRT": Refused("mmdit", partial(begins, b"ftrt", "a.engine"), f"is a TensorRT engine; {WEIGHTS}"),
    "torch.export": Refused("mmdit", exported, rf"is a program of torch\.export; {WEIGHTS}"),
    "TorchScript": Refused("mmdit", scripted, f"is a TorchScript program; {WEIGHTS}"),
    "a pickled network": Refused("mmdit", pickled, r"refused: unpickling .*Small.*get the weights as safetensors"),
    "a LoRA": of_another_model(
        "mmdit", "a LoRA, .*give it as a LoRA", "double_blocks.0.attn.img_attn_qkv.lora_A.weight"
    ),
    "Flux": of_another_model("mmdit", "Flux", "double_blocks.0.img_attn.qkv.weight"),
    "Qwen-Image": of_another_model("mmdit", "Qwen-Image", "transformer_blocks.0.img_mod.1.weight"),
    "a ControlNet": of_another_model("mmdit", "a ControlNet", "controlnet_blocks.0.weight"),
    "ESRGAN": of_another_model("vae", "a network that scales pictures up", "body.0.rdb1.conv1.weight", suffix="pth"),
    "the VAE of Flux": of_another_model("vae", "the VAE of .*Flux", "decoder.mid.block_1.norm1.weight"),
    "Qwen2.5-VL": of_another_model("encoder", r"Qwen2\.5-VL", "visual.merger.ln_q.weight"),
    "a VAE as MMDiT": Refused("mmdit", wan_vae, f"looks like a Wan 2.1 VAE, not a JoyImage MMDiT; {EDIT}"),
    "an MMDiT as VAE": Refused("vae", mmdit, f"looks like a JoyImage MMDiT, not a Wan 2.1 VAE; {EDIT}"),
}
