"""Pictures that come with the pack: drawn scenes for the bundled model, and photographs for the published one."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from comfy_api.latest import io
from PIL import Image
from torch import zeros

from nodes import LoadImage as HostLoadImage  # ComfyUI's module of that name, not this package

from ..joyimage.images import load, to_batch
from .feedback import PACK
from .node import Node

FOLDER = PACK / "web" / "examples"  # served to the page, whose widgets show them
CLEARED = FOLDER / "cleared.png"  # the scenes without their cars, one below the other
MARK = "example: "  # before a photograph's name, to tell it from the user's files
ALL = "all"  # in place of a scene: a set of pictures, for training
PHOTOGRAPHS = ("coffee", "cat", "rocket", "astronaut")
WORDS = {
    "object": "A solid to be moved.",
    "car": "The car, to be turned or located.",
    "question": "A question about the picture.",
    "description": "The scene in words, for text to image.",
    "removal": "An edit that takes the car away.",
    "recolouring": "An edit that gives the solid another colour.",
}


@cache
def scenes() -> dict[str, dict[str, Any]]:
    """The drawn scenes by their names: file, words and truth."""
    entries = json.loads((FOLDER / "scenes.json").read_text(encoding="utf-8"))
    return {entry["name"]: entry for entry in entries}


class ExampleScene(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageExampleScene",
            display_name="Example Scene (JoyImage)",
            category="JoyImage/loaders",
            description="A drawn scene of a car and another solid, of the kind that the bundled model knows, with "
            "words that fit it. For pictures of your own take the published model and Load Image (JoyImage).",
            search_aliases=["test image", "sample", "demo", "tiny"],
            inputs=[
                io.Combo.Input(
                    "scene",
                    options=[*scenes(), ALL],
                    tooltip="Named by what is in it. all: a batch of all scenes, with a line of words for each.",
                )
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="64 x 64 pixels."),
                *(io.String.Output(display_name=name, tooltip=tooltip) for name, tooltip in WORDS.items()),
                io.Image.Output(
                    display_name="cleared", tooltip="The scene without the car, as the removal should give."
                ),
            ],
        )

    @classmethod
    def execute(cls, scene) -> io.NodeOutput:
        chosen = list(scenes().values()) if scene == ALL else [scenes()[scene]]
        words = ("\n".join(entry[name] for entry in chosen) for name in WORDS)
        pictures = to_batch([load(FOLDER / entry["file"]) for entry in chosen])
        return io.NodeOutput(pictures, *words, to_batch([cleared(entry["name"]) for entry in chosen]))


def cleared(name: str) -> Image.Image:
    """A scene without its car."""
    strip, place = load(CLEARED), list(scenes()).index(name)
    side = strip.width
    return strip.crop((0, place * side, side, (place + 1) * side))


class LoadImage(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageLoadImage",
            display_name="Load Image (JoyImage)",
            category="JoyImage/loaders",
            description="A picture of yours, from ComfyUI's input folder, or one of the photographs that come with "
            "the pack.",
            search_aliases=["load image", "upload", "photo", "example"],
            inputs=[
                io.Combo.Input(
                    "image",
                    options=[MARK + name for name in PHOTOGRAPHS] + HostLoadImage.INPUT_TYPES()["required"]["image"][0],
                    tooltip="A file of ComfyUI's input folder, or one of the pack's photographs.",
                )
            ],
            outputs=[
                io.Image.Output(display_name="image"),
                io.Mask.Output(display_name="mask", tooltip="What is transparent, or painted in the mask editor."),
            ],
        )

    @classmethod
    def validate_inputs(cls, image) -> bool | str:
        if photograph(image) or HostLoadImage.VALIDATE_INPUTS(image) is True:
            return True
        return f"{image} is not in ComfyUI's input folder: choose another picture, or drop one onto the node"

    @classmethod
    def fingerprint_inputs(cls, image) -> str:
        return image if photograph(image) else HostLoadImage.IS_CHANGED(image)

    @classmethod
    def execute(cls, image) -> io.NodeOutput:
        if not photograph(image):
            return io.NodeOutput(*HostLoadImage().load_image(image))
        picture = to_batch([load(FOLDER / f"{photograph(image)}.jpg")])
        return io.NodeOutput(picture, zeros(picture.shape[:3]))


def photograph(image: str) -> str | None:
    """The name of the pack's photograph that a choice stands for, None for a file of the user's."""
    name = image.removeprefix(MARK)
    return name if image.startswith(MARK) and name in PHOTOGRAPHS else None
