"""Weights into networks: built on the meta device, checked by name and shape, then assigned from the mapped file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from .. import operations as quantisable
from ..config import MMDiTConfig, WanVAEConfig
from ..errors import CheckpointError, MissingFileError
from ..mmdit import MMDiT
from ..operations import Quantisable, replace_layers
from ..precision import HALVES, WHOLE, compute_dtype
from ..quantised import Packed
from ..vae import WanVAE
from . import qwen
from .files import existing
from .folders import Source, find_tokenizer, is_tokenizer, open_part
from .layouts import PARTS
from .vae_keys import image_kernels

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen3VLForConditionalGeneration

    from ..encoder import Encoder

Device = torch.device | str | None
State = dict[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)

COMPUTE_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
QUANTISED_DTYPE = torch.bfloat16  # what quantised weights compute in: the published weights' dtype
LISTED = 12  # names in a message
DIFFUSERS_THETA = 256.0  # Diffusers' class default, in force where its config.json does not say


def load_mmdit(
    path: str | Path,
    *,
    device: Device = None,
    dtype: torch.dtype | None = None,
    operations: Any = quantisable,
    compute_device: Device = None,
) -> MMDiT:
    """The MMDiT in a file or folder of any layout and format, ready for inference.

    `dtype` is what it computes in: the file's own unless given, bfloat16 for quantised files, and float32 on a CPU that
    has no instructions for these; matrices then stay as the file has them and are cast as they are used. On the CPU
    weights that need no conversion stay views of the mapped file. `compute_device` is where the network will run, if
    that is not the `device` that its weights are put on. Quantised matrices and embeddings stay so and become floating
    point as they are used, if `operations`, the layer classes, are `joyimage.operations`; all else does now.
    The axes and base of the rotary embedding come from the "config" in a safetensors header or the `config.json` beside
    the weights, else they are the published ones.
    Raises `CheckpointError` naming the file, what is wrong with it and what to do, `MissingFileError` if it is absent.
    """
    source = open_part(path, "mmdit")
    compute, keep = computing(source, dtype, compute_device or device)
    return fill(empty_mmdit(source, compute, operations), source, device, keep)


def load_vae(
    path: str | Path,
    *,
    device: Device = None,
    dtype: torch.dtype | None = None,
    operations: Any = nn,
    compute_device: Device = None,
) -> WanVAE:
    """The Wan VAE in a file or folder, from either naming; options and errors as for `load_mmdit`.

    Its kernels are cut to two dimensions and laid out channels_last, so they are copies, and never stay quantised.
    """
    source = open_part(path, "vae")
    compute, _ = computing(source, dtype, compute_device or device)
    return fill(empty_vae(source, compute, operations), source, device)


def load_encoder(
    path: str | Path,
    tokenizer: str | Path | None = None,
    *,
    device: Device = None,
    dtype: torch.dtype | None = None,
    compute_device: Device = None,
) -> Encoder:
    """The Qwen3-VL encoder in a file or folder, with the tokenizer in the folder `tokenizer`.

    Without `tokenizer` its files are looked for beside the weights, and in `tokenizer/` and `processor/` there and one
    level up. A single file without a configuration is taken for a released Qwen3-VL of its sizes. Where the language
    head is missing and not tied to the embedding, the encoder conditions but cannot answer.
    Options and errors as for `load_mmdit`; errors also for a folder without tokenizer files, or those of another model.
    """
    from ..encoder import Encoder  # transformers takes seconds to import, and only the encoder needs it

    source = open_part(path, "encoder")
    compute, keep = computing(source, dtype, compute_device or device)
    model = empty_encoder(source, compute)
    tokens = _load_tokenizer(tokenizer, source)
    qwen.fit_control_ids(model.config, tokens)
    fill(model, source, device, keep)
    return Encoder(model if hasattr(model, "lm_head") else model.model, tokens)


# -- the networks without weights -------------------------------------------------------------------------------------


def empty_mmdit(source: Source, dtype: torch.dtype, operations: Any = nn) -> MMDiT:
    config = _checked(source, lambda: _mmdit_config(source))
    return MMDiT(config, operations=operations, dtype=dtype, device="meta")


def _mmdit_config(source: Source) -> MMDiTConfig:
    config = MMDiTConfig.from_shapes(source.shapes, **_rotary(source.config))
    wanted = source.config.get("num_layers", config.num_layers)
    if wanted > config.num_layers:
        raise CheckpointError(f"it has {config.num_layers} blocks, its config.json says {wanted}; download it again")
    return config


def _rotary(config: dict[str, Any]) -> dict[str, Any]:
    """What Diffusers' configuration says of the rotary embedding."""
    if "_class_name" in config:
        if not str(config["_class_name"]).startswith("JoyImage"):
            return {}
        config = {"theta": DIFFUSERS_THETA} | config
    convert = {"theta": ("theta", float), "rope_dim_list": ("rope_dims", tuple)}
    return {ours: to(config[name]) for name, (ours, to) in convert.items() if config.get(name) is not None}


