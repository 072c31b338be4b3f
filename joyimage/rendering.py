"""From conditionings to latents, and from latents to pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from . import sampling
from .batching import batches, largest_forward, packed
from .caching import RunCaches
from .conditioning import Conditioning, Group
from .errors import JoyImageError
from .images import Size, to_pil
from .inpainting import within
from .inputs import check_called, one_each, spread
from .memory import Memory
from .mmdit import MMDiT
from .settings import NATIVE_SHIFT, NATIVE_STEPS, Sampling, check_batch_size, check_output, check_seed
from .vae import WanVAE

if TYPE_CHECKING:  # it is slow to import, and few have several devices
    from .parallel.team import Forward, Team

# A list unless `output` asks for a tensor or an array; Any spares all others a check of which it is.
SIZES_DIFFER = "the results differ in size and do not fit in one tensor; use output='pil' or one size"
Pictures: TypeAlias = "list[Image.Image] | Any"


@dataclass(frozen=True)
class Run:
    """What a run is given besides its settings, and what comes of it; as in `JoyImage.render`.

    Raises `JoyImageError` for an output that does not exist, and for a count or batch size below 1.
    """

    seed: int | Sequence[int] = 0
    count: int = 1
    batch_size: int = 1
    output: str = "pil"
    latent: Tensor | None = None
    callback: sampling.Callback | None = None
    progress: bool = False

    def __post_init__(self):
        check_output(self.output, self.count)
        check_batch_size(self.batch_size)
        if self.latent is not None and not (isinstance(self.latent, Tensor) and self.latent.ndim == 5):
            raise JoyImageError(f"the latent must be a tensor (pictures, 16, 1, h, w), not {self.latent!r:.80}")
        check_called("the callback", self.callback, "step, sigma and denoised")

    def seeds(self, edits: int) -> list[int]:
        """The seed of each picture: those of picture k are their edit's seed + k.

        Raises `JoyImageError` for what is no seed, and for neither one seed nor one for each edit.
        """
        seeds = spread(self.seed, edits, "seeds")
        for seed in seeds:
            check_seed(seed)
        return [seed + k for seed in seeds for k in range(self.count)]

    def only(self, members: Sequence[int]) -> Run:
        """The run of some of its edits, by their numbers."""
        if self.latent is None or len(self.latent) == 1:
            return self
        return replace(self, latent=self.latent[list(members)])


@dataclass(frozen=True)
class Renderer:
    """The two networks that make pictures, which work where and when `memory` has room for them, or with a `team`."""

    mmdit: MMDiT
    vae: WanVAE
    memory: Memory
    shift: float = NATIVE_SHIFT  # the model's own
    steps: int = NATIVE_STEPS  # the same
    team: Team | None = None  # the devices that the MMDiT's forwards go to, where they are several

    def render(self, conditionings: Sequence[Conditioning], settings: Sampling, run: Run) -> Pictures:
        """`run.count` pictures for each conditioning, in the form of `run.output`."""
        seeds = run.seeds(len(conditionings))
        repeated = [conditioning for conditioning in conditionings for _ in range(run.count)]
        return self.output(self.sample(repeated, seeds, settings, run), repeated, run.output)

    def output(self, latents: list[Tensor], conditionings: Sequence[Conditioning], form: str) -> Pictures:
        """Latents (1, 16, 1, h, w), one of each conditioning, in one of the forms of `settings.OUTPUTS`."""
        if form == "latent":
            return _stack(latents)
        pairs = zip(self.decode(latents), conditionings, strict=True)
        return OUTPUTS[form]([c.area.lay_over(made) if c.area else made for made, c in pairs])

    @torch.inference_mode()
    def sample(
        self, conditionings: Sequence[Conditioning], seeds: Sequence[int], settings: Sampling, run: Run
    ) -> list[Tensor]:
        """Latents (1, 16, 1, h, w), float32 and normalised, one per conditioning and seed."""
        levels = sampling.levels(settings, self.shift, self.steps)
        latent = None if run.latent is None else one_each(run.latent, len(conditionings))
        together = batches(conditionings, run.batch_size)
        results: list[Tensor] = [torch.empty(0)] * len(conditionings)
        largest = max(largest_forward([conditionings[i] for i in members], self.tokens) for members in together)
        kept = max(sum(self.reference_tokens(conditionings[i]) for i in members) for members in together)
        kept = kept if settings.reference_every > 1 else 0
        steps = len(together) * (len(levels) - 1)
        with self._denoising(largest, kept), tqdm(total=steps, disable=not run.progress, unit="step") as bar:

            def on_step(step: int, sigma: float, denoised: Tensor) -> object:
                bar.update()
                return run.callback(step, sigma, denoised) if run.callback else None

            for members in together:
                batch = [conditionings[i] for i in members]
                rows = None if latent is None else latent[members]
                start, noise, own_levels = self._start(
                    batch, [seeds[i] for i in members], levels, rows, settings.strength
                )
                bar.total -= len(levels) - len(own_levels)
                velocity = self._velocity(batch, noise, settings, own_levels[-2].item())
                latents = sampling.sample(velocity, start, own_levels, solver=settings.solver, callback=on_step)
                for i, sample in zip(members, latents.split(1), strict=True):
                    results[i] = sample
        return results

    def _denoising(self, tokens: int, kept: int):
        """Context in which forwards over so many image and text tokens run."""
        if self.team is None:
            return self.memory.denoising(tokens, kept)
        return self.team.denoising(self.memory, tokens, kept)

    def tokens(self, conditioning: Conditioning) -> int:
        """Image tokens of one sample's forward: those of the target and of all references."""
        pixels = conditioning.size[0] * conditioning.size[1] // self.vae.config.spatial_factor**2
        return pixels // math.prod(self.mmdit.config.patch_size) + self.reference_tokens(conditioning)

    def reference_tokens(self, conditioning: Conditioning) -> int:
        """Image tokens of all references of one sample."""
        pixels = sum(reference.shape[3] * reference.shape[4] for reference in conditioning.references)
        return pixels // math.prod(self.mmdit.config.patch_size)

    def check_start(self, groups: Sequence[Group], settings: Sampling, run: Run) -> None:
        """Raise `JoyImageError`, before anything is encoded, where a run could not start from what it is given."""
        if run.output != "pil" and len({group.size for group in groups}) > 1:
            raise JoyImageError(SIZES_DIFFER)
        if run.latent is not None:
            one_each(run.latent, run.count * sum(len(group.prompts) for group in groups))
            sampling.check_finite(run.latent)
        for group in groups:
            if run.latent is not None:
                self._check_latent(run.latent, group.size)
            elif settings.strength < 1:
                _check_last(group, settings.strength)

    def _latent_shape(self, size: Size) -> tuple[int, ...]:
        """(16, 1, h, w) of one sample."""
        return (self.mmdit.config.in_channels, 1, *(side // self.vae.config.spatial_factor for side in size))

    def _check_latent(self, latent: Tensor, size: Size) -> None:
        if latent.shape[1:] != (shape := self._latent_shape(size)):
            raise JoyImageError(f"the latent has shape {tuple(latent.shape)}; expected (pictures, *{shape})")

    def _start(
        self, batch: list[Conditioning], seeds: list[int], levels: Tensor, latent: Tensor | None, strength: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The latents (B, 16, 1, h, w) that a batch starts from, the noise in them, and its sigmas."""
        shape = self._latent_shape(batch[0].size)
        noise = sampling.noise(shape, seeds).to(self.memory.device)
        if latent is not None:
            self._check_latent(latent, batch[0].size)
            latent = latent.to(self.memory.device)
            if strength == 1 and levels[0] == 1:
                return latent.float(), latent.float(), levels
        elif (strength < 1 and batch[0].references) or batch[0].area:
            latent = torch.cat([c.references[-1] for c in batch])
        start, levels = sampling.start(noise, levels, latent, strength)
        return start, noise, levels

    def _velocity(self, batch: list[Conditioning], noise: Tensor, settings: Sampling, last: float) -> sampling.Velocity:
        """A batch's velocity, within its masks, for one run whose last step begins at sigma `last`."""
        velocity = self._guided(batch, settings, last)
        areas = [c.area for c in batch if c.area]  # all of them or none
        if not areas:
            return velocity
        mask = torch.cat([area.latent_mask for area in areas]).to(noise.device)
        return within(velocity, mask, torch.cat([c.references[-1] for c in batch]).float(), noise)

    def _guided(self, batch: list[Conditioning], settings: Sampling, last: float) -> sampling.Velocity:
        """A batch's velocity under guidance, on all of the picture.

        Each prompt's is one pass over all samples; small passes run packed.
        """
        dtype = batch[0].positive.dtype
        references = [torch.cat(reference).to(dtype) for reference in zip(*(c.references for c in batch), strict=True)]
        # by the identity of the prompts' lists, `positive` and `negative` below, which live as long as the run
        caches = RunCaches(settings.reference_every, settings.block_cache)

        @cache
        def repeated(times: int) -> list[Tensor]:
            return [reference.repeat(times, 1, 1, 1, 1) for reference in references] if times > 1 else references

        def forward(x: Tensor, sigma: float, prompts: list[list[Tensor]]) -> Forward:
            times, texts = len(prompts), list(chain(*prompts))
            t = torch.full((len(texts),), 1000 * sigma, device=x.device)
            x = x.repeat(times, 1, 1, 1, 1) if times > 1 else x
            return x, t, texts, repeated(times), caches.of(tuple(map(id, prompts)))

        def model(x: Tensor, sigma: float, prompts: list[list[Tensor]]) -> Sequence[Tensor]:
            if packed(len(prompts), batch, self.tokens) and not self._apart:
                return self._velocities([forward(x, sigma, prompts)])[0].chunk(len(prompts))
            return self._velocities([forward(x, sigma, [one]) for one in prompts])

        positive, negative = [c.positive for c in batch], [c.negative for c in batch]
        return sampling.guided(
            model,
            positive,
            negative,
            settings.guidance_scale,
            settings.rescale,
            settings.guidance_interval,
            forecast=settings.forecast,
            every=settings.guidance_every,
            last=last,
        )

    @property
    def _apart(self) -> bool:
        """Whether guidance's passes run on devices of their own, never packed."""
        return self.team is not None and self.team.apart

    def _velocities(self, forwards: list[Forward]) -> list[Tensor]:
        return [self.mmdit(*each) for each in forwards] if self.team is None else self.team.run(forwards)

    @torch.inference_mode()
    def decode(self, latents: Iterable[Tensor]) -> list[Tensor]:
        """Latents (1, 16, 1, h, w) -> pictures (1, 3, 8h, 8w) in [-1, 1], float32 on the CPU."""
        latents = list(latents)
        pixels = self.vae.config.spatial_factor**2 * max(latent[0, 0].numel() for latent in latents)
        with self.memory.vae(pixels) as tiled:
            return [tiled(partial(self.vae.decode, latent.to(self.memory.device))).cpu() for latent in latents]


def _check_last(group: Group, strength: float) -> None:
    """Raise `JoyImageError` unless the last picture has the size of the results, which then start from it."""
    if not group.pictures:
        raise JoyImageError(f"strength is {strength} but there is no latent to start from; give one, or strength 1")
    last, (height, width) = group.pictures[-1], group.size
    if last.size != (width, height):
        raise JoyImageError(
            f"strength is {strength}, so the result starts from the last picture, which comes as {last.height} x "
            f"{last.width} (height x width) and not as {height} x {width}: leave the size out, or give a latent of it"
        )


def _stack(tensors: list[Tensor]) -> Tensor:
    if len({tensor.shape for tensor in tensors}) > 1:
        raise JoyImageError(SIZES_DIFFER)
    return torch.cat(tensors)


def _pictures(decoded: list[Tensor]) -> list[Image.Image]:
    return [picture for tensor in decoded for picture in to_pil(tensor)]


def _tensor(decoded: list[Tensor]) -> Tensor:
    return _stack([tensor / 2 + 0.5 for tensor in decoded])


def _array(decoded: list[Tensor]) -> np.ndarray:
    return _tensor(decoded).permute(0, 2, 3, 1).numpy()


# of decoded pictures, each (1, 3, H, W) in [-1, 1]
OUTPUTS: dict[str, Callable[[list[Tensor]], Pictures]] = {"pil": _pictures, "pt": _tensor, "np": _array}
