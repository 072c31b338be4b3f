"""What is said to the encoder: the chat format, the fixed system texts, and the rewriter's request and reply."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Control:
    """A token of the chat format. Plain strings in a message are text and never become such a token."""

    token: str


START = Control("<|im_start|>")
END = Control("<|im_end|>")
END_OF_TEXT = Control("<|endoftext|>")
VISION_START = Control("<|vision_start|>")
IMAGE = Control("<|image_pad|>")  # stands for all tokens of one image
VISION_END = Control("<|vision_end|>")
CONTROLS = (START, END, END_OF_TEXT, VISION_START, IMAGE, VISION_END)

Pieces = list[Control | str]

# The MMDiT was trained on this text as it stands, with its leading space, backslash and letter n.
CONDITIONING_SYSTEM = (
    r" \nDescribe the image by detailing the color, shape, size, texture, quantity, text, "
    "spatial relationships of the objects and background:"
)
CHAT_SYSTEM = "You are a helpful assistant."
DEFAULT_QUESTION = "Describe this image in detail."

_REWRITE_RULES = """\
Rules:
- Keep the user's intent. Add nothing that contradicts it and drop nothing that was asked for.
- Resolve vague words into concrete, visible ones. Contradictory wishes: keep the more plausible reading.
- Text to be rendered in the picture stays exactly as given, in its own language, inside double quotes. \
Do not invent such text.
- Write in the language of the user's prompt, as plain prose without lists.
- Answer with nothing but a JSON object of this form, with double quotes inside the string escaped as \\":
{"Rewritten": "the rewritten prompt"}"""

_REWRITE_EDIT = """\
You turn short requests for changing pictures into precise editing instructions. First come the pictures, numbered in \
the order you see them, then the user's request. Name what is to be changed by its looks and its place, say what it \
becomes, and say that everything else stays as it is. Keep people's faces and identities. An instruction about moving \
or rotating an object, or about the camera, keeps its numbers and its wording."""

_REWRITE_GENERATE = """\
You turn short ideas into prompts for a text-to-image model. Describe one picture: the main subject and its looks, \
what it does, the surroundings, the composition and viewpoint, the light and colours, and the style or medium. \
Where the user gave no detail, choose one that suits the idea. Three to six sentences are enough."""


def opening(system: str, images: int, text: str) -> Pieces:
    """A system turn, then the user's turn up to the end of `text`, with `images` images straight before the text.

    Without an image, `user\\n` and the text are neighbours: tokenise neighbouring strings as one, since
    the byte pairs of the trained format reach across that joint.
    """
    vision = [VISION_START, IMAGE, VISION_END] * images
    return [START, "system\n" + system, END, "\n", START, "user\n", *vision, text]


def closing() -> Pieces:
    """The end of the user's turn and the start of the answer; follows `opening`."""
    return [END, "\n", START, "assistant\n"]


def rewriting_system(editing: bool) -> str:
    """The rewriter's system text, for a prompt that comes with images (`editing`) or alone."""
    return f"{_REWRITE_EDIT if editing else _REWRITE_GENERATE}\n\n{_REWRITE_RULES}"


def parse_rewritten(text: str) -> str | None:
    """The prompt in a reply like `{"Rewritten": "…"}`, whatever stands around it; None if there is none.

    Replies often quote words to render and forget to escape the quotes, so a reply that is
    no valid JSON is read once more up to its last quote and brace.
    """
    decoder = json.JSONDecoder(strict=False)
    for brace in re.finditer(r"\{", text):
        try:
            reply, _ = decoder.raw_decode(text, brace.start())
        except json.JSONDecodeError:
            continue
        if isinstance(reply.get("Rewritten"), str):
            return reply["Rewritten"].strip() or None
    loose = re.search(r'"Rewritten"\s*:\s*"(.*)"\s*\}', text, re.DOTALL)
    if loose is None:
        return None
    escaped = re.sub(r'(?<!\\)"', r"\"", loose[1])
    try:
        return decoder.decode(f'"{escaped}"').strip() or None
    except json.JSONDecodeError:
        return None
