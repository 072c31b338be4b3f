"""Pictures of the frozen model under guidance: the latents on which guidance is learned.

Noised, they are what a run under guidance passes through, so the student learns where it will be asked; pictures of
other makers are not, and no picture is needed at all. Made once, before training, each with its own noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .. import sampling
from ..atomic import Part
from ..errors import JoyImageError
from .batches import shapes_of
from .objectives import Batch, Network
from .samples import Sample
from .settings import Training

SHARD = 64  # samples of a file
FOLDER = "teacher"


class Taught(Sequence[Sample]):
    """Samples whose latents are the teacher's."""

    def __init__(self, samples: Sequence[Sample], latents: Sequence[Tensor], key: str):
        self._samples, self._latents, self.key = samples, latents, key
        self.shapes = shapes_of(samples)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, place):  # pyright: ignore[reportIncompatibleMethodOverride] - a place, never a slice
        return replace(self._samples[place], latent=self._latents[place], mask=None)


def taught(
    base: Network, samples: Sequence[Sample], settings: Training, folder: Path, device: torch.device,
    dtype: torch.dtype, callback: Callable[[int, int], object] | None = None,
) -> Taught:  # fmt: skip
    """The samples with latents that `base` makes under the settings' guidance, kept in files of `folder`.

    What is there already is not made again. `callback(done, all)` runs after each file; what it raises passes through.
    Raises `JoyImageError` for a file that is damaged, and if the disk is too small.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shapes, latents = shapes_of(samples), []
    for start in range(0, len(samples), SHARD):
        places = range(start, min(start + SHARD, len(samples)))
        path = folder / f"{start:06}.safetensors"
        if not path.exists():
            with Part(folder) as part:
                made: dict[int, Tensor] = {}
                for members in alike(places, shapes, settings.batch_size):
                    made |= dict(zip(members, _pictures(base, samples, members, settings, device, dtype), strict=True))
                _write(part.path, {str(place): made[place] for place in places})
                part.publish([path], replace=True)
        kept = _read(path)
        latents += [kept[str(place)] for place in places]
        if callback is not None:
            callback(places.stop, len(samples))
    return Taught(samples, latents, f"{getattr(samples, 'key', '')}-guided")


def _write(path: Path, latents: dict[str, Tensor]) -> None:
    try:
        save_file(latents, path)
    except SafetensorError as error:
        raise JoyImageError(f"{path.parent}: pictures could not be written; is the disk full? ({error})") from error


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise JoyImageError(f"{path}: is damaged ({error}); delete it, and its pictures will be made again") from error


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
