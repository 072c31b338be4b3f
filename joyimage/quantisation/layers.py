"""Layer classes with the interface of `torch.nn` to be given as `operations`, whose weights may stay as stored.

That is quantised, or in another dtype than what comes in: then they are cast while the layer runs. What is not listed
here has no weights worth keeping so and is torch's own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Conv2d, Conv3d, LayerNorm, RMSNorm

from ..settings import EXACT, check_products
from . import products
from .formats import Format
from .kernels import Kernel, kernel_for
from .rounded import hardware
from .tensor import QuantizedTensor, hadamard

__all__ = ["Conv2d", "Conv3d", "Embedding", "LayerNorm", "Linear", "RMSNorm", "put", "replace_layers", "use_products"]


class Quantisable(nn.Module):
    """A layer whose `weight` may be a quantised one's bytes, with its scales beside it in `weight_scale`.

    Where it has two kinds of scales, the others are `weight_scale_2`. All move with the layer. `packed` is the whole
    weight as it is kept, None as long as it is a plain one.
    """

    weight: Tensor
    weight_scale: Tensor | None
    weight_scale_2: Tensor | None
    _quantised: tuple[Format, tuple[int, ...]] | None = None  # format and shape of what is packed

    def pack(self, packed: QuantizedTensor) -> None:
        """Keep this weight (rows, columns) quantised."""
        self.weight = nn.Parameter(packed.data, requires_grad=False)
        scale, scale_2 = (*packed.scales, None, None)[:2]
        self.register_buffer("weight_scale", scale)
        self.register_buffer("weight_scale_2", scale_2)
        self._quantised = packed.format, packed.shape
        if packed.format.rotation:
            # A compiler takes the matrix as it is and traces none of its making. It is told so here, since that
            # imports the compiler, which takes as long as torch itself.
            torch.compiler.assume_constant_result(hadamard)

    @property
    def packed(self) -> QuantizedTensor | None:
        return self.packed_from(self.weight) if self.weight.dtype == torch.uint8 else None

    def packed_from(self, data: Tensor) -> QuantizedTensor | None:
        """The weight that these bytes are, also while a host has a plain one in its place; None if none was packed."""
        if self._quantised is None:
            return None
        scales = tuple(scale for scale in (self.weight_scale, self.weight_scale_2) if scale is not None)
        return QuantizedTensor(data, scales, *self._quantised)


class Linear(Quantisable, nn.Linear):
    """With a `kernel` its product rounds activations; training takes the exact one all the same."""

    kernel: Kernel | None = None

    def forward(self, input: Tensor) -> Tensor:
        if (packed := self.packed) is None:
            return F.linear(input, self.weight.to(input.dtype), self.bias)
        return products.linear(input, packed, self.bias, None if self.training else self.kernel)


class Embedding(Quantisable, nn.Embedding):
    """It gives rows in `dtype`, the one it was built with, whatever its weight is kept in."""

    def __init__(self, *args, dtype: torch.dtype | None = None, **options):
        super().__init__(*args, dtype=dtype, **options)
        self.dtype = self.weight.dtype

    def forward(self, input: Tensor) -> Tensor:
        if (packed := self.packed) is None:
            return super().forward(input).to(self.dtype)
        rows = packed.rows(input.flatten())  # only what is looked up becomes floating point
        return rows.to(self.dtype).unflatten(0, input.shape)


def kernels_of(networks: Iterable[nn.Module], device: torch.device) -> dict[Linear, Kernel | None]:
    """The fastest product with rounded activations of each quantised layer on a device, None where there is none."""
    linears = (module for network in networks for module in network.modules() if isinstance(module, Linear))
    packed = ((layer, layer.packed) for layer in linears)
    return {layer: kernel_for(w.format, w.shape, hardware(device)) for layer, w in packed if w is not None}


def use_products(networks: Iterable[nn.Module], kind: str, device: torch.device | str) -> None:
    """Let quantised layers multiply by products of this kind, one of `settings.PRODUCTS`, on the device they run on.

    Warns of what runs exact although rounded products were asked for. Raises `JoyImageError` for an unknown kind.
    """
    check_products(kind)
    found = kernels_of(networks, torch.device(device))
    for layer, kernel in found.items():
        layer.kernel = None if kind == EXACT else kernel
    if kind != EXACT and (note := what_runs_exact(found)):
        warnings.warn(f"products={kind!r}: on {torch.device(device).type} {note}", stacklevel=4)


def what_runs_exact(found: Mapping[Linear, Kernel | None]) -> str:
    """A line on layers that have no product with rounded activations; empty where all have one."""
    if not found:
        return "no weights are quantised, so all run exact"
    packed = (layer.packed for layer, kernel in found.items() if kernel is None)
    names = sorted({weight.format.name for weight in packed if weight is not None})
    return f"{', '.join(names)} runs exact; `joyimage inspect` says which products a file has" if names else ""


# By class name: what builds the layer that takes the place of `m`, without its weights.
BUILD: dict[str, Callable[[Any, nn.Module], nn.Module]] = {
    "Linear": lambda ops, m: ops.Linear(
        m.in_features, m.out_features, bias=m.bias is not None, dtype=m.weight.dtype, device="meta"
    ),
    "Embedding": lambda ops, m: ops.Embedding(
        m.num_embeddings, m.embedding_dim, m.padding_idx, dtype=m.weight.dtype, device="meta"
    ),
}


def replace_layers(
    model: nn.Module, operations: Any, kept: tuple[str, ...] = (), build: Mapping[str, Callable] = BUILD
) -> None:
    """Replace the layers of a model that was built from `torch.nn` by those of `operations`, in place.

    Parameters move over as they are. Quantised layers stay, and those whose names end in one of `kept`.
    """
    for name, module in list(model.named_modules()):
        make = build.get(type(module).__name__)
        if make is None or getattr(module, "packed", None) or name.endswith(kept):
            continue
        layer = make(operations, module)
        layer.weight = module.weight
        layer.bias = getattr(module, "bias", None)
        put(model, name, layer.train(module.training))


def put(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer into the place of this name; `nn.Module.set_submodule` came with torch 2.5."""
    path, _, attribute = name.rpartition(".")
    model.get_submodule(path).register_module(attribute, layer)
