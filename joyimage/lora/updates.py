"""What becomes of a weight W, family by family.

| family | W becomes, at strength s | source |
| --- | --- | --- |
| LoRA, LoCon | W + s·c·(up·down), with Tucker's core between the two where there is one | arXiv 2106.09685 |
| LoHa | W + s·c·(up₁·down₁ ∘ up₂·down₂) | arXiv 2108.06098 |
| LoKr | W + s·c·(outer ⊗ inner), each whole or a product of two | arXiv 2309.14859 |
| GLoRA | W + s·c·(W·a₁·a₂ + up·down) | arXiv 2306.07967 |
| DoRA | W + s·(m·V / ‖V‖ − W), V what one of the above makes of W at s = 1 | arXiv 2402.09353 |
| OFT | W + s·(RᵀW − W), R orthogonal in blocks | arXiv 2306.07280 |
| BOFT | the same in stages, each on other pairs of rows | arXiv 2311.06243 |
| difference, value | W + s·D, W + s·(D − W) | |

c is alpha / rank. LyCORIS's definitions count where the papers leave something open. All weights here are float32,
(out, in, …), kernels with their places behind.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Update(nn.Module):
    """What becomes of one weight: `forward(weight, strength)` gives the new one, both of the same shape.

    Its tensors go where it goes, and are no weights of the model. `scale` is alpha / rank.
    Raises `ValueError`, or torch's `RuntimeError`, for a weight of another shape than it is for.
    """

    def __init__(self, scale: float = 1.0, **tensors: Tensor | None):
        super().__init__()
        self.scale = scale
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, weight: Tensor, strength: float) -> Tensor:
        raise NotImplementedError


def changed(update: Update, weight: Tensor, strength: float) -> Tensor:
    """What `update` makes of a weight of any floating dtype; computed in float32, on the weight's device."""
    tensors = {name: buffer.to(weight.device, torch.float32) for name, buffer in update.named_buffers()}
    return torch.func.functional_call(update, tensors, (weight.float(), strength))


class Added(Update):
    """A difference that does not depend on the weight."""

    def difference(self) -> Tensor:
        """(out, in, …) or (out, the rest in one)."""
        raise NotImplementedError

    def forward(self, weight: Tensor, strength: float) -> Tensor:
        return weight + strength * shaped(self.difference(), weight)


class LowRank(Added):
    """`down` is (rank, in) or a kernel (rank, in, …), `up` (out, rank)."""

    down: Tensor
    up: Tensor

    def difference(self) -> Tensor:
        return self.up @ self.down.flatten(1) * self.scale


class Hadamard(Added):
    """LoHa: two products, multiplied element by element (out, in)."""

    left_up: Tensor
    left_down: Tensor
    right_up: Tensor
    right_down: Tensor
    left_core: Tensor | None
    right_core: Tensor | None

    def difference(self) -> Tensor:
        left = product(self.left_up, self.left_down, self.left_core)
        right = product(self.right_up, self.right_down, self.right_core)
        return left * right * self.scale


class Kronecker(Added):
    """LoKr: each element of `outer` (a, b) times `inner` (c, d, …) gives (a c, b d, …)."""

    outer: Tensor | None
    outer_up: Tensor | None
    outer_down: Tensor | None
    inner: Tensor | None
    inner_up: Tensor | None
    inner_down: Tensor | None
    inner_core: Tensor | None

    def difference(self) -> Tensor:
        outer = whole(self.outer, self.outer_up, self.outer_down)
        inner = whole(self.inner, self.inner_up, self.inner_down, self.inner_core)
        return torch.kron(outer[(...,) + (None,) * (inner.ndim - 2)], inner.contiguous()) * self.scale


class Difference(Added):
    """The whole of it."""

    value: Tensor

    def difference(self) -> Tensor:
        return self.value


class Value(Update):
    """Another weight in the place of the first."""

    value: Tensor

    def forward(self, weight: Tensor, strength: float) -> Tensor:
        return weight + strength * (shaped(self.value, weight) - weight)


class Generalised(Update):
    """GLoRA: `into_up` (in, rank) and `into_down` (rank, in) act on the weight's columns, `added` beside them."""

    into_up: Tensor
    into_down: Tensor

    def __init__(self, into_up: Tensor, into_down: Tensor, added: LowRank):
        super().__init__(added.scale, into_up=into_up.flatten(1), into_down=into_down.flatten(1))
        self.added = added

    def forward(self, weight: Tensor, strength: float) -> Tensor:
        columns = torch.einsum("oi...,ir,rj->oj...", weight, self.into_up, self.into_down)
        return weight + strength * (columns * self.scale + shaped(self.added.difference(), weight))


