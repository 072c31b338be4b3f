"""Budgets: how they are read, what they hold, and that the sizes they rest on are those of the networks."""

from __future__ import annotations

import pytest
import tiny_qwen
import torch
from live_memory import LiveMemory
from PIL import Image
from torch import nn
from transformers import Qwen3VLForConditionalGeneration

from joyimage import JoyImageError, tiny
from joyimage.batching import as_tokens
from joyimage.caching import RunCaches
from joyimage.config import MMDiTConfig, WanVAEConfig
from joyimage.encoder import Encoder
from joyimage.memory import budget as budgets
from joyimage.memory.budget import Group, Needs, Part, parse_size, place
from joyimage.mmdit import MMDiT
from joyimage.vae import WanVAE


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("12GB", 12e9),
        ("8 GiB", 8 * 2**30),
        ("500mb", 5e8),
        ("3 MiB", 3 * 2**20),
        ("1.5 GB", 1.5e9),
        ("7KB", 7000),
        ("64KiB", 65536),
        (4096, 4096),
        (1, 1),
    ],
)
def test_sizes_are_read(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "12", "GB", "twelve GB", "12TB", "-3GB", "0GB", 0, -5, "1e3GB", "12 GB now", 1.5])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(JoyImageError, match="give a number and a unit"):
        parse_size(text)


PART = Part("mmdit", 10, (Group("blocks", (100,) * 8),))


@pytest.mark.parametrize(
    ("budget", "stay", "held"),
    [
        (215, (), 210),  # two slots
        (309, (), 210),
        (315, (0,), 310),
        (615, (0, 2, 4, 6), 610),  # a copy for every block that stays
        (814, (0, 1, 3, 4, 6), 710),
        (815, (0, 1, 2, 3, 4, 5, 6, 7), 810),  # six beside two slots would take no less
    ],
)
def test_as_many_blocks_stay_as_the_budget_holds(budget, stay, held):
    placement = place(PART, 5, budget)
    assert (placement.resident, placement.held) == ((stay,), held)
    assert placement.peak == held + 5 <= budget
    assert placement.streamed == 100 * (8 - len(stay))


def test_slots_fit_the_largest_block_that_streams():
    part = Part("mmdit", 0, (Group("blocks", (300, 100, 100, 100)),))
    assert place(part, 0, 600).held == 600  # two slots of 300, or all
    assert place(part, 0, 600).resident == ((0, 1, 2, 3),)


def test_the_first_group_gets_the_room_that_the_others_slots_leave():
    part = Part("encoder", 0, (Group("decoder layers", (100,) * 4), Group("vision blocks", (10,) * 4)))
    assert place(part, 0, 320).resident == ((0,), ())
    assert place(part, 0, 420).resident == ((0, 1, 2, 3), ())
    assert place(part, 0, 440).resident == ((0, 1, 2, 3), (0, 1, 2, 3))


def test_a_budget_too_small_names_the_least_that_works():
    with pytest.raises(JoyImageError, match=r"0\.31 KB is too small: the mmdit needs at least 0\.32 KB, of") as error:
        place(PART, 101, 309)
    assert place(PART, 101, parse_size(str(error.value).split("at least ")[1].split(",")[0])).resident == ((),)


def test_a_reserve_comes_on_top():
    assert place(PART, 5, 1000 + 215, reserve=1000).resident == ((),)
    with pytest.raises(JoyImageError, match=r"at least 1\.22 KB"):
        place(PART, 5, 1000 + 214, reserve=1000)


def test_shared_weights_count_once():
    network = nn.ModuleDict({"a": nn.Linear(64, 64, bias=False), "b": nn.Linear(64, 64, bias=False)})
    network["b"].weight = network["a"].weight
    assert budgets.size_of(network.modules()) == 64 * 64 * 4


# -- what activations take --------------------------------------------------------------------------------------------


def peak(network: nn.Module, run) -> int:
    with LiveMemory([*network.parameters(), *network.buffers()]) as live, torch.inference_mode():
        run()
    return live.peak


