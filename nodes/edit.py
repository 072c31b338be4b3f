"""Encode Prompt, Sampler and VAE Decode in one node, which calls those three."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from nodes import VAEDecode

from ..joyimage.conditioning import Group
from ..joyimage.inputs import MAX_REFERENCES
from ..joyimage.settings import Sampling
from .conditioning import (
    EncodePrompt,
    base_size_input,
    batch_size_input,
    empty_latent,
    encode,
    fitted,
    side,
    side_input,
    size_note,
    target_size,
)
from .feedback import caught_warnings, told
from .inputs import encoder_input, refuse
from .node import Node
from .sampling import (
    Sampler,
    guidance_input,
    rescale_input,
    schedule_inputs,
    seed_input,
    solver_input,
    steps_input,
)

LEAST_GUIDANCE = 0.0  # as in the nodes that this one replaces; it means the same as 1
ABSENT = object()  # in `validate_inputs`, where None stands for a value that a link will bring


def further_images_input() -> io.Autogrow.Input:
    """`images`: sockets whose numbers go on from `image1`."""
    tooltip = f"Further images to work from, {MAX_REFERENCES} with the first; the last sets the shape of the result."
    names = [f"image{i}" for i in range(2, MAX_REFERENCES + 1)]
    template = io.Autogrow.TemplateNames(io.Image.Input("image", tooltip=tooltip), names=names, min=0)
    return io.Autogrow.Input("images", template=template, optional=True, tooltip=tooltip)


def part_inputs() -> list[io.Input]:
    """The three parts of the model."""
    return [
        io.Model.Input("model", tooltip="From Load MMDiT (JoyImage), or patched by other nodes."),
        encoder_input(),
        io.Vae.Input("vae", tooltip="From Load VAE (JoyImage)."),
    ]


def negative_input() -> io.String.Input:
    return io.String.Input(
        "negative_prompt",
        default="",
        multiline=True,
        optional=True,
        advanced=True,
        tooltip="What guidance leads away from. It may stay empty.",
    )


def fine_inputs() -> list[io.Input]:
    return [rescale_input(), *schedule_inputs(), solver_input()]


def check_edit(**given: Any) -> bool | str:
    """For `validate_inputs`: what Encode Prompt says of those inputs that are given, `ABSENT` standing for none."""
    return EncodePrompt.validate_inputs(**{name: [value] for name, value in given.items() if value is not ABSENT})


class Edit(Node):
    """Its first image has a socket of its own: the editor cannot replace a node by one whose image is in a group."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageEdit",
            display_name="Edit (JoyImage)",
            category="JoyImage",
            description="From images and a prompt to the picture, in one node: what Encode Prompt, Sampler and VAE "
            "Decode make of the same inputs, to the byte. Without an image it makes the picture from text alone.",
            search_aliases=["image edit", "qwen edit", "instruction edit", "edit pipeline", "text to image", "joyai"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                *part_inputs(),
                io.Image.Input(
                    "image1",
                    optional=True,
                    tooltip="The image to edit, or the first to work from; without any the picture is made from text. "
                    "The images of a batch are several references for one edit.",
                ),
                further_images_input(),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    tooltip="The edit to make, or the picture. Taken literally, brackets and all.",
                ),
                base_size_input(),
                seed_input(),
                steps_input(),
                guidance_input(min=LEAST_GUIDANCE),
                negative_input(),
                *map(side_input, ("width", "height")),
                batch_size_input(),
                *fine_inputs(),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The picture; several with batch_size.")],
        )

    @classmethod
    def validate_inputs(cls, prompt=None, width=ABSENT, height=ABSENT, images=None) -> bool | str:
        return check_edit(prompt=prompt, width=width, height=height)

    @classmethod
    def execute(
        cls, model, encoder, vae, prompt, base_size, seed, steps, guidance,
        negative_prompt="", width=0, height=0, batch_size=1, image1=None, images=None,
        rescale=Sampling.rescale, shift=Sampling.shift, schedule=Sampling.schedule, solver=Sampling.solver, **surplus,
    ) -> io.NodeOutput:  # fmt: skip
        refuse(surplus, "image1 and images.image2", f"images.image{MAX_REFERENCES}")
        batches = [image for image in (image1, *(images or {}).values()) if image is not None]
        with caught_warnings() as problems:
            pictures, size = fitted(batches, target_size(width, height), side(base_size, encoder))
            [(positive, negative, _)] = encode(encoder, vae, [Group(pictures, size, ((prompt, negative_prompt),))])
        text = told(cls.hidden.unique_id, "\n".join([size_note(size, pictures), *dict.fromkeys(problems)]))
        latent, guidance = empty_latent(size, batch_size), max(guidance, 1.0)
        options = {"rescale": rescale, "shift": shift, "schedule": schedule, "solver": solver}
        sampled = Sampler.execute(model, positive, latent, seed, steps, guidance, negative, **options)
        return io.NodeOutput(*VAEDecode().decode(vae, *sampled.args), ui=text)
