"""Weights into networks: built on the meta device, checked by name and shape, then assigned from the mapped file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from ..encoder import Encoder
from ..errors import CheckpointError, MissingFileError
from ..mmdit import MMDiT
from ..precision import HALVES, WHOLE, compute_dtype
from ..quantisation import layers
from ..quantisation.formats import stays_quantised
from ..quantisation.layers import Quantisable
from ..quantisation.tensor import QuantizedTensor, dense
from ..settings import check_theta
from ..vae import WanVAE
from .configs import own_dtype
from .empty import empty_encoder, empty_mmdit, empty_vae, fit_control_ids
from .files import existing
from .folders import Source, find_tokenizer, is_tokenizer, opened
from .qwen import EMBEDDING, HEAD
from .shapes import fitting_shapes, listed
from .vae_keys import image_kernels
from .weights import RELEASE_BYTES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Device = torch.device | str | None
State = dict[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)


def load_mmdit(
    path: str | Path | Source,
    *,
    device: Device = None,
    dtype: torch.dtype | None = None,
    operations: Any = layers,
    compute_device: Device = None,
    theta: float | None = None,
) -> MMDiT:
    """The MMDiT in a file or folder of any layout and format, or in a source that is open, ready for inference.

    `dtype` is what it computes in: the file's own unless given, bfloat16 for quantised files, and float32 on a CPU that
    has no instructions for these; matrices then stay as the file has them and are cast as they are used. On the CPU
    weights that need no conversion stay views of the mapped file. `compute_device` is where the network will run, if
    that is not the `device` that its weights are put on. Quantised matrices and embeddings stay so and become floating
    point as they are used, if `operations`, the layer classes, are `joyimage.quantisation.layers`; all else does now.
    The axes and base of the rotary embedding come from the "config" in a safetensors header or the `config.json` beside
    the weights, else they are the published ones; `theta` is another base, which SpatialEdit's weights need (256) and
    do not tell.
    Raises `CheckpointError` naming the file, what is wrong with it and what to do, `MissingFileError` if it is absent.
    """
    source = check_fits(opened(path, "mmdit"))
    if theta is not None:
        check_theta(theta)
        source = replace(source, overrides={"theta": float(theta)})
    compute, keep = computing(source, dtype, compute_device or device)
    return fill(empty_mmdit(source, compute, operations), source, device, keep)


def load_vae(
    path: str | Path | Source,
    *,
    device: Device = None,
    dtype: torch.dtype | None = None,
    operations: Any = nn,
    compute_device: Device = None,
) -> WanVAE:
    """The Wan VAE in a file or folder, from either naming; options and errors as for `load_mmdit`.

    Its kernels are cut to two dimensions and laid out channels_last, so they are copies, and never stay quantised.
    """
    source = check_fits(opened(path, "vae"))
    compute, _ = computing(source, dtype, compute_device or device)
    return fill(empty_vae(source, compute, operations), source, device)


def load_encoder(
    path: str | Path | Source,
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
    source = check_fits(opened(path, "encoder"))
    compute, keep = computing(source, dtype, compute_device or device)
    model = empty_encoder(source, compute)
    tokens = _load_tokenizer(tokenizer, source)
    fit_control_ids(model.config, tokens)
    fill(model, source, device, keep)
    try:
        return Encoder(model if hasattr(model, "lm_head") else model.model, tokens)
    except CheckpointError as error:
        raise CheckpointError(f"{tokens.name_or_path or source.path}: {error}") from None


def check_fits(source: Source) -> Source:
    """A source whose names, shapes and numbers are those of its network, looked at before any of that is built.

    What the file has filled up is cut to the network's shapes. Raises `CheckpointError` that names what differs.
    """
    expected = fitting_shapes(source)
    check_floating(source)
    return source.fitted(expected)


def computing(source: Source, asked: torch.dtype | None, device: Device) -> tuple[torch.dtype, bool]:
    """What a component computes in, and whether its matrices keep the dtype of the file and are cast as they are used.

    They do where the processor cannot compute in that dtype. Small networks are cast whole, and so are those for which
    a dtype was asked.
    """
    own = getattr(torch, own_dtype(source)) if asked is None else asked
    compute = compute_dtype(asked, own, device)
    return compute, compute != own and sum(info.nbytes for info in source.info.values()) > WHOLE


# -- filling ----------------------------------------------------------------------------------------------------------

# what turns a component's tensors, under our names, into those of its network
TENSOR_TRANSFORMS: dict[str, Callable[[State], State]] = {"vae": image_kernels}


def fill(model: Network, source: Source, device: Device, keep: bool = False) -> Network:
    """Give an empty network its weights, each in the dtype that the network has it in.

    `source` is what `check_fits` gave. With `keep`, matrices of layers that can cast them keep that of the file.
    """
    transform, copied = TENSOR_TRANSFORMS.get(source.component, dict), 0
    for ours in source.match.names:
        stored = source.read(ours)
        if isinstance(stored, QuantizedTensor) and (layer := _keeper(model, source, ours, stored)):
            layer.pack(stored.to(device))
            placed = [layer.weight]
        else:
            placed = [
                _assign(model, name, tensor, device, keep) for name, tensor in transform({ours: dense(stored)}).items()
            ]
        if any(weight.data_ptr() != stored.data.data_ptr() for weight in placed):
            copied += source.info[ours].nbytes
        if copied > RELEASE_BYTES:
            source.weights.release()
            copied = 0
    if copied:
        source.weights.release()
    if hasattr(model, "lm_head") and HEAD not in source.match.names:
        _tie(model)
    return model.to(device).eval().requires_grad_(False)  # what is left to move are the encoder's rotary frequencies


def _keeper(model: nn.Module, source: Source, name: str, stored: QuantizedTensor) -> Quantisable | None:
    """The layer of a weight that stays quantised; None where it becomes floating point."""
    if not stays_quantised(source.component, name, stored.shape, stored.format):
        return None
    layer = model.get_submodule(name.rpartition(".")[0])
    return layer if isinstance(layer, Quantisable) else None  # a host's own layers may not be


def _assign(model: nn.Module, name: str, value: Tensor, device: Device, keep: bool) -> Tensor:
    """Give a layer its weight on the device, as `fill` says; returns that."""
    path, _, attribute = name.rpartition(".")
    layer = model.get_submodule(path)
    stays = keep and isinstance(layer, Quantisable) and value.ndim == 2 and value.dtype in HALVES
    placed = value.to(device, value.dtype if stays else layer.get_parameter(attribute).dtype)
    layer.register_parameter(attribute, nn.Parameter(placed, requires_grad=False))
    return placed


def _tie(model: nn.Module) -> None:
    """Give the language head the embedding's weight."""
    head, embedding = (model.get_submodule(name.removesuffix(".weight")) for name in (HEAD, EMBEDDING))
    if isinstance(head, Quantisable) and isinstance(embedding, Quantisable) and (packed := embedding.packed):
        head.pack(packed)
    head.register_parameter("weight", embedding.get_parameter("weight"))


