"""Which samples run together, and how large a forward that makes."""

from __future__ import annotations

import pytest
import torch

from joyimage.batching import batches, largest_forward, packed
from joyimage.conditioning import Conditioning


def conditioning(positive=3, negative=2, size=(64, 64), references=()):
    latents = tuple(torch.zeros(1, 16, 1, *shape) for shape in references)
    return Conditioning(torch.zeros(positive, 8), torch.zeros(negative, 8), latents, size)


def test_samples_of_one_size_and_equal_references_run_together():
    one, other = conditioning(), conditioning(size=(64, 80))
    with_reference = conditioning(references=[(8, 8)])
    of_other_shape = conditioning(references=[(8, 10)])
    longer_prompt = conditioning(positive=30)
    samples = [one, other, one, with_reference, longer_prompt, of_other_shape, with_reference, one, one]
    assert batches(samples, 3) == [[0, 2, 4], [7, 8], [1], [3, 6], [5]]
    assert batches(samples[:3], 1) == [[0], [2], [1]]
    assert batches([], 3) == []


@pytest.mark.parametrize(
    ("passes", "samples", "tokens", "together"),
    [(2, 1, 512, True), (2, 1, 513, False), (2, 2, 256, True), (2, 3, 171, False), (1, 1, 1024, True)],
)
def test_passes_run_packed_up_to_1024_image_tokens(passes, samples, tokens, together):
    assert packed(passes, [conditioning()] * samples, lambda _: tokens) is together


def test_the_largest_forward_has_both_passes_where_they_run_packed_and_else_the_longer_prompts():
    batch = [conditioning(positive=10, negative=4), conditioning(positive=5, negative=7)]
    assert largest_forward(batch, lambda _: 256) == 2 * 2 * 256 + 48  # 1.4 times 2 * (10 + 7), rounded up
    assert largest_forward(batch, lambda _: 257) == 2 * 257 + 24  # two prompts of one batch are packed as well
    assert largest_forward(batch[:1], lambda _: 513) == 513 + 10
