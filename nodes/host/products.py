"""Products with quantised weights, chosen for one MODEL: in layers of ours, and in those that the host has kernels for.

Branches of a graph share the modules of a model, so the choice is made around each forward, outside of what a compiler
traces: it sees an attribute of each layer, and compiles once for each choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import nn

from ...joyimage.quantisation.layers import kernels_of, what_runs_exact
from ...joyimage.settings import EXACT, PRODUCTS, check_products

# As the host has it: its own kernels round activations where the device has such units, layers of ours do not.
DEFAULT = "default"
PRODUCT_CHOICES = (DEFAULT, *PRODUCTS)
KEY = "joyimage_products"
_CLASS = object()  # an attribute that a layer has from its class alone


def use_products(model: ModelPatcher, kind: str) -> str:
    """Let this MODEL, and what is made from it later, multiply by products of a kind of `PRODUCT_CHOICES`.

    "8bit" lets layers of ours round activations too, "exact" keeps the host's from doing so. Returns a line on what
    runs exact although "8bit" was asked for, or an empty one. Raises `JoyImageError` for an unknown kind.
    """
    model.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, KEY)
    if kind == DEFAULT:
        return ""
    check_products(kind)
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, partial(_apply_model, kind))
    if kind == EXACT:
        return ""
    network: nn.Module = model.get_model_object("diffusion_model")
    found = kernels_of([network], model.load_device)
    return what_runs_exact(found) if found or not _of_host(network) else ""


def _apply_model(kind: str, executor: WrapperExecutor, x: torch.Tensor, *arguments, **options) -> torch.Tensor:
    model: Any = executor.class_obj  # the BaseModel
    with multiplying(model.diffusion_model, kind, x.device):
        return executor(x, *arguments, **options)


@contextmanager
def multiplying(network: nn.Module, kind: str, device: torch.device) -> Iterator[None]:
    """Let the quantised layers of a network multiply by products of a kind for a while, and then as before."""
    values: dict[nn.Module, tuple[str, Any]]  # by layer, an attribute and what it is for that while
    if kind == EXACT:
        values = {layer: ("weight_function", [*layer.weight_function, _same]) for layer in _of_host(network)}
    else:
        values = {layer: ("kernel", kernel) for layer, kernel in kernels_of([network], device).items()}
    before = {layer: vars(layer).get(name, _CLASS) for layer, (name, _) in values.items()}
    try:
        for layer, (name, value) in values.items():
            setattr(layer, name, value)
        yield
    finally:
        for layer, (name, _) in values.items():
            if before[layer] is _CLASS:
                delattr(layer, name)
            else:
                setattr(layer, name, before[layer])


def _same(weight: torch.Tensor) -> torch.Tensor:
    """A patch of a weight that changes nothing: for patches the host makes it floating point, and rounds no input."""
    return weight


def _of_host(network: nn.Module) -> list[Any]:
    """The quantised layers that the host runs."""
    return [module for module in network.modules() if getattr(module, "layout_type", None) is not None]
