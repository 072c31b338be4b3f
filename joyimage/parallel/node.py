"""One device's share of the forwards of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..caching import StepCache, as_is
from ..mmdit import MMDiT
from .exchange import Exchange
from .sequence import SequenceMMDiT


@dataclass(frozen=True)
class Known:
    """What is the same in all forwards over some prompts, and what they keep."""

    texts: list[Tensor]
    references: list[Tensor]
    cache: StepCache


@dataclass(frozen=True)
class Failure:
    """Why a node can not go on; `itself`, or as another has left it."""

    message: str
    itself: bool = True


@dataclass
class Node:
    """An MMDiT on a device, by itself or with a part of each forward's tokens.

    Prompts and references come once, under a number, and so does what is kept of them from step to step.
    """

    mmdit: MMDiT
    device: torch.device
    exchange: Exchange | None = None
    _known: dict[int, Known] = field(default_factory=dict)

    def learn(
        self,
        number: int,
        texts: Sequence[Tensor],
        references: Sequence[Tensor],
        reference_every: int,
        block_cache: float,
    ) -> None:
        total = as_is if self.exchange is None else self.exchange.total
        cache = StepCache(reference_every, block_cache, total=total)
        self._known[number] = Known([x.to(self.device) for x in texts], [x.to(self.device) for x in references], cache)

    def forget(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            del self._known[number]

    def forward(self, number: int, x: Tensor, t: Tensor) -> Tensor | None:
        """The velocity of x (B, 16, 1, h, w) at t (B,); None but in the first of several that have parts of tokens."""
        known = self._known[number]
        inputs = x.to(self.device), t.to(self.device), known.texts, known.references, known.cache
        network: Callable[..., Tensor | None] = self.mmdit
        if self.exchange is not None:
            network = SequenceMMDiT(self.mmdit, self.exchange)
        return network(*inputs)
