"""Finding things in a picture by asking the encoder: an object's boxes, and the box of a place in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from .boxes import PixelBox, locate_question, parse_boxes
from .errors import JoyImageError
from .places import Place, box_beside

if TYPE_CHECKING:
    from .encoder import Encoder
    from .encoder.answers import OnText

LOCATE_TOKENS = 512  # of an answer: room for the boxes of some ten objects


def locate(encoder: Encoder, picture: Image.Image, obj: str, on_text: OnText | None = None) -> list[PixelBox]:
    """The boxes around an object, or several of its kind, in the model's order and in pixels of `picture`.

    The likeliest answer is taken, so the same picture and words give the same boxes. `on_text` is as in
    `Encoder.answer`. Raises `JoyImageError` for an empty object, and with the answer for one without a box.
    """
    question = locate_question(obj)
    answer = encoder.answer([picture], question, max_new_tokens=LOCATE_TOKENS, temperature=0, on_text=on_text)
    return parse_boxes(answer, *picture.size)


def place(encoder: Encoder, picture: Image.Image, obj: str, where: Place, on_text: OnText | None = None) -> PixelBox:
    """The box into which an object is to be moved, in pixels of `picture`.

    Of a relation the model finds both sides, the first of each if there are several, and `box_beside` the place; else
    it finds the place itself. Raises `JoyImageError` as `locate` does, and where there is no room in the picture.
    """
    locate_question(obj)
    if where.relation is None:
        return locate(encoder, picture, where.words, on_text)[0]
    moved = locate(encoder, picture, obj, on_text)[0]
    anchor = locate(encoder, picture, where.anchor, on_text)[0] if where.anchor else moved
    box = box_beside(where.relation, moved, anchor, *picture.size)
    if box is None:
        raise JoyImageError(
            f"there is no room in the picture for the {obj.strip()} {where.words.strip()}: name another place"
        )
    return box
