"""The sampler, and its guider and schedule for SamplerCustomAdvanced."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..joyimage.settings import NATIVE_SHIFT, NATIVE_STEPS, SEEDS, Sampling, Shortcuts, check_guidance
from . import host
from .inputs import blame, check, setting_input
from .node import Node
from .speed import shortcut_inputs


def condition_inputs() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="From Load MMDiT (JoyImage), or patched by other nodes."),
        io.Conditioning.Input("positive", tooltip="From Encode Prompt (JoyImage), or core's TextEncodeJoyImageEdit."),
        io.Conditioning.Input(
            "negative", optional=True, tooltip="What guidance leads away from. Not needed at guidance 1."
        ),
    ]


ADVANCED: dict[str, Any] = {"optional": True, "advanced": True}


def guidance_input(**limits: float) -> io.Input:
    own = f"{Sampling.guidance_scale:g}"
    tooltip = (
        f"How strongly the prompt is followed. {own} suits the released models. At 1 the negative prompt is not used "
        "and a step takes half the time."
    )
    return setting_input(Sampling, "guidance_scale", tooltip, name="guidance", **limits)


def rescale_input() -> io.Input:
    tooltip = (
        "How far guidance keeps the norm of the conditional velocity: 1 as trained, 0 plain guidance. A model patched "
        "with a guidance of its own, as by CFGNorm, ignores this."
    )
    return setting_input(Sampling, "rescale", tooltip, **ADVANCED)


def interval_inputs() -> list[io.Input]:
    """Where guidance acts: the setting's two ends as numbers of their own."""
    words = {"guidance_low": "At sigmas below this guidance is off", "guidance_high": "At sigmas above this it is off"}
    return [
        io.Float.Input(
            name,
            default=default,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip=f"{text}, and a step takes half the time. Sigma goes from 1 to 0 in a run.",
            **ADVANCED,
        )
        for (name, text), default in zip(words.items(), Sampling.guidance_interval, strict=True)
    ]


LOW, HIGH = Sampling.guidance_interval


def check_interval(low: float | None, high: float | None) -> bool | str:
    """For `validate_inputs`: whether guidance can act between two sigmas."""

    def between(low: float, high: float) -> None:
        check_guidance(Sampling.guidance_scale, Sampling.rescale, (low, high))

    given = "guidance_high" if low == LOW else "guidance_low"  # a prompt may leave out what has its default
    return blame(given, check(between, low, high))


def seed_input() -> io.Int.Input:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=SEEDS - 1,
        control_after_generate=True,
        tooltip="The same seed gives the same picture. Picture k of a batch has seed + k.",
    )


def steps_input() -> io.Input:
    return setting_input(Sampling, "steps", "20 are enough for a draft.", default=NATIVE_STEPS)


def schedule_inputs() -> list[io.Input]:
    own = f"{NATIVE_SHIFT:g}"
    shift = f"Above 1 spends more steps on the composition, below 1 on the details. The model's own is {own}."
    schedule = "original is the authors'; diffusers is that of the Diffusers library, which wastes the last step."
    return [
        setting_input(Sampling, "shift", shift, default=NATIVE_SHIFT, **ADVANCED),
        setting_input(Sampling, "schedule", schedule, **ADVANCED),
    ]


def solver_input() -> io.Input:
    tooltip = "euler is the authors'. unipc and dpmpp_2m need fewer steps, heun takes twice the time."
    return setting_input(Sampling, "solver", tooltip, **ADVANCED)


def strength_input() -> io.Input:
    tooltip = (
        "Below 1 the run starts from the given latent and takes only the last part of the steps. At 1 nothing of the "
        "latent is left, except where a mask keeps it."
    )
    return setting_input(Sampling, "strength", tooltip, **ADVANCED)


class Sampler(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageSampler",
            display_name="Sampler (JoyImage)",
            category="JoyImage",
            description="Makes the picture: rectified flow with the guidance that JoyAI-Image was made for.",
            search_aliases=["joyai", "ksampler", "image edit"],
            inputs=[
                *condition_inputs(),
                io.Latent.Input(
                    "latent", tooltip="The size and number of pictures. With a mask only its area changes."
                ),
                seed_input(),
                steps_input(),
                guidance_input(),
                rescale_input(),
                *schedule_inputs(),
                solver_input(),
                strength_input(),
                *interval_inputs(),
                *shortcut_inputs(**ADVANCED),
            ],
            outputs=[io.Latent.Output(tooltip="For VAE Decode.")],
        )

    @classmethod
    def validate_inputs(cls, guidance_low=LOW, guidance_high=HIGH) -> bool | str:
        return check_interval(guidance_low, guidance_high)

    @classmethod
    def execute(
        cls,
        model,
        positive,
        latent,
        seed,
        steps,
        guidance,
        negative=None,
        rescale=Sampling.rescale,
        shift=Sampling.shift,
        schedule=Sampling.schedule,
        solver=Sampling.solver,
        strength=Sampling.strength,
        guidance_low=LOW,
        guidance_high=HIGH,
        **shortcuts,
    ) -> io.NodeOutput:
        interval = guidance_low, guidance_high
        guider = host.guider(model, positive, negative, guidance, rescale, interval, Shortcuts(**shortcuts))
        sigmas = host.schedule(steps, host.own_shift(model) if shift is None else shift, schedule, strength)
        return io.NodeOutput(host.sample(guider, solver, sigmas, latent, seed))


class Guider(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageGuider",
            display_name="Guider (JoyImage)",
            category="JoyImage/sampling",
            description="The guidance of the Sampler (JoyImage), for SamplerCustomAdvanced.",
            search_aliases=["joyai", "cfg guider"],
            inputs=[*condition_inputs(), guidance_input(), rescale_input(), *interval_inputs()],
            outputs=[io.Guider.Output()],
        )

    @classmethod
    def validate_inputs(cls, guidance_low=LOW, guidance_high=HIGH) -> bool | str:
        return check_interval(guidance_low, guidance_high)

    @classmethod
    def execute(
        cls, model, positive, guidance, negative=None, rescale=Sampling.rescale, guidance_low=LOW, guidance_high=HIGH
    ) -> io.NodeOutput:
        return io.NodeOutput(host.guider(model, positive, negative, guidance, rescale, (guidance_low, guidance_high)))


class Schedule(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageSchedule",
            display_name="Schedule (JoyImage)",
            category="JoyImage/sampling",
            description="The noise levels of the Sampler (JoyImage), for SamplerCustomAdvanced.",
            search_aliases=["joyai", "scheduler", "sigmas"],
            inputs=[steps_input(), *schedule_inputs(), strength_input()],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(
        cls, steps, shift=NATIVE_SHIFT, schedule=Sampling.schedule, strength=Sampling.strength
    ) -> io.NodeOutput:
        return io.NodeOutput(host.schedule(steps, shift, schedule, strength))
