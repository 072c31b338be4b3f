"""What the forwards of one run keep from step to step.

The text's embedding and the references' patches are the same in every step and are made once. On request more is
kept, at a loss: the references' keys and values for some steps (`reference_every`), and what all blocks after the
first add, as long as the first one's output hardly changes (`block_cache`; the first-block cache of ParaAttention, an
adaptive form of TeaCache, arXiv 2411.19108).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
# Runs block i on image and text tokens; the last one gives no text
RunBlock = Callable[[int, Tensor, Any], "tuple[Tensor, Tensor | None]"]
# Adds up sums that the processes of a group have each over tokens of their own
Total = Callable[[Tensor], Tensor]


def as_is(x: Tensor) -> Tensor:
    return x


class KeptTokens:
    """Keys or values of the references' tokens in one block, (B, tokens, heads, head_dim) in `dtype`."""

    def __init__(self, targets: int, dtype: torch.dtype):
        self.targets = targets  # tokens of the target, which come before
        self.dtype = dtype
        self._tokens: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Those of all image tokens (B, N, heads, head_dim).

        Where `x` has the references' tokens too they are kept, and where it has the target's alone those kept follow.
        """
        if x.shape[1] > self.targets:
            # a copy, since a view would keep all of x in memory
            self._tokens = x[:, self.targets :].to(self.dtype, copy=True)
        elif self._tokens is not None:
            return torch.cat([x.to(self.dtype), self._tokens], dim=1)
        return x


class KeptReferences:
    """What one block keeps of the references."""

    def __init__(self, targets: int, dtype: torch.dtype):
        self.keys = KeptTokens(targets, dtype)
        self.values = KeptTokens(targets, dtype)


class StepCache:
    """What the forwards of the same prompts and references keep during one run."""

    def __init__(
        self,
        reference_every: int = 1,
        block_cache: float = 0.0,
        shared: dict[str, object] | None = None,
        total: Total = as_is,
    ):
        self.reference_every = reference_every
        self.block_cache = block_cache
        self._total = total
        self._made: dict[str, object] = {}
        self._shared = {} if shared is None else shared  # what all prompts of the run have in common
        self._kept: list[KeptReferences] = []
        self._next: list[KeptReferences] = []  # of the forward at work
        self._forwards = 0  # since the references last ran along, that forward included
        self._first = torch.empty(0)  # what the first block added when the others last ran
        self._rest: Tensor | None = None  # what they added

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What `make` gives, made the first time."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]  # pyright: ignore[reportReturnType] - each name has one type

    def once_for_all(self, name: str, make: Callable[[], T]) -> T:
        """As `once`, for all prompts of the run."""
        if name not in self._shared:
            self._shared[name] = make()
        return self._shared[name]  # pyright: ignore[reportReturnType] - each name has one type

    def references(self, given: Sequence[Tensor]) -> Sequence[Tensor]:
        """The references that run along in this forward: all, or none where their keys and values are kept."""
        return () if self._kept and self._forwards < self.reference_every else given

    def keeping(
        self, blocks: int, targets: int, references: int, dtype: torch.dtype
    ) -> Sequence[KeptReferences | None]:
        """Where each block keeps the references' keys and values, in `dtype`. `references` is how many run along."""
        self._forwards += 1
        if self.reference_every > 1 and references:
            self._next = [KeptReferences(targets, dtype) for _ in range(blocks)]
            return self._next
        return self._kept or [None] * blocks

    def through(self, blocks: int, run: RunBlock, img: Tensor, txt: Tensor | None, targets: int) -> Tensor:
        """The target's tokens (B, targets, D) after all blocks, or after the first and what the others last added."""
        if not self.block_cache or blocks == 1:  # a branch of its own: the one below holds two tensors more
            for i in range(blocks):
                img, txt = run(i, img, txt)
            self._keep_references()
            return img[:, :targets]
        before = img[:, :targets]
        img, txt = run(0, img, txt)
        first = img[:, :targets]
        added = first - before
        if self._rest is not None and similar(added, self._first, self.block_cache, self._total):
            return first + self._rest
        for i in range(1, blocks):
            img, txt = run(i, img, txt)
        self._first, self._rest = added, img[:, :targets] - first
        self._keep_references()
        return img[:, :targets]

    def _keep_references(self) -> None:
        """Called after all blocks have run: where the first one was enough, the others have kept nothing."""
        if self._next:
            self._kept, self._next, self._forwards = self._next, [], 1


def similar(new: Tensor, old: Tensor, threshold: float, total: Total = as_is) -> bool:
    """Whether each sample (B, N, D) has moved by less than `threshold` of its mean magnitude.

    `total` adds up what is summed over N where each process has some of the tokens, so that all decide alike.
    """
    moved, size = total(torch.stack([x.abs().sum(dim=(1, 2), dtype=torch.float32) for x in (new - old, old)]))
    return bool((moved < threshold * size).all())


class RunCaches:
    """One `StepCache` for each set of prompts that share a forward, over one run."""

    def __init__(self, reference_every: int = 1, block_cache: float = 0.0):
        self.reference_every = reference_every
        self.block_cache = block_cache
        self._caches: dict[Hashable, StepCache] = {}
        self._shared: dict[str, object] = {}

    def of(self, key: Hashable) -> StepCache:
        return self._caches.setdefault(key, StepCache(self.reference_every, self.block_cache, self._shared))
