"""The library's sampling as a guider and a sampler of the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from torch import Tensor

from ...joyimage import sampling
from ...joyimage.errors import JoyImageError
from ...joyimage.settings import Sampling, Shortcuts, check_guidance
from .model import check_latent
from .shortcuts import shortcuts_of, with_shortcuts

EXACT = Shortcuts()


class Guider(comfy.samplers.CFGGuider):
    """Guidance by the norm of the conditional velocity. A model patched with a guidance of its own keeps that."""

    def __init__(
        self,
        model: comfy.model_patcher.ModelPatcher,
        guidance: float,
        rescale: float,
        interval: tuple[float, float] = Sampling.guidance_interval,
    ):
        if not isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.CONST):
            raise JoyImageError("this MODEL is no rectified-flow model: connect Load MMDiT (JoyImage)")
        super().__init__(model)
        self.set_cfg(max(guidance, 1.0))  # at 1 the host runs the positive prompt alone
        self.rescale = rescale
        self.interval = interval

    def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006 - the host's signature
        if not self.acts(timestep):
            cond = self.conds["positive"]
            return comfy.samplers.sampling_function(self.inner_model, x, timestep, None, cond, 1.0, model_options, seed)
        return super().predict_noise(x, timestep, {"sampler_cfg_function": self.guide, **model_options}, seed)

    def acts(self, timestep: Tensor) -> bool:
        """Whether guidance acts at these sigmas, which are one."""
        low, high = self.interval
        return (low, high) == Sampling.guidance_interval or low <= timestep.flatten()[0].item() <= high

    def guide(self, args: Mapping[str, Any]) -> Tensor:
        """The host's `cond` and `uncond` are sigma times the velocities; guidance keeps that factor."""
        if self.cfg == 1:
            return args["cond"]
        return sampling.guide(args["cond"], args["uncond"], args["cond_scale"], self.rescale)


def guider(
    model,
    positive,
    negative,
    guidance: float,
    rescale: float,
    interval: tuple[float, float] = Sampling.guidance_interval,
    shortcuts: Shortcuts = EXACT,
) -> Guider:
    """A GUIDER, with shortcuts before those that the MODEL carries.

    Raises `JoyImageError` if a negative prompt is needed and missing, and for shortcuts that the MODEL cannot do.
    """
    check_guidance(guidance, rescale, interval)
    if negative is None and guidance > 1:
        raise JoyImageError(
            f"guidance is {guidance:g} but negative is not connected: connect it, or set guidance to 1 to do without"
        )
    if shortcuts.shortcuts:
        model = with_shortcuts(model, {**shortcuts_of(model), **shortcuts.shortcuts})
    result = Guider(model, guidance, rescale, interval)
    result.inner_set_conds({"positive": positive} | ({"negative": negative} if negative is not None else {}))
    return result


def integrate(model, x: Tensor, sigmas: Tensor, extra_args, callback, disable: bool, solver: str) -> Tensor:
    """The host's sampler function: `model(x, sigma)` gives the denoised estimate, with masks already applied."""
    current = x

    def velocity(x: Tensor, sigma: float) -> Tensor:
        nonlocal current
        current = x
        return (x - model(x, x.new_full((len(x),), sigma), **extra_args)) / sigma

    def on_step(step: int, sigma: float, denoised: Tensor) -> None:
        callback({"x": current, "i": step, "sigma": sigma, "denoised": denoised})

    return sampling.sample(velocity, x, sigmas, solver=solver, callback=on_step)


def schedule(steps: int, shift: float, kind: str, strength: float) -> Tensor:
    """SIGMAS (n + 1,) of the library's schedule, of which `strength` leaves the last part."""
    nothing = torch.zeros(1)  # which steps are left does not depend on what they start from
    return sampling.start(nothing, sampling.schedule(steps, shift, kind), nothing, strength)[1]


def sample(guider: Guider, solver: str, sigmas: Tensor, latent: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A LATENT, integrated by the host's machinery: with its previews, masks, hooks and interruption.

    Image k of a batch has the noise of seed + k, whatever the batch: the library's.
    """
    patcher = guider.model_patcher
    ratios = latent.get("downscale_ratio_spacial"), latent.get("downscale_ratio_temporal")
    samples = comfy.sample.fix_empty_latent_channels(patcher, latent["samples"], *ratios)
    channels = patcher.get_model_object("latent_format").latent_channels
    check_latent(samples, "the start", channels)  # pyright: ignore[reportArgumentType] - typed as if it were a network's
    if sigmas[0] < 1 and not samples.any():
        raise JoyImageError("strength is below 1 but the latent is empty: connect VAE Encode, or set strength to 1")
    seeds = [(seed + index) % 2**64 for index in latent.get("batch_index") or range(len(samples))]
    result = guider.sample(
        sampling.noise(samples.shape[1:], seeds),
        samples,
        comfy.samplers.KSAMPLER(integrate, extra_options={"solver": solver}),
        sigmas,
        denoise_mask=latent.get("noise_mask"),
        callback=latent_preview.prepare_callback(patcher, len(sigmas) - 1),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    kept = {key: value for key, value in latent.items() if not key.startswith("downscale_ratio")}
    return kept | {"samples": result.to(comfy.model_management.intermediate_device())}
