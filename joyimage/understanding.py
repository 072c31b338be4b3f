"""What a model's encoder says in words: answers about pictures, and clearer prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict

from PIL import Image

from . import rewriting
from .encoder import Encoder
from .inputs import Picture, load_all, text_tokens, vision_pixels
from .memory import Memory
from .settings import Answering, check_text

REWRITE_TOKENS = 4096  # of an answer that rewrites a prompt, and of the request around the prompt


class Understanding:
    """The half of `JoyImage` that needs its encoder alone."""

    encoder: Encoder
    memory: Memory

    def ask(
        self, images: Picture | Sequence[Picture], question: str | None = None, *,
        max_new_tokens: int = Answering.max_new_tokens, temperature: float = Answering.temperature,
        top_p: float = Answering.top_p, top_k: int = Answering.top_k, seed: int = Answering.seed,
        on_text: Callable[[str], object] | None = None,
    ) -> str:  # fmt: skip
        """Answer a question about pictures (or without any); see `Encoder.answer`. Temperature 0 is greedy."""
        settings = Answering(max_new_tokens, temperature, top_p, top_k, seed)
        check_text("the question", question or "")
        pictures = load_all(images)
        with _answering(self, pictures, question or "", max_new_tokens):
            return self.encoder.answer(pictures, question, **asdict(settings), on_text=on_text)

    def rewrite(self, prompt: str, images: Picture | Sequence[Picture] = ()) -> str:
        """A clearer version of `prompt`, by the server named in the environment or by the encoder.

        On any failure it warns, says why, and returns the prompt unchanged. See `joyimage.rewriting`.
        """
        check_text("the prompt to rewrite", prompt)
        pictures = load_all(images)
        if rewriting.has_server():
            return rewriting.rewrite(None, prompt, pictures)
        with _answering(self, pictures, prompt, REWRITE_TOKENS):
            return rewriting.rewrite(self.encoder.answer_rewrite, prompt, pictures)


def _answering(model: Understanding, pictures: list[Image.Image], text: str, new_tokens: int) -> AbstractContextManager:
    return model.memory.answering(vision_pixels(pictures), text_tokens([text]) + new_tokens)
