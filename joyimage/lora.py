"""LoRA: low-rank updates of weights, `W + scale * up @ down` (arXiv 2106.09685), from any trainer's file.

| who | keys |
| --- | --- |
| PEFT | `base_model.model.X.lora_A.weight` in `adapter_model.*`, alpha in `adapter_config.json` beside it |
| Diffusers | `transformer.X.lora_A.weight`, alpha in the header |
| ComfyUI | `diffusion_model.X.lora_down.weight`, alpha as `diffusion_model.X.alpha` |
| kohya | `lora_unet_X.lora_down.weight` and `lora_unet_X.alpha`, underscores for X's dots |

X is a layer of the MMDiT in either naming, with or without `attn.`, or of the encoder. An update is applied while its
layer runs, over whatever way the weight is stored, or merged into the weight.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoints.files import existing, open_weights, read_json
from .checkpoints.weights import Weights, parse_json
from .errors import CheckpointError, JoyImageError
from .quantisation.tensor import dense

LISTED = 12  # keys in a message
MAX_ALPHA = 1e9
ROLES = {  # ends of the keys: what the tensor is
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".alpha": "alpha",
}
UNSUPPORTED = {"lora_magnitude_vector": "DoRA", "dora_scale": "DoRA", ".hada_": "LoHa", ".lokr_": "LoKr"}
PREFIXES = re.compile(
    r"(base_model_|model_|module_|diffusion_model_|transformer_|unet_|text_encoders?_|language_model_|qwen3vl_8b_"
    r"|lora_unet_|lora_transformer_|lora_te\d?_|lycoris_)*"
)
ATTENTION = re.compile(r"_attn_((?:img|txt)_attn_)")
HEADER = "lora_adapter_metadata"  # where Diffusers puts PEFT's configuration
ALPHAS = ("lora_alpha", "network_alpha", "ss_network_alpha")  # where others put alpha, in the header as well
Layer: TypeAlias = nn.Linear | nn.Conv2d | nn.Conv3d  # what updates are for


def canonical(name: str) -> str:
    """One spelling of a layer for all namings: without prefixes, underscores for dots, no `attn` of its own."""
    return ATTENTION.sub(r"_\1", PREFIXES.sub("", name.replace(".", "_"), count=1))


@dataclass(frozen=True, eq=False)
class Update:
    """What is added to a weight. `down` is (rank, in) or a kernel (rank, in, …), `up` (out, rank), both float32."""

    down: Tensor
    up: Tensor
    scale: float


@dataclass(frozen=True, eq=False)
class Lora:
    """A file's updates by the canonical names of their layers, with the keys they came from."""

    path: Path
    updates: dict[str, Update]
    keys: dict[str, list[str]]
    unknown: tuple[str, ...]  # keys that are no part of an update


# -- reading ----------------------------------------------------------------------------------------------------------


def read(path: str | Path) -> Lora:
    """Read a LoRA from a file, or from a folder that holds one.

    Raises `CheckpointError` for a file without LoRA keys, of a kind that is not supported, or with half an update.
    """
    weights = open_weights(path)
    factors: dict[str, dict[str, Tensor]] = {}
    keys: dict[str, list[str]] = {}
    unknown = []
    for key in weights:
        if kind := next((kind for part, kind in UNSUPPORTED.items() if part in key), None):
            raise CheckpointError(f"{path}: is a {kind} ({key}), which is not supported; get a plain LoRA")
        end = next(filter(key.endswith, ROLES), None)
        if end is None:
            unknown.append(key)
            continue
        layer = canonical(key.removesuffix(end))
        role = ROLES[end]
        if role in factors.setdefault(layer, {}):
            raise CheckpointError(f"{path}: {key} and {keys[layer][0]} are of the same layer; the file mixes namings")
        factors[layer][role] = _factor(weights, key, role)
        keys.setdefault(layer, []).append(key)
    if not factors:
        raise CheckpointError(f"{path}: is no LoRA: it has no keys such as X.lora_A.weight or X.lora_down.weight")
    scaling = _Scaling.of(weights)
    updates = {layer: _update(path, keys[layer], roles, scaling) for layer, roles in factors.items()}
    return Lora(existing(path), updates, keys, tuple(unknown))


def _factor(weights: Weights, key: str, role: str) -> Tensor:
    info = weights.info[key]
    if not info.format.supported or not (info.floating or role == "alpha"):
        raise CheckpointError(
            f"{weights.files[0]}: {key} is stored as {info.format.name}; get the LoRA in bf16 or fp16"
        )
    return dense(weights[key]).float()


