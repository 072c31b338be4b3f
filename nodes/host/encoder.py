"""The encoder as the host manages it: loaded before it runs, in the host's own layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.text_encoders
import torch
from comfy_api.latest import io
from PIL import Image
from torch import Tensor, nn

from ...joyimage import checkpoints, tiny
from ...joyimage.checkpoints.folders import find_tokenizer, open_component
from ...joyimage.encoder import Encoder
from ...joyimage.messages import Reply
from ...joyimage.quantisation.layers import Embedding, Linear, replace_layers
from .weights import META, keep_packed

ENCODER = io.Custom("JOYIMAGE_ENCODER")  # the socket of a `ManagedEncoder`


class EncoderModule(nn.Module):
    """What the host manages: Qwen3-VL inside a module of its own, since the host keeps notes on its attributes."""

    def __init__(self, qwen: nn.Module):
        super().__init__()
        self.qwen = qwen


class ManagedEncoder(Encoder):
    """An encoder that the host loads before it runs, as much of it as fits, and unloads when others need room."""

    BYTES = 2**30  # for the activations and cache of 4096 tokens in the published size, 256 KB each
    BYTES_PER_PIXEL = 512  # vision tower, image tokens and their cache

    def __init__(self, encoder: Encoder, base_size: int):
        """`base_size` is that of the model which the encoder belongs to."""
        use_host_layers(encoder.model)
        self.base_size = base_size
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            EncoderModule(encoder.model),
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.text_encoder_offload_device(),
        )
        super().__init__(encoder.model, encoder.tokenizer)

    @property
    def device(self) -> torch.device:
        return self.patcher.load_device

    def encode(self, prompts: Sequence[str], images: Sequence[Image.Image] = ()) -> list[Tensor]:
        self._load(images)
        device = comfy.model_management.intermediate_device()
        return [context.to(device) for context in super().encode(prompts, images)]

    def reply(
        self, images: Sequence[Image.Image], question: str | None = None, *settings, history=(), **options
    ) -> Reply:
        self._load([*(image for each in history for image in each.images), *images])
        return super().reply(images, question, *settings, history=history, **options)

    def likelihoods(
        self, images: Sequence[Image.Image], question: str, answers: Sequence[str], **options
    ) -> list[float]:
        self._load(images)
        return super().likelihoods(images, question, answers, **options)

    def _load(self, images: Sequence[Image.Image]) -> None:
        pixels = sum(image.width * image.height for image in images)
        memory = self.BYTES + self.BYTES_PER_PIXEL * pixels
        comfy.model_management.load_models_gpu([self.patcher], memory_required=memory)
        for module in self.model.modules():
            if stays_whole(module):
                module.to(self.device)


def stays_whole(module: nn.Module) -> bool:
    """Whether a module has parameters or buffers of its own and is no host layer: it must be where it runs."""
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return bool(own) and not hasattr(module, "comfy_cast_weights")


def use_host_layers(model: nn.Module) -> None:
    """Replace the layers of a transformers model by the host's, in place: they may stay in main memory until they run.

    The parameters move over as they are. What transformers asks for its device stays as it is, to be loaded always:
    the vision tower's patch embedding, the first parameter and so "the model's", and its position embedding; 14 MB.
    """
    linear = ((name, m) for name, m in model.named_modules() if isinstance(m, Linear))
    keep_packed(model, {f"{name}.weight": module.packed for name, module in linear if module.packed})
    plain = [m for m in model.modules() if isinstance(m, Embedding) and not m.packed]
    cast = any(m.weight.dtype != m.dtype for m in plain)  # on a CPU that can't compute in what the weights are kept in
    layers = comfy.ops.manual_cast if cast else comfy.ops.disable_weight_init
    replace_layers(model, layers, ("visual.pos_embed",), HOST_LAYERS)


def host_embedding(layers, m: Embedding) -> nn.Module:
    embedding = layers.Embedding(m.num_embeddings, m.embedding_dim, m.padding_idx, **META)
    embedding.register_forward_hook(lambda _module, _args, rows: rows.to(m.dtype))  # what the rest computes in
    return embedding


HOST_LAYERS = {
    "Linear": lambda ops, m: ops.Linear(m.in_features, m.out_features, bias=m.bias is not None, **META),
    "Embedding": host_embedding,
    "LayerNorm": lambda ops, m: ops.LayerNorm(m.normalized_shape, eps=m.eps, **META),
    "Qwen3VLTextRMSNorm": lambda ops, m: ops.RMSNorm(m.weight.shape, eps=m.variance_epsilon, **META),
}


def load_encoder(path: Path | None) -> ManagedEncoder:
    """The encoder in a file or folder, or the bundled tiny one. A single file takes the host's copy of the tokenizer.

    Errors as for `load_mmdit`.
    """
    if path is None:
        return ManagedEncoder(tiny.encoder(), tiny.BASE_SIZE)
    tokenizer = find_tokenizer(path) or Path(comfy.text_encoders.__path__[0], "qwen25_tokenizer")
    device = comfy.model_management.get_torch_device()
    source = open_component(path, "encoder")
    encoder = checkpoints.load_encoder(source, tokenizer, compute_device=device)
    return ManagedEncoder(encoder, checkpoints.base_size(source, "encoder"))
