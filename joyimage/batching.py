"""Which samples share a forward of the MMDiT."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .conditioning import Conditioning

# The two guidance passes run as one packed sequence while the forward has no more image tokens than this: then reading
# the weights costs most. Packed against one after the other, on two cores: 0.85 of the time at 2 x 8 tokens, 0.98 at
# 2 x 288, 1.1 from 2 x 512 on; at width 2048 0.7 at 2 x 512.
PACKED_TOKENS = 1024

# Packed prompts have their modulation's six vectors for each token: what a token of theirs takes, of an image's.
PACKED_TEXT = 1.4

Count = Callable[[Conditioning], int]  # of the image tokens of one sample's forward


def batches(conditionings: Sequence[Conditioning], size: int) -> list[list[int]]:
    """Indices of the samples that run together: at most `size`, of equal shapes."""
    by_shape: dict[tuple, list[int]] = {}
    for i, conditioning in enumerate(conditionings):
        by_shape.setdefault(conditioning.shapes, []).append(i)
    return [members[i : i + size] for members in by_shape.values() for i in range(0, len(members), size)]


def packed(passes: int, batch: Sequence[Conditioning], tokens: Count) -> bool:
    """Whether so many passes over a batch, one for each of guidance's prompts, run as one forward."""
    return passes * len(batch) * tokens(batch[0]) <= PACKED_TOKENS


def largest_forward(batch: Sequence[Conditioning], tokens: Count) -> int:
    """Image and text tokens of a batch's largest forward, in which both passes of guidance may be packed."""
    passes = 2 if packed(2, batch, tokens) else 1
    text = sum(max(len(c.positive), len(c.negative)) for c in batch) * passes
    return passes * len(batch) * tokens(batch[0]) + as_tokens(text, passes * len(batch))


def as_tokens(text: int, prompts: int) -> int:
    """Text tokens of so many prompts in one forward, in tokens of an image's memory."""
    return math.ceil(text * PACKED_TEXT) if prompts > 1 else text
