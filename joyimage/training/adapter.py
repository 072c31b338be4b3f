"""A LoRA on an MMDiT while it is trained: PEFT's layers around the frozen ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import JoyImageError
from ..mmdit import MMDiT
from .files import Update
from .settings import Training
from .targets import layers_meant

NAME = "default"  # of the adapter inside PEFT's layers


def check_extra(*packages: str) -> None:
    """Raise `JoyImageError` where a package that training needs is not installed."""
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise JoyImageError(f'training needs {" and ".join(missing)}: run `pip install "joyimage[train]"`')


def target_layers(mmdit: MMDiT, targets: Sequence[str]) -> list[str]:
    """The names of the linear layers that `targets` mean. Raises `JoyImageError` for one that means none."""
    names = [name for name, module in mmdit.named_modules() if isinstance(module, nn.Linear)]
    return layers_meant(names, targets, len(mmdit.double_blocks))


class Adapter:
    """Trainable updates on an MMDiT, in float32 on `device`, whose own weights are frozen and stay where they are.

    They are drawn from the settings' seed. `remove` leaves the network as it was. Raises `JoyImageError` where PEFT is
    not installed, for a target that means no layer, and for a network that has an adapter already.
    """

    def __init__(self, mmdit: MMDiT, settings: Training, device: torch.device | str | None = None):
        check_extra("peft")
        from peft import LoraConfig, LoraModel

        from .wrapping import CUSTOM

        if hasattr(mmdit, "peft_config"):
            raise JoyImageError("the model is being trained already: let that run end first")
        names = target_layers(mmdit, settings.targets)
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType] - any number will do
            target_modules=names,
            use_rslora=settings.adapter == "rslora",
            use_dora=settings.adapter == "dora",
        )
        config._register_custom_module(
            CUSTOM
        )  # PEFT's way for layers that it does not know, see its custom_models page
        self.mmdit, self.settings, self.names = mmdit, settings, names
        training = mmdit.training
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
            torch.default_generator.manual_seed(settings.seed)
            self._peft = LoraModel(mmdit.requires_grad_(False), config, NAME)
        mmdit.train(training)
        for parameter in self.parameters():
            parameter.data = parameter.data.to(device or parameter.device, torch.float32)

    def layers(self) -> dict[str, nn.Module]:
        """PEFT's layers by the names of those that they are around."""
        return {name: self.mmdit.get_submodule(name) for name in self.names}

    def tensors(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return {name: p for name, p in self.mmdit.named_parameters() if p.requires_grad}

    def parameters(self) -> list[nn.Parameter]:
        return list(self.tensors().values())

    @contextmanager
    def off(self) -> Iterator[None]:
        """The network as it was, to the bit."""
        trained = self.parameters()
        self._peft.disable_adapter_layers()
        for parameter in trained:  # PEFT takes that from them, and a memory budget would move what is not trained
            parameter.requires_grad_(True)
        try:
            yield
        finally:
            self._peft.enable_adapter_layers()

    def load(self, values: dict[str, Tensor]) -> None:
        """Take the values of `tensors`, as they were once."""
        own = self.tensors()
        if own.keys() != values.keys() or any(own[name].shape != value.shape for name, value in values.items()):
            raise JoyImageError("the weights are of another adapter: other targets, or another rank")
        with torch.no_grad():
            for name, value in values.items():
                own[name].copy_(value)

    def updates(self, values: dict[str, Tensor] | None = None) -> dict[str, Update]:
        """The updates by layer, on the CPU, as `files` writes them; of other values than the present ones if given."""
        values = {name: p.detach() for name, p in self.tensors().items()} if values is None else values

        def part(layer: str, name: str) -> Tensor | None:
            value = values.get(f"{layer}.{name}.{NAME}.weight")
            return None if value is None else value.detach().cpu().clone().contiguous()

        found = {}
        for layer in self.names:
            down, up = part(layer, "lora_A"), part(layer, "lora_B")
            assert down is not None and up is not None
            found[layer] = Update(down, up, part(layer, "lora_magnitude_vector"))
        return found

    def remove(self) -> None:
        self._peft.unload()