def _update(path: str | Path, keys: list[str], roles: Mapping[str, Tensor], scaling: _Scaling) -> Update:
    if "down" not in roles or "up" not in roles:
        raise CheckpointError(f"{path}: {keys[0]} is half of an update: up or down is missing; download it again")
    down, up = roles["down"], roles["up"]
    rank = down.shape[0] if down.ndim > 1 else 0
    if not rank or up.ndim < 2 or up.shape[1] != rank or up.numel() != up.shape[0] * rank:
        raise CheckpointError(f"{path}: {keys[0]}: shapes {tuple(down.shape)} and {tuple(up.shape)} are of no rank")
    alpha = roles.get("alpha")
    if alpha is not None and alpha.numel() != 1:
        raise CheckpointError(f"{path}: {keys[0]}: its alpha has the shape {tuple(alpha.shape)}, not one number")
    scale = scaling.scale(keys[0], rank) if alpha is None else alpha.item() / rank
    if not math.isfinite(scale):
        raise CheckpointError(f"{path}: {keys[0]}: its scale is {scale}; download the file again")
    return Update(down, up.flatten(1), scale)


@dataclass(frozen=True)
class _Scaling:
    """What says alpha where no key does: the file's own header, or PEFT's configuration beside PEFT's file.

    Without either, updates are added as they are.
    """

    path: Path
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)  # by the start of the keys that each is for

    @classmethod
    def of(cls, weights: Weights) -> _Scaling:
        path = weights.files[0]
        if HEADER in weights.metadata:
            return cls(path, _by_start(path, weights.metadata[HEADER]))
        for name in ALPHAS:
            if name in weights.metadata:
                return cls(path, {"": {"lora_alpha": _number(path, name, weights.metadata[name])}})
        config = path.parent / "adapter_config.json"
        # PEFT writes the two together: beside another file it is of another adapter
        return cls(path, {"": read_json(config)} if path.stem == "adapter_model" and config.is_file() else {})

    def scale(self, key: str, rank: int) -> float:
        start, config = next(((start, each) for start, each in self.configs.items() if key.startswith(start)), ("", {}))
        module = key.rpartition(".lora_")[0].removeprefix(start).removeprefix("base_model.model.")
        told = self._entry(config, "rank_pattern", module, config.get("r"))
        if told is not None and told != rank:
            warnings.warn(
                f"{self.path}: its configuration says rank {told!r:.40} where its tensors have another: that may be "
                "another adapter's, and so may the alpha in it",
                stacklevel=5,
            )
        alpha = self._entry(config, "alpha_pattern", module, config.get("lora_alpha"))
        if alpha is None:
            return 1.0
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) < MAX_ALPHA:
            raise CheckpointError(
                f"the lora_alpha of {key} is {alpha!r:.40}, no number to use; download its file again"
            )
        return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)

    def _entry(self, config: Mapping[str, Any], name: str, module: str, default: Any) -> Any:
        """What PEFT takes for a module: of the first pattern that matches its name, or the last parts of it."""
        patterns = config.get(name)
        for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
            try:
                if re.match(rf"(.*\.)?({pattern})$", module):
                    return value
            except re.error:
                raise CheckpointError(
                    f"{self.path}: the {name} {pattern!r:.80} of its configuration is no pattern"
                ) from None
        return default


def _by_start(path: Path, text: str) -> dict[str, dict[str, Any]]:
    """Diffusers' header: "transformer.lora_alpha": 16, …"""
    configs: dict[str, dict[str, Any]] = {}
    try:
        for name, value in parse_json(text).items():
            component, _, entry = name.partition(".")
            configs.setdefault(f"{component}.", {})[entry] = value
    except ValueError as error:
        raise CheckpointError(f"{path}: its {HEADER} is no JSON object ({error})") from None
    return configs


