"""Pictures of the frozen model under guidance: the latents on which guidance is learned.

Noised, they are what a run under guidance passes through, so the student learns where it will be asked; pictures of
other makers are not, and no picture is needed at all. Made once, before training, each with its own noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from .. import sampling
from .batches import shapes_of
from .objectives import Batch, Network
from .samples import Sample
from .settings import Training
from .store import Shards, Store

FOLDER = "teacher"


class Taught(Sequence[Sample]):
    """Samples whose latents are the teacher's, read from the disk when they are asked for."""

    def __init__(self, samples: Sequence[Sample], store: Store):
        self._samples, self._store, self.key = samples, store, f"{getattr(samples, 'key', '')}-guided"
        self.shapes = shapes_of(samples)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, place):  # pyright: ignore[reportIncompatibleMethodOverride] - a place, never a slice
        return replace(self._samples[place], latent=self._store.read(_name(place)), mask=None)


def taught(
    base: Network, samples: Sequence[Sample], settings: Training, folder: Path, device: torch.device,
    dtype: torch.dtype, callback: Callable[[int, int], object] | None = None,
) -> Taught:  # fmt: skip
    """The samples with latents (16, 1, h, w) that `base` makes under the settings' guidance, kept in `folder`.

    What is there already is not made again, and a kill loses half a minute of work at most. `callback(done, all)` runs
    after each batch; what it raises passes through, and what is done is kept.
    Raises `JoyImageError` for a file that is damaged, and if the disk is too small.
    """
    store = Store(folder)
    # Batches are the same ones wherever a run stopped: with other neighbours the last digits would differ.
    batches = list(alike(range(len(samples)), shapes_of(samples), settings.batch_size))
    missing = [batch for batch in batches if not all(_name(place) in store for place in batch)]
    done = len(samples) - sum(map(len, missing))
    with Shards(store, FOLDER) as shards:
        for batch in missing:
            for place, latent in zip(batch, _pictures(base, samples, batch, settings, device, dtype), strict=True):
                shards.add(_name(place), latent)
            done += len(batch)
            if callback is not None:
                callback(done, len(samples))
    return Taught(samples, store)


def _name(place: int) -> str:
    return str(place)


def alike(places: Sequence[int], shapes: Sequence[object], size: int) -> Iterator[list[int]]:
    """Groups of at most `size` places of equal shapes."""
    groups: dict[object, list[int]] = {}
    for place in places:
        groups.setdefault(shapes[place], []).append(place)
    for group in groups.values():
        yield from (group[i : i + size] for i in range(0, len(group), size))


def _pictures(
    base: Network, samples: Sequence[Sample], members: list[int], settings: Training, device: torch.device,
    dtype: torch.dtype,
) -> list[Tensor]:  # fmt: skip
    batch = Batch.of([samples[place] for place in members], replace(settings, loss="target"), device, dtype)
    seeds = [(settings.seed + place) % 2**64 for place in members]
    noise = sampling.noise(batch.latent.shape[1:], seeds).to(device)

    def model(x: Tensor, sigma: float, prompts: list[Sequence[Tensor]]) -> list[Tensor]:
        level = torch.full((len(x),), sigma, device=x.device)
        return [base(x, level, contexts, batch.references) for contexts in prompts]

    velocity = sampling.guided(model, batch.contexts, batch.empties, settings.guidance_scale, settings.rescale)
    levels = sampling.schedule(settings.teacher_steps, settings.shift)
    with torch.no_grad():
        made = sampling.sample(velocity, noise, levels)
    return [latent.cpu().contiguous() for latent in made]