def empty_vae(source: Source, dtype: torch.dtype, operations: Any = nn) -> WanVAE:
    statistics = ("latents_mean", "latents_std")
    given = {name: source.config[name] for name in statistics if source.config.get(name)}
    config = _checked(
        source,
        lambda: WanVAEConfig.from_shapes(source.shapes, **{k: tuple(map(float, v)) for k, v in given.items()}),
    )
    return WanVAE(config, operations=operations, dtype=dtype, device="meta")


def empty_encoder(source: Source, dtype: torch.dtype) -> Qwen3VLForConditionalGeneration:
    """After the configuration beside the weights, else a released one. A head among the weights is not tied."""
    given = "text_config" in source.config
    config = source.config if given else _checked(source, lambda: qwen.released_config(source.shapes))
    tied = bool(config.get("tie_word_embeddings")) and qwen.HEAD not in source.match.names
    config = config | {"tie_word_embeddings": tied}
    model = _checked(source, lambda: qwen.empty(config, dtype, head=tied or qwen.HEAD in source.match.names))
    replace_layers(model, quantisable, kept=("visual.pos_embed",))  # transformers asks that one for its dtype
    return model


EMPTY: dict[str, Callable[[Source, torch.dtype], nn.Module]] = {
    "mmdit": empty_mmdit,
    "vae": empty_vae,
    "encoder": empty_encoder,
}
# what turns a part's tensors, under our names, into those of its network
TRANSFORMS: dict[str, Callable[[State], State]] = {"vae": image_kernels}


def _checked(source: Source, read: Callable[[], Any]) -> Any:
    """Read sizes; what is wrong with them is wrong with this file."""
    try:
        largest = max(int(n) for name in source.match.names for n in re.findall(r"\.(\d+)\.", name))
        if largest > len(source.match.names):  # a network of that many blocks would be built
            raise CheckpointError(f"it numbers a block {largest} among {len(source.match.names)} tensors")
        return read()
    except CheckpointError as error:
        raise CheckpointError(f"{source.path}: {error}") from None
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{source.path}: its config.json has an entry that cannot be used ({error})") from None


def own_dtype(source: Source) -> torch.dtype:
    """The dtype that most of a part's bytes have, bfloat16 where some are quantised.

    Raises `CheckpointError` if nothing can compute in it.
    """
    if any(info.encoding for info in source.info.values()):
        return QUANTISED_DTYPE
    sizes: Counter[torch.dtype] = Counter()
    for info in source.info.values():
        sizes[info.dtype] += info.nbytes
    dtype = max(sizes, key=sizes.__getitem__)
    if dtype not in COMPUTE_DTYPES:
        raise CheckpointError(
            f"{source.path}: its weights are {_short(dtype)} without scales, in which nothing can compute; "
            "get a bf16, fp8, int8 or GGUF file"
        )
    return dtype


def computing(source: Source, asked: torch.dtype | None, device: Device) -> tuple[torch.dtype, bool]:
    """What a part computes in, and whether its matrices keep the dtype of the file and are cast as they are used.

    They do where the processor cannot compute in that dtype. Small networks are cast whole, and so are those for which
    a dtype was asked.
    """
    own = own_dtype(source) if asked is None else asked
    compute = compute_dtype(asked, own, device)
    return compute, compute != own and sum(info.nbytes for info in source.info.values()) > WHOLE


# -- checking and filling ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """How a file's tensors differ from a network's, in sorted names."""

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()  # "name (2, 3) instead of (3, 3)"

    def __str__(self) -> str:
        """One clause per kind, the first dozen names of each; empty if there is no difference."""
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.misshapen))
        return "; ".join(f"{len(names)} {kind}: {_first(names)}" for kind, names in kinds if names)


