"""What the encoder says in words: answers about images, clearer prompts, and where something is."""

from __future__ import annotations

from functools import partial, reduce

import comfy.model_management
from comfy_api.latest import io

from ..joyimage import locating, rewriting
from ..joyimage.boxes import box_to_json, box_to_region, boxes_to_mask, draw_box, locate_question
from ..joyimage.images import from_batch, to_batch
from ..joyimage.locating import LOCATE_TOKENS
from ..joyimage.prompts import DEFAULT_QUESTION
from ..joyimage.settings import Answering
from .feedback import answering, caught_warnings, told
from .inputs import (
    Refusal,
    all_pictures,
    check,
    encoder_input,
    images_input,
    object_input,
    refuse,
    setting_input,
)
from .node import Node

ANSWERING = {
    "max_new_tokens": "The answer is cut off after this many tokens, each about three quarters of a word.",
    "temperature": "0 always takes the likeliest word; higher values vary more.",
    "top_p": "Draws among the likeliest words that together have this probability; 1 is no limit.",
    "top_k": "Draws among this many of the likeliest words; 0 is no limit.",
    "seed": "The same seed gives the same answer.",
}


def answering_inputs() -> list[io.Input]:
    fixed = {"seed": {"control_after_generate": io.ControlAfterGenerate.fixed}}
    return [
        setting_input(Answering, name, tooltip, optional=True, advanced=True, **fixed.get(name, {}))
        for name, tooltip in ANSWERING.items()
    ]


class Ask(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageAsk",
            display_name="Ask (JoyImage)",
            category="JoyImage/understanding",
            description="Answers a question about images, or without any. The answer appears on the node.",
            search_aliases=["caption", "describe image", "VQA", "Qwen3-VL", "question"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                encoder_input(),
                images_input("Images the question is about; the images of a batch count one by one."),
                io.String.Input(
                    "question",
                    default=DEFAULT_QUESTION,
                    multiline=True,
                    tooltip="Left empty, the images are described.",
                ),
                *answering_inputs(),
            ],
            outputs=[io.String.Output(display_name="text", tooltip="The answer.")],
        )

    @classmethod
    def execute(
        cls, encoder, question,
        max_new_tokens=Answering.max_new_tokens, temperature=Answering.temperature,
        top_p=Answering.top_p, top_k=Answering.top_k, seed=Answering.seed, images=None, **surplus,
    ) -> io.NodeOutput:  # fmt: skip
        refuse(surplus)
        with answering(cls.hidden.unique_id, encoder, max_new_tokens) as on_text:
            text = encoder.answer(
                all_pictures((images or {}).values()),
                question,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_p=top_p,
                top_k=top_k,
                seed=seed,
                on_text=on_text,
            )
        return io.NodeOutput(text, ui=told(cls.hidden.unique_id, text))


class RewritePrompt(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageRewritePrompt",
            display_name="Rewrite Prompt (JoyImage)",
            category="JoyImage/understanding",
            description="Makes a short prompt clear and specific, by the encoder or by the server that the environment "
            "variable JOYIMAGE_REWRITE_URL or OPENAI_BASE_URL names. A plain wish to turn an object or the camera "
            "becomes the sentence that the model knows. The node shows what changed. If rewriting fails, the prompt "
            "stays as it is, and the node says why.",
            search_aliases=["prompt enhance", "expand prompt", "prompt upsampling", "LLM"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                encoder_input(),
                io.String.Input(
                    "prompt", multiline=True, tooltip="What you want, in any words; text to render in double quotes."
                ),
                images_input("Images to be edited; without any, the prompt is rewritten for text-to-image."),
            ],
            outputs=[
                io.String.Output(display_name="prompt", tooltip="Connect it to the prompt of Encode Prompt (JoyImage).")
            ],
        )

    @classmethod
    def validate_inputs(cls, prompt, images=None) -> bool | str:
        return True if prompt is None or prompt.strip() else Refusal("prompt", "the prompt to rewrite is empty")

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> float | None:
        # A server need not answer twice alike, and may be back after a failure. NaN equals nothing, not even itself.
        return float("nan") if rewriting.has_server() else None

    @classmethod
    def execute(cls, encoder, prompt, images=None, **surplus) -> io.NodeOutput:
        refuse(surplus)
        tokens = rewriting.answer_tokens(prompt)
        with answering(cls.hidden.unique_id, encoder, tokens) as on_text, caught_warnings() as problems:
            answer = partial(encoder.answer_rewrite, max_new_tokens=tokens, on_text=on_text)
            stop = comfy.model_management.throw_exception_if_processing_interrupted
            rewritten = rewriting.rewrite(answer, prompt, all_pictures((images or {}).values()), stop)
        text = "\n\n".join([rewritten.text, *rewritten.changes, *problems])
        return io.NodeOutput(rewritten.text, ui=told(cls.hidden.unique_id, text))


class Locate(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageLocate",
            display_name="Locate (JoyImage)",
            category="JoyImage/understanding",
            description="Finds an object, or a place, in an image and gives the boxes around it. `bbox` and `box` "
            "are the first one.",
            search_aliases=["grounding", "detect object", "find object", "bounding box", "bbox"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                encoder_input(),
                io.Image.Input("image", tooltip="The image to search; of a batch, the first."),
                object_input("find"),
            ],
            outputs=[
                io.BoundingBox.Output(
                    display_name="bbox", tooltip="The box in pixels. Connect it to the bbox of Move Object (JoyImage)."
                ),
                io.String.Output(
                    display_name="box", tooltip='{"x": …, "y": …, "w": …, "h": …} in fractions of the image.'
                ),
                io.BoundingBoxes.Output(display_name="boxes", tooltip="All boxes in pixels, in the model's order."),
                io.Mask.Output(display_name="mask", tooltip="White inside the boxes; for inpainting or Move Object."),
                io.Image.Output(display_name="image", tooltip="The image with all boxes drawn in red."),
            ],
        )

    @classmethod
    def validate_inputs(cls, object) -> bool | str:
        return check(locate_question, object)

    @classmethod
    def execute(cls, encoder, image, object) -> io.NodeOutput:
        picture = from_batch(image)[0]
        with answering(cls.hidden.unique_id, encoder, LOCATE_TOKENS) as on_text:
            areas = locating.locate(encoder, picture, object, on_text)
        boxes = [box_to_json(area, *picture.size) for area in areas]
        regions = [box_to_region(area) for area in areas]
        drawn = reduce(draw_box, areas, picture)
        text = "\n".join(f"{object}: {box}" for box in boxes)
        return io.NodeOutput(
            regions[0],
            boxes[0],
            [{**region, "metadata": {"label": object}} for region in regions],
            boxes_to_mask(areas, *picture.size),
            to_batch([drawn]),
            ui=told(cls.hidden.unique_id, text),
        )
