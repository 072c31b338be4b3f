"""Prompt and images to what the sampler is conditioned on, and the empty latent of the right size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain

import comfy.model_management
import torch
from comfy_api.latest import io
from PIL import Image
from torch import Tensor

from ..joyimage.conditioning import Conditioning, Group, encode_pictures, encode_texts, fit, join
from ..joyimage.config import WanVAEConfig
from ..joyimage.errors import JoyImageError
from ..joyimage.images import Size, check_size, to_batch
from ..joyimage.inputs import MAX_REFERENCES
from ..joyimage.settings import AUTO, BASE_SIZES
from .feedback import caught_warnings, told
from .inputs import Refusal, all_pictures, blame, check, encoder_input, images_input, refuse
from .node import Node

EXACT = "exact"
EMPTY = (
    "the prompt is empty: say what to make or change. Where another node should write it, such as Move Object, Rotate "
    "Object or Camera, that one is bypassed, muted or not connected"
)
NO_VAE = "images are connected but no vae: connect Load VAE (JoyImage), as the model needs the images' latents"
LATENT = WanVAEConfig()


def side_input(side: str) -> io.Int.Input:
    return io.Int.Input(
        side,
        default=0,
        min=0,
        max=8192,
        step=16,
        optional=True,
        advanced=True,
        tooltip=f"{side.capitalize()} of the result in pixels, a multiple of 16, in place of the automatic one; a "
        "single image is cropped to it. 0 in both is automatic.",
    )


def base_size_input() -> io.Combo.Input:
    return io.Combo.Input(
        "base_size",
        options=[AUTO, *map(str, BASE_SIZES), EXACT],
        default=AUTO,
        tooltip="Images are scaled and cropped to the area of a square with this side, in the nearest "
        "shape the model was trained on. auto: the model's own side, 1024 pixels, or 64 with the bundled "
        "model. exact: images keep their size, rounded to multiples of 16.",
    )


def batch_size_input() -> io.Int.Input:
    return io.Int.Input(
        "batch_size",
        default=1,
        min=1,
        max=64,
        optional=True,
        advanced=True,
        tooltip="Number of pictures made at once.",
    )


class EncodePrompt(Node):
    """Takes whole lists, so that the prompts of an orbit share the encoding of their images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageEncodePrompt",
            display_name="Encode Prompt (JoyImage)",
            category="JoyImage",
            description="Everything the sampler needs: the prompts as the model reads them, the images as references, "
            "and an empty latent of the right size. Without an image it is for text-to-image. A list of prompts, as "
            "from Camera Orbit, gives lists, and the images are encoded once for all of it.",
            search_aliases=[
                "text encode",
                "qwen edit",
                "instruction edit",
                "conditioning",
                "image edit",
                "edit image",
                "reference image",
                "CLIP text encode",
            ],
            is_input_list=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                encoder_input(),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    tooltip="The edit to make, or the picture. Taken literally, brackets and all.",
                ),
                io.String.Input(
                    "negative_prompt",
                    default="",
                    multiline=True,
                    tooltip="What guidance leads away from. It may stay empty.",
                ),
                images_input(
                    f"The image to edit, or up to {MAX_REFERENCES} to work from; the last sets the shape of the "
                    "result. The images of a batch are several references for one edit; for an edit each, pass a list."
                ),
                io.Vae.Input("vae", optional=True, tooltip="From Load VAE (JoyImage). Needed with images only."),
                base_size_input(),
                *map(side_input, ("width", "height")),
                batch_size_input(),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="positive", is_output_list=True, tooltip="The prompt, with references."
                ),
                io.Conditioning.Output(
                    display_name="negative", is_output_list=True, tooltip="The negative prompt, with references."
                ),
                io.Latent.Output(
                    display_name="latent", is_output_list=True, tooltip="Empty, of the size of the result."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, prompt=(None,), width=None, height=None, images=None, vae=None) -> bool | str:
        if prompt[0] is not None and not prompt[0].strip():
            return Refusal("prompt", EMPTY)
        if images and vae is None:  # the socket `vae` has no field to be marked
            return Refusal("prompt", NO_VAE)
        sides = {name: side[0] for name, side in (("width", width), ("height", height)) if side}  # those given
        problem = check(target_size, sides.get("width", 0), sides.get("height", 0))
        wrong = (name for name, side in sides.items() if check(check_size, (side, side)) is not True)
        return blame(next(wrong, next(reversed(sides), "prompt")), problem)

    @classmethod
    def execute(
        cls, encoder, prompt, negative_prompt, base_size,
        width=(0,), height=(0,), batch_size=(1,), images=None, vae=None, **surplus,
    ) -> io.NodeOutput:  # fmt: skip
        refuse(surplus)
        slots = list((images or {}).values())
        count = max(map(len, [prompt, negative_prompt, *slots]))
        pairs = [(pick(prompt, i), pick(negative_prompt, i)) for i in range(count)]
        size, base = target_size(width[0], height[0]), side(base_size[0], encoder[0])
        batches, members = zip(*groups(slots, count), strict=True)
        edits = [
            Group(*fitted(images, size, base), tuple(pairs[i] for i in numbers))
            for images, numbers in zip(batches, members, strict=True)
        ]
        with caught_warnings() as problems:
            conditionings = encode(encoder[0], vae and vae[0], edits)
        results: dict[int, tuple[list, list, dict[str, Tensor]]] = {}
        for i, (positive, negative, fitted_size) in zip(chain(*members), conditionings, strict=True):
            results[i] = positive, negative, empty_latent(fitted_size, batch_size[0])
        notes = [size_note(edit.size, edit.pictures) for edit in edits]
        text = told(cls.hidden.unique_id, "\n".join(dict.fromkeys(notes + problems)))
        return io.NodeOutput(*map(list, zip(*(results[i] for i in range(count)), strict=True)), ui=text)


