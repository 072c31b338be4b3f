"""The sampler, and its guider and schedule for SamplerCustomAdvanced."""

from __future__ import annotations

from comfy_api.latest import io

from ..joyimage.sampling import SCHEDULES, SOLVERS
from . import host

STEPS = 40
MAX_STEPS = 1000


def condition_inputs() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="From Load MMDiT (JoyImage), or patched by other nodes."),
        io.Conditioning.Input("positive", tooltip="From Encode Prompt (JoyImage), or core's TextEncodeJoyImageEdit."),
        io.Conditioning.Input(
            "negative", optional=True, tooltip="What guidance leads away from. Not needed at guidance 1."
        ),
    ]


def guidance_input(least: float = 1.0) -> io.Float.Input:
    return io.Float.Input(
        "guidance",
        default=4.0,
        min=least,
        max=30.0,
        step=0.1,
        tooltip="How strongly the prompt is followed. 4 suits the released models. At 1 the negative prompt is not "
        "used and a step takes half the time.",
    )


def rescale_input() -> io.Float.Input:
    return io.Float.Input(
        "rescale",
        default=1.0,
        min=0.0,
        max=1.0,
        step=0.05,
        optional=True,
        advanced=True,
        tooltip="How far guidance keeps the norm of the conditional velocity: 1 as trained, 0 plain guidance. A model "
        "patched with a guidance of its own, as by CFGNorm, ignores this.",
    )


def seed_input() -> io.Int.Input:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=2**64 - 1,
        control_after_generate=True,
        tooltip="The same seed gives the same picture. Picture k of a batch has seed + k.",
    )


def steps_input() -> io.Int.Input:
    return io.Int.Input("steps", default=STEPS, min=1, max=MAX_STEPS, tooltip="20 are enough for a draft.")


def schedule_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "shift",
            default=1.5,
            min=0.01,
            max=100.0,
            step=0.01,
            optional=True,
            advanced=True,
            tooltip="Above 1 spends more steps on the composition, below 1 on the details. The model's own is 1.5.",
        ),
        io.Combo.Input(
            "schedule",
            options=list(SCHEDULES),
            default="original",
            optional=True,
            advanced=True,
            tooltip="original is the authors'; diffusers is that of the Diffusers library, which wastes the last step.",
        ),
    ]


def solver_input() -> io.Combo.Input:
    return io.Combo.Input(
        "solver",
        options=list(SOLVERS),
        default="euler",
        optional=True,
        advanced=True,
        tooltip="euler is the authors'. unipc and dpmpp_2m need fewer steps, heun takes twice the time.",
    )


def strength_input() -> io.Float.Input:
    return io.Float.Input(
        "strength",
        default=1.0,
        min=0.01,
        max=1.0,
        step=0.01,
        optional=True,
        advanced=True,
        tooltip="Below 1 the run starts from the given latent and takes only the last part of the steps. "
        "At 1 nothing of the latent is left, except where a mask keeps it.",
    )


class Sampler(io.ComfyNode):
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
            ],
            outputs=[io.Latent.Output(tooltip="For VAE Decode.")],
        )

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
        rescale=1.0,
        shift=1.5,
        schedule="original",
        solver="euler",
        strength=1.0,
    ) -> io.NodeOutput:
        guider = host.guider(model, positive, negative, guidance, rescale)
        sigmas = host.schedule(steps, shift, schedule, strength)
        return io.NodeOutput(host.sample(guider, solver, sigmas, latent, seed))


class Guider(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageGuider",
            display_name="Guider (JoyImage)",
            category="JoyImage/sampling",
            description="The guidance of the Sampler (JoyImage), for SamplerCustomAdvanced.",
            search_aliases=["joyai", "cfg guider"],
            inputs=[*condition_inputs(), guidance_input(), rescale_input()],
            outputs=[io.Guider.Output()],
        )

    @classmethod
    def execute(cls, model, positive, guidance, negative=None, rescale=1.0) -> io.NodeOutput:
        return io.NodeOutput(host.guider(model, positive, negative, guidance, rescale))


class Schedule(io.ComfyNode):
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
    def execute(cls, steps, shift=1.5, schedule="original", strength=1.0) -> io.NodeOutput:
        return io.NodeOutput(host.schedule(steps, shift, schedule, strength))
