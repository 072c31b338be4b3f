"""Training of the small MMDiT: rectified flow on latents and contexts that are computed once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from joyimage.config import MMDiTConfig
from joyimage.encoder import Encoder
from joyimage.mmdit import MMDiT
from joyimage.prompts import CONDITIONING_SYSTEM
from joyimage.vae import WanVAE

from .data import to_images
from .encoder import SEEN, Batch, count_references, pad, run
from .training import HALF, Recipe, autocast, train

CONFIG = MMDiTConfig(hidden_size=160, num_heads=5, num_layers=6, text_dim=128, mlp_size=640, rope_dims=(4, 14, 14))
SMALL = MMDiTConfig(
    hidden_size=32, num_heads=1, num_layers=2, text_dim=32, mlp_size=128, rope_dims=(4, 14, 14)
)  # trial
RECIPE = Recipe(steps=28000, hold=0.75, average=0.998, save_every=250, half=True)
MICRO_BATCH, MICRO_BATCHES = 36, 2
DROPPED = 0.1  # of the micro-batches, whose prompt is empty
WITH_NEGATIVES = 6  # every so many pairs also have the context of the empty prompt
SHIFT = 1.5
EDITED, EDITED_LAST = 5.0, 0.5  # how much more what changes weighs, at the start and at the end
# How often a task is drawn.
SHARES = {
    "move": 0.14, "rotate": 0.28, "camera": 0.10, "recolour": 0.07, "remove": 0.04, "add": 0.03, "compose": 0.04,
    "generate": 0.30,
}  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Pairs of one task whose contexts have one length."""

    task: str
    target: Tensor  # (N, 16, 1, 8, 8)
    references: tuple[Tensor, ...]
    changed: Tensor  # (N, 8, 8) share of changed pixels
    context: Tensor  # (N, L, text_dim)

    def __len__(self) -> int:
        return len(self.target)


def build(config: MMDiTConfig = CONFIG) -> MMDiT:
    torch.manual_seed(0)
    mmdit = MMDiT(config, attention=attention)
    for name, parameter in mmdit.named_parameters():
        if "modulate_table" in name:
            nn.init.zeros_(parameter)
            parameter.data[:, [2, 5]] = 0.3  # the gates
        elif name.startswith("proj_out") or "time_proj" in name:
            nn.init.zeros_(parameter)
        elif parameter.ndim >= 2:
            nn.init.xavier_uniform_(parameter.view(parameter.shape[0], -1))
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return mmdit


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The library's, step by step: in bf16 the backward pass of the fused one is seven times slower on a CPU."""
    weights = (q * q.shape[-1] ** -0.5 @ k.mT).float().softmax(-1)
    return (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)


@torch.inference_mode()
def latents(vae: WanVAE, images: Tensor, batch: int = 200) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 16, 1, h, w) in half precision."""
    parts = images.split(batch)
    return torch.cat([vae.encode(to_images(part)).half() for part in parts])


@torch.inference_mode()
def contexts(encoder: Encoder, texts: list[str], images: Tensor, batch: int = 200) -> list[tuple[Tensor, Tensor]]:
    """Contexts of prompts with their images (N, k, H, W, 3), by length: the prompts' indices and (n, L, D)."""
    count = images.shape[1]
    grids = [(SEEN // 64, SEEN // 64)] * count
    rows = {text: encoder.chat.message_ids(CONDITIONING_SYSTEM, text, grids) for text in set(texts)}
    found: dict[int, list[int]] = {}
    for i, text in enumerate(texts):
        found.setdefault(len(rows[text]), []).append(i)
    groups = []
    for members in found.values():
        parts = []
        for chunk in torch.tensor(members).split(batch):
            ids = pad([rows[texts[i]] for i in chunk.tolist()], 0)
            parts.append(run(encoder, Batch(ids, images[chunk]))[:, encoder.chat.prefix_length :].half())
        groups.append((torch.tensor(members), torch.cat(parts)))
    return groups


def prepare(task: str, pairs: dict, vae: WanVAE, encoder: Encoder) -> tuple[list[Group], list[Group]]:
    """What training needs of a task's pairs: groups with their prompts, and groups with the empty prompt."""
    images = [pairs[f"reference{k}"] for k in range(count_references(pairs))]
    stacked = torch.stack(images, dim=1) if images else torch.empty(len(pairs["target"]), 0, 1, 1, 3)
    target, references = latents(vae, pairs["target"]), [latents(vae, image) for image in images]

    def group(index: Tensor, context: Tensor) -> Group:
        return Group(task, target[index], tuple(r[index] for r in references), pairs["changed"][index], context)

    texts = [str(text) for text in pairs["texts"]]
    positive = [group(*found) for found in contexts(encoder, texts, stacked)]
    some = torch.arange(0, len(texts), WITH_NEGATIVES)
    negative = [group(some[index], c) for index, c in contexts(encoder, [""] * len(some), stacked[some])]
    return positive, negative


def fit(
    groups: dict[str, tuple[list[Group], list[Group]]],
    folder: Path,
    recipe: Recipe = RECIPE,
    config: MMDiTConfig = CONFIG,
    **options,
) -> MMDiT:
    mmdit = build(config)
    tasks = list(groups)
    shares = torch.tensor([SHARES[task] for task in tasks])

    def pick(generator: torch.Generator) -> tuple[Group, Tensor]:
        task = tasks[int(torch.multinomial(shares, 1, generator=generator))]
        dropped = torch.rand((), generator=generator).item() < DROPPED
        choices = groups[task][int(dropped)]
        sizes = torch.tensor([float(len(group)) for group in choices])
        group = choices[int(torch.multinomial(sizes, 1, generator=generator))]
        return group, torch.randint(len(group), (recipe.batch(MICRO_BATCH),), generator=generator)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        edited = EDITED + (EDITED_LAST - EDITED) * step / recipe.steps
        total, plain = torch.zeros(()), 0.0
        for _ in range(MICRO_BATCHES):
            group, picks = pick(generator)
            clean = group.target[picks].float()
            noise = torch.randn(clean.shape, generator=generator)
            time = torch.randn(len(clean), generator=generator).sigmoid()
            sigma = SHIFT * time / (1 + (SHIFT - 1) * time)
            mixed = torch.lerp(clean, noise, sigma.view(-1, 1, 1, 1, 1))
            references = tuple(reference[picks].to(HALF) for reference in group.references)
            with autocast():
                velocity = mmdit(mixed.to(HALF), sigma * 1000, group.context[picks].to(HALF), references)
            error = (velocity.float() - (noise - clean)).square().mean(1).squeeze(1)  # (B, h, w)
            share = F.max_pool2d(group.changed[picks].float()[:, None], 3, 1, 1)[:, 0]
            weight = 1 + edited * (share > 0.05).float()
            value = (weight * error).sum() / weight.sum()
            plain += error.detach().mean().item() / MICRO_BATCHES
            if torch.is_grad_enabled():
                (value / MICRO_BATCHES).backward()
            total = total + value.detach() / MICRO_BATCHES
        return total, {"plain": plain}

    mmdit.load_state_dict(train("mmdit", mmdit, loss, recipe, folder, others=others, **options))
    return mmdit.eval().requires_grad_(False)


def others(name: str) -> bool:
    """Whether AdamW trains a parameter of this name: what leads into the blocks and out of them."""
    return name.startswith(("img_in", "proj_out", "condition_embedder"))