def pick(values: Sequence, i: int):
    """Item `i` of a list, or its last: the host's rule for lists of unequal length."""
    return values[min(i, len(values) - 1)]


def groups(slots: Sequence[Sequence[Tensor]], count: int) -> Iterable[tuple[list[Tensor], list[int]]]:
    """The batches of images, each with the edits, out of `count`, that share them."""
    members: dict[tuple[int, ...], list[int]] = {}
    for i in range(count):
        members.setdefault(tuple(min(i, len(slot) - 1) for slot in slots), []).append(i)
    return [([slot[i] for slot, i in zip(slots, key, strict=True)], edits) for key, edits in members.items()]


def target_size(width: int, height: int) -> Size | None:
    """(height, width) of the result, None for the automatic one. Raises `JoyImageError` for one that does not work."""
    if width == height == 0:
        return None
    if 0 in (width, height):
        raise JoyImageError("give both width and height, or 0 in both for the automatic size")
    return check_size((height, width))


def side(choice: str, encoder) -> int | None:
    """The library's base size for a choice of `base_size`; for "auto" it is the encoder's, which knows its model."""
    if choice == AUTO:
        return encoder.base_size
    return None if choice == EXACT else int(choice)


def fitted(batches: Sequence[Tensor], size: Size | None, base: int | None) -> tuple[tuple[Image.Image, ...], Size]:
    """The pictures of one edit, scaled and cropped as `JoyImage.edit` does, and the (height, width) of the result."""
    pictures = all_pictures(batches)
    if len(pictures) > MAX_REFERENCES:
        raise JoyImageError(
            f"{len(pictures)} images for one edit; the model takes at most {MAX_REFERENCES}. To edit each image of a "
            "batch on its own, make it a list first: Rebatch Images with batch_size 1"
        )
    if not pictures and size is None and base is None:
        raise JoyImageError('base_size "exact" takes its size from an image: connect one, or give width and height')
    return fit(pictures, size, base)


def size_note(size: Size, pictures: Sequence[Image.Image]) -> str:
    return f"{size[1]} x {size[0]} pixels, references: {len(pictures)}"


def encode(encoder, vae, edits: Sequence[Group]) -> list[tuple[list, list, Size]]:
    """Positive and negative CONDITIONING of each edit and the size of its result; a group's edits share references."""
    if not all(prompt.strip() for group in edits for prompt, _ in group.prompts):
        raise JoyImageError(EMPTY)
    conditionings = join(edits, encode_texts(edits, encoder.encode), encode_pictures(edits, partial(reference, vae)))
    return [(socket(each, each.positive), socket(each, each.negative), each.size) for each in conditionings]


def socket(conditioning: Conditioning, context: Tensor) -> list:
    """In the host's form, with the context as (1, L, D)."""
    references = {"reference_latents": list(conditioning.references)} if conditioning.references else {}
    return [[context[None], references]]


def reference(vae, picture: Image.Image) -> Tensor:
    """The latent (1, 16, 1, h, w) of a picture, as the VAE gives it: the model normalises it."""
    latent = vae.encode(to_batch([picture]))
    if latent.shape[1] != LATENT.z_dim:
        raise JoyImageError(
            f"this VAE's latents have {latent.shape[1]} channels and the model's have {LATENT.z_dim}: "
            "connect the Wan 2.1 VAE"
        )
    return latent


def empty_latent(size: Size, batch_size: int) -> dict[str, Tensor]:
    """A LATENT of zeros (batch_size, 16, 1, h, w), which the sampler fills with noise."""
    height, width = (side // LATENT.spatial_factor for side in size)
    device = comfy.model_management.intermediate_device()
    return {"samples": torch.zeros(batch_size, LATENT.z_dim, 1, height, width, device=device)}
