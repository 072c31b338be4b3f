"""Training of the small Qwen3-VL: next-token loss on questions, and a forecast of the picture that an edit leads to.

The second makes the contexts useful to the MMDiT: from what the last token of a prompt holds, one linear layer has to
tell, for each cell of an 8x8 grid, how much of it changes and what its mean colour will be. The layer is then dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from joyimage.encoder import Encoder
from joyimage.encoder.chat import END, END_OF_TEXT, closing, opening
from joyimage.prompts import CHAT_SYSTEM, CONDITIONING_SYSTEM, rewriting_system

from . import questions as exam
from .scenes import COLOUR_NAMES, KINDS, held_out
from .tasks import TASKS
from .tokens import tokenizer
from .training import Recipe, autocast, train

RECIPE = Recipe(steps=5400, matrix_rate=0.01, other_rate=1.5e-3, average=0.995, hold=0.5, save_every=200, half=True)
# How often a kind of question is drawn: what takes two objects, or a box, is harder than a name.
SHARES = {"locate": 1.5, "view": 3.0, "relation": 2.0, "nearer": 1.5, "bigger": 2.0}
PICTURES, QUESTIONS = 16, 8  # in a batch, and on each
PROMPTS = 16
TAUGHT = 10.0  # how much the squared distance from a teacher's contexts weighs, as a share of theirs
GRID = 8
VOCABULARY = 1024
SEEN = 256  # pixels of the side to which a small picture is enlarged for the encoder
IGNORED = -100
MARKS = ("ids", "segments", "labels", "rules")  # of an exam's tokens


def build_tokenizer(pictures: int = 2000, pairs: int = 500) -> PreTrainedTokenizerFast:
    """Byte pairs learned from system texts, the questions on so many pictures, and so many prompts of each task."""
    generator = np.random.default_rng(0)
    asked = [q for some in exam.make(pictures, generator).questions for q in some]
    texts = [CONDITIONING_SYSTEM, CHAT_SYSTEM, rewriting_system(True), rewriting_system(False)] * 2
    texts += [text for q in asked for text in (q.text, q.answer)]
    for task in TASKS.values():
        texts += task(pairs, generator).texts
    return tokenizer([*texts, "system\n", "user\n", "assistant\n", "system\n", "user\n", "assistant\n"], VOCABULARY)


@dataclass(frozen=True)
class Sizes:
    """Widths of the decoder and of the vision tower, and the layers of each."""

    text: int = 128
    vision: int = 128
    layers: int = 4


SMALL = Sizes(32, 64, 2)  # for a trial


def config(tokens: PreTrainedTokenizerFast, sizes: Sizes) -> Qwen3VLConfig:
    """Patches of 32 pixels, so that an enlarged picture is 4x4 tokens; else as Qwen3-VL, at a small size."""
    ids = tokens.get_vocab()
    return Qwen3VLConfig(
        text_config={
            "vocab_size": len(ids),
            "hidden_size": sizes.text,
            "intermediate_size": 3 * sizes.text,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 262144,
            "rope_scaling": {"rope_type": "default", "mrope_section": [6, 5, 5], "mrope_interleaved": True},
            "rope_theta": 5_000_000,
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": sizes.layers,
            "hidden_size": sizes.vision,
            "intermediate_size": 3 * sizes.vision,
            "num_heads": 16,
            "patch_size": 32,
            "temporal_patch_size": 1,
            "spatial_merge_size": 2,
            "out_hidden_size": sizes.text,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [1],
        },
        tie_word_embeddings=False,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )


def build(tokens: PreTrainedTokenizerFast, sizes: Sizes = Sizes()) -> Encoder:
    torch.manual_seed(0)
    return Encoder(Qwen3VLForConditionalGeneration(config(tokens, sizes)), tokens)


class Forecast(nn.Module):
    """From the last token's hidden state, for each cell: a logit of the changed share and the mean colour."""

    def __init__(self, size: int):
        super().__init__()
        self.norm = nn.RMSNorm(size)
        self.head = nn.Linear(size, GRID * GRID * 4)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        out = self.head(self.norm(hidden)).unflatten(-1, (GRID, GRID, 4))
        return out[..., 0], out[..., 1:]