@pytest.mark.parametrize(
    ("lengths", "references", "side"),
    [([1100], 1, 64), ([1100, 900], 0, 64), ([1100, 900], 1, 32), ([4000, 3000], 0, 16), ([200], 3, 64)],
    ids=["one", "packed", "small", "text", "references"],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_mmdit_activations_are_those_of_the_published_size(lengths, references, side, dtype):
    batch = len(lengths)
    with torch.device("meta"):
        network = MMDiT(MMDiTConfig(num_layers=2), dtype=dtype)
        latents = [torch.empty(batch, 16, 1, side, side) for _ in range(1 + references)]
        prompts = [torch.empty(length, 4096, dtype=dtype) for length in lengths]
        measured = peak(network, lambda: network(latents[0], torch.empty(batch), prompts, latents[1:]))
    tokens = batch * (1 + references) * (side // 2) ** 2 + as_tokens(sum(lengths), batch)
    assert measured <= budgets.mmdit_activations(network.config, tokens, dtype.itemsize) <= 1.25 * measured


@pytest.mark.parametrize(("references", "batch"), [(1, 1), (6, 1), (1, 2)])
def test_kept_references_are_counted(references, batch):
    """Two prompts for five steps, with the references' keys and values kept for two."""
    with torch.device("meta"):
        network = MMDiT(MMDiTConfig(num_layers=8), dtype=torch.bfloat16)
        latents = [torch.empty(batch, 16, 1, 64, 64) for _ in range(1 + references)]
        prompts = [[torch.empty(300, 4096, dtype=torch.bfloat16)] * batch for _ in range(2)]

        def run():
            caches = RunCaches(reference_every=2)
            for _ in range(5):
                for i, texts in enumerate(prompts):
                    network(latents[0], torch.empty(batch), texts, latents[1:], caches.of(i))

        measured = peak(network, run)
    kept = batch * references * 1024
    activations = budgets.mmdit_activations(network.config, batch * (1024 + 300) + kept, 2)
    assert kept * 2 * 4096 * 8 * 2 < measured  # of one prompt alone
    estimate = activations + budgets.kept_references(network.config, kept, 2)
    assert measured <= estimate <= 1.25 * measured


@pytest.mark.parametrize("tile", [None, 512, 256])
@pytest.mark.parametrize("side", [512, 1024])
def test_vae_activations_are_those_of_the_published_size(side, tile):
    with torch.device("meta"):
        network = WanVAE(WanVAEConfig())
        image, latent = torch.empty(1, 3, side, side), torch.empty(1, 16, 1, side // 8, side // 8)
        encoding = peak(network, lambda: network.encode(image, tile))
        decoding = peak(network, lambda: network.decode(latent, tile))
    estimate = budgets.vae_activations(network.config, side * side, 4, tile)
    assert max(encoding, decoding) <= estimate <= 2.3 * max(encoding, decoding)


@pytest.mark.parametrize(("texts", "images"), [(["a" * 60, ""], 1), (["a" * 500], 0), (["a" * 900, "b" * 900], 1)])
def test_encoder_activations_are_as_estimated(texts, images):
    encoder: Encoder = tiny.build("cpu")[2]
    pictures = [Image.new("RGB", (256, 256))] * images
    measured = peak(encoder.model, lambda: encoder.encode(texts, pictures))
    tokens = sum(len(encoder.tokenizer(text).input_ids) + 50 for text in texts)  # the template takes 40
    config = encoder.backbone.config
    assert measured <= budgets.encoder_activations(config, images * 256 * 256, tokens, 4) <= 6 * measured


@pytest.mark.slow
def test_encoder_activations_are_those_of_a_picture_at_a_sixteenth_of_the_published_widths():
    tokens = tiny_qwen.tokenizer()
    text = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 36, "num_key_value_heads": 1}
    rotary = {"rope_type": "default", "mrope_section": [12, 10, 10], "mrope_interleaved": True}
    config = tiny_qwen.config(tokens, **text, num_attention_heads=4, head_dim=64, rope_scaling=rotary)
    vision = {"hidden_size": 72, "intermediate_size": 269, "depth": 27, "deepstack_visual_indexes": [8, 16, 24]}
    for name, value in vision.items():
        setattr(config.vision_config, name, value)
    encoder = Encoder(Qwen3VLForConditionalGeneration(config).eval(), tokens)
    context = []
    measured = peak(encoder.model, lambda: context.extend(encoder.encode(["a"], [Image.new("RGB", (512, 512))])))
    text_tokens = len(context[0]) + encoder.chat.prefix_length - 16 * 16
    estimate = budgets.encoder_activations(encoder.backbone.config, 512 * 512, text_tokens, 4)
    assert measured <= estimate <= 2.1 * measured  # transformers 4.57 takes a tenth less


def test_the_published_model_streams_in_8_gb():
    """bf16: 40 blocks of 0.81 GB; at least a dozen stay, and 24 GB hold two thirds."""
    with torch.device("meta"):
        mmdit = MMDiT(MMDiTConfig(), dtype=torch.bfloat16)
    part = budgets.measure("mmdit", mmdit, {"blocks": mmdit.double_blocks})
    assert 32.2e9 < part.weights < 32.8e9
    activations = budgets.mmdit_activations(mmdit.config, 9300, 2)
    stay = {budget: len(place(part, activations, budget * 10**9, 2**29).resident[0]) for budget in (4, 8, 12, 16, 24)}
    assert stay[4] == 0 and 3 <= stay[8] < stay[12] < stay[16] < stay[24] < 40


def test_idle_modules_are_left_out():
    _, _, encoder = tiny.build("cpu")
    needs = Needs(encoder.model, *tiny.build("cpu")[:2])
    head = encoder.model.lm_head.weight.nbytes
    tied = encoder.model.lm_head.weight is encoder.model.get_input_embeddings().weight
    difference = needs.part("encoder").weights - needs.part("encoder", needs.idle["encoder"]).weights
    assert difference == (0 if tied else budgets.padded(head))
