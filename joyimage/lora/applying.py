"""Finds the layers that LoRAs are for, and applies their updates: while a layer runs, or once to its weight."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError, JoyImageError
from ..quantisation.layers import Quantisable
from .keys import canonical
from .reading import LayerUpdate, Lora
from .updates import LowRank, Update, changed

LISTED = 12  # keys in a message
Layer: TypeAlias = nn.Linear | nn.Conv2d | nn.Conv3d  # what may be updated while it runs
Weighted: TypeAlias = "list[tuple[Update, float]]"  # updates, each with its strength


@dataclass(frozen=True)
class Target:
    """A parameter of a network: the weight of a layer or norm, or a table."""

    module: nn.Module
    name: str

    @property
    def parameter(self) -> Tensor:
        return getattr(self.module, self.name)

    @property
    def packed(self) -> bool:
        return isinstance(self.module, Quantisable) and self.module.packed is not None

    @property
    def shape(self) -> tuple[int, ...]:
        packed = self.module.packed if isinstance(self.module, Quantisable) else None
        return tuple(self.parameter.shape) if packed is None else packed.shape


@dataclass(frozen=True, eq=False)
class LayerUpdates:
    """The updates of each parameter of some networks, each with the strength that it is added with."""

    weights: dict[Target, Weighted] = field(default_factory=dict)
    biases: dict[Target, list[tuple[Tensor, float]]] = field(default_factory=dict)

    def apply(self, dtype: torch.dtype, merge: bool = False) -> Applied:
        """Apply the updates. What works while a layer runs is kept in `dtype`, the one that the networks compute in.

        With `merge` those over plain weights are merged into them: computed in float32, rounded once, and no work
        afterwards. So are biases, norms and tables in any case. What was there before is kept for `Applied.remove`.
        """
        applied = Applied()
        for target, biases in self.biases.items():
            total = sum((bias.to(target.parameter.device) * strength for bias, strength in biases), torch.zeros(()))
            applied.replace(target, target.parameter.float() + total)
        for target, updates in self.weights.items():
            if not isinstance(target.module, Layer) or (merge and not target.packed):
                applied.replace(target, _after(target.parameter, updates))
            elif all(isinstance(update, LowRank) for update, _ in updates):
                applied.add_products(target.module, updates, dtype)
            else:
                applied.change_weight(target.module, updates, dtype)
        return applied


def _after(weight: Tensor, updates: Weighted) -> Tensor:
    """The weight (…) after all updates, one after the other, float32."""
    weight = weight.detach()
    for update, strength in updates:
        weight = changed(update, weight, strength)
    return weight


class Applied:
    """Updates at work; `remove` leaves the networks as they were before, to the bit."""

    def __init__(self):
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._kept: list[tuple[nn.Module, str]] = []  # what the layers keep for their hooks
        self._before: list[tuple[Target, Tensor]] = []

    def replace(self, target: Target, value: Tensor) -> None:
        """Put a value in the place of a parameter, in its dtype."""
        parameter = target.parameter
        self._before.append((target, parameter))
        setattr(target.module, target.name, _parameter(value.to(parameter.device, parameter.dtype)))

    def add_products(self, layer: Layer, updates: Weighted, dtype: torch.dtype) -> None:
        """Join updates of low rank into one of their summed rank: two more products, however many there are."""
        low = [(update, strength) for update, strength in updates if isinstance(update, LowRank)]
        size = layer.weight.shape[1:] if not isinstance(layer, nn.Linear) else (layer.in_features,)
        down = torch.cat([update.down.reshape(-1, *size) for update, _ in low])
        up = torch.cat([update.up * (update.scale * strength) for update, strength in low], dim=1)
        place = layer.weight.device
        layer.register_buffer("lora_down", down.to(place, dtype), persistent=False)  # buffers: they move with the layer
        layer.register_buffer("lora_up", up.to(place, dtype), persistent=False)
        self._kept += [(layer, "lora_down"), (layer, "lora_up")]
        self._hooks.append(layer.register_forward_hook(_add_products))

    def change_weight(self, layer: Layer, updates: Weighted, dtype: torch.dtype) -> None:
        """Let the layer run with a weight that is made anew each time."""
        place = layer.weight.device
        layer.add_module("lora", nn.ModuleList(update.to(place, dtype) for update, _ in updates))
        self._kept.append((layer, "lora"))
        change = _ChangedWeight([strength for _, strength in updates])
        self._hooks.append(layer.register_forward_pre_hook(change.before))
        self._hooks.append(layer.register_forward_hook(change.after, always_call=True))

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()
        for layer, name in self._kept:
            delattr(layer, name)
        for target, value in reversed(self._before):
            setattr(target.module, target.name, _parameter(value.data.to(target.parameter.device)))
        self._hooks, self._kept, self._before = [], [], []


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)


def _add_products(layer: Layer, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    x = inputs[0]
    down, up = layer.get_buffer("lora_down").to(x), layer.get_buffer("lora_up").to(x)
    if isinstance(layer, nn.Linear):
        return output + F.linear(F.linear(x, down), up)
    convolve = F.conv2d if isinstance(layer, nn.Conv2d) else F.conv3d
    middle = convolve(x, down, stride=layer.stride, padding=layer.padding)  # (B, rank, …)
    return output + torch.einsum("or,br...->bo...", up, middle)


class _ChangedWeight:
    """A layer's weight while it runs, and the one that it has otherwise, which may be packed."""

    def __init__(self, strengths: Sequence[float]):
        self._strengths = strengths
        self._home: Any = None

    def before(self, layer: Layer, inputs: tuple[Tensor]) -> None:
        packed = layer.packed if isinstance(layer, Quantisable) else None
        weight = layer.weight if packed is None else packed.dense(torch.float32)
        updates: Iterable[Update] = layer.get_submodule("lora")  # pyright: ignore[reportAssignmentType] - a ModuleList of them
        new = _after(weight, list(zip(updates, self._strengths, strict=True)))
        self._home, layer.weight = layer.weight, _parameter(new.to(inputs[0].dtype))

    def after(self, layer: Layer, inputs: tuple[Tensor], output: Tensor) -> None:
        if self._home is not None:
            layer.weight, self._home = self._home, None