class Decomposed(Update):
    """DoRA: `magnitude` is the norm of each row (out, 1, …), or of each column (1, in, …), after the update."""

    magnitude: Tensor

    def __init__(self, magnitude: Tensor, inner: Update):
        super().__init__(magnitude=magnitude)
        self.inner = inner

    def forward(self, weight: Tensor, strength: float) -> Tensor:
        direction = self.inner(weight, 1.0)
        kept = 1 if self.magnitude.shape[0] == 1 and self.magnitude.numel() > 1 else 0
        if self.magnitude.numel() != weight.shape[kept]:
            raise ValueError(f"{self.magnitude.numel()} norms")
        others = [i for i in range(weight.ndim) if i != kept]
        norm = torch.linalg.vector_norm(direction, dim=others, keepdim=True)
        magnitude = self.magnitude.reshape(norm.shape)
        return weight + strength * (direction * (magnitude / norm.clamp_min(torch.finfo(norm.dtype).tiny)) - weight)


class Rotated(Update):
    """OFT and BOFT: rows are turned in blocks, of `blocks` (blocks, size, size), or in stages (stages, blocks, …).

    `limit` bounds the norm of all that is turned, 0 for no bound. `rescale` (out, 1, …) is what rows are multiplied by
    then, at every strength.
    """

    blocks: Tensor
    rescale: Tensor | None

    def __init__(self, blocks: Tensor, rescale: Tensor | None, limit: float):
        super().__init__(blocks=blocks, rescale=rescale)
        self.limit = limit

    def forward(self, weight: Tensor, strength: float) -> Tensor:
        turns = self._turns(len(weight))
        identity = torch.eye(turns.shape[-1], device=turns.device)
        turns = turns * strength + identity * (1 - strength)
        if turns.ndim == 3:
            rows = torch.einsum("knm,kn...->km...", turns, weight.unflatten(0, turns.shape[:2])).flatten(0, 1)
        else:
            rows = self._in_stages(turns, weight)
        return rows if self.rescale is None else rows * self.rescale.reshape(-1, *[1] * (weight.ndim - 1))

    def _turns(self, rows: int) -> Tensor:
        """The orthogonal matrices, by Cayley's transform of the skew part of the blocks."""
        skew = self.blocks - self.blocks.mT
        if self.limit > 0:
            norm = skew.norm() + 1e-8
            bound = self.limit * rows  # LyCORIS's rule: the file's number is per row
            skew = torch.where(norm > bound, skew * (bound / norm), skew)
        identity = torch.eye(skew.shape[-1], device=skew.device)
        return (identity + skew) @ (identity - skew).inverse()

    def _in_stages(self, turns: Tensor, weight: Tensor) -> Tensor:
        """Stage i joins rows that lie 2^i half blocks apart."""
        rows = weight
        for i, stage in enumerate(turns):  # (blocks, size, size)
            apart = 2**i * (stage.shape[-1] // 2)
            rows = rows.unflatten(0, (-1, 2, apart)).transpose(1, 2).flatten(0, 2)
            rows = torch.einsum("bij,bj...->bi...", stage, rows.unflatten(0, stage.shape[:2])).flatten(0, 1)
            rows = rows.unflatten(0, (-1, apart, 2)).transpose(1, 2).flatten(0, 2)
        return rows


# -- products ---------------------------------------------------------------------------------------------------------


def shaped(difference: Tensor, weight: Tensor) -> Tensor:
    """A difference in the shape of the weight; raises `ValueError` where they can't be meant for each other."""
    if difference.numel() != weight.numel() or difference.shape[:1] != weight.shape[:1]:
        raise ValueError(f"an update of the shape {tuple(difference.shape)}")
    return difference.reshape(weight.shape)


def product(up: Tensor, down: Tensor, core: Tensor | None) -> Tensor:
    """`up` and `down` as LoHa and LoKr have them: (out, rank) and (rank, in …), or around Tucker's core (rank, rank, …)
    then both with the rank first: (rank, out) and (rank, in). Gives (out, in, …)."""
    if core is None:
        return up @ down.flatten(1)
    return torch.einsum("pq...,po,qi->oi...", core, up, down)


def whole(tensor: Tensor | None, up: Tensor | None, down: Tensor | None, core: Tensor | None = None) -> Tensor:
    """A factor of LoKr, which may be kept as a product."""
    if tensor is not None:
        return tensor
    assert up is not None and down is not None  # seen to when it was read
    return product(up, down, core)
