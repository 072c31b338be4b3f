"""The chat format: from messages to token ids, their positions, and prompts packed into one sequence.

A message is a list of pieces, each a control token or a plain string. `Chat` turns it into ids. What the
strings say stands in `joyimage/prompts.py`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..messages import Message
from ..prompts import CONDITIONING_SYSTEM
from .limits import CHARACTERS, IMAGE_LIMIT, PACK_LIMIT, QUESTION_LIMIT, TEXT_ALWAYS_KEPT, TEXT_LIMIT

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

Grid = tuple[int, int]  # an image's rows and columns of tokens


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


def opening(system: str, images: int, text: str, history: Sequence[Message] = ()) -> Pieces:
    """A system turn, those of `history`, then the user's turn up to the end of `text`, with `images` images straight
    before the text.

    Without an image, `user\\n` and the text are neighbours: tokenise neighbouring strings as one, since
    the byte pairs of the trained format reach across that joint.
    """
    earlier = [piece for each in history for piece in (*turn(each.role, len(each.images), each.text), END, "\n")]
    return [START, "system\n" + system, END, "\n", *earlier, *turn("user", images, text)]


def turn(role: str, images: int, text: str) -> Pieces:
    """What someone says, up to the end of its text."""
    return [START, f"{role}\n", *[VISION_START, IMAGE, VISION_END] * images, text]


def closing() -> Pieces:
    """The end of the user's turn and the start of the answer; follows `opening`."""
    return [END, "\n", START, "assistant\n"]


