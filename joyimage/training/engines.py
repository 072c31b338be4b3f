"""Optimisers of an adapter."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import JoyImageError
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
