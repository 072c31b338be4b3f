"""The MODEL's network as training takes it, and the encoder and the VAE as a training set does.

What is trained is a twin of the network: new modules around the host's own layers, which stay in its care. It may load
and unload them meanwhile, in part too, and finds nothing changed in them whatever becomes of the training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import comfy.ops
import comfy.quant_ops
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...joyimage.errors import JoyImageError
from ...joyimage.mmdit import Modulation
from ...joyimage.quantisation import layers
from ...joyimage.rope import Rotary, TorchRotary
from ...joyimage.training.planning import FLOAT32, OPTIMISER, trained_layers, trained_numbers, training_activations
from ...joyimage.training.settings import Training
from .model import RUN_BLOCK, HostMMDiT
from .weights import PackedLinear

KEY = "joyimage_training"  # of the wrapper


@contextmanager
def weights_of(layer: Any, x: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Weight and bias of one of the host's layers, where and in the dtype that `x` is, whatever they are kept in."""
    if isinstance(layer, PackedLinear):
        yield layer.floating(x)
        return
    brought: Any = comfy.ops.cast_bias_weight(layer, x, offloadable=True)
    weight, bias, stream = brought
    try:
        packed: Any = comfy.quant_ops.QuantizedTensor  # whose methods comfy-kitchen makes
        yield (weight.dequantize() if isinstance(weight, packed) else weight), bias
    finally:
        comfy.ops.uncast_bias_weight(layer, weight, bias, stream)


class FrozenProduct(torch.autograd.Function):
    """The product with a layer's weight, which is brought once more for the backward pass.

    Autograd would keep the weight instead: a tensor of inference mode, which it refuses, or the buffer in which the
    host has brought it to the device and soon brings another.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.layer = layer
        with weights_of(layer, x) as (weight, bias):
            return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        with weights_of(ctx.layer, gradient) as (weight, _):
            return gradient @ weight, None


class Frozen(layers.Linear):
    """One of the host's linear layers in a twin. Products are exact: its kernels that round have no derivative."""

    def __init__(self, layer: Any, dtype: torch.dtype, device: torch.device):
        nn.Module.__init__(self)  # without weights of its own
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self._kept = layer, torch.empty(0, dtype=dtype, device=device)  # in a tuple, so that it is no part of this

    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride] - read alone
        """A floating-point copy, or the weight itself where it is as the network computes."""
        with weights_of(*self._kept) as (weight, _):
            return weight if weight is self._kept[0].weight else weight.clone()

    @property
    def bias(self) -> Tensor | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        with weights_of(*self._kept) as (_, bias):
            return bias

    def forward(self, input: Tensor) -> Tensor:
        return FrozenProduct.apply(input, self._kept[0])  # pyright: ignore[reportReturnType]

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination.update({f"{prefix}{name}": value for name, value in self._kept[0].state_dict().items()})


class FrozenNorm(nn.Module):
    """One of the host's norms in a twin, with a copy of its few weights."""

    def __init__(self, norm: Any):
        super().__init__()
        self._kept = (norm,)

    def forward(self, input: Tensor) -> Tensor:
        (norm,) = self._kept
        with weights_of(norm, input) as (weight, _):
            return F.rms_norm(input, weight.shape, weight.clone(), norm.eps)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination.update({f"{prefix}{name}": value for name, value in self._kept[0].state_dict().items()})


def twin(model: ModelPatcher) -> HostMMDiT:
    """A network that computes what the MODEL's does, with a backward pass, from the same layers.

    It is for as long as the MODEL is loaded, see `at_work`. Raises `JoyImageError` for a MODEL that is another network.
    """
    network = model.model.diffusion_model
    if not isinstance(network, HostMMDiT):
        raise JoyImageError("this MODEL is not the network of JoyAI-Image: connect Load MMDiT (JoyImage)")
    with torch.inference_mode(False):
        made: Any = _twin(network, model.model.get_dtype_inference(), model.load_device)
    made.rotary_for = _torch_rotary  # a kernel of comfy-kitchen has no derivative
    return made


def _twin(module: nn.Module, dtype: torch.dtype, device: torch.device) -> nn.Module:
    if isinstance(module, comfy.ops.CastWeightBiasOp):
        if hasattr(module, "in_features"):
            return Frozen(module, dtype, device)
        return FrozenNorm(module) if isinstance(module, nn.RMSNorm) else module  # before the first that is trained
    made = copy.copy(module)
    children = module._modules.items()
    made._modules = {name: None if child is None else _twin(child, dtype, device) for name, child in children}
    if isinstance(module, Modulation) and module.modulate_table.dtype != dtype:  # kept in fp8, say
        table = nn.Parameter(module.modulate_table.to(device, dtype), requires_grad=False)
        made._parameters = {"modulate_table": table}
    return made


def _torch_rotary(device: torch.device) -> Rotary:
    return TorchRotary()


@contextmanager
def at_work(model: ModelPatcher, memory: int) -> Iterator[None]:
    """The MODEL loaded, as much of it as leaves room for `memory` bytes. The host may have unloaded it in between."""
    comfy.model_management.load_models_gpu([model], memory_required=memory)
    yield


def with_twin(model: ModelPatcher, network: HostMMDiT) -> ModelPatcher:
    """A MODEL that samples by the twin, with what is trained on it. Its layers are loaded as the MODEL's are."""

    def run(
        executor: WrapperExecutor,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        references: Any,
        options: dict[str, Any],
    ) -> Tensor:
        return network._forward(x, timestep, context, references, {k: v for k, v in options.items() if k != RUN_BLOCK})

    made = model.clone()
    made.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, run)
    return made


def training_memory(model: ModelPatcher, samples: Any, settings: Training) -> int:
    """Bytes that a step takes besides the MODEL's weights, in the bucket with the most tokens."""
    network: Any = model.model.diffusion_model
    config, shapes = network.config, list(samples.shapes)
    tokens = [sum(math.ceil(h / 2) * math.ceil(w / 2) for h, w in each) for each in shapes]
    largest = max(range(len(tokens)), key=tokens.__getitem__)
    text = samples[largest].context.shape[0]
    streams = {"img": settings.batch_size * tokens[largest], "txt": settings.batch_size * text}
    trained = trained_layers(config, settings.targets)
    item = model.model.get_dtype_inference().itemsize
    copies = 2 + OPTIMISER[settings.optimizer] + bool(settings.ema)  # with the gradients
    kept = FLOAT32 * copies * trained_numbers(trained, settings)
    return kept + training_activations(config, streams, trained, item, settings.checkpointing)
