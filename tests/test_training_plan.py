"""What a training is planned to take, against what it takes: bytes of all tensors alive at once."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import training_sets as sets
from live_memory import LiveMemory
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from joyimage import JoyImage
from joyimage.batching import as_tokens
from joyimage.config import MMDiTConfig
from joyimage.errors import JoyImageError
from joyimage.mmdit import MMDiT
from joyimage.planning import open_needs
from joyimage.quantisation import layers as operations
from joyimage.training import planning
from joyimage.training.adapter import Adapter
from joyimage.training.checking import Checked, check
from joyimage.training.layouts import read
from joyimage.training.planning import plan_training, trained_layers, training_activations
from joyimage.training.settings import TARGETS, Training

pytestmark = pytest.mark.slow
RTX_4090 = "NVIDIA GeForce RTX 4090"


class Fused(torch.autograd.Function):
    """What a fused kernel of attention keeps for its backward pass; tensors without numbers have none."""

    @staticmethod
    def forward(ctx, q, k, v):
        out, sums = torch.empty_like(q), torch.empty(q.shape[:-1], device=q.device)
        ctx.save_for_backward(q, k, v, out, sums)
        return out

    @staticmethod
    def backward(ctx, gradient):
        return tuple(map(torch.empty_like, ctx.saved_tensors[:3]))


def fused(q, k, v):
    return Fused.apply(q, k, v).transpose(1, 2).flatten(2)


def step(network: MMDiT, latent, contexts, references, checkpointing: bool) -> None:
    """A training step's forward and backward, on any device."""
    time = torch.full((len(latent),), 500.0, device=latent.device)
    img, txt, time, packing = network.embed(latent, time, contexts, references, network.attention)
    for i, block in enumerate(network.double_blocks):
        inputs = img, txt, time, packing, packing.targets if i + 1 == len(network.double_blocks) else None
        if checkpointing:
            img, txt = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
        else:
            img, txt = block(*inputs)
    (network.project(img, latent) - latent).square().mean().backward()


