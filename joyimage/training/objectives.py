"""What is learned: pure functions from a batch, and what was drawn for it, to a loss.

A further objective, such as distillation to few steps, is one more function and one more row of `OBJECTIVES`, with its
name in `settings.OBJECTIVES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..sampling import guide
from .samples import Sample
from .settings import Training


class Network(Protocol):
    """The velocity (B, 16, 1, h, w) of latents at noise levels `sigma` (B,) in [0, 1]."""

    def __call__(
        self, x: Tensor, sigma: Tensor, contexts: Sequence[Tensor], references: Sequence[Tensor]
    ) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of equal shapes."""

    latent: Tensor  # (B, 16, 1, h, w) float32, clean
    references: tuple[Tensor, ...]  # each (B, 16, 1, h_i, w_i)
    contexts: tuple[Tensor, ...]  # (L_i, D) of each sample
    empties: tuple[Tensor, ...]  # the same of the empty prompt
    weights: Tensor | None = None  # (B, 1, h, w) how much each place counts, None for all alike

    @classmethod
    def of(cls, samples: Sequence[Sample], settings: Training, device: torch.device | str, dtype: torch.dtype) -> Batch:
        """On a device, what the network takes in `dtype`."""
        weights = [weights_of(sample, settings) for sample in samples]
        known = [weight for weight in weights if weight is not None]
        references = zip(*(sample.references for sample in samples), strict=True)
        return cls(
            torch.stack([sample.latent for sample in samples]).to(device, torch.float32),
            tuple(torch.stack(reference).to(device, dtype) for reference in references),
            tuple(sample.context.to(device, dtype) for sample in samples),
            tuple(sample.empty.to(device, dtype) for sample in samples),
            torch.stack(known).to(device) if known else None,
        )


@dataclass(frozen=True, eq=False)
class Drawn:
    """What chance gives to each sample of a batch."""

    noise: Tensor  # (B, 16, 1, h, w) float32
    sigma: Tensor  # (B,) float32 in [0, 1]
    dropped: tuple[bool, ...]  # whether its prompt is left out

    @classmethod
    def of(cls, batch: Batch, settings: Training, generators: Sequence[torch.Generator]) -> Drawn:
        """From a generator on the CPU for each sample, so that a sample's share does not depend on its batch."""
        shape, device = batch.latent.shape[1:], batch.latent.device
        rows = [
            (
                torch.randn(shape, generator=generator),
                times(settings.shift, generator),
                torch.rand((), generator=generator).item() < settings.drop_prompts,
            )
            for generator in generators
        ]
        noise, sigma, dropped = zip(*rows, strict=True)
        return cls(torch.stack(noise).to(device), torch.stack(sigma).to(device), dropped)


def times(shift: float, generator: torch.Generator) -> Tensor:
    """A noise level in (0, 1): logit-normal (arXiv 2403.03206), then shifted towards 1 as a schedule is; a float32."""
    time = torch.randn((), generator=generator).sigmoid()
    return shift * time / (1 + (shift - 1) * time)


def noised(batch: Batch, drawn: Drawn) -> Tensor:
    """The latents at their noise levels: (1 - sigma) x0 + sigma noise."""
    return torch.lerp(batch.latent, drawn.noise, drawn.sigma.view(-1, 1, 1, 1, 1))


def velocity_loss(velocity: Tensor, wanted: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean square error of velocities (B, C, 1, h, w) in float32, over each sample by its weights (B, 1, h, w)."""
    error = (velocity.float() - wanted).square().mean(1)  # (B, 1, h, w)
    if weights is None:
        return error.mean()
    return ((weights * error).sum((1, 2, 3)) / weights.sum((1, 2, 3)).clamp_min(1e-6)).mean()


# -- where the loss counts --------------------------------------------------------------------------------------------


def weights_of(sample: Sample, settings: Training) -> Tensor | None:
    """How much each place of a sample counts, (1, h, w) from `background` to 1; None where all count alike."""
    if settings.loss == "target":
        return None
    if sample.mask is None:
        return torch.ones(sample.latent.shape[1:])
    return settings.background + (1 - settings.background) * sample.mask[0].float()


# -- objectives -------------------------------------------------------------------------------------------------------


def edit(student: Network, base: Network, batch: Batch, drawn: Drawn, settings: Training) -> Tensor:
    """Rectified flow: the velocity noise - x0 of the target, references clean, some prompts empty."""
    pairs = zip(batch.contexts, batch.empties, drawn.dropped, strict=True)
    contexts = [empty if dropped else context for context, empty, dropped in pairs]
    velocity = student(noised(batch, drawn), drawn.sigma, contexts, batch.references)
    return velocity_loss(velocity, drawn.noise - batch.latent, batch.weights)


def guidance(student: Network, base: Network, batch: Batch, drawn: Drawn, settings: Training) -> Tensor:
    """What the base does under guidance, in one pass (arXiv 2210.03142), on latents that the base made itself."""
    x, sigma = noised(batch, drawn), drawn.sigma
    with torch.no_grad():
        cond = base(x, sigma, batch.contexts, batch.references)
        uncond = base(x, sigma, batch.empties, batch.references)
        wanted = guide(cond, uncond, settings.guidance_scale, settings.rescale)
    return velocity_loss(student(x, sigma, batch.contexts, batch.references), wanted, batch.weights)


Objective = Callable[[Network, Network, Batch, Drawn, Training], Tensor]
OBJECTIVES: dict[str, Objective] = {"edit": edit, "guidance": guidance}