def check_floating(source: Source) -> None:
    """Integers would convert to floats without a word, and be quantised values without their scales."""
    names = [name for name, info in source.info.items() if not info.floating]
    if names:
        form = source.info[names[0]].format.name
        raise CheckpointError(
            f"{source.path}: {len(names)} weights are {form}, not floating point: {listed(names)}; nothing in the file "
            "says what they stand for: get one in bf16, fp8, int8 or GGUF"
        )


def _load_tokenizer(folder: str | Path | None, source: Source) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3VLConfig

    needed = "a folder that holds tokenizer.json, or vocab.json and merges.txt"
    found = find_tokenizer(source.path) if folder is None else existing(folder)
    if found is None:
        raise MissingFileError(f"{source.path}: no tokenizer beside the encoder; give one with tokenizer=, {needed}")
    if not is_tokenizer(found):
        raise CheckpointError(f"{found}: holds no tokenizer; give {needed}")
    config = Qwen3VLConfig()  # given, so that none beside the tokenizer is built, whatever it holds
    try:
        return AutoTokenizer.from_pretrained(found, config=config, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises plain Exception for a file that it cannot read
        try:  # a configuration of a later transformers, whose classes this one lacks: the file has all that is needed
            return PreTrainedTokenizerFast(tokenizer_file=str(found / "tokenizer.json"))
        except Exception:
            raise CheckpointError(f"{found}: not a tokenizer that transformers can read ({error})") from error
