"""What saves forwards, as wrappers on a MODEL: for the host's samplers and guiders as for ours.

The values lie in the MODEL's options, where a clone has its own. What a run keeps is made when it starts, lies in the
options of that run alone, and is gone with them however it ends.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import comfy.model_patcher
import comfy.model_sampling
import comfy.samplers
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from ...joyimage.caching import RunCaches
from ...joyimage.errors import JoyImageError
from ...joyimage.settings import Shortcuts
from ...joyimage.shortcuts import Forecast, GuidanceReuse, Trajectory
from .model import CACHES, KEPT, HostMMDiT

VALUES, RUN = "joyimage_shortcuts", "joyimage_run"  # in transformer_options: what is asked for, and what a run keeps
IN_NETWORK = ("reference_every", "block_cache")  # those that our network alone can do


def shortcuts_of(model: comfy.model_patcher.ModelPatcher) -> Mapping[str, float]:
    """The shortcuts that a MODEL carries, by name."""
    return model.model_options.get("transformer_options", {}).get(VALUES, {})


def with_shortcuts(
    model: comfy.model_patcher.ModelPatcher, values: Mapping[str, float]
) -> comfy.model_patcher.ModelPatcher:
    """A MODEL with these shortcuts in place of those that it carries. Raises `JoyImageError` for what it cannot do."""
    check_model(model, values)
    patched = model.clone()
    for kind, wrapper in WRAPPERS.items():
        patched.remove_wrappers_with_key(kind, VALUES)
        if values:
            patched.add_wrapper_with_key(kind, VALUES, wrapper)
    patched.model_options.setdefault("transformer_options", {})[VALUES] = dict(values)
    return patched


def check_model(model: comfy.model_patcher.ModelPatcher, values: Iterable[str]) -> None:
    """Raise `JoyImageError` for a MODEL that cannot do these shortcuts, naming them."""
    if not values:
        return
    if not isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.CONST):
        raise JoyImageError(
            f"this MODEL is no rectified-flow model, and {', '.join(values)} work with such alone: connect Load MMDiT "
            "(JoyImage), or choose exact and leave them off"
        )
    ours = [name for name in IN_NETWORK if name in values]
    if ours and not isinstance(model.model.diffusion_model, HostMMDiT):
        raise JoyImageError(
            f"{' and '.join(ours)} is done inside the network of JoyAI-Image, and this MODEL is another: connect Load "
            "MMDiT (JoyImage), or leave it off"
        )


class Run:
    """What one run keeps from evaluation to evaluation."""

    def __init__(self, options: Mapping[str, Any], sigmas: Tensor, interval: tuple[float, float]):
        shortcuts = Shortcuts.of(dict(options["transformer_options"][VALUES]))
        self.forecasts = Forecast(shortcuts.forecast, last=float(sigmas[-2:][0]))
        self.differences = GuidanceReuse(shortcuts.guidance_every)
        self.caches = RunCaches(shortcuts.reference_every, shortcuts.block_cache)
        self.interval = interval
        self.trajectory, self.trajectories = Trajectory(), 0  # noise begins another one
        self.readers = readers(options)

    def regime(self, conds: Iterable[Iterable[Mapping[str, Any]]], sigma: float) -> Hashable:
        """What acts at a sigma: the prompts, by the ranges that nodes have given them, and guidance."""
        low, high = self.interval
        acting = (cond.get("uuid") for prompts in conds for cond in prompts if acts(cond, sigma))
        return low <= sigma <= high, tuple(acting)


def acts(cond: Mapping[str, Any], sigma: float) -> bool:
    """Whether a prompt acts at a sigma, by the range that nodes such as ConditioningSetTimestepRange give it."""
    return cond.get("timestep_end", 0.0) <= sigma <= cond.get("timestep_start", float("inf"))


def readers(options: Mapping[str, Any]) -> int:
    """How many functions read the results of guidance: those of nodes, and in a run those of samplers like cfg_pp."""
    return len(options.get("sampler_post_cfg_function", ()))


def start_run(executor: WrapperExecutor, noise, latent_image, sampler, sigmas: Tensor, *arguments, **named) -> Tensor:
    guider: Any = executor.class_obj
    before = guider.model_options
    guider.model_options = comfy.model_patcher.create_model_options_clone(before)
    options = guider.model_options["transformer_options"]
    check_model(guider.model_patcher, options[VALUES])  # nodes in between may have changed it
    options[RUN] = run = Run(guider.model_options, sigmas, getattr(guider, "interval", (0.0, 1.0)))  # others' have none
    if any(name in options[VALUES] for name in IN_NETWORK):
        options[CACHES] = run.caches
    try:
        return executor(noise, latent_image, sampler, sigmas, *arguments, **named)
    finally:
        guider.model_options = before


def predict_noise(executor: WrapperExecutor, x: Tensor, timestep: Tensor, model_options: dict, seed=None) -> Tensor:
    """The denoised estimate after guidance, computed or from a forecast of the velocity.

    All is computed where a sampler adds noise between its evaluations, and where it reads more than this estimate.
    """
    guider: Any = executor.class_obj
    run: Run | None = model_options["transformer_options"].get(RUN)
    if run is None or run.forecasts.every == 1 or readers(model_options) > run.readers:
        return executor(x, timestep, model_options, seed)
    sigma, computed = timestep.flatten()[0].item(), []
    run.trajectories += run.trajectory.left(sigma, x)

    def velocity() -> Tensor:
        computed.append(executor(x, timestep, model_options, seed))
        return (x - computed[0]) / sigma

    regime = run.regime(getattr(guider, "conds", {}).values(), sigma), run.trajectories
    forecast = run.forecasts.velocity(sigma, velocity, regime)
    run.trajectory.went(sigma, x, forecast)
    return computed[0] if computed else x - sigma * forecast


def calc_cond_batch(executor: WrapperExecutor, model, conds: list, x: Tensor, timestep: Tensor, model_options: dict):
    """The denoised estimates of both prompts, the second from the first where its pass is left out."""
    run: Run | None = model_options["transformer_options"].get(RUN)
    pair = len(conds) == 2 and all(conds)  # what others' guiders ask for besides is computed
    if run is None or run.differences.every == 1 or not pair or model_options.get("context_handler"):
        return executor(model, conds, x, timestep, model_options)
    sigma = timestep.flatten()[0].item()

    def passes(both: bool) -> list[Tensor]:
        return executor(model, conds if both else [conds[0], None], x, timestep, model_options)

    return list(run.differences.passes(passes, -sigma, (x.shape, run.regime(conds, sigma))))


def prepare_sampling(executor: WrapperExecutor, model, noise_shape, conds: dict[str, list[dict]], *arguments, **named):
    """The host makes room by what the prompts say that they need, so they say that their references are kept."""
    if "reference_every" in shortcuts_of(model):
        conds = {name: [{**cond, KEPT: noise_shape[0]} for cond in prompts] for name, prompts in conds.items()}
    return executor(model, noise_shape, conds, *arguments, **named)


WRAPPERS = {
    WrappersMP.PREPARE_SAMPLING: prepare_sampling,
    WrappersMP.OUTER_SAMPLE: start_run,
    WrappersMP.PREDICT_NOISE: predict_noise,
    WrappersMP.CALC_COND_BATCH: calc_cond_batch,
}
