"""Adapters on a network, and their files there and back: in the library, and in Diffusers by PEFT."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_training import SHORT
from torch import Tensor
from trained import CONFIG, draw, network

from joyimage import lora
from joyimage.errors import JoyImageError
from joyimage.mmdit import MMDiT
from joyimage.training.adapter import Adapter, target_layers
from joyimage.training.files import LoraFile
from joyimage.training.settings import ADAPTERS, TARGETS, Training

INPUTS = draw(1, 16, 1, 4, 6, seed=1), torch.tensor([731.25]), draw(1, 5, CONFIG.text_dim, seed=2)
REFERENCE = draw(1, 16, 1, 4, 6, seed=3)


@torch.no_grad()
def velocity(mmdit: MMDiT) -> Tensor:
    return mmdit(*INPUTS, [REFERENCE])


def made(mmdit: MMDiT, kind: str) -> tuple[LoraFile, Tensor]:
    """A file of an adapter that does something, and the velocity with it."""
    settings = replace(SHORT, adapter=kind, rank=4, alpha=3.0)
    adapter = Adapter(mmdit, settings)
    for i, (name, p) in enumerate(adapter.tensors().items()):
        with torch.no_grad():
            p.add_(0.2 * draw(*p.shape, seed=i)) if "magnitude" in name else p.copy_(0.3 * draw(*p.shape, seed=i))
    wanted, file = velocity(mmdit), LoraFile(adapter.updates(), settings, {"base": "drawn"})
    adapter.remove()
    return file, wanted


@pytest.mark.parametrize("naming", ["lora.safetensors", "peft"])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_the_library_does_with_a_file_what_training_did(tmp_path, kind, naming):
    mmdit = network()
    before = velocity(mmdit)
    file, wanted = made(mmdit, kind)
    assert torch.equal(velocity(mmdit), before) and (wanted - before).abs().max() > 0.01
    path = file.save(tmp_path / naming)
    applied = lora.match([mmdit], [(lora.read(path), 1.0)]).apply(torch.float32)
    torch.testing.assert_close(velocity(mmdit), wanted, atol=1e-4, rtol=0)
    applied.remove()


@pytest.mark.parametrize("kind", ADAPTERS)
def test_diffusers_does_the_same(tmp_path, kind):
    """Its network has no loader of its own: PEFT's is the way."""
    from diffusers import JoyImageEditTransformer3DModel
    from peft import PeftModel

    theirs = JoyImageEditTransformer3DModel(
        hidden_size=32, num_attention_heads=2, num_layers=4, in_channels=16, text_dim=CONFIG.text_dim,
        mlp_width_ratio=2.0, rope_dim_list=list(CONFIG.rope_dims), theta=CONFIG.theta,
    ).eval()  # fmt: skip
    mmdit = network()
    theirs.load_state_dict(mmdit.state_dict())
    file, wanted = made(mmdit, kind)
    loaded = PeftModel.from_pretrained(theirs, str(file.save(tmp_path / "peft")))
    items = torch.stack([REFERENCE, INPUTS[0]], dim=1)  # references first
    with torch.no_grad():
        found = loaded(items, *INPUTS[1:], return_dict=False)[0][:, -1]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_new_adapter_changes_nothing_and_without_it_all_is_equal_to_the_bit(kind):
    mmdit = network()
    before = velocity(mmdit)
    adapter = Adapter(mmdit, replace(SHORT, adapter=kind))
    torch.testing.assert_close(velocity(mmdit), before, atol=1e-5, rtol=0)
    adapter.load({name: p + 0.1 for name, p in adapter.tensors().items()})
    assert not torch.equal(velocity(mmdit), before)
    with adapter.off():
        assert torch.equal(velocity(mmdit), before)
        assert adapter.tensors()  # they stay what is trained
    adapter.remove()


def test_an_adapter_is_drawn_from_its_seed():
    def drawn(seed: int) -> list[Tensor]:
        mmdit = network()
        torch.manual_seed(seed % 100 + 5)  # which is not what it depends on
        adapter = Adapter(mmdit, replace(SHORT, seed=seed))
        values = [p.detach().clone() for p in adapter.parameters()]
        adapter.remove()
        return values

    one, again, other = drawn(1), drawn(1), drawn(2**64 - 1)
    assert all(map(torch.equal, one, again)) and not all(map(torch.equal, one, other))


def test_targets_are_whole_parts_of_names():
    mmdit = network()
    names = target_layers(mmdit, TARGETS)
    assert len(names) == 4 * 8 - 3  # the last block makes no text
    assert "double_blocks.3.attn.txt_attn_qkv" in names and "double_blocks.3.txt_mlp.net.2" not in names
    assert target_layers(mmdit, ["double_blocks.1.img_mlp"]) == [
        "double_blocks.1.img_mlp.net.0.proj", "double_blocks.1.img_mlp.net.2",
    ]  # fmt: skip
    assert target_layers(mmdit, ["proj_out"]) == ["proj_out"]
    with pytest.raises(JoyImageError, match="no layer 'img_attn' to train"):
        target_layers(mmdit, ["img_attn"])


def test_an_update_of_another_rank_is_refused():
    mmdit = network()
    adapter = Adapter(mmdit, SHORT)
    values = {name: p.detach()[:1] for name, p in adapter.tensors().items()}
    with pytest.raises(JoyImageError, match="another adapter"):
        adapter.load(values)
    adapter.remove()


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(JoyImageError, match=r"end the name in \.safetensors"):
        made(network(), "lora")[0].save(tmp_path / "lora.pt")


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("rank", 2.5), ("learning_rate", 0.0), ("ema", 1.0), ("drop_prompts", 1.5), ("adapter", "loha"),
     ("seed", -1), ("targets", ()), ("clip", float("nan")), ("checkpointing", "yes"), ("alpha", -1.0)],
)  # fmt: skip
def test_a_bad_setting_is_named(name, value):
    with pytest.raises(JoyImageError, match=name):
        Training(**{name: value})


def test_every_setting_says_what_it_is_for_and_has_its_default_in_range():
    for name in Training.names():
        assert Training.purpose(name), name
        bounds = Training._metadata(name).get("range")
        if bounds is not None:
            assert bounds.least <= getattr(Training, name) <= bounds.most, name


def test_the_rate_rises_stays_and_falls():
    rates = [Training(steps=10, warm_up=2, cool_down=4, learning_rate=1.0).rate(step) for step in range(10)]
    assert rates == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    with pytest.raises(JoyImageError, match="do not fit"):
        Training(steps=10, warm_up=8, cool_down=4)
