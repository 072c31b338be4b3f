"""The multimodal language model: conditions for the MMDiT, and answers to questions about images."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    DynamicCache,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TextStreamer,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from . import prompts as chat
from .errors import CheckpointError, JoyImageError
from .settings import Answering

TEXT_LIMIT = 2048  # tokens of a condition without images
IMAGE_LIMIT = 4096  # tokens of a condition with images
TEXT_ALWAYS_KEPT = 512  # tokens of a prompt that images cannot push out, however many they are
PACK_LIMIT = 4096  # tokens of prompts run together: bounds the mask to 4096 x (prefix + 4096)
MIN_PIXELS, MAX_PIXELS = 65_536, 16_777_216  # Qwen3-VL's range; images beyond it are resampled
MAX_ASPECT = 200

Grid = tuple[int, int]  # an image's rows and columns of tokens


class Encoder:
    """Qwen3-VL from transformers (4.57 or 5) with its fast tokenizer.

    `model` is a `Qwen3VLForConditionalGeneration`, or where no questions are asked a bare `Qwen3VLModel`.
    Results are on the model's device and in its dtype.

    Raises `CheckpointError` if the tokenizer is another model's, or the attention is neither sdpa nor eager.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        self.model = model
        self.tokenizer = tokenizer
        self.backbone = getattr(model, "model", model)
        self._decoder = self.backbone.language_model
        attention = self._decoder.config._attn_implementation
        if attention not in ("sdpa", "eager"):  # the others do not take the mask that keeps packed prompts apart
            raise CheckpointError(f'attention {attention!r} is not supported: load with attn_implementation="sdpa"')
        config = self.backbone.config
        self._control_ids = control_ids(tokenizer, config, self._embedding.num_embeddings)
        self._literal = literal_tokenizer(tokenizer)
        self._image_processor = image_processor(config.vision_config)
        self._merge = config.vision_config.spatial_merge_size
        # Conditions start after the system's turn and the start of the user's: 34 tokens with Qwen's tokenizer.
        self._prefix_length = len(self._ids(chat.opening(chat.CONDITIONING_SYSTEM, 0, "")[:5]))

    @property
    def _embedding(self) -> torch.nn.Embedding:
        return self.backbone.get_input_embeddings()

    @property
    def device(self) -> torch.device:
        return self._embedding.weight.device

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str], images: Sequence[Image.Image] = ()) -> list[Tensor]:
        """The condition of each prompt: (L_i, D), system turn dropped, tokens of the images included.

        It is the output of the last decoder layer *before* the final norm. The one after it, which transformers 5
        gives as `hidden_states[-1]`, is about 10x smaller and breaks the pictures.

        All prompts share `images`, usually at their bucket's size. The vision tower and the tokens up to the end of
        the last image run once, the prompts then run packed over that prefix's KV cache: positive and negative take
        about half the time of two passes and differ from them by 5e-6. The language head (3.5x the rest on a small
        model) does not run.

        Prompts are literal text and may be empty. Without images a condition keeps its first 2048 tokens. With
        images it has at most 4096: the end of the prompt is cut, never an image, and never below 512 tokens. A
        cut prompt gives a warning that counts the tokens lost.

        Raises `JoyImageError` if `prompts` is no list of strings, or for an image that the vision tower can not take.
        """
        if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
            raise JoyImageError(f"prompts must be a list of strings, not {prompts!r:.80}")
        vision, grids = self._vision_inputs(images)
        head = self._ids(chat.opening(chat.CONDITIONING_SYSTEM, len(grids), ""), grids)
        rows = [self._condition_ids(prompt, head, grids) for prompt in prompts]
        if not grids or len(rows) == 1:
            hidden = [h for pack in packs(rows) for h in self._hidden(pack, grids, vision=vision)]
            return [h[self._prefix_length :] for h in hidden]

        cache = DynamicCache(config=self._decoder.config)
        (shared,) = self._hidden([head], grids, cache=cache, vision=vision)
        start = int(self._positions(head, grids).max()) + 1
        conditions = []
        for pack in packs([row[len(head) :] for row in rows]):
            for hidden in self._hidden(pack, start=start, cache=cache):
                conditions.append(torch.cat([shared[self._prefix_length :], hidden]))
            cache.crop(-sum(map(len, pack)))
        return conditions

    @torch.inference_mode()
    def answer(
        self,
        images: Sequence[Image.Image],
        question: str | None = None,
        *,
        system: str = chat.CHAT_SYSTEM,
        max_new_tokens: int = Answering.max_new_tokens,
        temperature: float = Answering.temperature,
        top_p: float = Answering.top_p,
        top_k: int = Answering.top_k,
        seed: int = Answering.seed,
        on_text: Callable[[str], object] | None = None,
    ) -> str:
        """The model's answer to `question`, with `images` before it; the defaults are the original's.

        Without a question the images are described. Temperature 0 is greedy, `top_k=0` and `top_p=1` switch
        these limits off. Sampling has its own generator: the same seed gives the same text, and torch's global
        state is untouched. `on_text` gets the text piece by piece and ends the answer by returning False.

        Raises `JoyImageError` for a model without language head, parameters out of range, or no question at all.
        """
        Answering(max_new_tokens, temperature, top_p, top_k, seed)
        head = getattr(self.model, "lm_head", None)
        if head is None or head.weight.is_meta:
            raise JoyImageError("this encoder was loaded without its language head, which answers need: load it whole")
        if not (question or "").strip():
            if not images:
                raise JoyImageError("the question is empty and there is no image to describe")
            question = chat.DEFAULT_QUESTION
        vision, grids = self._vision_inputs(images)
        ids = self._ids(chat.opening(system, len(grids), question) + chat.closing(), grids)
        inputs = torch.tensor([ids], device=self.device)
        if "mm_token_type_ids" in inspect.signature(self.model.forward).parameters:  # transformers 5 needs them
            vision["mm_token_type_ids"] = (inputs == self._control_ids[chat.IMAGE]).int()
        stream = AnswerStream(self.tokenizer, on_text)
        self.model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            **vision,
            max_new_tokens=max_new_tokens,
            do_sample=False,  # the last of the logits processors draws
            temperature=None,
            top_p=None,
            top_k=None,
            logits_processor=sampling_processors(temperature, top_p, top_k, seed),
            streamer=stream,
            stopping_criteria=StoppingCriteriaList([stream.should_stop]),
            eos_token_id=[self._control_ids[chat.END], self._control_ids[chat.END_OF_TEXT]],
            pad_token_id=self._control_ids[chat.END_OF_TEXT],
        )
        return stream.text

    def answer_rewrite(self, prompt: str, images: Sequence[Image.Image] = (), **sampling) -> str:
        """The model's reply to a request to rewrite `prompt`, for `prompts.parse_rewritten`.

        `sampling` are keyword arguments of `answer`.
        """
        return self.answer(images, prompt, system=chat.rewriting_system(bool(images)), **sampling)

    def _vision_inputs(self, images: Sequence[Image.Image]) -> tuple[dict[str, Tensor], list[Grid]]:
        """The model's inputs for the images (none without images), and each image's grid of tokens."""
        if not images:
            return {}, []
        for index, image in enumerate(images):
            if not isinstance(image, Image.Image):
                raise JoyImageError(f"image {index} is a {type(image).__name__}, not a Pillow image")
            if max(image.size) > MAX_ASPECT * min(image.size):
                raise JoyImageError(f"image {index} is {image.size}: one side is over {MAX_ASPECT} times the other")
        # The layout is given because it cannot be told from the shape of an image three pixels high.
        pixels = [image.convert("RGB") for image in images]
        batch = self._image_processor(images=pixels, input_data_format="channels_last", return_tensors="pt")
        grids = [(h // self._merge, w // self._merge) for _, h, w in batch["image_grid_thw"].tolist()]
        return {name: batch[name].to(self.device) for name in ("pixel_values", "image_grid_thw")}, grids

    def _ids(self, pieces: chat.Pieces, grids: Sequence[Grid] = ()) -> list[int]:
        """Tokens of a message. Neighbouring strings are one text; each image takes its grid's number of tokens."""
        ids, sizes = [], iter(grids)
        for is_text, run in groupby(pieces, key=lambda piece: isinstance(piece, str)):
            if is_text:
                ids += self._literal.encode("".join(run), add_special_tokens=False).ids
            else:
                for piece in run:
                    ids += [self._control_ids[piece]] * (math.prod(next(sizes)) if piece is chat.IMAGE else 1)
        return ids

    def _condition_ids(self, prompt: str, head: list[int], grids: Sequence[Grid]) -> list[int]:
        """Tokens of a prompt's whole message, cut to the limits. `head` is what comes before a text after images."""
        closing = self._ids(chat.closing())
        if grids:
            text = self._ids([prompt])
            room = IMAGE_LIMIT - (len(head) - self._prefix_length) - len(closing)
            cut = len(text) - max(room, TEXT_ALWAYS_KEPT)
            ids = head + (text[:-cut] if cut > 0 else text) + closing
        else:
            ids = self._ids(chat.opening(chat.CONDITIONING_SYSTEM, 0, prompt)) + closing
            cut = len(ids) - self._prefix_length - TEXT_LIMIT
            ids = ids[:-cut] if cut > 0 else ids
        if cut > 0:
            warnings.warn(f"the prompt is too long: its last {cut} tokens were cut", stacklevel=2)
        return ids

    def _positions(self, ids: list[int], grids: Sequence[Grid] = (), start: int = 0) -> Tensor:
        """MRoPE positions (3, T) in t, h and w: text counts up in all three, an image spans its grid from its start.

        What follows an image goes on after the larger side of its grid.
        """
        sizes, spans = iter(grids), []
        for is_image, run in groupby(ids, key=lambda token: token == self._control_ids[chat.IMAGE]):
            if is_image:
                h, w = next(sizes)
                span = torch.stack(torch.meshgrid(torch.arange(1), torch.arange(h), torch.arange(w), indexing="ij"))
                span = span.flatten(1)  # (3, h*w)
            else:
                span = torch.arange(len(list(run))).expand(3, -1)
            spans.append(span + start)
            start = int(spans[-1].max()) + 1
        return torch.cat(spans, dim=1)

    def _hidden(
        self,
        rows: list[list[int]],
        grids: Sequence[Grid] = (),
        start: int = 0,
        cache: DynamicCache | None = None,
        vision: dict[str, Tensor] | None = None,
    ) -> list[Tensor]:
        """Pre-norm output (T_i, D) of the last decoder layer for each of `rows`, run as one packed sequence.

        Each row follows what `cache` holds, at position `start`, and does not see the others.
        """
        lengths = [len(row) for row in rows]
        past = 0 if cache is None else cache.get_seq_length()
        order = torch.arange(past, past + sum(lengths))[None]  # (1, T)
        positions = torch.cat([self._positions(row, grids, start) for row in rows], dim=1)  # (3, T)
        if past == 0 and len(rows) == 1:
            # All ones is recognised as plain causal and costs no mask; None makes transformers 4 build one.
            mask = torch.ones(1, lengths[0], dtype=torch.long, device=self.device)
        else:
            mask = packed_mask(past, lengths, self._decoder.norm.weight.dtype, self.device)  # norms are never quantised
        outputs = []
        hook = self._decoder.layers[-1].register_forward_hook(lambda _module, _args, output: outputs.append(output))
        try:
            self.backbone(  # by place: the cache is called `past_key_values` in some versions, `cache` in others
                torch.tensor([[token for row in rows for token in row]], device=self.device),
                mask,
                torch.cat([order, positions])[:, None].to(self.device),  # (4, 1, T): order, t, h, w
                cache,
                use_cache=cache is not None,
                **(vision or {}),
            )
        finally:
            hook.remove()
        return list(outputs[0][0].split(lengths))


class AnswerStream(TextStreamer):
    """Collects the text of an answer, without the question, and hands it on as whole words."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, on_text: Callable[[str], object] | None):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        self.text = ""
        self.stopped = False
        self._on_text = on_text

    def on_finalized_text(self, text: str, stream_end: bool = False):
        if text and not self.stopped:
            self.text += text
            self.stopped = self._on_text is not None and self._on_text(text) is False

    def should_stop(self, ids: Tensor, scores: Tensor, **_) -> Tensor:
        return torch.full((len(ids),), self.stopped, device=ids.device)


def control_ids(tokenizer: PreTrainedTokenizerBase, config, embeddings: int) -> dict[chat.Control, int]:
    """The ids of the chat format's tokens, checked against the model's `config` and number of embeddings."""
    vocabulary = tokenizer.get_vocab()
    advice = "use the tokenizer that belongs to the encoder (Qwen3-VL's)"
    missing = [control.token for control in chat.CONTROLS if control.token not in vocabulary]
    if missing:
        raise CheckpointError(f"wrong tokenizer: it has no {', '.join(missing)}; {advice}")
    ids = {control: vocabulary[control.token] for control in chat.CONTROLS}
    expected = {
        chat.IMAGE: config.image_token_id,
        chat.VISION_START: config.vision_start_token_id,
        chat.VISION_END: config.vision_end_token_id,
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
    """The same byte pairs without the added vocabulary, so that no text can become a control token."""
    if not tokenizer.is_fast:
        raise CheckpointError("wrong tokenizer: a fast one is needed (tokenizer.json, or vocab.json and merges.txt)")
    backend = tokenizer.backend_tokenizer
    literal = Tokenizer(backend.model)
    literal.normalizer = backend.normalizer
    literal.pre_tokenizer = backend.pre_tokenizer
    return literal


def image_processor(vision_config):
    """transformers' Qwen2-VL preprocessing in the variant on Pillow, which needs no torchvision."""
    in_5 = hasattr(transformers, "Qwen2VLImageProcessorPil")
    name = "Qwen2VLImageProcessorPil" if in_5 else "Qwen2VLImageProcessor"
    return getattr(transformers, name)(
        patch_size=vision_config.patch_size,
        temporal_patch_size=vision_config.temporal_patch_size,
        merge_size=vision_config.spatial_merge_size,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        resample=Image.Resampling.BICUBIC,
        min_pixels=MIN_PIXELS,
        max_pixels=MAX_PIXELS,
    )


def packs(rows: list[list[int]]) -> Iterator[list[list[int]]]:
    """`rows` in order, in groups of at most `PACK_LIMIT` tokens (or of one longer row)."""
    pack: list[list[int]] = []
    for row in rows:
        if pack and sum(map(len, pack)) + len(row) > PACK_LIMIT:
            yield pack
            pack = []
        pack.append(row)
    if pack:
        yield pack


def packed_mask(past: int, lengths: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Additive mask (1, 1, T, past + T): a row of `lengths` sees all of the past and itself up to the token at hand."""
    never = torch.finfo(dtype).min
    mask = torch.zeros(sum(lengths), past + sum(lengths), dtype=dtype, device=device)
    mask[:, past:] = never
    start = 0
    for length in lengths:
        own = mask[start : start + length, past + start : past + start + length]
        own.triu_(1)  # zero where a token sees itself and what is before it
        start += length
    return mask[None, None]


def sampling_processors(temperature: float, top_p: float, top_k: int, seed: int) -> LogitsProcessorList:
    """What turns logits into a draw: temperature, top-k, top-p, then all but one token ruled out; empty if greedy.

    Drawing here and on the CPU, not in `generate`, keeps it off the global random state and the same on every device.
    """
    if temperature == 0:
        return LogitsProcessorList()
    generator = torch.Generator().manual_seed(seed)

    def draw(_ids: Tensor, scores: Tensor) -> Tensor:
        token = torch.multinomial(scores.float().softmax(-1).cpu(), 1, generator=generator)
        return torch.full_like(scores, -math.inf).scatter_(1, token.to(scores.device), 0.0)

    processors = LogitsProcessorList([TemperatureLogitsWarper(float(temperature))])
    if top_k > 0:
        processors.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        processors.append(TopPLogitsWarper(top_p))
    processors.append(draw)
    return processors
