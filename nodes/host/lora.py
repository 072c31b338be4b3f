"""A LoRA of any family and naming as patches of the host's MODEL, applied as the library does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import WeightAdapterBase
from torch import Tensor

from ...joyimage import lora
from ...joyimage.lora.updates import Update, changed


class Adapter(WeightAdapterBase):
    """One of the library's updates, as the host's patch of a weight. `weights` is a tuple of that update alone."""

    name = "joyimage"
    weights: Any

    def __init__(self, loaded_keys: set[str], weights: tuple[Update]):
        self.loaded_keys = loaded_keys
        self.weights = weights

    def calculate_weight(
        self,
        weight: Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: Any,
        function: Any,
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: Any = None,
    ) -> Tensor:
        (update,) = self.weights
        return changed(update, weight, strength).to(weight.dtype)


def add_lora(model: ModelPatcher, path: Path, strength: float) -> ModelPatcher:
    """A MODEL with a LoRA on top of all that it has, the first one unchanged.

    Warns of keys that match nothing. Raises `CheckpointError` for a file that is no LoRA of this model.
    """
    network = model.model.diffusion_model
    paths = {module: f"diffusion_model.{name}".rstrip(".") for name, module in network.named_modules()}
    found = lora.match([network], [(lora.read(path), strength)])
    patches: dict[str, Any] = {}
    for target, [(update, _)] in found.weights.items():  # one file has one update of a layer
        patches[f"{paths[target.module]}.{target.name}"] = Adapter(set(), (update,))
    for target, [(bias, _)] in found.biases.items():
        patches[f"{paths[target.module]}.{target.name}"] = ("diff", (bias,))
    patched = model.clone()
    patched.add_patches(patches, strength)
    return patched
