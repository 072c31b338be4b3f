"""What a forward of the published MMDiT costs, counted without a GPU: these do not grow unnoticed."""

from __future__ import annotations

import pytest

from joyimage.kitchen import has_operators
from joyimage.rope import NORM_AND_ROTATION, TorchRotary
from tools.bench.count import ATTENTION, forward

pytestmark = pytest.mark.skipif(
    not has_operators(NORM_AND_ROTATION), reason="what is counted is the kernel of comfy-kitchen"
)

HIDDEN, MLP, BLOCKS, TOKENS, TEXT = 4096, 16384, 40, 2 * 64 * 64, 1100


def test_arithmetic_is_what_the_sizes_say():
    count = forward(references=1, prompts=[TEXT])
    layers = 4 * HIDDEN**2 + 2 * HIDDEN * MLP  # weights of a stream in a block
    attention = 4 * HIDDEN * (TOKENS + TEXT) ** 2
    # in the last block only the target's tokens are queries and are worked on further
    last = 3 * HIDDEN**2 * (TOKENS + TEXT) + (layers - 3 * HIDDEN**2) * TOKENS // 2
    products = 2 * ((BLOCKS - 1) * layers * (TOKENS + TEXT) + last)
    assert count.flops[ATTENTION] == (BLOCKS - 1) * attention + 4 * HIDDEN * (TOKENS + TEXT) * TOKENS // 2
    assert (
        0 <= sum(count.flops.values()) - count.flops[ATTENTION] - products < 2e-3 * products
    )  # embedders, first and last


def test_a_forward_moves_and_launches_no_more_than_it_does():
    count = forward(references=1, prompts=[TEXT])
    assert sum(count.moved.values()) < 98e9
    assert sum(count.launches.values()) <= 1435


def test_nor_without_a_kernel_for_norm_and_rotation():
    count = forward(references=1, prompts=[TEXT], rotary=TorchRotary())
    assert sum(count.moved.values()) < 140e9
    assert sum(count.launches.values()) <= 1670


def test_a_packed_pair_launches_no_more_than_it_does():
    count = forward(references=1, prompts=[TEXT, TEXT - 10])
    assert sum(count.launches.values()) <= 1670
