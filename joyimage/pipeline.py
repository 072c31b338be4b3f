"""Everything together: files to networks, prompt and images to conditioning, noise to latents, latents to pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from . import checkpoints, lora, rewriting, sampling
from .conditioning import Conditioning, Group, encode_pictures, encode_texts, fit, join
from .encoder import Encoder
from .errors import JoyImageError
from .images import NATIVE_BASE_SIZE, to_pil, to_tensor
from .inputs import (
    Source,
    find_parts,
    load_all,
    one_each,
    pair,
    spread,
    text_tokens,
    usable_device,
    vision_pixels,
)
from .memory import Memory, Needs, parse_size
from .mmdit import MMDiT
from .settings import AUTO, Answering, Sampling, check_base_size, check_output, check_seed
from .vae import WanVAE

REWRITE_TOKENS = 4096  # of an answer that rewrites a prompt, and of the request around the prompt
# Samples of one shape run as one batch, and the two guidance passes as one packed sequence, while the forward has no
# more image tokens than this: then reading the weights costs most. Packed against one after the other, on two cores:
# 0.85 of the time at 2 x 8 tokens, 0.98 at 2 x 288, 1.1 from 2 x 512 on; at width 2048 0.7 at 2 x 512.
PACKED_TOKENS = 1024


class JoyImage:
    """JoyAI-Image: edits pictures, makes pictures from text, answers questions about pictures.

    `base_size` is the one that the weights were trained for, which the methods use by default.
    """

    def __init__(
        self,
        mmdit: MMDiT,
        vae: WanVAE,
        encoder: Encoder,
        memory: Memory | None = None,
        base_size: int = NATIVE_BASE_SIZE,
    ):
        self.mmdit = mmdit
        self.vae = vae
        self.encoder = encoder
        self.base_size = base_size
        self.memory = memory or _memory(mmdit, vae, encoder, mmdit.proj_out.weight.device)
        self._loras = lora.Applied()

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        mmdit: str | Path | None = None,
        vae: str | Path | None = None,
        encoder: str | Path | None = None,
        tokenizer: str | Path | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        memory: str | int | None = None,
    ) -> JoyImage:
        """Load all parts from a folder, from single files, or from a folder with some parts from elsewhere.

        `path` is a folder in Diffusers' or the original layout, or "tiny" for the bundled model. `tokenizer` is a
        folder with the Qwen tokenizer's files, needed where `encoder` is a single file. `device` is the GPU where
        there is one; `dtype` is that of the files, or float32 on a CPU that has no instructions for it: their weights
        then stay as they are and are cast layer by layer. The VAE, 1.5 % of the weights, runs in float32: in bf16 it
        moves pixels by a level or two.
        With a `memory` such as "12GB" (or a number of bytes) the weights have their home in main memory, a part is on
        the device only while it works, and blocks that do not fit stream through it: see `joyimage.memory`. The
        result is the same. Left out, everything is on the device all the time.
        Raises `JoyImageError` for a memory that is too small, naming the least that works; `CheckpointError`, or
        `MissingFileError`, naming the file, what is wrong with it and what to do.
        """
        device, budget = usable_device(device), None if memory is None else parse_size(memory)
        home = device if budget is None else torch.device("cpu")
        if str(path) == "tiny":
            from . import tiny  # here: nobody else needs it

            networks = tiny.build(home)
            return cls(*networks, _memory(*networks, device, budget), tiny.BASE_SIZE)
        parts = find_parts(path, mmdit=mmdit, vae=vae, encoder=encoder, tokenizer=tokenizer)
        places = {"device": home, "compute_device": device}
        networks = (
            checkpoints.load_mmdit(parts["mmdit"], dtype=dtype, **places),
            checkpoints.load_vae(parts["vae"], dtype=torch.float32, **places),
            checkpoints.load_encoder(parts["encoder"], tokenizer=parts.get("tokenizer"), dtype=dtype, **places),
        )
        base_size = checkpoints.base_size(parts["mmdit"], "mmdit")
        return cls(*networks, _memory(*networks, device, budget), base_size)

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

    @property
    def device(self) -> torch.device:
        """Where the networks work."""
        return self.memory.device

    @property
    def dtype(self) -> torch.dtype:
        """What the MMDiT computes in: the dtype of its tables, which are never quantised."""
        return self.mmdit.double_blocks[0].img_mod.modulate_table.dtype

    def edit(
        self,
        images: Source | Sequence[Source] | Sequence[Sequence[Source]],
        instruction: str | Sequence[str],
        *,
        negative_prompt: str | Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        base_size: int | str | None = AUTO,
        steps: int = Sampling.steps,
        guidance_scale: float = Sampling.guidance_scale,
        rescale: float = Sampling.rescale,
        guidance_interval: tuple[float, float] = Sampling.guidance_interval,
        shift: float = Sampling.shift,
        schedule: str = Sampling.schedule,
        sigmas: Sequence[float] | None = None,
        timesteps: Sequence[float] | None = None,
        solver: str = Sampling.solver,
        strength: float = Sampling.strength,
        latent: Tensor | None = None,
        seed: int | Sequence[int] = 0,
        count: int = 1,
        output: str = "pil",
        callback: sampling.Callback | None = None,
        progress: bool = False,
    ) -> list[Image.Image] | Tensor:
        """Edit pictures by instruction.

        `images` is a picture, a list of up to six for one edit with several references, or a list of lists for a
        batch of edits. Several instructions for one edit's images share the work on the images; otherwise give one
        for all edits or one each. `negative_prompt` is "" by default.
        Without `size` the result has the size of the last picture's bucket at `base_size` (64, 256, 512, 768, 1024,
        or "auto" for the model's own), and every picture is scaled and cropped to its own. With `base_size=None`
        pictures keep their sizes, rounded to multiples of 16. `size` (height, width) is taken as it is; a single
        picture is fitted to it.
        The settings from `steps` to `strength` are those of `joyimage.settings.Sampling`; `latent`, `callback` and
        `progress` as in `sample`; `seed`, `count` and `output` as in `render`.
        Raises `JoyImageError` for what cannot be used, before any work.
        """
        settings = Sampling(
            steps, guidance_scale, rescale, guidance_interval, shift, schedule, sigmas, timesteps, solver, strength
        )
        run = {"latent": latent, "callback": callback, "progress": progress}
        return self._make(images, instruction, negative_prompt, size, base_size, settings, seed, count, output, run)

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        size: tuple[int, int] | None = None,
        base_size: int | str | None = AUTO,
        negative_prompt: str | Sequence[str] | None = None,
        steps: int = Sampling.steps,
        guidance_scale: float = Sampling.guidance_scale,
        rescale: float = Sampling.rescale,
        guidance_interval: tuple[float, float] = Sampling.guidance_interval,
        shift: float = Sampling.shift,
        schedule: str = Sampling.schedule,
        sigmas: Sequence[float] | None = None,
        timesteps: Sequence[float] | None = None,
        solver: str = Sampling.solver,
        strength: float = Sampling.strength,
        latent: Tensor | None = None,
        seed: int | Sequence[int] = 0,
        count: int = 1,
        output: str = "pil",
        callback: sampling.Callback | None = None,
        progress: bool = False,
    ) -> list[Image.Image] | Tensor:
        """Make pictures from text: `edit` without pictures. `size` is (base_size, base_size) by default."""
        settings = Sampling(
            steps, guidance_scale, rescale, guidance_interval, shift, schedule, sigmas, timesteps, solver, strength
        )
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        run = {"latent": latent, "callback": callback, "progress": progress}
        return self._make(
            [[]] * len(prompts), prompts, negative_prompt, size, base_size, settings, seed, count, output, run
        )

    def _make(self, images, instruction, negative_prompt, size, base_size, settings, seed, count, output, run):
        """`edit` and `generate`, once their settings are made; what else can be wrong is refused before any work."""
        check_output(output, count)
        edits, prompts = pair(images, instruction)
        for each in spread(seed, len(prompts), "seeds"):
            check_seed(each)
        conditionings = self.condition(edits, prompts, negative_prompt=negative_prompt, size=size, base_size=base_size)
        return self._rendered(conditionings, settings, seed, count, output, run)

    def ask(
        self,
        images: Source | Sequence[Source],
        question: str | None = None,
        *,
        max_new_tokens: int = Answering.max_new_tokens,
        temperature: float = Answering.temperature,
        top_p: float = Answering.top_p,
        top_k: int = Answering.top_k,
        seed: int = Answering.seed,
        on_text: Callable[[str], object] | None = None,
    ) -> str:
        """Answer a question about pictures (or without any); see `Encoder.answer`. Temperature 0 is greedy."""
        Answering(max_new_tokens, temperature, top_p, top_k, seed)
        pictures = load_all(images)
        with self._answering(pictures, question or "", max_new_tokens):
            return self.encoder.answer(
                pictures,
                question,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_p=top_p,
                top_k=top_k,
                seed=seed,
                on_text=on_text,
            )

    def rewrite(self, prompt: str, images: Source | Sequence[Source] = ()) -> str:
        """A clearer version of `prompt`, by the server named in the environment or by the encoder.

        On any failure it warns, says why, and returns the prompt unchanged. See `joyimage.rewriting`.
        """
        pictures = load_all(images)
        with self._answering(pictures, prompt, REWRITE_TOKENS):
            return rewriting.rewrite(self.encoder, prompt, pictures)

    def _answering(self, pictures: list[Image.Image], text: str, new_tokens: int) -> AbstractContextManager:
        return self.memory.answering(vision_pixels(pictures), text_tokens([text]) + new_tokens)

    @torch.inference_mode()
    def condition(
        self,
        images: Source | Sequence[Source] | Sequence[Sequence[Source]],
        instruction: str | Sequence[str],
        *,
        negative_prompt: str | Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        base_size: int | str | None = AUTO,
    ) -> list[Conditioning]:
        """The first third of `edit`: encode prompts and pictures. One conditioning per edit."""
        base_size = self._side(base_size)
        edits, prompts = pair(images, instruction)
        negatives = spread(negative_prompt or "", len(prompts), "negative prompts")
        if len(edits) == len(prompts):
            groups = [(edit, [i]) for i, edit in enumerate(edits)]
        else:
            groups = [(edits[0], list(range(len(prompts))))]
        pairs = list(zip(prompts, negatives, strict=True))
        return self._conditioned(
            [Group(*fit(load_all(edit), size, base_size), tuple(pairs[i] for i in members)) for edit, members in groups]
        )

    def _side(self, base_size: int | str | None) -> int | None:
        """A base size with "auto" resolved."""
        check_base_size(base_size)
        return self.base_size if base_size == AUTO else base_size

    def _conditioned(self, groups: Sequence[Group]) -> list[Conditioning]:
        """In one visit of the encoder, and one of the VAE where there are pictures."""
        pixels = max(vision_pixels(group.pictures) for group in groups)
        with self.memory.conditioning(pixels, max(text_tokens(group.texts) for group in groups)):
            contexts = encode_texts(groups, self._contexts)
        if not any(group.pictures for group in groups):
            return join(groups, contexts, [()] * len(groups))
        with self.memory.vae(max(group.pixels for group in groups)) as tiled:
            references = encode_pictures(
                groups, lambda picture: tiled(partial(self.vae.encode, to_tensor(picture).to(self.device)))
            )
        return join(groups, contexts, references)

    def _contexts(self, texts: list[str], pictures: Sequence[Image.Image]) -> list[Tensor]:
        return [context.to(self.device, self.dtype) for context in self.encoder.encode(texts, pictures)]

    def render(
        self,
        conditionings: Sequence[Conditioning],
        *,
        seed: int | Sequence[int] = 0,
        count: int = 1,
        output: str = "pil",
        latent: Tensor | None = None,
        callback: sampling.Callback | None = None,
        progress: bool = False,
        **options: Any,
    ) -> list[Image.Image] | Tensor:
        """The last two thirds of `edit`: `count` pictures per conditioning.

        `options` are those of `joyimage.settings.Sampling`, the rest as in `sample`. `seed` is one for all
        conditionings or one each; picture k of a conditioning has seed + k. A sample depends on its own seed only, so
        a batch changes nothing. `output` is "pil" for a list of pictures, "pt" for a tensor (N, 3, H, W) in [0, 1],
        "np" for an array (N, H, W, 3), "latent" for (N, 16, 1, h, w).
        """
        settings = Sampling.of(options)
        check_output(output, count)
        run = {"latent": latent, "callback": callback, "progress": progress}
        return self._rendered(conditionings, settings, seed, count, output, run)

    def _rendered(self, conditionings, settings: Sampling, seed, count: int, output: str, run: dict[str, Any]):
        seeds = spread(seed, len(conditionings), "seeds")
        samples = [
            (conditioning, s + k) for conditioning, s in zip(conditionings, seeds, strict=True) for k in range(count)
        ]
        latents = self._sample([c for c, _ in samples], [s for _, s in samples], settings, **run)
        return OUTPUTS[output](self, latents)

    def sample(
        self,
        conditionings: Sequence[Conditioning],
        seeds: Sequence[int],
        *,
        latent: Tensor | None = None,
        callback: sampling.Callback | None = None,
        progress: bool = False,
        **options: Any,
    ) -> list[Tensor]:
        """Latents (1, 16, 1, h, w), float32 and normalised, one per conditioning and seed.

        `latent` (N or 1, 16, 1, h, w) is what the run starts from: at full strength the noise itself (Diffusers'
        `latents`), at `strength` below 1 a clean latent that gets as much noise as the remaining steps take away.
        Without it an edit of strength below 1 starts from its last picture. `sigmas` or `timesteps` replace
        `steps`, `shift` and `schedule`. `callback(step, sigma, denoised)` runs after each step of each batch and
        ends the batch with the estimate at hand by returning False. `options` are those of
        `joyimage.settings.Sampling`.
        """
        return self._sample(conditionings, seeds, Sampling.of(options), latent, callback, progress)

    @torch.inference_mode()
    def _sample(
        self,
        conditionings: Sequence[Conditioning],
        seeds: Sequence[int],
        settings: Sampling,
        latent: Tensor | None,
        callback: sampling.Callback | None,
        progress: bool,
    ) -> list[Tensor]:
        levels = sampling.levels(settings)
        if latent is not None:
            latent = one_each(latent, len(conditionings))
        batches = self._batches(conditionings)
        results: list[Tensor] = [torch.empty(0)] * len(conditionings)
        tokens = max(self._forward_tokens([conditionings[i] for i in members]) for members in batches)
        steps_in_all = len(batches) * (len(levels) - 1)
        with self.memory.denoising(tokens), tqdm(total=steps_in_all, disable=not progress, unit="step") as bar:

            def on_step(step: int, sigma: float, denoised: Tensor):
                bar.update()
                return callback(step, sigma, denoised) if callback else None

            for members in batches:
                group = [conditionings[i] for i in members]
                rows = None if latent is None else latent[members]
                start, group_levels = self._start(group, [seeds[i] for i in members], levels, rows, settings.strength)
                bar.total -= len(levels) - len(group_levels)
                velocity = sampling.guided(
                    self._model(group),
                    [c.positive for c in group],
                    [c.negative for c in group],
                    settings.guidance_scale,
                    settings.rescale,
                    settings.guidance_interval,
                )
                x = sampling.sample(velocity, start, group_levels, solver=settings.solver, callback=on_step)
                for i, sample in zip(members, x.split(1), strict=True):
                    results[i] = sample
        return results

    def _batches(self, conditionings: Sequence[Conditioning]) -> list[list[int]]:
        """Indices of the samples that run together: equal shapes, and no more than fill the machine."""
        by_shape: dict[tuple, list[int]] = {}
        for i, conditioning in enumerate(conditionings):
            by_shape.setdefault(conditioning.shapes, []).append(i)
        batches = []
        for members in by_shape.values():
            size = max(1, PACKED_TOKENS // self._tokens(conditionings[members[0]]))
            batches += [members[i : i + size] for i in range(0, len(members), size)]
        return batches

    def _tokens(self, conditioning: Conditioning) -> int:
        """Image tokens of one sample's forward."""
        patch = self.mmdit.config.patch_size[1] * self.mmdit.config.patch_size[2]
        factor = self.vae.config.spatial_factor
        pixels = conditioning.size[0] * conditioning.size[1] // factor**2
        return (pixels + sum(r.shape[3] * r.shape[4] for r in conditioning.references)) // patch

    def _forward_tokens(self, group: list[Conditioning]) -> int:
        """Image and text tokens of a batch's largest forward, in which both passes of guidance may be packed."""
        tokens = len(group) * self._tokens(group[0])
        text = sum(max(len(c.positive), len(c.negative)) for c in group)
        return (tokens + text) * (2 if 2 * tokens <= PACKED_TOKENS else 1)

    def _start(
        self, group: list[Conditioning], seeds: list[int], levels: Tensor, latent: Tensor | None, strength: float
    ) -> tuple[Tensor, Tensor]:
        """The latents (B, 16, 1, h, w) that a batch starts from, and its sigmas."""
        factor = self.vae.config.spatial_factor
        height, width = group[0].size
        shape = (self.mmdit.config.in_channels, 1, height // factor, width // factor)
        noise = sampling.noise(shape, seeds).to(self.device)
        if latent is not None:
            if latent.shape[1:] != shape:
                raise JoyImageError(f"the latent has shape {tuple(latent.shape)}; expected (pictures, *{shape})")
            latent = latent.to(self.device)
            if strength == 1 and levels[0] == 1:
                return latent.float(), levels
        elif strength < 1 and group[0].references:
            latent = torch.cat([c.references[-1] for c in group])
        return sampling.start(noise, levels, latent, strength)

    def _model(self, group: list[Conditioning]) -> sampling.Model:
        """The velocities of a batch for a list of conditions, each a list of one prompt per sample."""
        references = [torch.cat(reference) for reference in zip(*(c.references for c in group), strict=True)]
        tokens = len(group) * self._tokens(group[0])

        def one(x: Tensor, sigma: float, prompts: list[Tensor], times: int = 1) -> Tensor:
            t = torch.full((len(prompts),), 1000 * sigma, device=x.device)
            x, *repeated = (tensor.repeat(times, 1, 1, 1, 1) if times > 1 else tensor for tensor in (x, *references))
            return self.mmdit(x, t, prompts, repeated)

        def model(x: Tensor, sigma: float, conditions: list[list[Tensor]]) -> Sequence[Tensor]:
            if len(conditions) * tokens > PACKED_TOKENS:
                return [one(x, sigma, prompts) for prompts in conditions]
            return one(x, sigma, list(chain(*conditions)), len(conditions)).chunk(len(conditions))

        return model

    @torch.inference_mode()
    def decode(self, latents: Iterable[Tensor]) -> list[Tensor]:
        """Latents (1, 16, 1, h, w) -> pictures (1, 3, 8h, 8w) in [-1, 1], float32 on the CPU."""
        latents = list(latents)
        pixels = self.vae.config.spatial_factor**2 * max(latent[0, 0].numel() for latent in latents)
        with self.memory.vae(pixels) as tiled:
            return [tiled(partial(self.vae.decode, latent.to(self.device))).cpu() for latent in latents]


def _to_pil(model: JoyImage, latents: list[Tensor]) -> list[Image.Image]:
    return [picture for tensor in model.decode(latents) for picture in to_pil(tensor)]


def _to_tensor(model: JoyImage, latents: list[Tensor]) -> Tensor:
    return _stack([tensor / 2 + 0.5 for tensor in model.decode(latents)])


def _stack(tensors: list[Tensor]) -> Tensor:
    if len({tensor.shape for tensor in tensors}) > 1:
        raise JoyImageError("the results differ in size and do not fit in one tensor; use output='pil' or one size")
    return torch.cat(tensors)


OUTPUTS: dict[str, Callable[[JoyImage, list[Tensor]], object]] = {
    "pil": _to_pil,
    "pt": _to_tensor,
    "np": lambda model, latents: _to_tensor(model, latents).permute(0, 2, 3, 1).numpy(),
    "latent": lambda model, latents: _stack(latents),
}


def _memory(mmdit: MMDiT, vae: WanVAE, encoder: Encoder, device: torch.device, budget: int | None = None) -> Memory:
    return Memory(Needs(encoder.model, mmdit, vae), device, budget)
