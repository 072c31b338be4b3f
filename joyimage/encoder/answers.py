"""From token ids to text, token by token: sampling, and handing the text on while it grows."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    DynamicCache,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TextStreamer,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ..errors import JoyImageError
from ..messages import Reply
from ..prompts import DEFAULT_QUESTION
from ..settings import Answering, check_text
from .chat import END, END_OF_TEXT, IMAGE, Chat
from .conditioning import Reader
from .vision import VisionInputs

OnText = Callable[[str], object]  # gets the text piece by piece; False ends the answer


def with_head(model: Qwen3VLForConditionalGeneration | Qwen3VLModel) -> Qwen3VLForConditionalGeneration:
    """The model as it is. Raises `JoyImageError` if it lacks its language head, without which it cannot answer."""
    if isinstance(model, Qwen3VLModel) or model.lm_head.weight.is_meta:
        raise JoyImageError("this encoder was loaded without its language head, which answers need: load it whole")
    return model


def usable_question(question: str | None, images: Sequence[Image.Image]) -> str:
    """`question`, or the one for a description where it is empty and there are images.

    Raises `JoyImageError` if there is neither a question nor an image, and for a question that is no text.
    """
    check_text("the question", question or "")
    if question and question.strip():
        return question
    if not images:
        raise JoyImageError("the question is empty and there is no image to describe")
    return DEFAULT_QUESTION


def generate(
    model: Qwen3VLForConditionalGeneration,
    chat: Chat,
    ids: Tensor,
    vision: VisionInputs,
    settings: Answering,
    on_text: OnText | None,
    stop: Sequence[str],
) -> Reply:
    """What the model adds to `ids` (1, T), until an end token, the longest answer, `stop`, or False from `on_text`.

    Sampling has its own generator: torch's global state is untouched.
    """
    tensors = dict(vision.tensors)
    if "mm_token_type_ids" in inspect.signature(model.forward).parameters:  # transformers 5 needs them
        tensors["mm_token_type_ids"] = (ids == chat.controls[IMAGE]).int()
    stream, ends = AnswerStream(chat.tokenizer, on_text, stop), [chat.controls[END], chat.controls[END_OF_TEXT]]
    (row,) = model.generate(  # pyright: ignore[reportAttributeAccessIssue] - its protocol names what transformers' models lack
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        **tensors,
        max_new_tokens=settings.max_new_tokens,
        do_sample=False,  # the last of the logits processors draws
        temperature=None,
        top_p=None,
        top_k=None,
        logits_processor=sampling_processors(settings),
        streamer=stream,
        stopping_criteria=StoppingCriteriaList([stream.should_stop]),
        eos_token_id=ends,
        pad_token_id=chat.controls[END_OF_TEXT],
    )
    tokens = row[ids.shape[1] :].tolist()
    return Reply(stream.text, ids.shape[1], len(tokens), whole=stream.stopped or tokens[-1] in ends)


def likelihoods(
    model: Qwen3VLForConditionalGeneration, reader: Reader, ids: list[int], vision: VisionInputs, answers: Sequence[str]
) -> list[list[float]]:
    """The log-probabilities of the tokens of each answer after `ids`, and of the end of the turn."""
    chat, backbone = reader.chat, reader.backbone
    rows = [[*chat.ids([answer]), chat.controls[END]] for answer in answers]
    cache = DynamicCache(config=backbone.language_model.config)
    (before,) = reader.hidden([ids], vision, cache=cache)  # (T, D)
    start = int(chat.positions(ids, vision.grids).max()) + 1
    after = reader.hidden(rows, start=start, cache=cache)  # (T_i, D) each
    found = []
    for row, hidden in zip(rows, after, strict=True):
        states = torch.cat([before[-1:], hidden[:-1]])  # what each token of the answer is told from
        logits = model.lm_head(backbone.language_model.norm(states)).float()
        chosen = logits.log_softmax(-1).gather(-1, torch.tensor(row, device=logits.device)[:, None])
        found.append(chosen[:, 0].tolist())
    return found


class AnswerStream(TextStreamer):
    """Collects the text of an answer, without the question, and hands it on as whole words.

    It ends before the first of the words `stop`: what may be the beginning of one is held back.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, on_text: OnText | None, stop: Sequence[str] = ()):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        self.text = ""
        self.stopped = False
        self._on_text, self._stop, self._held = on_text, stop, ""

    def on_finalized_text(self, text: str, stream_end: bool = False):
        if self.stopped:
            return
        text = self._held + text
        found = [place for word in self._stop if (place := text.find(word)) >= 0]
        keep = min(found) if found else len(text) if stream_end else len(text) - begun(text, self._stop)
        text, self._held = text[:keep], text[keep:]
        self.text += text
        ended = bool(text) and self._on_text is not None and self._on_text(text) is False
        self.stopped = ended or bool(found)

    def should_stop(self, ids: Tensor, scores: Tensor, **_) -> Tensor:
        return torch.full((len(ids),), self.stopped, device=ids.device)


def begun(text: str, words: Sequence[str]) -> int:
    """How many characters at the end of a text may be the beginning of one of some words."""
    lengths = range(max(map(len, words), default=1) - 1, 0, -1)
    return next((n for n in lengths if any(word.startswith(text[-n:]) for word in words if n <= len(text))), 0)


def sampling_processors(settings: Answering) -> LogitsProcessorList:
    """What turns logits into a draw: temperature, top-k, top-p, then all but one token ruled out; empty if greedy.

    Drawing here and on the CPU, not in `generate`, leaves the global state alone and is the same on every device.
    """
    if settings.temperature == 0:
        return LogitsProcessorList()
    generator = torch.Generator().manual_seed(settings.seed)

    def draw(_ids: Tensor, scores: Tensor) -> Tensor:
        token = torch.multinomial(scores.float().softmax(-1).cpu(), 1, generator=generator)
        return torch.full_like(scores, -math.inf).scatter_(1, token.to(scores.device), 0.0)

    processors = LogitsProcessorList([TemperatureLogitsWarper(float(settings.temperature))])
    if settings.top_k > 0:
        processors.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1:
        processors.append(TopPLogitsWarper(settings.top_p))
    processors.append(draw)
    return processors