class Chat:
    """Token ids of messages, for one tokenizer and the model that it belongs to.

    `config` is transformers' for the whole model, `embeddings` the number of rows in its table of tokens.
    `controls` has the ids of the control tokens. `prefix_length` is the number of tokens that a context leaves
    out, which are the system's turn and the start of the user's: 34 with Qwen's tokenizer.

    Raises `CheckpointError` if the tokenizer is another model's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: Any, embeddings: int):
        self.tokenizer = tokenizer
        self.controls = control_ids(tokenizer, config, embeddings)
        self._literal = literal_tokenizer(tokenizer)
        self.prefix_length = len(self.ids(opening(CONDITIONING_SYSTEM, 0, "")[:5]))

    def ids(self, pieces: Pieces, grids: Sequence[Grid] = ()) -> list[int]:
        """Neighbouring strings are tokenised as one text; each image takes as many tokens as its grid has places."""
        ids: list[int] = []
        text, sizes = "", iter(grids)
        for piece in pieces:
            if isinstance(piece, str):
                text += piece
                continue
            ids += self._text_ids(text)
            ids += [self.controls[piece]] * (math.prod(next(sizes)) if piece is IMAGE else 1)
            text = ""
        return ids + self._text_ids(text)

    def _text_ids(self, text: str) -> list[int]:
        return self._literal.encode(text, add_special_tokens=False).ids

    def shared_ids(self, grids: Sequence[Grid]) -> list[int]:
        """What all prompts about the same images begin with, up to the end of the last image; empty without images."""
        return self.ids(opening(CONDITIONING_SYSTEM, len(grids), ""), grids) if grids else []

    def prompt_ids(self, prompt: str, shared: list[int]) -> list[int]:
        """A prompt's whole message, cut to the limits; `shared` is what `shared_ids` gives for its images.

        Without images the first 2048 tokens of the context are kept. With images it has at most 4096: the end of the
        prompt is cut, never an image, and never below 512 tokens. Warns of a cut with the number of tokens lost.
        """
        end, rest = self.ids(closing()), len(prompt) - CHARACTERS * IMAGE_LIMIT
        prompt = prompt[: CHARACTERS * IMAGE_LIMIT]
        if shared:
            text = self.ids([prompt])
            room = IMAGE_LIMIT - (len(shared) - self.prefix_length) - len(end)
            cut = len(text) - max(room, TEXT_ALWAYS_KEPT)
            ids = shared + (text[:-cut] if cut > 0 else text) + end
        else:
            ids = self.ids(opening(CONDITIONING_SYSTEM, 0, prompt)) + end
            cut = len(ids) - self.prefix_length - TEXT_LIMIT
            ids = ids[:-cut] if cut > 0 else ids
        warn_of_cut("the prompt is too long", cut, rest)
        return ids

    def question_ids(
        self, system: str, question: str, grids: Sequence[Grid] = (), history: Sequence[Message] = ()
    ) -> list[int]:
        """A question's whole message after those of `history`; `grids` are of all their images in order.

        At most 4096 tokens of the question are kept: warns of a cut as `prompt_ids` does. Of `history` nothing is cut.
        """
        images = len(grids) - sum(len(each.images) for each in history)
        rest = len(question) - CHARACTERS * QUESTION_LIMIT
        before = len(self.ids(opening(system, images, "", history), grids))
        ids = self.ids(opening(system, images, question[: CHARACTERS * QUESTION_LIMIT], history), grids)
        cut = len(ids) - before - QUESTION_LIMIT
        warn_of_cut("the question is too long", cut, rest)
        return (ids[:-cut] if cut > 0 else ids) + self.ids(closing())

    def message_ids(self, system: str, text: str, grids: Sequence[Grid] = ()) -> list[int]:
        """A whole message, its images before its text, up to where the answer begins. Nothing is cut."""
        return self.ids(opening(system, len(grids), text) + closing(), grids)

    def positions(self, ids: list[int], grids: Sequence[Grid] = (), start: int = 0) -> Tensor:
        """MRoPE positions (3, T) in t, h and w: text counts up in all three, an image spans its grid from its start.

        What follows an image goes on after the larger side of its grid.
        """
        sizes, spans = iter(grids), []
        for is_image, run in groupby(ids, key=lambda token: token == self.controls[IMAGE]):
            if is_image:
                h, w = next(sizes)
                span = torch.stack(torch.meshgrid(torch.arange(1), torch.arange(h), torch.arange(w), indexing="ij"))
                span = span.flatten(1)  # (3, h*w)
            else:
                span = torch.arange(len(list(run))).expand(3, -1)
            spans.append(span + start)
            start = int(spans[-1].max()) + 1
        return torch.cat(spans, dim=1)


def warn_of_cut(reason: str, tokens: int, characters: int) -> None:
    """Say how much of a text was not read: tokens, and characters after them; nothing if neither is above 0."""
    if tokens > 0:
        more = f" and the {characters:,} characters after them" if characters > 0 else ""
        warnings.warn(f"{reason}: its last {tokens} tokens{more} were cut", stacklevel=3)


def control_ids(tokenizer: PreTrainedTokenizerBase, config: Any, embeddings: int) -> dict[Control, int]:
    """The ids of the chat format's tokens, checked against the model's `config` and number of embeddings.

    Raises `CheckpointError` if the tokenizer lacks one, gives it another id than the model expects, or has tokens
    beyond the embeddings.
    """
    vocabulary = tokenizer.get_vocab()
    advice = "use the tokenizer that belongs to the encoder (Qwen3-VL's)"
    missing = [control.token for control in CONTROLS if control.token not in vocabulary]
    if missing:
        raise CheckpointError(f"wrong tokenizer: it has no {', '.join(missing)}; {advice}")
    ids = {control: vocabulary[control.token] for control in CONTROLS}
    expected = {
        IMAGE: config.image_token_id,
        VISION_START: config.vision_start_token_id,
        VISION_END: config.vision_end_token_id,
    }
    for control, wanted in expected.items():
        if ids[control] != wanted:
            raise CheckpointError(
                f"wrong tokenizer: {control.token} is token {ids[control]}, the model expects {wanted}; {advice}"
            )
    largest = max(vocabulary.values())
    if largest >= embeddings:
        raise CheckpointError(
            f"wrong tokenizer: it has token {largest}, the model's table ends at {embeddings - 1}; {advice}"
        )
    return ids


def literal_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """The same byte pairs without the added vocabulary, so that no text can become a control token.

    Raises `CheckpointError` for a slow tokenizer, one in plain Python.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CheckpointError("wrong tokenizer: a fast one is needed (tokenizer.json, or vocab.json and merges.txt)")
    backend = tokenizer.backend_tokenizer
    literal = Tokenizer(backend.model)
    literal.normalizer = backend.normalizer
    literal.pre_tokenizer = backend.pre_tokenizer
    return literal


def packs(rows: Sequence[list[int]]) -> Iterator[list[list[int]]]:
    """`rows` in order, in groups of at most `PACK_LIMIT` tokens; a longer row is a group of its own."""
    pack: list[list[int]] = []
    for row in rows:
        if pack and sum(map(len, pack)) + len(row) > PACK_LIMIT:
            yield pack
            pack = []
        pack.append(row)
    if pack:
        yield pack


def pairs(rows: Sequence[list[int]]) -> Iterator[list[list[int]]]:
    """`packs` of two rows at a time: what a row shares a forward with does not hang on how many more rows there are."""
    for i in range(0, len(rows), 2):
        yield from packs(rows[i : i + 2])


def packed_mask(past: int, lengths: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The additive mask (1, 1, T, past + T) of rows that lie end to end, T tokens together.

    Each token sees the whole past, itself, and what is before it in its own row.
    """
    never = torch.finfo(dtype).min
    mask = torch.zeros(sum(lengths), past + sum(lengths), dtype=dtype, device=device)
    mask[:, past:] = never
    start = 0
    for length in lengths:
        own = mask[start : start + length, past + start : past + start + length]
        own.triu_(1)  # zero where a token sees itself and what is before it
        start += length
    return mask[None, None]
