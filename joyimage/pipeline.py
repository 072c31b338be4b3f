"""A whole model behind one door: load it, edit and make pictures, ask about pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from . import lora
from .candidates import Choosing, Judge, best_of
from .conditioning import Conditioning, Group, encode_pictures, encode_texts, fit, join
from .encoder import Encoder
from .errors import JoyImageError
from .images import check_size, to_tensor
from .inpainting import Mask, captioned, regions, with_beginnings
from .inputs import Picture, listed, load_all, pair, spread, text_tokens, vision_pixels
from .loading import Recipe
from .memory import Memory, Needs
from .mmdit import MMDiT, Modulation
from .rendering import Pictures, Renderer, Run
from .sampling import Callback
from .settings import (
    AUTO,
    EXACT,
    NATIVE_BASE_SIZE,
    NATIVE_SHIFT,
    NATIVE_STEPS,
    Sampling,
    check_base_size,
    check_schedule,
    check_text,
)
from .spatial import Camera
from .understanding import Understanding
from .vae import WanVAE
from .waiting import LOAD_SECONDS

if TYPE_CHECKING:
    from .parallel.team import Team

# Options of `edit` that decide what is encoded, and those by which several are made to choose from.
ENCODED = {"negative_prompt", "size", "base_size"}
CHOOSING = {field.name for field in fields(Choosing)}
RUNNING = {field.name for field in fields(Run)}
WHOLE = ("mask", "outpaint", "count", "output")  # those that a view, a whole picture and one of its kind, has not


class JoyImage(Understanding):
    """JoyAI-Image: edits pictures, makes pictures from text, answers questions about pictures.

    `base_size` is the one that the weights were trained for, `shift` and `steps` those of their schedule; the methods
    use them by default.
    """

    def __init__(
        self,
        mmdit: MMDiT,
        vae: WanVAE,
        encoder: Encoder,
        memory: Memory | None = None,
        base_size: int = NATIVE_BASE_SIZE,
        shift: float = NATIVE_SHIFT,
        steps: int = NATIVE_STEPS,
        team: Team | None = None,
    ):
        check_schedule(steps, shift)
        self.mmdit, self.vae, self.encoder = mmdit, vae, encoder
        self.base_size = base_size
        self.shift, self.steps = shift, steps
        self.memory = memory or Memory(Needs(encoder.model, mmdit, vae), mmdit.proj_out.weight.device)
        self._loras, self._team = lora.Applied(), team

    @classmethod
    def load(
        cls, path: str | Path | None = None, *,
        mmdit: str | Path | None = None, vae: str | Path | None = None,
        encoder: str | Path | None = None, tokenizer: str | Path | None = None,
        device: torch.device | str | None = None, dtype: torch.dtype | None = None,
        memory: str | int | None = None, theta: float | None = None, products: str = EXACT,
        attention: str = AUTO, compile: bool | str = False,
        guidance_devices: Sequence[str] | None = None, sequence_devices: Sequence[str] | None = None,
        load_seconds: int = LOAD_SECONDS,
    ) -> JoyImage:  # fmt: skip
        """Load all parts from a folder, from single files, or from a folder with some parts from elsewhere.

        `path` is a folder in Diffusers' or the original layout, or "tiny" for the bundled model. `tokenizer` is a
        folder with the Qwen tokenizer's files, needed where `encoder` is a single file. `device` is the GPU where
        there is one; `dtype` is that of the files, or float32 on a CPU that has no instructions for it: their weights
        then stay as they are and are cast layer by layer. The VAE, 1.5 % of the weights, runs in float32: in bf16 it
        moves pixels by a level or two. `theta` is the base of the rotary embedding where the files do not say it:
        SpatialEdit's weights need 256. `products="8bit"` lets quantised matrices multiply by products that round
        what comes in to 8 bits, where the device has fast ones for their format, and warns of formats that run exact.
        `attention` names what computes the MMDiT's, see `joyimage.attention`; with `compile` its blocks run through
        `torch.compile` (True, or the name of a backend), which takes a minute at first, see `joyimage.compiling`.
        With a `memory` such as "12GB" (or a number of bytes) the weights have their home in main memory, a part is on
        the device only while it works, and blocks that do not fit stream through it, with the same result; without,
        everything is on the device all the time.
        `guidance_devices` are two for the two passes of guidance, `sequence_devices` two or more for parts of each
        pass's tokens; the first is the `device`. Each has the MMDiT, within the same `memory`; see `joyimage.parallel`.
        A further device's process that has not loaded it within `load_seconds` is an error of the first run.
        Raises `JoyImageError` for a memory that is too small, naming the least that works; `CheckpointError`, or
        `MissingFileError`, naming the file, what is wrong with it and what to do.
        """
        parts = {"mmdit": mmdit, "vae": vae, "encoder": encoder, "tokenizer": tokenizer}
        recipe = Recipe(path, parts, dtype, theta, products, attention, compile, memory, load_seconds)
        return cls(**recipe.load(device, guidance_devices, sequence_devices))

    def set_loras(self, *loras: str | Path | tuple[str | Path, float], merge: bool = False) -> None:
        """Use these LoRAs for MMDiT and encoder, each a path or a path with its strength (1), and no others.

        None at all takes off those in use. They are applied while their layers run, over quantised weights too; with
        `merge` they are added to what is not quantised, which costs no time, and memory for the weights as they were.
        Warns of keys that match nothing. Raises `CheckpointError` for a file that is of no use here, and then nothing
        has changed.
        """
        pairs = [(one, 1.0) if isinstance(one, str | Path) else one for one in loras]
        found = lora.match((self.mmdit, self.encoder.model), [(lora.read(path), value) for path, value in pairs])
        self.memory.leave()
        self._loras.remove()
        self._loras = found.apply(self.dtype, merge)
        if self._team is not None:
            self._team.set_loras(pairs, merge, self.dtype)

    @property
    def device(self) -> torch.device:
        """Where the networks work."""
        return self.memory.device

    @property
    def dtype(self) -> torch.dtype:
        """What the MMDiT computes in: the dtype of its tables, which are never quantised."""
        return next(m.modulate_table.dtype for m in self.mmdit.modules() if isinstance(m, Modulation))

    def edit(
        self, images: Picture | Sequence[Picture] | Sequence[Sequence[Picture]],
        instruction: str | Sequence[str | None] | None = None, *,
        negative_prompt: str | Sequence[str] | None = None,
        size: tuple[int, int] | None = None, base_size: int | str | None = AUTO,
        steps: int | None = Sampling.steps, guidance_scale: float = Sampling.guidance_scale,
        rescale: float = Sampling.rescale, guidance_interval: tuple[float, float] = Sampling.guidance_interval,
        shift: float | None = Sampling.shift, schedule: str = Sampling.schedule,
        sigmas: Sequence[float] | None = None, timesteps: Sequence[float] | None = None,
        solver: str = Sampling.solver, strength: float = Sampling.strength,
        mask: Mask | Sequence[Mask] | None = None, outpaint: Sequence[int] | None = None,
        forecast: int = Sampling.forecast, guidance_every: int = Sampling.guidance_every,
        reference_every: int = Sampling.reference_every, block_cache: float = Sampling.block_cache,
        preset: str = Sampling.preset, latent: Tensor | None = None,
        seed: int | Sequence[int] = 0, count: int = 1, batch_size: int = 1,
        candidates: int = 1, draft_steps: int | None = None, judge: Judge | None = None,
        output: str = "pil", callback: Callback | None = None, progress: bool = False,
    ) -> Pictures:  # fmt: skip
        """Edit pictures by instruction.

        `images` is a picture, a list of up to six for one edit with several references, or a list of lists for a
        batch of edits. Several instructions for one edit's images share the work on the images; otherwise give one
        for all edits or one each. `negative_prompt` is "" by default.
        Without `size` the result has the size of the last picture's bucket at `base_size` (64, 256, 512, 768, 1024,
        or "auto" for the model's own), and every picture is scaled and cropped to its own. With `base_size=None`
        pictures keep their sizes, rounded to multiples of 16. `size` (height, width) is taken as it is; a single
        picture is fitted to it.
        With a `mask` of the last picture's size, one for all edits or one each, only what is white in it changes; all
        else stays to the pixel. `outpaint` is the pixels to add around the last picture: left, top, right, bottom.
        Without an instruction the model then describes the picture itself. See `joyimage.inpainting`.
        The settings from `steps` to `preset` are those of `joyimage.settings.Sampling`, the rest as in `render`.
        With `candidates` so many seeds from each edit's own on are tried until the judge, the model's own understanding
        by default, is sure; the picture's `info["candidates"]` says why it was chosen. See `joyimage.candidates`.
        Raises `JoyImageError` for what cannot be used, before any work.
        """
        settings = Sampling(
            steps, guidance_scale, rescale, guidance_interval, shift, schedule, sigmas, timesteps, solver, strength,
            forecast=forecast, guidance_every=guidance_every, reference_every=reference_every,
            block_cache=block_cache, preset=preset,
        )  # fmt: skip
        run = Run(seed, count, batch_size, output, latent, callback, progress)
        choosing = Choosing(candidates, draft_steps, judge)
        edits, prompts = pair(images, with_beginnings(instruction, mask, outpaint))
        masks = {"mask": mask, "outpaint": outpaint}
        return _make(self, edits, prompts, negative_prompt, size, base_size, settings, run, choosing, **masks)

    def generate(
        self, prompt: str | Sequence[str], *,
        size: tuple[int, int] | None = None, base_size: int | str | None = AUTO,
        negative_prompt: str | Sequence[str] | None = None,
        steps: int | None = Sampling.steps, guidance_scale: float = Sampling.guidance_scale,
        rescale: float = Sampling.rescale, guidance_interval: tuple[float, float] = Sampling.guidance_interval,
        shift: float | None = Sampling.shift, schedule: str = Sampling.schedule,
        sigmas: Sequence[float] | None = None, timesteps: Sequence[float] | None = None,
        solver: str = Sampling.solver, strength: float = Sampling.strength,
        forecast: int = Sampling.forecast, guidance_every: int = Sampling.guidance_every,
        reference_every: int = Sampling.reference_every, block_cache: float = Sampling.block_cache,
        preset: str = Sampling.preset, latent: Tensor | None = None,
        seed: int | Sequence[int] = 0, count: int = 1, batch_size: int = 1,
        candidates: int = 1, draft_steps: int | None = None, judge: Judge | None = None,
        output: str = "pil", callback: Callback | None = None, progress: bool = False,
    ) -> Pictures:  # fmt: skip
        """Make pictures from text: `edit` without pictures. `size` is (base_size, base_size) by default."""
        settings = Sampling(
            steps, guidance_scale, rescale, guidance_interval, shift, schedule, sigmas, timesteps, solver, strength,
            forecast=forecast, guidance_every=guidance_every, reference_every=reference_every,
            block_cache=block_cache, preset=preset,
        )  # fmt: skip
        run = Run(seed, count, batch_size, output, latent, callback, progress)
        choosing = Choosing(candidates, draft_steps, judge)
        prompts = listed(prompt, str, "the prompt")
        pairs = pair([[]] * len(prompts), prompts, empty=True)
        return _make(self, *pairs, negative_prompt, size, base_size, settings, run, choosing)

    def _views(
        self, picture: Image.Image, cameras: Sequence[Camera], seed: int, editing: dict[str, Any]
    ) -> Iterator[Image.Image]:  # fmt: skip
        return _views(self, picture, [camera.text for camera in cameras], {**editing, "seed": seed, "output": "pil"})

    def _check_views(self, picture: Image.Image, seed: int, editing: dict[str, Any]) -> None:
        _check_views(self, picture, {**editing, "seed": seed})

    def condition(
        self, images: Picture | Sequence[Picture] | Sequence[Sequence[Picture]],
        instruction: str | Sequence[str | None] | None = None, *,
        negative_prompt: str | Sequence[str] | None = None,
        size: tuple[int, int] | None = None, base_size: int | str | None = AUTO,
        mask: Mask | Sequence[Mask] | None = None, outpaint: Sequence[int] | None = None,
    ) -> list[Conditioning]:  # fmt: skip
        """The first third of `edit`: encode prompts and pictures. One conditioning per edit."""
        prompts = with_beginnings(instruction, mask, outpaint)
        groups = _groups(self, images, prompts, negative_prompt, size, base_size, mask, outpaint)
        return _conditioned(self, [captioned(group, self.caption) for group in groups])

    def render(
        self, conditionings: Sequence[Conditioning], *,
        seed: int | Sequence[int] = 0, count: int = 1, batch_size: int = 1, output: str = "pil",
        latent: Tensor | None = None, callback: Callback | None = None, progress: bool = False, **options: Any,
    ) -> Pictures:  # fmt: skip
        """The last two thirds of `edit`: `count` pictures per conditioning.

        `options` are those of `joyimage.settings.Sampling`, the rest as in `sample`. `seed` is one for all
        conditionings or one each; picture k of a conditioning has seed + k. A sample depends on its own seed only.
        With a `batch_size` up to so many samples of one shape share a forward, which saves time where reading the
        weights costs most, and moves pixels by a level at most. `output` is "pil" for a list of pictures, "pt" for a
        tensor (N, 3, H, W) in [0, 1], "np" for an array (N, H, W, 3), "latent" for (N, 16, 1, h, w).
        """
        run = Run(seed, count, batch_size, output, latent, callback, progress)
        return self.renderer.render(conditionings, Sampling.of(options), run)

    def sample(
        self, conditionings: Sequence[Conditioning], seeds: Sequence[int], *, batch_size: int = 1,
        latent: Tensor | None = None, callback: Callback | None = None, progress: bool = False, **options: Any,
    ) -> list[Tensor]:  # fmt: skip
        """Latents (1, 16, 1, h, w), float32 and normalised, one per conditioning and seed.

        `latent` (N or 1, 16, 1, h, w) is what the run starts from: at full strength the noise itself (Diffusers'
        `latents`), at `strength` below 1 a clean latent that gets as much noise as the remaining steps take away.
        Without it an edit of strength below 1 starts from its last picture. `sigmas` or `timesteps` replace
        `steps`, `shift` and `schedule`. `callback(step, sigma, denoised)` runs after each step of each batch and
        ends the batch with the estimate at hand by returning False. `options` are those of
        `joyimage.settings.Sampling`.
        """
        run = Run(batch_size=batch_size, latent=latent, callback=callback, progress=progress)
        return self.renderer.sample(conditionings, seeds, Sampling.of(options), run)

    def decode(self, latents: Iterable[Tensor]) -> list[Tensor]:
        """Latents (1, 16, 1, h, w) -> pictures (1, 3, 8h, 8w) in [-1, 1], float32 on the CPU."""
        return self.renderer.decode(latents)

    @property
    def renderer(self) -> Renderer:
        return Renderer(self.mmdit, self.vae, self.memory, self.shift, self.steps, self._team)


def _make(
    model: JoyImage, edits, prompts, negative_prompt, size, base_size, settings: Sampling, run: Run, choosing: Choosing,
    **masks: Any,
) -> Pictures:  # fmt: skip
    """`edit` and `generate`, once their settings are made; what else can be wrong is refused before any work."""
    groups, choosing = _checked(
        model, edits, prompts, negative_prompt, size, base_size, settings, run, choosing, **masks
    )
    seeds, renderer = run.seeds(len(prompts)), model.renderer
    groups = [captioned(group, model.caption) for group in groups]
    if choosing.candidates == 1:
        return renderer.render(_conditioned(model, groups), settings, run)
    attempts = [(group.pictures, positive) for group in groups for positive, _ in group.prompts]
    return best_of(renderer, _conditioned(model, groups), attempts, seeds, settings, run, choosing)


def _checked(
    model: JoyImage, edits, prompts, negative_prompt, size, base_size, settings: Sampling, run: Run, choosing: Choosing,
    **masks: Any,
) -> tuple[list[Group], Choosing]:  # fmt: skip
    """The edits with their pictures fitted, and how is chosen. Raises `JoyImageError` for all that cannot be used."""
    run.seeds(len(prompts))
    choosing = choosing.checked(run.count, settings, model)
    groups = _groups(model, edits, prompts, negative_prompt, size, base_size, **masks)
    model.renderer.check_start(groups, settings, run)
    return groups, choosing


def _check_views(model: JoyImage, picture: Image.Image, options: dict[str, Any]) -> None:
    """Raise `JoyImageError` for options that the views of a picture could not be made with."""
    for name in WHOLE:
        if name in options:
            raise JoyImageError(f"each view is one whole picture: leave {name} out")

    def taken(names: Iterable[str]) -> dict[str, Any]:
        return {name: options.pop(name) for name in names if name in options}

    encoded = {"negative_prompt": None, "size": None, "base_size": AUTO} | taken(ENCODED)
    choosing, run = Choosing(**taken(CHOOSING)), Run(**taken(RUNNING))
    _checked(model, picture, [Camera(1).text], **encoded, settings=Sampling.of(options), run=run, choosing=choosing)


def _views(model: JoyImage, picture: Image.Image, texts: list[str], options: dict[str, Any]) -> Iterator[Image.Image]:
    """Edits of one picture as they are made, whose encodings are shared where nothing is to be chosen."""
    if CHOOSING & options.keys():
        yield from (model.edit(picture, text, **options)[0] for text in texts)
        return
    encoded = {name: options.pop(name) for name in ENCODED & options.keys()}
    for conditioning in model.condition(picture, texts, **encoded):
        yield model.render([conditioning], **options)[0]


def _groups(
    model: JoyImage, images, instruction, negative_prompt, size, base_size, mask=None, outpaint=None
) -> list[Group]:
    """The edits that `condition` is given, checked, and with their pictures fitted: prompts share one edit's."""
    check_base_size(base_size)
    size = None if size is None else check_size(size)
    edits, prompts = pair(images, instruction, empty=True)
    negatives = spread(negative_prompt or "", len(prompts), "negative prompts")
    for negative in negatives:
        check_text("the negative prompt", negative)
    base = model.base_size if isinstance(base_size, str) else base_size  # the only word is "auto"
    pairs = list(zip(prompts, negatives, strict=True))
    members = [pairs] if len(edits) < len(pairs) else [[each] for each in pairs]
    loaded = [load_all(edit) for edit in edits]
    areas = regions(loaded, mask, outpaint)
    if areas is None:
        return [Group(*fit(edit, size, base), tuple(own)) for edit, own in zip(loaded, members, strict=True)]
    fitted = (area.fit(edit[:-1], size, base_size, model.base_size) for edit, area in zip(loaded, areas, strict=True))
    return [Group(edit, own, tuple(texts), area) for (edit, own, area), texts in zip(fitted, members, strict=True)]


@torch.inference_mode()
def _conditioned(model: JoyImage, groups: Sequence[Group]) -> list[Conditioning]:
    """In one visit of the encoder, and one of the VAE where there are pictures."""

    def contexts(texts: list[str], pictures: Sequence[Image.Image]) -> list[Tensor]:
        return [context.to(model.device, model.dtype) for context in model.encoder.encode(texts, pictures)]

    def reference(picture: Image.Image) -> Tensor:
        return tiled(partial(model.vae.encode, to_tensor(picture).to(model.device)))

    pixels = max(vision_pixels(group.pictures) for group in groups)
    with model.memory.conditioning(pixels, max(text_tokens(group.texts) for group in groups)):
        encoded = encode_texts(groups, contexts)
    if not any(group.pictures for group in groups):
        return join(groups, encoded, [()] * len(groups))
    with model.memory.vae(max(group.pixels for group in groups)) as tiled:
        return join(groups, encoded, encode_pictures(groups, reference))
