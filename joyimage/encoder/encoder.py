"""The encoder: Qwen3-VL with its tokenizer, which reads prompts for the MMDiT and answers questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from ..errors import CheckpointError, JoyImageError
from ..messages import Message, Reply
from ..prompts import CHAT_SYSTEM, rewriting_system
from ..settings import Answering, check_text
from .chat import Chat
from .conditioning import Reader
from .vision import Vision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen3VLForConditionalGeneration, Qwen3VLModel

    from .answers import OnText


class Encoder:
    """Qwen3-VL from transformers (4.57 or 5) with its fast tokenizer.

    `model` is a `Qwen3VLForConditionalGeneration`; its `backbone`, a `Qwen3VLModel`, is enough where no questions are
    asked. Results are on the model's device and in its dtype.

    Raises `CheckpointError` if the tokenizer is another model's, or the attention is neither sdpa nor eager.
    """

    def __init__(self, model: Qwen3VLForConditionalGeneration | Qwen3VLModel, tokenizer: PreTrainedTokenizerBase):
        from transformers import Qwen3VLModel

        self.model = model
        self.tokenizer = tokenizer
        self.backbone: Qwen3VLModel = model if isinstance(model, Qwen3VLModel) else model.model
        attention = self.backbone.language_model.config._attn_implementation
        if attention not in ("sdpa", "eager"):  # the others do not take the mask that keeps packed prompts apart
            raise CheckpointError(f'attention {attention!r} is not supported: load with attn_implementation="sdpa"')
        config = self.backbone.config
        self.chat = Chat(tokenizer, config, self.backbone.language_model.embed_tokens.num_embeddings)
        self.vision = Vision(config.vision_config)

    @property
    def device(self) -> torch.device:
        return self.backbone.language_model.embed_tokens.weight.device

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str], images: Sequence[Image.Image] = ()) -> list[Tensor]:
        """The context of each prompt: (L_i, D), system turn dropped, tokens of the images included.

        It is the output of the last decoder layer *before* the final norm. The one after it, which transformers 5
        gives as `hidden_states[-1]`, is about 10x smaller and breaks the pictures.

        All prompts share `images`, usually at their bucket's size, and the work on them: see `Reader.contexts`. The
        language head (3.5x the rest on a small model) does not run.

        Prompts are literal text and may be empty. Without images a context keeps its first 2048 tokens. With
        images it has at most 4096: the end of the prompt is cut, never an image, and never below 512 tokens. A
        cut prompt gives a warning that counts the tokens lost.

        Raises `JoyImageError` if `prompts` is not a list of texts, or for an image that the vision tower cannot take.
        """
        if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
            raise JoyImageError(f"prompts must be a list of strings, not {prompts!r:.80}")
        for prompt in prompts:
            check_text("a prompt", prompt)
        vision = self.vision.read(images, self.device)
        return Reader(self.backbone, self.chat, self.device).contexts(prompts, vision)

    def answer(
        self,
        images: Sequence[Image.Image],
        question: str | None = None,
        *,
        system: str = CHAT_SYSTEM,
        max_new_tokens: int = Answering.max_new_tokens,
        temperature: float = Answering.temperature,
        top_p: float = Answering.top_p,
        top_k: int = Answering.top_k,
        seed: int = Answering.seed,
        on_text: OnText | None = None,
    ) -> str:
        """The model's answer to `question`, with `images` before it: the text of `reply`."""
        settings = Answering(max_new_tokens, temperature, top_p, top_k, seed)
        return self.reply(images, question, settings, system=system, on_text=on_text).text

    @torch.inference_mode()
    def reply(
        self,
        images: Sequence[Image.Image],
        question: str | None = None,
        settings: Answering | None = None,
        *,
        system: str = CHAT_SYSTEM,
        history: Sequence[Message] = (),
        stop: Sequence[str] = (),
        on_text: OnText | None = None,
    ) -> Reply:
        """The model's reply to `question`, with `images` before it, after `history`; the defaults are the original's.

        Without a question the images are described; one of more than 4096 tokens is cut, with a warning that counts
        those lost. Images in `history` are Pillow's. Temperature 0 is greedy; `top_k=0` and `top_p=1` switch these
        limits off. Sampling has its own generator: the same seed gives the same text, and torch's global state is
        untouched. The text ends before the first of the words `stop`. `on_text` gets it piece by piece and ends it by
        returning False.

        Raises `JoyImageError` for a model without its language head, for parameters out of range, and where there is
        neither a question nor an image.
        """
        from . import answers  # here: its classes are transformers', which only those wait for who have an encoder

        model = answers.with_head(self.model)
        question = answers.usable_question(question, images)
        vision = self.vision.read([*(image for each in history for image in each.images), *images], self.device)
        rows = [self.chat.question_ids(system, question, vision.grids, history)]
        ids = torch.tensor(rows, device=self.device)
        return answers.generate(model, self.chat, ids, vision, settings or Answering(), on_text, stop)

    @torch.inference_mode()
    def likelihoods(
        self,
        images: Sequence[Image.Image],
        question: str,
        answers: Sequence[str],
        *,
        system: str = CHAT_SYSTEM,
        per_token: bool = False,
    ) -> list[float]:
        """How likely the model finds each of `answers`, its end included, as the logarithm of a probability.

        Nothing is drawn: it is read off the logits. The question and its images run once for all answers.
        `per_token` gives the mean over an answer's tokens, by which long texts can be compared with short ones.
        Raises `JoyImageError` for a model without its language head, and for no or empty answers.
        """
        from . import answers as told

        if not answers or not all(answer.strip() for answer in answers):
            raise JoyImageError(f"give answers to choose from, none of them empty, not {list(answers)!r:.80}")
        model = told.with_head(self.model)
        vision = self.vision.read(images, self.device)
        ids = self.chat.question_ids(system, told.usable_question(question, images), vision.grids)
        reader = Reader(self.backbone, self.chat, self.device)
        found = told.likelihoods(model, reader, ids, vision, answers)
        return [sum(logs) / (len(logs) if per_token else 1) for logs in found]

    def answer_rewrite(self, prompt: str, images: Sequence[Image.Image] = (), **sampling) -> str:
        """The model's reply to a request to rewrite `prompt`, for `prompts.parse_rewritten`.

        `sampling` are keyword arguments of `answer`.
        """
        return self.answer(images, prompt, system=rewriting_system(bool(images)), **sampling)
