"""How a forward is shared out over processes, and what each then computes, holds and sends. It imports no torch."""

from __future__ import annotations

import math

from ..config import MMDiTConfig

# What a process takes for its own tokens, and for all of them, in terms of a forward that is not shared out: as in
# `memory.budget`, 18.1 vectors of the hidden size per token of its own and 0.84 per token, where that has 12.4.
SHARED, WHOLE = 1.5, 0.08


def shares(count: int, parts: int) -> list[int]:
    """`count` shared out as evenly as it goes, the larger shares first."""
    return [count // parts + (part < count % parts) for part in range(parts)]


def share_of_memory(tokens: int, processes: int) -> int:
    """How many image and text tokens, on one device, take as much of it as `tokens` do of each of many."""
    return math.ceil(tokens * (SHARED / processes + WHOLE))


def operations(config: MMDiTConfig, tokens: int, targets: int) -> tuple[int, int]:
    """Of a forward over so many image and text tokens, `targets` among them: those of the blocks' matrix products, and
    those of attention. Embedders and the last layer, 0.2 % of the published model's, are left out.

    In the last block only the target's tokens attend, and are worked on further.
    """
    width, blocks = config.hidden_size, config.num_layers
    before, after = 3 * width**2, width**2 + 2 * width * config.mlp_size  # weights before and after attention
    products = 2 * ((blocks - 1) * (before + after) * tokens + before * tokens + after * targets)
    return products, 4 * width * tokens * ((blocks - 1) * tokens + targets)


def speed(config: MMDiTConfig, tokens: int, targets: int, processes: int) -> float:
    """How many times as fast a forward is at most: by the operations of the process that has most of them."""
    products, attention = operations(config, tokens, targets)
    heads = shares(config.num_heads, processes)[0] / config.num_heads
    return (products + attention) / (products / processes + attention * heads)


def exchanged(config: MMDiTConfig, tokens: int, targets: int, processes: int, itemsize: int) -> int:
    """Bytes that a process sends in a forward: queries, keys, values and results of its tokens for others' heads, in
    the last block queries and results of the target's alone, and at last the velocity.
    """
    others = (processes - 1) / processes
    vectors = (config.num_layers - 1) * 4 * tokens + 2 * (tokens + targets)
    own = vectors / processes * others + (targets / processes if processes > 1 else 0)
    return math.ceil(own * config.hidden_size * itemsize)
