"""The MMDiT's forward as training runs it: blocks checkpointed, in mixed precision where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..mmdit import MMDiT, Modulation
from ..settings import TRAINING_STEPS


def compute_dtype(mmdit: MMDiT) -> torch.dtype:
    """What an MMDiT computes in: the dtype of its tables, which are never quantised."""
    return next(m.modulate_table.dtype for m in mmdit.modules() if isinstance(m, Modulation))


def velocity(
    mmdit: MMDiT, x: Tensor, sigma: Tensor, contexts: Sequence[Tensor], references: Sequence[Tensor] = (), *,
    checkpointing: bool = False, half: bool = False,
) -> Tensor:  # fmt: skip
    """The velocity of latents `x` (B, 16, 1, h, w) at `sigma` (B,) in [0, 1], in their shape and dtype.

    With `checkpointing` a block keeps its input alone and runs again in the backward pass: as a whole module, so that
    weights which stream are there both times. With `half` blocks multiply in bfloat16; the time embedding does not,
    which a rounding would move.
    """
    img, txt, time, packing = mmdit.embed(x, TRAINING_STEPS * sigma, contexts, references, mmdit.attention)
    last = len(mmdit.double_blocks) - 1
    with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
        for i, block in enumerate(mmdit.double_blocks):
            inputs = img, txt, time, packing, packing.targets if i == last else None
            if checkpointing and torch.is_grad_enabled():
                img, txt = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
            else:
                img, txt = block(*inputs)
    return mmdit.project(img, x)
