"""Training of the small Qwen3-VL: next-token loss on questions, and a forecast of the picture that an edit leads to.

The second makes the conditions useful to the MMDiT: from what the last token of a prompt holds, one linear layer has to
tell, for each cell of an 8x8 grid, how much of it changes and what its mean colour will be. The layer is then dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from joyimage import prompts as chat
from joyimage.encoder import Encoder

from . import questions as exam
from .tasks import TASKS
from .tokens import tokenizer
from .training import Recipe, train

RECIPE = Recipe(steps=4800, matrix_rate=0.01, other_rate=1.5e-3, average=0.995, hold=0.5, save_every=200, half=True)
# How often a kind of question is drawn: what takes two objects, or a box, is harder than a name.
SHARES = {"locate": 3.0, "view": 2.0, "count": 2.0, "relation": 3.0, "nearer": 2.0, "shape": 2.0}
BATCH = 32
GRID = 8
VOCABULARY = 1024
TEXT_SIZE, VISION_SIZE, VISION_HEADS = 128, 128, 16
SEEN = 256  # pixels of the side to which a small picture is enlarged for the encoder
IGNORED = -100


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte pairs learned from the templates, questions, answers and system texts."""
    generator = np.random.default_rng(0)
    asked = [q for some in exam.make(2000, generator).questions for q in some]
    texts = [chat.CONDITIONING_SYSTEM, chat.CHAT_SYSTEM, chat.rewriting_system(True), chat.rewriting_system(False)] * 2
    texts += [text for q in asked for text in (q.text, q.answer)]
    for task in TASKS.values():
        texts += task(500, generator).texts
    return tokenizer([*texts, "system\n", "user\n", "assistant\n", "system\n", "user\n", "assistant\n"], VOCABULARY)


def config(tokens: PreTrainedTokenizerFast) -> Qwen3VLConfig:
    """Patches of 32 pixels, so that an enlarged picture is 4x4 tokens; else as Qwen3-VL, at a small size."""
    ids = tokens.get_vocab()
    return Qwen3VLConfig(
        text_config={
            "vocab_size": len(ids),
            "hidden_size": TEXT_SIZE,
            "intermediate_size": 3 * TEXT_SIZE,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 262144,
            "rope_scaling": {"rope_type": "default", "mrope_section": [6, 5, 5], "mrope_interleaved": True},
            "rope_theta": 5_000_000,
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 4,
            "hidden_size": VISION_SIZE,
            "intermediate_size": 3 * VISION_SIZE,
            "num_heads": VISION_HEADS,
            "patch_size": 32,
            "temporal_patch_size": 1,
            "spatial_merge_size": 2,
            "out_hidden_size": TEXT_SIZE,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [1],
        },
        tie_word_embeddings=False,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )


def build(tokens: PreTrainedTokenizerFast) -> Encoder:
    torch.manual_seed(0)
    return Encoder(Qwen3VLForConditionalGeneration(config(tokens)), tokens)


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
    pixels = images.permute(0, 3, 1, 2).float()
    pixels = F.interpolate(pixels, (SEEN, SEEN), mode="bicubic", antialias=True).round().clamp(0, 255)
    return pixels / 127.5 - 1


def patches(images: Tensor, patch: int = 32, merge: int = 2) -> Tensor:
    """Pictures (B, 3, S, S) as the vision tower takes them: (B * patches, 3 * patch * patch), merged ones together."""
    b, c, s, _ = images.shape
    n = s // patch // merge
    x = images.view(b, c, n, merge, patch, n, merge, patch).permute(0, 2, 5, 3, 6, 1, 4, 7)
    return x.reshape(b * n * n * merge * merge, c * patch * patch)


@dataclass(frozen=True)
class Batch:
    """Rows of tokens (B, T), padded on the right, of `images` (B, k, H, W, 3) each, and the tokens to predict."""

    ids: Tensor
    labels: Tensor
    lengths: Tensor
    images: Tensor