# -- matching ---------------------------------------------------------------------------------------------------------


def match(networks: Iterable[nn.Module], loras: Sequence[tuple[Lora, float]], whole: bool = True) -> LayerUpdates:
    """Find the layers that LoRAs are for, each of which comes with its strength.

    Warns of keys that match nothing, listing them. Raises `CheckpointError` if none of a file's match, or if an update
    does not fit its layer; `JoyImageError` for a strength that is no number. Where the networks are not the `whole` of
    a model, what matches nothing may be for another one, and is passed over.
    """
    targets = {name: target for network in networks for name, target in _targets(network)}
    found = LayerUpdates()
    for lora, strength in loras:
        if not math.isfinite(strength):
            raise JoyImageError(f"{lora.path}: the strength is {strength}; give a number such as 0.8")
        if whole:
            _report_unmatched(lora, targets)
        for name, update in lora.updates.items():
            if name in targets:
                _add(found, lora, update, targets[name], strength)
    return found


def _targets(network: nn.Module) -> Iterable[tuple[str, Target]]:
    """All that updates may be for, by canonical name: of a weight its layer's."""
    for path, module in network.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            if name == "weight":
                yield canonical(path), Target(module, name)
            elif name != "bias":
                yield canonical(f"{path}.{name}"), Target(module, name)


def _add(found: LayerUpdates, lora: Lora, update: LayerUpdate, target: Target, strength: float) -> None:
    if update.weight is not None:
        _check_fit(lora, update, target)
        found.weights.setdefault(target, []).append((update.weight, strength))
    if update.bias is not None:
        bias = Target(target.module, "bias")
        if target.name != "weight" or getattr(target.module, "bias", None) is None:
            raise CheckpointError(f"{lora.path}: {update.keys[-1]} is for a bias, and this layer has none")
        if update.bias.shape != bias.parameter.shape:
            raise _misfit(lora, update, tuple(update.bias.shape), bias)
        found.biases.setdefault(bias, []).append((update.bias, strength))


def _check_fit(lora: Lora, update: LayerUpdate, target: Target) -> None:
    assert update.weight is not None
    if target.packed and not isinstance(target.module, Layer):
        raise CheckpointError(f"{lora.path}: {update.keys[0]} is for a quantised table; load weights in bf16 for it")
    if update.shape is not None and update.shape != target.shape:
        raise _misfit(lora, update, update.shape, target)
    weight = torch.empty(target.shape, device="meta")
    try:  # without any numbers, to see whether all sizes go together
        changed(update.weight, weight, 1.0)
    except (RuntimeError, ValueError, IndexError):
        low = update.weight if isinstance(update.weight, LowRank) else None
        shape = None if low is None else (len(low.up), *low.down.shape[1:])
        raise _misfit(lora, update, shape, target) from None


def _misfit(lora: Lora, update: LayerUpdate, shape: tuple[int, ...] | None, target: Target) -> CheckpointError:
    told = "another" if shape is None else f"{shape}"
    return CheckpointError(
        f"{lora.path}: {update.keys[0]} is for a layer whose {target.name} is {told}, here it is {target.shape}; the "
        "file was trained on a model of another size"
    )


def _report_unmatched(lora: Lora, targets: Mapping[str, Target]) -> None:
    stray = [key for name, update in lora.updates.items() if name not in targets for key in update.keys]
    stray += lora.unknown
    listed = ", ".join(stray[:LISTED]) + (", …" if len(stray) > LISTED else "")
    if not any(name in targets for name in lora.updates):
        raise CheckpointError(f"{lora.path}: is a LoRA of another model: none of its layers is here ({listed})")
    if stray:
        warnings.warn(f"{lora.path}: {len(stray)} keys match nothing and have no effect: {listed}", stacklevel=4)
