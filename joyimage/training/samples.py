"""What training needs of one example, once pictures and texts have been encoded."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Sample:
    """One example, all on the CPU, in normal tensors that autograd takes."""

    latent: Tensor  # (16, 1, h, w) float32, normalised posterior mean of the target
    references: tuple[Tensor, ...]  # each (16, 1, h_i, w_i)
    context: Tensor  # (L, D) of the caption with its pictures
    empty: Tensor  # (L0, D) of the empty prompt with the same pictures, for dropped prompts and guidance
    mask: Tensor | None = None  # (1, 1, h, w) in [0, 1]: where the loss counts