def _number(path: Path, name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise CheckpointError(f"{path}: the {name} in its header is {text!r:.40}, which is no number") from None


# -- applying ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LayerUpdates:
    """The updates of each layer of some networks, each with the strength that it is added with."""

    updates: dict[Layer, list[tuple[Update, float]]]

    def apply(self, dtype: torch.dtype, merge: bool = False) -> Applied:
        """Add the updates to the layers. They are kept in `dtype`, the one that the networks compute in.

        With `merge` those over plain weights are added to them: computed in float32, rounded once, and no work
        afterwards. The weights before are kept for `Applied.remove`.
        """
        applied = Applied()
        for layer, updates in self.updates.items():
            if merge and layer.weight.dtype.is_floating_point:
                applied.merge(layer, updates)
            else:
                applied.hook(layer, updates, dtype)
        return applied


class Applied:
    """Updates at work; `remove` leaves the networks as they were before, to the bit."""

    def __init__(self):
        self._hooks: list[tuple[Layer, torch.utils.hooks.RemovableHandle]] = []
        self._merged: list[tuple[Layer, Tensor]] = []

    def merge(self, layer: Layer, updates: list[tuple[Update, float]]) -> None:
        weight = layer.weight
        total = weight.detach().float()
        for update, strength in updates:
            delta = update.up.to(weight.device) @ update.down.to(weight.device).flatten(1)
            total = total + delta.view_as(total) * (update.scale * strength)
        self._merged.append((layer, weight))
        layer.weight = nn.Parameter(total.to(weight.dtype), requires_grad=False)

    def hook(self, layer: Layer, updates: list[tuple[Update, float]], dtype: torch.dtype) -> None:
        """Join the updates into one of their summed rank: two more products, however many there are."""
        down = torch.cat([update.down for update, _ in updates])
        up = torch.cat([update.up * (update.scale * strength) for update, strength in updates], dim=1)
        place = next(layer.parameters()).device
        layer.register_buffer("lora_down", down.to(place, dtype), persistent=False)  # buffers: they move with the layer
        layer.register_buffer("lora_up", up.to(place, dtype), persistent=False)
        self._hooks.append((layer, layer.register_forward_hook(_add_update)))

    def remove(self) -> None:
        for layer, handle in self._hooks:
            handle.remove()
            del layer.lora_down, layer.lora_up
        for layer, weight in self._merged:
            layer.weight = nn.Parameter(weight.data.to(layer.weight.device), requires_grad=False)
        self._hooks, self._merged = [], []


def _add_update(layer: Layer, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    x = inputs[0]
    down, up = layer.get_buffer("lora_down").to(x), layer.get_buffer("lora_up").to(x)
    if isinstance(layer, nn.Linear):
        return output + F.linear(F.linear(x, down), up)
    convolve = F.conv2d if isinstance(layer, nn.Conv2d) else F.conv3d
    middle = convolve(x, down, stride=layer.stride, padding=layer.padding)  # (B, rank, …)
    return output + torch.einsum("or,br...->bo...", up, middle)


def match(networks: Iterable[nn.Module], loras: Sequence[tuple[Lora, float]]) -> LayerUpdates:
    """Find the layers that LoRAs are for, each of which comes with its strength.

    Warns of keys that match nothing, listing them. Raises `CheckpointError` if none of a file's match, or if an update
    does not fit its layer; `JoyImageError` for a strength that is no number.
    """
    layers = {
        canonical(name): layer
        for network in networks
        for name, layer in network.named_modules()
        if isinstance(layer, Layer)
    }
    updates: dict[Layer, list[tuple[Update, float]]] = {}
    for lora, strength in loras:
        if not math.isfinite(strength):
            raise JoyImageError(f"{lora.path}: the strength is {strength}; give a number such as 0.8")
        _report_unmatched(lora, layers)
        for name, update in lora.updates.items():
            if name in layers:
                _check_fit(lora, name, update, layers[name])
                updates.setdefault(layers[name], []).append((update, strength))
    return LayerUpdates(updates)


def _report_unmatched(lora: Lora, layers: Mapping[str, Layer]) -> None:
    stray = [key for name in lora.updates if name not in layers for key in lora.keys[name]] + list(lora.unknown)
    listed = ", ".join(stray[:LISTED]) + (", …" if len(stray) > LISTED else "")
    if not any(name in layers for name in lora.updates):
        raise CheckpointError(f"{lora.path}: is a LoRA of another model: none of its layers is here ({listed})")
    if stray:
        warnings.warn(f"{lora.path}: {len(stray)} keys match nothing and have no effect: {listed}", stacklevel=4)


def _check_fit(lora: Lora, name: str, update: Update, layer: Layer) -> None:
    if isinstance(layer, nn.Linear):
        wanted = (layer.in_features,), layer.out_features
    else:
        wanted = tuple(layer.weight.shape[1:]), layer.weight.shape[0]
    if (tuple(update.down.shape[1:]), len(update.up)) != wanted:
        raise CheckpointError(
            f"{lora.path}: {lora.keys[name][0]} is for a layer from {tuple(update.down.shape[1:])} to {len(update.up)} "
            f"channels, here it goes from {wanted[0]} to {wanted[1]}; it was trained on a model of another size"
        )
