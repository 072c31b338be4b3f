"""Optimisers of an adapter, and the state that a checkpoint keeps of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import JoyImageError, one_line
from .settings import Training

# SpatialEdit's. Its epsilon is small because gradients of the updates are.
BETAS, EPSILON = (0.9, 0.95), 1e-10


def check_optimizer(settings: Training) -> None:
    """Raise `JoyImageError` for an optimizer that this torch lacks."""
    if settings.optimizer == "muon" and not hasattr(torch.optim, "Muon"):
        raise JoyImageError(f"optimizer muon needs torch 2.9 or newer, here is {torch.__version__}; take adamw")


def engines(parameters: list[nn.Parameter], settings: Training) -> list[torch.optim.Optimizer]:
    """AdamW, or Muon for matrices and AdamW for what is left; without decay of the weights.

    Muon's rate is scaled so that a step is as large as one of AdamW: one learning rate is right for both.
    """
    check_optimizer(settings)
    matrices = [p for p in parameters if p.ndim == 2 and settings.optimizer == "muon"]
    rest = [p for p in parameters if p.ndim != 2 or settings.optimizer != "muon"]
    made: list[torch.optim.Optimizer] = []
    if matrices:
        rate = settings.learning_rate
        made.append(torch.optim.Muon(matrices, rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))
    if rest:
        made.append(torch.optim.AdamW(rest, settings.learning_rate, betas=BETAS, eps=EPSILON, weight_decay=0.0))
    return made


def restore(engines: Sequence[torch.optim.Optimizer], states: Sequence[dict[str, Any]]) -> None:
    """Give optimisers the states that they had. Raises `JoyImageError` for those of other optimisers or tensors."""
    try:
        for engine, state in zip(engines, states, strict=True):
            engine.load_state_dict(state)
        kept = [(p, each) for engine in engines for p, values in engine.state.items() for each in values.values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # torch's, of no one kind
        raise JoyImageError(f"the optimiser's state is another one's ({one_line(str(error)):.80})") from error
    if any(isinstance(each, Tensor) and each.ndim and each.shape != p.shape for p, each in kept):
        raise JoyImageError("the optimiser's state is that of other tensors")
