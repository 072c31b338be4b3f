"""What forwards of one run keep: nothing changes where it is off, and what is kept is what it says."""

from __future__ import annotations

import pytest
import torch

from joyimage.caching import RunCaches, StepCache
from joyimage.config import MMDiTConfig
from joyimage.mmdit import MMDiT

CONFIG = MMDiTConfig(64, 2, 4, 16, 16, 48, 256, (1, 2, 2), (4, 14, 14), 10000.0)
PROMPTS = [[7], [5, 9], [6, 6]]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = MMDiT(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(lengths, t=500.0, seed=0):
    batch = len(lengths)
    contexts = [draw(length, 48, seed=length) for length in lengths]
    references = [draw(batch, 16, 1, 4, 6, seed=1), draw(batch, 16, 1, 6, 6, seed=2)]
    return draw(batch, 16, 1, 8, 6, seed=seed), torch.full((batch,), t), contexts, references


class Seen:
    """How many image tokens each block was given in each forward."""

    def __init__(self, model):
        self.tokens: list[list[int]] = []
        self._handles = [
            block.register_forward_pre_hook(lambda _, args, i=i: self.note(i, args[0].shape[1]))
            for i, block in enumerate(model.double_blocks)
        ]

    def note(self, block, tokens):
        if block == 0:
            self.tokens.append([])
        self.tokens[-1].append(tokens)

    def remove(self):
        for handle in self._handles:
            handle.remove()


@pytest.fixture
def seen(model):
    seen = Seen(model)
    yield seen
    seen.remove()


TARGET, ALL = 4 * 3, 4 * 3 + 2 * 3 + 3 * 3
FULL, WITHOUT, FIRST_ONLY = [ALL] * 4, [TARGET] * 4, [ALL]


@pytest.mark.parametrize("lengths", PROMPTS)
def test_off_is_equal_to_the_bit(model, lengths):
    cache = StepCache()
    for step, t in enumerate((900.0, 500.0, 20.0)):
        case = inputs(lengths, t, seed=step)
        assert torch.equal(model(*case, cache=cache), model(*case))


@pytest.mark.parametrize("lengths", PROMPTS)
def test_keys_and_values_of_references_serve_the_steps_said(model, seen, lengths):
    cache, case = StepCache(reference_every=3), inputs(lengths)
    results = [model(*case, cache=cache) for _ in range(7)]
    assert seen.tokens == [FULL, WITHOUT, WITHOUT, FULL, WITHOUT, WITHOUT, FULL]
    for result in results:  # at the same time and latent they are what would be computed
        torch.testing.assert_close(result, results[0], atol=1e-5, rtol=0)


def test_kept_keys_are_those_of_the_step_that_made_them(model):
    """At another time they differ from what would be computed, and are used all the same."""
    cache, first, second = StepCache(reference_every=2), inputs([7], 900.0), inputs([7], 100.0, seed=5)
    model(*first, cache=cache)
    kept = model(*second, cache=cache)
    assert (kept - model(*second)).abs().max() > 1e-3
    # what the network would say if the references alone were still at the first time
    assert (kept - model(second[0], second[1], second[2], ())).abs().max() > 1e-3
    again = StepCache(reference_every=2)
    model(*second, cache=again)
    torch.testing.assert_close(model(*second, cache=again), model(*second), atol=1e-5, rtol=0)


def test_without_references_nothing_is_kept(model, seen):
    latent, t, contexts, _ = inputs([7])
    cache = StepCache(reference_every=2)
    for _ in range(3):
        assert torch.equal(model(latent, t, contexts, (), cache), model(latent, t, contexts))
    assert all(tokens == WITHOUT for tokens in seen.tokens)


@pytest.mark.parametrize("lengths", PROMPTS)
def test_blocks_are_reused_while_the_first_hardly_changes(model, seen, lengths):
    cache = StepCache(block_cache=0.1)
    start, far = inputs(lengths), inputs(lengths, t=20.0, seed=9)
    near = (start[0] + 0.01 * draw(*start[0].shape, seed=3), *start[1:])
    first = model(*start, cache=cache)
    close = model(*near, cache=cache)
    other = model(*far, cache=cache)
    assert seen.tokens[:3] == [FULL, FIRST_ONLY, FULL]
    assert torch.equal(first, model(*start)) and torch.equal(other, model(*far))
    assert 0 < (close - model(*near)).abs().max() < 0.05 * first.abs().max()


def test_one_sample_that_changes_runs_the_blocks_for_all(model, seen):
    cache = StepCache(block_cache=0.1)
    latent, t, contexts, references = inputs([6, 6])
    model(latent, t, contexts, references, cache)
    moved = latent.clone()
    moved[1] = draw(16, 1, 8, 6, seed=9)
    model(moved, t, contexts, references, cache)
    assert seen.tokens == [FULL, FULL]


def test_both_at_once(model, seen):
    """References that are due wait for a step in which all blocks run: the first alone keeps nothing."""
    cache, case = StepCache(reference_every=2, block_cache=0.1), inputs([5, 9])
    far = inputs([5, 9], t=20.0, seed=9)
    results = [model(*each, cache=cache) for each in (case, case, case, far, far)]
    assert seen.tokens == [FULL, [TARGET], FIRST_ONLY, FULL, [TARGET]]
    for result, each in zip(results, (case, case, case, far, far), strict=True):
        torch.testing.assert_close(result, model(*each), atol=1e-5, rtol=0)


def test_one_block_has_nothing_to_skip():
    model = MMDiT(MMDiTConfig(64, 2, 1, 16, 16, 48, 256, (1, 2, 2), (4, 14, 14), 10000.0)).eval()
    cache, case = StepCache(reference_every=2, block_cache=0.5), inputs([7])
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(model(*case, cache=cache), model(*case), atol=1e-6, rtol=0)


def test_what_is_constant_is_made_once(model):
    calls = []
    handles = [
        model.condition_embedder.text_embedder.register_forward_hook(lambda *_: calls.append("text")),
        model.img_in.register_forward_hook(lambda *_: calls.append("image")),
    ]
    cache = StepCache()
    for _ in range(3):
        model(*inputs([7]), cache=cache)
    for handle in handles:
        handle.remove()
    assert calls.count("text") == 1 and calls.count("image") == 3 + 2  # the target's each time


def test_prompts_that_share_a_forward_have_a_cache_of_their_own():
    caches = RunCaches(reference_every=2, block_cache=0.1)
    assert caches.of("a") is caches.of("a") is not caches.of("b")
    assert (caches.of("a").reference_every, caches.of("a").block_cache) == (2, 0.1)


def test_references_are_made_once_for_all_prompts_of_a_run(model):
    calls, caches = [], RunCaches()
    handle = model.img_in.register_forward_hook(lambda *_: calls.append(1))
    for key, lengths in (("cond", [7]), ("uncond", [5]), ("pair", [7, 5])) * 2:
        case = inputs(lengths)
        model(*case, cache=caches.of(key))
    handle.remove()
    assert len(calls) == 6 + 2 + 2  # the target's each time; references of one sample, and of two
