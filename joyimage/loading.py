"""How a model was asked for, and what comes of it: its networks, where they work, and all devices that they work on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from . import checkpoints
from .attention import Attention, attention_by_name
from .checkpoints.configs import mmdit_config
from .checkpoints.folders import open_component
from .compiling import check_compiler, compile_blocks
from .config import MMDiTConfig
from .errors import JoyImageError
from .inputs import usable_device
from .memory import Memory, Needs, parse_size
from .mmdit import MMDiT
from .parallel.devices import Devices
from .quantisation.layers import use_products
from .settings import check_products, check_theta
from .waiting import LOAD_SECONDS, check_load_seconds


@dataclass(frozen=True)
class Recipe:
    """What `JoyImage.load` was given, but for devices; further devices' processes load the MMDiT after the same.

    `parts` are the paths of "mmdit", "vae", "encoder" and "tokenizer", as far as they are given one by one.
    Raises `JoyImageError` for what no model can be loaded by.
    """

    path: str | Path | None
    parts: Mapping[str, str | Path | None]
    dtype: torch.dtype | None
    theta: float | None
    products: str
    attention: str
    compile: bool | str
    memory: str | int | None
    load_seconds: int = LOAD_SECONDS  # for a further device's process

    def __post_init__(self):
        check_products(self.products)
        check_load_seconds(self.load_seconds)
        if self.theta is not None:
            check_theta(self.theta)
        named = {**self.parts, "dtype": self.dtype, "theta": self.theta}
        if self.tiny and (named := [name for name, value in named.items() if value is not None]):
            raise JoyImageError(
                f"the bundled model comes whole and in float32: leave out {', '.join(named)}, or name a model's folder"
            )

    @property
    def tiny(self) -> bool:
        return str(self.path) == "tiny"

    @property
    def budget(self) -> int | None:
        """Bytes of each device's memory."""
        return None if self.memory is None else parse_size(self.memory)

    def home(self, device: torch.device) -> torch.device:
        """Where weights are while they do not work on a device."""
        return device if self.budget is None else torch.device("cpu")

    def load(
        self,
        device: torch.device | str | None,
        guidance_devices: Sequence[str] | None = None,
        sequence_devices: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """What `JoyImage` is made of."""
        devices = Devices.of(guidance_devices, sequence_devices, None if device is None else str(device))
        places = [usable_device(name) for name in ([device] if devices is None else devices.names)]
        if devices is not None:
            self._check_devices(devices)
        budget = self.budget
        attention, *_ = [attention_by_name(self.attention, place) for place in places]
        for place in places:
            check_compiler(place, self.compile)
        model = self._networks(places[0])
        mmdit, vae, encoder = model["mmdit"], model["vae"], model["encoder"]
        self._speed_up(mmdit, attention, (mmdit, encoder.model), places[0])
        model["memory"] = Memory(Needs(encoder.model, mmdit, vae), places[0], budget, len(places))
        if devices is not None:
            from .parallel.team import Team  # slow to import

            model["team"] = Team(mmdit, devices, self)
        return model

    def _check_devices(self, devices: Devices) -> None:
        """What of further devices can be told before anything is loaded."""
        for card in devices.shared_cards:
            warnings.warn(
                f"{card} is named more than once: a card that is shared is no faster, and holds the MMDiT "
                "for each time",
                stacklevel=4,
            )
        if max(map(len, devices.groups)) > 1:
            devices.check_heads(self._config().num_heads)

    def _config(self) -> MMDiTConfig:
        """The MMDiT's sizes, from headers."""
        if self.tiny:
            from . import tiny

            return mmdit_config(open_component(tiny.FILES["mmdit"], "mmdit"))
        return mmdit_config(checkpoints.open_model(self.path, **self.parts)["mmdit"])

    def mmdit(self, device: torch.device) -> MMDiT:
        """The MMDiT alone, for a further device."""
        mmdit = self._mmdit(device)
        self._speed_up(mmdit, attention_by_name(self.attention, device), (mmdit,), device)
        return mmdit

    def _mmdit(self, device: torch.device) -> MMDiT:
        if self.tiny:
            from . import tiny

            return tiny.mmdit(self.home(device))
        source = checkpoints.open_model(self.path, **self.parts)["mmdit"]
        return checkpoints.load_mmdit(source, dtype=self.dtype, theta=self.theta, **self._places(device))

    def _places(self, device: torch.device) -> dict[str, torch.device]:
        return {"device": self.home(device), "compute_device": device}

    def _networks(self, device: torch.device) -> dict[str, Any]:
        """The networks with their weights, to work on a device, and the base size, shift and steps of theirs."""
        if self.tiny:
            from . import tiny  # here: nobody else needs it

            mmdit, vae, encoder = tiny.build(self.home(device))
            return {"mmdit": mmdit, "vae": vae, "encoder": encoder, "base_size": tiny.BASE_SIZE}
        sources = checkpoints.open_model(self.path, **self.parts)
        mmdit, places = sources["mmdit"], self._places(device)
        return {
            "mmdit": checkpoints.load_mmdit(mmdit, dtype=self.dtype, theta=self.theta, **places),
            "vae": checkpoints.load_vae(sources["vae"], dtype=torch.float32, **places),
            "encoder": checkpoints.load_encoder(
                sources["encoder"], tokenizer=sources.tokenizer, dtype=self.dtype, **places
            ),
            "base_size": checkpoints.base_size(mmdit, "mmdit"),
            "shift": checkpoints.own_shift(mmdit),
            "steps": checkpoints.own_steps(mmdit),
        }

    def _speed_up(
        self, mmdit: MMDiT, attention: Attention, networks: Sequence[torch.nn.Module], device: torch.device
    ) -> None:
        mmdit.attention = attention
        use_products(networks, self.products, device)
        if self.compile:
            compile_blocks(mmdit, device, self.compile)