def run(encoder: Encoder, ids: Tensor, images: Tensor) -> Tensor:
    """What the last decoder layer gives before the final norm, (B, T, D). All rows have `images` in the same places."""
    model = encoder.backbone
    rows, count = len(ids), images.shape[1]
    grids = [(SEEN // 64, SEEN // 64)] * count
    positions = encoder._positions(ids[0].tolist(), grids)  # the same for all rows
    positions = torch.cat([torch.arange(ids.shape[1])[None], positions])[:, None].expand(-1, rows, -1)
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
        model(input_ids=ids, position_ids=positions, attention_mask=torch.ones_like(ids), use_cache=False, **vision)
    finally:
        hook.remove()
    return kept[0]


def pad(rows: list[list[int]], value: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


class Source:
    """Batches of questions and of conditions, drawn by a generator."""

    def __init__(self, encoder: Encoder, pixels: Tensor, asked: list[list[exam.Question]], pairs: dict[str, dict]):
        self.encoder, self.pixels, self.pairs = encoder, pixels, pairs
        ids = encoder._control_ids
        self.end, self.padding = ids[chat.END], ids[chat.END_OF_TEXT]
        grid = [(SEEN // 64, SEEN // 64)]
        # By kind, so that each is asked as often as the others.
        self.kinds: dict[str, list[tuple[int, list[int], int]]] = {}
        cache: dict[str, list[int]] = {}
        for i, some in enumerate(asked):
            for question in some:
                if question.text not in cache:
                    pieces = chat.opening(chat.CHAT_SYSTEM, 1, question.text) + chat.closing()
                    cache[question.text] = encoder._ids(pieces, grid)
                head = cache[question.text]
                if question.answer not in cache:
                    cache[question.answer] = encoder._ids([question.answer])
                row = head + cache[question.answer] + [self.end]
                self.kinds.setdefault(question.kind, []).append((i, row, len(head)))
        self.prompts = {task: self._prompts(list(p["texts"]), count_references(p)) for task, p in pairs.items()}

    def _prompts(self, texts: list[str], references: int) -> list[list[int]]:
        grids = [(SEEN // 64, SEEN // 64)] * references
        done: dict[str, list[int]] = {}
        for text in texts:
            if text not in done:
                pieces = chat.opening(chat.CONDITIONING_SYSTEM, references, text) + chat.closing()
                done[text] = self.encoder._ids(pieces, grids)
        return [done[text] for text in texts]

    def questions(self, generator: torch.Generator) -> Batch:
        names = list(self.kinds)
        weights = torch.tensor([SHARES.get(name, 1.0) for name in names])
        chosen = torch.multinomial(weights, BATCH, replacement=True, generator=generator).tolist()
        picks = []
        for kind in chosen:
            rows = self.kinds[names[kind]]
            picks.append(rows[int(torch.randint(len(rows), (), generator=generator))])
        ids = pad([row for _, row, _ in picks], self.padding)
        labels = pad([[IGNORED] * head + row[head:] for _, row, head in picks], IGNORED)
        return Batch(ids, labels, torch.empty(0), self.pixels[[i for i, _, _ in picks]][:, None])

    def conditions(self, generator: torch.Generator) -> tuple[Batch, Tensor, Tensor]:
        """A batch of one task's prompts, the changed shares (B, 8, 8) and the mean colours (B, 8, 8, 3)."""
        names = list(self.pairs)
        task = names[int(torch.randint(len(names), (), generator=generator))]
        pairs = self.pairs[task]
        picks = torch.randint(len(pairs["texts"]), (BATCH,), generator=generator)
        rows = [self.prompts[task][i] for i in picks.tolist()]
        references = [pairs[f"reference{k}"][picks] for k in range(count_references(pairs))]
        images = torch.stack(references, dim=1) if references else torch.empty(BATCH, 0, 1, 1, 3)
        batch = Batch(pad(rows, self.padding), torch.empty(0), torch.tensor([len(r) for r in rows]), images)
        colours = pairs["target"][picks].float().view(BATCH, GRID, 8, GRID, 8, 3).mean(dim=(2, 4)) / 127.5 - 1
        return batch, pairs["changed"][picks].float(), colours


def count_references(pairs: dict) -> int:
    return sum(name.startswith("reference") for name in pairs)


def fit(encoder: Encoder, source: Source, folder: Path, recipe: Recipe = RECIPE, **options) -> Encoder:
    """Train on questions and conditions in turn; the encoder comes back with the averaged weights."""
    model = encoder.model.train()
    model.set_attn_implementation("eager")  # whose backward pass in bf16 is faster on a CPU than the fused one's
    network = nn.ModuleDict({"model": model, "forecast": Forecast(TEXT_SIZE)})

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        answers, right = answering(encoder, source.questions(generator))
        batch, changed, colours = source.conditions(generator)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = run(encoder, batch.ids, batch.images)
        last = hidden[torch.arange(len(hidden)), batch.lengths - 1].float()
        shares, means = network["forecast"](last)
        where = F.binary_cross_entropy_with_logits(shares, changed)
        weight = 0.2 + changed[..., None]
        what = (weight * (means - colours).square()).mean() / weight.mean()
        details = {"answers": answers.item(), "right": right, "where": where.item(), "what": what.item()}
        return answers + 2 * where + 4 * what, details

    averaged = train("encoder", network, loss, recipe, folder, others=others, **options)
    network.load_state_dict(averaged)
    model.set_attn_implementation("sdpa")
    encoder.model.eval().requires_grad_(False)
    return encoder


def others(name: str) -> bool:
    return any(part in name for part in ("embed", "lm_head", "forecast"))


def answering(encoder: Encoder, batch: Batch) -> tuple[Tensor, float]:
    """The next-token loss on the answers, and the share of right tokens."""
    model = encoder.model
    with torch.autocast("cpu", torch.bfloat16):
        hidden = run(encoder, batch.ids, batch.images)[:, :-1]
    wanted = batch.labels[:, 1:]
    asked = wanted != IGNORED
    logits = model.lm_head(model.model.language_model.norm(hidden[asked].float()))
    right = (logits.argmax(-1) == wanted[asked]).float().mean().item()
    return F.cross_entropy(logits.float(), wanted[asked]), right