def enlarged(images: Tensor) -> Tensor:
    """Pictures (B, H, W, 3) uint8 as the image processor enlarges them: (B, 3, SEEN, SEEN) in [-1, 1]."""
    pixels = rearrange(images, "b h w c -> b c h w").float()
    pixels = F.interpolate(pixels, (SEEN, SEEN), mode="bicubic", antialias=True).round().clamp(0, 255)
    return pixels / 127.5 - 1


def patches(images: Tensor, patch: int = 32, merge: int = 2) -> Tensor:
    """Pictures (B, 3, S, S) as the vision tower takes them: (B * patches, 3 * patch * patch), merged ones together."""
    return rearrange(
        images, "b c (h mh ph) (w mw pw) -> (b h w mh mw) (c ph pw)", mh=merge, mw=merge, ph=patch, pw=patch
    )


@dataclass(frozen=True)
class Batch:
    """Rows of tokens (B, T), padded on the right, of `images` (B, k, H, W, 3) each."""

    ids: Tensor
    images: Tensor


@dataclass(frozen=True)
class Exams(Batch):
    """Rows of a picture and several questions on it with their answers.

    `segments` (B, T) are 0 for what a row's questions share, and number its questions from 1 on, which do not see each
    other. `labels` (B, T) are the tokens to predict, and `rules` (B, T) which of `barred` holds for each.
    """

    segments: Tensor
    labels: Tensor
    rules: Tensor

    @property
    def marks(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.segments, self.labels, self.rules


def run(encoder: Encoder, batch: Batch) -> Tensor:
    """What the last decoder layer gives before the final norm, (B, T, D). All rows have `images` in the same places."""
    model, ids, images = encoder.backbone, batch.ids, batch.images
    rows, count = len(ids), images.shape[1]
    grids = [(SEEN // 64, SEEN // 64)] * count
    if isinstance(batch, Exams):
        own = (batch.segments[:, :, None] == batch.segments[:, None]).tril()
        seen = own | (batch.segments[:, None] == 0).expand_as(own).tril()
        shared = int((batch.segments[0] == 0).sum())
        common = encoder.chat.positions(ids[0, :shared].tolist(), grids)  # the same for all rows
        rest = own.sum(-1)[:, shared:] + common.max()  # each question goes on from there
        positions = torch.cat([common[:, None].expand(-1, rows, -1), rest.expand(3, -1, -1)], dim=-1)
        mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]
    else:
        positions = encoder.chat.positions(ids[0].tolist(), grids)[:, None].expand(-1, rows, -1)
        mask = torch.ones_like(ids)
    positions = torch.cat([torch.arange(ids.shape[1]).expand(1, rows, -1), positions])
    vision = {}
    if count:
        flat = images.flatten(0, 1)
        vision["pixel_values"] = patches(enlarged(flat))
        vision["image_grid_thw"] = torch.tensor([[1, SEEN // 32, SEEN // 32]] * len(flat))
    tower = model.visual.patch_embed
    tower.forward = lambda pixels: F.linear(pixels, tower.proj.weight.flatten(1), tower.proj.bias)  # 4x faster
    kept = []
    hook = model.language_model.layers[-1].register_forward_hook(lambda _m, _a, output: kept.append(output))
    try:
        model(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False, **vision)
    finally:
        hook.remove()
    return kept[0]


def pad(rows: list[list[int]], value: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def barred(tokens: PreTrainedTokenizerFast) -> tuple[dict[int, int], dict[int, int], Tensor]:
    """Tokens of colours and of kinds, and for each rule the tokens (rules, vocabulary) that an answer is not told from.

    Training never shows some combinations of colour and kind. That is no reason to believe that there are none: where
    the answer names the kind of a green object, the kinds that no green object had are left out of the softmax, so
    that nothing is learned against them. Rule 0 bars nothing, then come one for each colour and one for each kind.
    """
    words = {i: tokens.decode([i]).strip() for i in range(len(tokens))}
    colours = {i: COLOUR_NAMES.index(word) for i, word in words.items() if word in COLOUR_NAMES}
    kinds = {i: KINDS.index(word) for i, word in words.items() if word in KINDS}
    table = torch.zeros(1 + len(COLOUR_NAMES) + len(KINDS), len(tokens), dtype=torch.bool)
    for i, colour in colours.items():
        for j, kind in kinds.items():
            if held_out(colour, kind):
                table[1 + colour, j] = table[1 + len(COLOUR_NAMES) + kind, i] = True
    return colours, kinds, table


class Source:
    """Batches of questions and of prompts, drawn by a generator."""

    def __init__(self, encoder: Encoder, pixels: Tensor, asked: list[list[exam.Question]], pairs: dict[str, dict]):
        self.encoder, self.pixels, self.pairs = encoder, pixels, pairs
        chat = encoder.chat
        self.end, self.padding = chat.controls[END], chat.controls[END_OF_TEXT]
        self.colours, self.kinds, self.barred = barred(encoder.tokenizer)
        self.left_out = [set(tokens.nonzero().flatten().tolist()) for tokens in self.barred]  # by each rule
        self.opening = chat.ids(opening(CHAT_SYSTEM, 1, ""), [(SEEN // 64, SEEN // 64)])
        self.closing = chat.ids(closing())
        encoded = cache(lambda text: chat.ids([text]))
        self.asked = [[(q.kind, encoded(q.text), encoded(q.answer)) for q in some] for some in asked]
        self.prompts = {task: self._prompts(list(p["texts"]), count_references(p)) for task, p in pairs.items()}

    def _prompts(self, texts: list[str], references: int) -> list[list[int]]:
        grids = [(SEEN // 64, SEEN // 64)] * references
        done: dict[str, list[int]] = {}
        for text in texts:
            if text not in done:
                done[text] = self.encoder.chat.message_ids(CONDITIONING_SYSTEM, text, grids)
        return [done[text] for text in texts]

    def rules(self, text: list[int], answer: list[int]) -> list[int]:
        """Which rule of `barred` holds for each token of an answer."""
        found = []
        for before, token, after in zip([None, *answer], answer, [*answer[1:], None], strict=False):
            if token in self.kinds:
                colour = next((self.colours[t] for t in (before, *text) if t in self.colours), None)
                found.append(0 if colour is None else 1 + colour)
            elif token in self.colours:
                kind = next((self.kinds[t] for t in (after, *text) if t in self.kinds), None)
                found.append(0 if kind is None else 1 + len(COLOUR_NAMES) + kind)
            else:
                found.append(0)
        # A word of another object may be taken for this one's: what is the answer is never left out. Nor is what the
        # question names: of two that it offers, the one that is left out would tell that the other is right.
        named = set(text)
        return [
            0 if token in self.left_out[rule] or named & self.left_out[rule] else rule
            for rule, token in zip(found, answer, strict=True)
        ]

    def questions(self, generator: torch.Generator, pictures: int = PICTURES) -> Exams:
        picks = torch.randint(len(self.asked), (pictures,), generator=generator).tolist()
        columns: dict[str, list[list[int]]] = {name: [] for name in MARKS}
        for pick in picks:
            some = self.asked[pick]
            weights = torch.tensor([SHARES.get(kind, 1.0) for kind, _, _ in some])
            chosen = torch.multinomial(weights, min(QUESTIONS, len(some)), generator=generator).tolist()
            shared = len(self.opening)
            row = [list(self.opening), [0] * shared, [IGNORED] * shared, [0] * shared]
            for number, index in enumerate(chosen, start=1):
                _, text, answer = some[index]
                self.add_question(row, number, text, answer, self.closing)
            for column, values in zip(columns.values(), row, strict=True):
                column.append(values)
        return self.exams(self.pixels[picks][:, None], columns)

    def add_question(self, row: list[list[int]], number: int, text: list[int], answer: list[int], closing: list[int]):
        """Add a question with its answer to a row, whose parts are in the order of `MARKS`."""
        head, told = text + closing, [*answer, self.end]
        row[0] += head + told
        row[1] += [number] * len(head + told)
        row[2] += [IGNORED] * len(head) + told
        row[3] += [0] * len(head) + self.rules(text, answer) + [0]

    def exams(self, images: Tensor, columns: dict[str, list[list[int]]]) -> Exams:
        fill = dict(zip(MARKS, (self.padding, -1, IGNORED, 0), strict=True))
        return Exams(images=images, **{name: pad(rows, fill[name]) for name, rows in columns.items()})

    def prompted(self, generator: torch.Generator, prompts: int = PROMPTS) -> tuple[Batch, Tensor, Tensor, Tensor]:
        """A batch of one task's prompts, their lengths, the changed shares (B, 8, 8), the mean colours (B, 8, 8, 3)."""
        names = list(self.pairs)
        task = names[int(torch.randint(len(names), (), generator=generator))]
        pairs = self.pairs[task]
        picks = torch.randint(len(pairs["texts"]), (prompts,), generator=generator)
        rows = [self.prompts[task][i] for i in picks.tolist()]
        references = [pairs[f"reference{k}"][picks] for k in range(count_references(pairs))]
        images = torch.stack(references, dim=1) if references else torch.empty(prompts, 0, 1, 1, 3)
        lengths = torch.tensor([len(row) for row in rows])
        colours = pairs["target"][picks].float().view(prompts, GRID, 8, GRID, 8, 3).mean(dim=(2, 4)) / 127.5 - 1
        return Batch(pad(rows, self.padding), images), lengths, pairs["changed"][picks].float(), colours


def count_references(pairs: dict) -> int:
    return sum(name.startswith("reference") for name in pairs)


def fit(
    encoder: Encoder, source: Source, folder: Path, recipe: Recipe = RECIPE, teacher: Encoder | None = None, **options
) -> Encoder:
    """Train on questions and prompts at once; the encoder comes back with the averaged weights.

    With a `teacher` it takes its vision tower and embeddings, and learns to give its contexts instead of a forecast,
    so that an MMDiT that knows them has little to learn anew.
    """
    model = encoder.model.train()
    model.set_attn_implementation("eager")  # whose backward pass in bf16 is faster on a CPU than the fused one's
    if teacher:
        encoder.backbone.visual.load_state_dict(teacher.backbone.visual.state_dict())
        encoder.backbone.get_input_embeddings().load_state_dict(teacher.backbone.get_input_embeddings().state_dict())
    network = nn.ModuleDict(
        {"model": model}
        if teacher
        else {"model": model, "forecast": Forecast(encoder.backbone.config.text_config.hidden_size)}
    )

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        answers, right = answering(encoder, source.questions(generator, recipe.batch(PICTURES)), source.barred)
        batch, lengths, changed, colours = source.prompted(generator, recipe.batch(PROMPTS))
        details = {"answers": answers.item(), "right": right}
        if teacher:
            away = apart(encoder, teacher, batch, lengths)
            return answers + TAUGHT * away, {**details, "away": away.item()}
        with autocast():
            hidden = run(encoder, batch).float()
        last = hidden[torch.arange(len(hidden)), lengths - 1]
        shares, means = network["forecast"](last)
        where = F.binary_cross_entropy_with_logits(shares, changed)
        weight = 0.2 + changed[..., None]
        what = (weight * (means - colours).square()).mean() / weight.mean()
        return answers + 2 * where + 4 * what, {**details, "where": where.item(), "what": what.item()}

    averaged = train("encoder", network, loss, recipe, folder, others=others, **options)
    network.load_state_dict(averaged)
    model.set_attn_implementation("sdpa")
    encoder.model.eval().requires_grad_(False)
    return encoder


def apart(encoder: Encoder, teacher: Encoder, batch: Batch, lengths: Tensor) -> Tensor:
    """The squared distance of contexts from the teacher's, as a share of those."""
    with autocast():
        hidden = run(encoder, batch).float()
    with torch.no_grad(), autocast():
        wanted = run(teacher, batch).float()
    place = torch.arange(hidden.shape[1])
    used = (place >= encoder.chat.prefix_length) & (place < lengths[:, None])
    return ((hidden - wanted)[used].square().sum(-1) / wanted[used].square().sum(-1)).mean()


def others(name: str) -> bool:
    return any(part in name for part in ("embed", "lm_head", "forecast"))


def answering(encoder: Encoder, batch: Exams, barred: Tensor) -> tuple[Tensor, float]:
    """The next-token loss on the answers, and the share of right tokens."""
    model = encoder.model
    with autocast():
        hidden = run(encoder, batch)[:, :-1]
    wanted, rules = batch.labels[:, 1:], batch.rules[:, 1:]
    asked = wanted != IGNORED
    logits = model.lm_head(model.model.language_model.norm(hidden[asked].float())).float()
    logits = logits.masked_fill(barred[rules[asked]], -torch.inf)
    right = (logits.argmax(-1) == wanted[asked]).float().mean().item()
    return F.cross_entropy(logits, wanted[asked]), right
