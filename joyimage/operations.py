"""What the networks are handed to build their layers from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypedDict

import torch
from torch import nn


class Operations(Protocol):
    """The classes of layers: `torch.nn`, `joyimage.quantisation.layers` or a host's.

    Each class is called as torch's own is.
    """

    @property
    def Linear(self) -> Callable[..., nn.Linear]: ...
    @property
    def RMSNorm(self) -> Callable[..., nn.Module]: ...
    @property
    def Conv2d(self) -> Callable[..., nn.Conv2d]: ...
    @property
    def Conv3d(self) -> Callable[..., nn.Conv3d]: ...


class Factory(TypedDict):
    """What every layer is made with besides its sizes."""

    dtype: torch.dtype | None
    device: torch.device | str | None