def measured_and_planned(config, dtype, checkpointing, targets, lengths, references, side, device="meta"):
    with torch.device(device):
        options = {"attention": fused} if device == "meta" else {}
        network = MMDiT(config, operations=operations, dtype=dtype, **options)
        latents = [torch.zeros(len(lengths), 16, 1, side, side) for _ in range(1 + references)]
        contexts = [torch.zeros(length, config.text_dim, dtype=dtype) for length in lengths]
    adapter = Adapter(network, Training(targets=targets), device)
    layers = trained_layers(config, targets)
    assert set(layers) == set(adapter.names)
    with LiveMemory([*network.parameters(), *network.buffers()]) as live:
        step(network, latents[0], contexts, latents[1:], checkpointing)
    tokens = {"img": (1 + references) * len(lengths) * (side // 2) ** 2, "txt": as_tokens(sum(lengths), len(lengths))}
    gradients = 4 * sum(p.numel() for p in adapter.parameters())
    return live.peak, gradients + training_activations(config, tokens, layers, dtype.itemsize, checkpointing)


@pytest.mark.parametrize("targets", [TARGETS, ("img_attn_qkv",), ("img_mlp", "txt_mlp")], ids=["all", "qkv", "mlp"])
@pytest.mark.parametrize(
    ("lengths", "references", "side"),
    [([1300], 1, 64), ([300], 0, 64), ([2000], 3, 32), ([1300, 900], 1, 64), ([300, 200, 250, 100], 0, 32)],
    ids=["edit", "text", "references", "packed", "small"],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_activations_with_checkpointing_are_those_of_the_published_width(dtype, lengths, references, side, targets):
    config = MMDiTConfig(num_layers=4)
    measured, planned = measured_and_planned(config, dtype, True, targets, lengths, references, side)
    assert measured <= planned <= 1.25 * measured


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_activations_without_checkpointing_are_those_of_the_published_width(dtype):
    """With so many blocks that the first, which passes no gradient on, and the last, without text, matter little."""
    config = MMDiTConfig(num_layers=8)
    measured, planned = measured_and_planned(config, dtype, False, TARGETS, [1300], 1, 64)
    assert measured <= planned <= 1.25 * measured


@pytest.mark.parametrize("width", [512, 1024])
def test_counting_without_numbers_counts_what_a_real_step_takes(width):
    """Two blocks on the processor, with torch's own attention."""
    config = MMDiTConfig(width, width // 128, num_layers=2, mlp_size=4 * width, text_dim=width)
    given = config, torch.float32, True, TARGETS, [200], 1, 32
    real, planned = measured_and_planned(*given, device="cpu")
    counted, _ = measured_and_planned(*given)
    assert real == pytest.approx(counted, rel=0.01)
    assert real <= planned <= 1.25 * real


# -- the plan as a whole ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    return open_needs("tiny")[0]


@pytest.fixture
def checked(tmp_path) -> Checked:
    root = sets.folders(tmp_path)
    (root / "targets" / "1.png").write_text("text")
    return check(read(root / "targets", [root / "control0"]), 64)


def test_a_plan_says_what_there_is_and_what_it_takes(tiny, checked):
    plan = plan_training(tiny, checked, Training(rank=4, batch_size=2), device="cpu")
    assert (plan.examples, plan.unusable, plan.base.streamed) == (2, 1, 0)
    bucket = plan.buckets[0]
    assert (bucket.examples, bucket.target, bucket.references) == (2, 16, 16)
    layers = trained_layers(tiny.configs.mmdit, TARGETS)
    assert plan.trained == sum(4 * (rows + columns) for rows, columns in layers.values())
    assert plan.adapter == plan.gradients == plan.optimiser // 2 == 4 * plan.trained
    assert plan.peak == plan.base.held + sum((plan.adapter, plan.gradients, plan.optimiser, plan.activations))
    text = str(plan)
    for line in (
        "2 examples, 1 that cannot be used",
        "2 of 64x64 from 64x64",
        "expected peak",
        "without checkpointing",
        f"a step is {plan.operations / 1e9:,.1f} billion operations",
    ):
        assert line in text
    assert json.loads(json.dumps(plan.as_dict()))["peak"] == plan.peak


def test_a_context_is_planned_about_as_long_as_it_is(tiny, checked):
    bucket = plan_training(tiny, checked, Training(), device="cpu").buckets[0]
    model = JoyImage.load("tiny", device="cpu")
    example = checked.examples[0]
    length = len(model.condition(list(example.controls), example.caption)[0].positive)
    assert length <= bucket.text <= 1.6 * length


def test_a_loaded_model_is_planned_as_its_files_are(tiny, checked):
    loaded = JoyImage.load("tiny", device="cpu").memory.needs
    assert plan_training(loaded, checked, Training()) == plan_training(tiny, checked, Training())


def test_settings_cost_what_they_should(tiny, checked):
    def plan(**changes):
        return plan_training(tiny, checked, Training(**changes), card=RTX_4090)

    usual = plan()
    assert plan(optimizer="muon").optimiser == usual.optimiser / 2
    assert plan(ema=0.99).peak == usual.peak + usual.adapter
    assert plan(adapter="dora").trained > usual.trained
    assert plan(rank=32).trained == 2 * usual.trained
    assert plan(checkpointing=False).activations == usual.without_checkpointing > usual.activations
    assert plan(checkpointing=False).operations < usual.operations < plan(objective="guidance").operations
    assert plan(batch_size=4).operations == 4 * usual.operations
    assert usual.seconds == usual.operations / (planning.UTILISATION * planning.CARDS["RTX 4090"])


def test_blocks_stream_within_a_budget(tiny, checked):
    whole = plan_training(tiny, checked, Training(), device="cpu")
    least = whole.peak - sum(whole.base.part.groups[0].blocks[2:]) // 2
    plan = plan_training(tiny, checked, Training(), device="cpu", budget=least)
    assert plan.base.streamed > 0 and plan.peak <= least
    assert "stream twice in each step" in str(plan)
    with pytest.raises(JoyImageError, match="is too small: the mmdit needs at least"):
        plan_training(tiny, checked, Training(), device="cpu", budget=10**6)


def test_a_card_that_is_not_known_gets_the_times_of_others(tiny, checked):
    plan = plan_training(tiny, checked, Training(), card="Another")
    assert plan.seconds is None and all(f"less than 1 ms on {card}" in str(plan) for card in planning.CARDS)


def test_operations_are_those_of_the_products(tiny):
    """Of a forward, counted by torch; a step is that forward once more and its backward."""
    config = dataclasses.replace(MMDiTConfig(), num_layers=4)
    with torch.device("meta"):
        network = MMDiT(config, dtype=torch.bfloat16).requires_grad_(False)
        latents = [torch.empty(1, 16, 1, 64, 64) for _ in range(2)]
        with FlopCounterMode(display=False) as counter:
            network(latents[0], torch.empty(1), torch.empty(1, 1300, 4096, dtype=torch.bfloat16), latents[1:])
    bucket = planning.Bucket(((512, 512), (512, 512)), 1, 1024, 1024, 1300)
    planned = planning.operations(config, bucket, Training())
    # the last block has no text, and its references only keys and values
    assert 2.8 * counter.get_total_flops() < planned < 4.2 * counter.get_total_flops()
