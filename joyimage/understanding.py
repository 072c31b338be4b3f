"""What a model's encoder says in words: answers about pictures, clearer prompts, judgements of edits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from typing import Any

from PIL import Image

from . import judging, locating, rewriting
from .boxes import PixelBox, locate_question
from .candidates import Judge
from .encoder import Encoder
from .images import load
from .inputs import Picture, check_called, load_all, text_tokens, vision_pixels
from .judging import Mind
from .locating import LOCATE_TOKENS
from .memory import Memory
from .messages import Message, Reply
from .places import read_place
from .prompts import CHAT_SYSTEM
from .reasoning import Reasoned, View, check_reasoning, reason
from .rewritten import Rewritten
from .settings import Answering, check_text
from .spatial import Camera

PLAIN = Answering(max_new_tokens=512, temperature=0.0)  # of judges and planners: the likeliest words
CAPTION_TOKENS = 512  # of an answer that describes a picture for a prompt
TEXT = "the words of an answer, as they come"  # what on_text takes
REWRITE_TOKENS = 4096  # of an answer that rewrites a prompt, and of the request around the prompt


class Understanding:
    """The half of `JoyImage` that needs its encoder alone."""

    encoder: Encoder
    memory: Memory

    def ask(
        self, images: Picture | Sequence[Picture], question: str | None = None, *,
        history: Sequence[Message] = (), system: str = CHAT_SYSTEM,
        max_new_tokens: int = Answering.max_new_tokens, temperature: float = Answering.temperature,
        top_p: float = Answering.top_p, top_k: int = Answering.top_k, seed: int = Answering.seed,
        on_text: Callable[[str], object] | None = None,
    ) -> str:  # fmt: skip
        """Answer a question about pictures (or without any), after the messages of `history`; see `Encoder.reply`.

        Temperature 0 is greedy.
        """
        settings = Answering(max_new_tokens, temperature, top_p, top_k, seed)
        return self.reply(images, question, settings, system=system, history=history, on_text=on_text).text

    def reply(
        self, images: Picture | Sequence[Picture], question: str | None = None,
        settings: Answering | None = None, *,
        system: str = CHAT_SYSTEM, history: Sequence[Message] = (), stop: Sequence[str] = (),
        on_text: Callable[[str], object] | None = None,
    ) -> Reply:  # fmt: skip
        """As `ask`, with the number of tokens, and whether the answer came to an end, as before a word of `stop`."""
        check_text("the question", question or "")
        check_text("the system text", system)
        check_called("on_text", on_text, TEXT)
        pictures = load_all(images)
        history = [Message(each.role, each.text, load_all(each.images)) for each in history]
        seen = [picture for each in history for picture in each.images] + pictures
        texts = [question or "", *(each.text for each in history)]
        if system != CHAT_SYSTEM:  # which the template's tokens have room for
            texts.append(system)
        settings = settings or Answering()
        tokens = sum(text_tokens([text]) for text in texts) + settings.max_new_tokens
        with self.memory.answering(vision_pixels(seen), tokens):
            return self.encoder.reply(
                pictures, question, settings, system=system, history=history, stop=stop, on_text=on_text
            )

    def caption(self, image: Picture) -> str:
        """What is in a picture in the model's likeliest words, for a prompt: `ask` with the default question."""
        return self.ask(image, max_new_tokens=CAPTION_TOKENS, temperature=0).strip()

    def locate(
        self, image: Picture, object: str, *, on_text: Callable[[str], object] | None = None
    ) -> list[PixelBox]:  # fmt: skip
        """The boxes (left, top, right, bottom) around an object, or around each of its kind, in the model's order.

        They are whole pixels of `image` as `joyimage.images.load` gives it, right and bottom exclusive, as
        `joyimage.spatial.draw_box` takes them. The same picture and words always give the same boxes. `on_text` gets
        the answer piece by piece, as in `ask`.
        Raises `JoyImageError` for an empty object, and with the answer for one that names no box.
        """
        check_text("the object to locate", object)
        check_called("on_text", on_text, TEXT)
        question = locate_question(object)
        picture = load(image)
        with _answering(self, [picture], question, LOCATE_TOKENS):
            return locating.locate(self.encoder, picture, object, on_text)

    def place(
        self, image: Picture, object: str, place: str, *, on_text: Callable[[str], object] | None = None
    ) -> PixelBox:  # fmt: skip
        """The box for moving an object to a place in words, such as "next to the plate", in pixels as `locate` gives.

        Words that put it left or right of, in front of, behind, next to, on or in something, or where something is,
        in English or Chinese, are read as such: the object and the other thing are located, and the box is where the
        object then stands, in the size that it has there. "to the left" alone is from where it is. Any other place is
        located as it is called. Raises `JoyImageError` as `locate` does, for no words, and where there is no room.
        """
        check_text("the object to move", object)
        check_text("the place", place)
        check_called("on_text", on_text, TEXT)
        question, where = locate_question(object), read_place(place)
        picture = load(image)
        with _answering(self, [picture], max(question, locate_question(place), key=len), LOCATE_TOKENS):
            return locating.place(self.encoder, picture, object, where, on_text)

    def rewrite(self, prompt: str, images: Picture | Sequence[Picture] = ()) -> str:
        """A clearer version of `prompt`: read plainly, or by the server named in the environment, or by the encoder.

        On any failure it warns, says why, and returns the prompt unchanged. See `joyimage.rewriting`.
        """
        return self.rewrite_with_notes(prompt, images).text

    def rewrite_with_notes(self, prompt: str, images: Picture | Sequence[Picture] = ()) -> Rewritten:
        """As `rewrite`, with the kind of sentence that it became and what was changed."""
        check_text("the prompt to rewrite", prompt)
        pictures = load_all(images)
        if not rewriting.needs_encoder(prompt):
            return rewriting.rewrite(None, prompt, pictures)
        answer = partial(self.encoder.answer_rewrite, max_new_tokens=rewriting.answer_tokens(prompt))
        with _answering(self, pictures, prompt, REWRITE_TOKENS):
            return rewriting.rewrite(answer, prompt, pictures)

    def reason(
        self, image: Picture, question: str, *, views: int = 1, turns: int = 1,
        max_new_tokens: int = Answering.max_new_tokens, temperature: float = Answering.temperature,
        top_p: float = Answering.top_p, top_k: int = Answering.top_k, seed: int = Answering.seed,
        on_view: Callable[[View], object] | None = None, on_text: Callable[[str], object] | None = None,
        **editing: Any,
    ) -> Reasoned:  # fmt: skip
        """Answer a question about a picture from it and from new views of its scene, which the model asks for itself.

        It plans camera motions, at most `views` in each of `turns`, which are rendered as `edit` with the options
        `editing` does, and answers from all pictures together; see `joyimage.reasoning`. `on_view` gets each view as
        it is made, `on_text` the words of plans and answer, as in `ask`. `seed` is that of the views and of the answer,
        whose other options are those of `ask`.
        Raises `JoyImageError` for what cannot be used, before any work: also for options of `edit` that a view, which
        is one whole picture, does not have: `mask`, `outpaint`, `count`, `output`.
        """
        check_reasoning(question, views, turns)
        check_called("on_view", on_view, "a View")
        check_called("on_text", on_text, TEXT)
        answering = Answering(max_new_tokens, temperature, top_p, top_k, seed)
        picture = load(image)
        self._check_views(picture, seed, editing)

        def render(cameras: Sequence[Camera]) -> Iterator[Image.Image]:
            return self._views(picture, cameras, seed, editing)

        answer = partial(self._told, answering, on_text=on_text)
        return reason(answer, render, picture, question, views=views, turns=turns, on_view=on_view)

    def _views(
        self, picture: Image.Image, cameras: Sequence[Camera], seed: int, editing: dict[str, Any]
    ) -> Iterator[Image.Image]:  # fmt: skip
        """The picture after each motion of the camera, by the half of the model that makes pictures."""
        raise NotImplementedError

    def _check_views(self, picture: Image.Image, seed: int, editing: dict[str, Any]) -> None:
        """Raise `JoyImageError` for options that `_views` could not use, before the model is asked for a plan."""
        raise NotImplementedError

    @property
    def judge(self) -> Judge:
        """Who judges candidates where no other is given: the server of the environment, where that says so, or the
        model itself. See `joyimage.judging`.
        """
        if judging.by_server():
            return judging.server_judge()
        return judging.own_judge(self.mind)

    @property
    def mind(self) -> Mind:
        """The model as judges and benchmarks ask it: the likeliest answers, and how likely given ones are."""
        return Mind(partial(self._told, PLAIN), self._likelihoods)

    def _told(
        self, settings: Answering, pictures: Sequence[Image.Image], question: str, system: str | None = None,
        on_text: Callable[[str], object] | None = None,
    ) -> str:  # fmt: skip
        """An answer, under the usual system text or greedily under another."""
        options = asdict(settings) if system is None else {**asdict(PLAIN), "system": system}
        with _answering(self, list(pictures), question, options["max_new_tokens"]):
            return self.encoder.answer(pictures, question, **options, on_text=on_text)

    def _likelihoods(
        self, pictures: Sequence[Image.Image], question: str, answers: Sequence[str], per_token: bool = False
    ) -> list[float]:
        with _answering(self, list(pictures), question, text_tokens(answers)):
            return self.encoder.likelihoods(pictures, question, answers, per_token=per_token)


def _answering(model: Understanding, pictures: list[Image.Image], text: str, new_tokens: int) -> AbstractContextManager:
    return model.memory.answering(vision_pixels(pictures), text_tokens([text]) + new_tokens)