def compare(model: nn.Module, source: Source) -> Difference:
    """Compare names and shapes without reading any tensor. A tied parameter counts once."""
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    meta = {name: torch.empty(info.shape, dtype=info.dtype, device="meta") for name, info in source.info.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in _transform(source, meta).items()}
    names = source.match.names
    return Difference(
        tuple(sorted(expected.keys() - shapes.keys())),
        tuple(sorted(names[name] for name in shapes.keys() - expected.keys())),
        tuple(
            f"{names[name]} {shapes[name]} instead of {expected[name]}"
            for name in sorted(expected.keys() & shapes.keys())
            if shapes[name] != expected[name]
        ),
    )


def _transform(source: Source, state: State) -> State:
    return TRANSFORMS.get(source.match.part, dict)(state)


def fill(model: Network, source: Source, device: Device, keep: bool = False) -> Network:
    """Give an empty network its weights, each in the dtype that the network has it in.

    With `keep`, matrices of layers that can cast them keep that of the file.
    """
    if text := str(compare(model, source)):
        raise CheckpointError(f"{source.path}: does not fit {PARTS[source.match.part]} of its sizes: {text}")
    _check_float(source)
    for ours in source.match.names:
        stored = source.read(ours)
        packed = _stays_packed(model, ours, stored)
        values = {ours: stored} if packed else _transform(source, {ours: _dense(stored)})
        for name, value in values.items():
            if _assign(model, name, value, device, keep) != stored.data.data_ptr():
                source.weights.release()
    if getattr(model, "lm_head", None) and qwen.HEAD not in source.match.names:
        _tie(model.lm_head, model.get_input_embeddings())
    return model.to(device).eval().requires_grad_(False)  # what is left to move are the encoder's rotary frequencies


def _stays_packed(model: nn.Module, name: str, stored: Tensor | Packed) -> bool:
    """Whether a weight is quantised and its layer can use it so: a matrix whose rows are rows in the file."""
    if not isinstance(stored, Packed) or len(stored.shape) != 2 or len(stored.data) != stored.shape[0]:
        return False
    return isinstance(model.get_submodule(name.rpartition(".")[0]), Quantisable)


def _dense(stored: Tensor | Packed) -> Tensor:
    return stored.dense(torch.float32) if isinstance(stored, Packed) else stored


def _assign(model: nn.Module, name: str, value: Tensor | Packed, device: Device, keep: bool) -> int:
    """Give a layer its weight on the device, as `fill` says; returns where that lies in memory."""
    path, _, attribute = name.rpartition(".")
    layer = model.get_submodule(path)
    if isinstance(value, Packed):
        layer.pack(value.to(device))
    else:
        stays = keep and isinstance(layer, Quantisable) and value.ndim == 2 and value.dtype in HALVES
        value = value.to(device, value.dtype if stays else getattr(layer, attribute).dtype)
        setattr(layer, attribute, nn.Parameter(value, requires_grad=False))
    return getattr(layer, attribute).data_ptr()


def _tie(head: Quantisable, embedding: Quantisable) -> None:
    if packed := embedding.packed:
        head.pack(packed)
    head.weight = embedding.weight


def _check_float(source: Source) -> None:
    """Integers would convert to floats without a word, and be quantised values without their scales."""
    names = [name for name, info in source.info.items() if not (info.encoding or info.dtype.is_floating_point)]
    if names:
        dtype = _short(source.info[names[0]].dtype)
        raise CheckpointError(f"{source.path}: {len(names)} weights are {dtype}, not floating point: {_first(names)}")


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (", …" if len(names) > LISTED else "")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _load_tokenizer(folder: str | Path | None, source: Source) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    needed = "a folder that holds tokenizer.json, or vocab.json and merges.txt"
    found = find_tokenizer(source.path) if folder is None else existing(folder)
    if found is None:
        raise MissingFileError(f"{source.path}: no tokenizer beside the encoder; give one with tokenizer=, {needed}")
    if not is_tokenizer(found):
        raise CheckpointError(f"{found}: holds no tokenizer; give {needed}")
    try:
        return AutoTokenizer.from_pretrained(found, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises plain Exception for a file that it cannot read
        raise CheckpointError(f"{found}: not a tokenizer that transformers can read ({error})") from error
