"""The recipe of the bundled model, a few steps of it: repeatable, and not disturbed by being killed."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from joyimage.config import WAN_LATENTS_MEAN, WAN_LATENTS_STD
from joyimage.encoder import Encoder
from tools.tiny import encoder, scenes, training, vae
from tools.tiny.training import Recipe


def losses(folder, name):
    return [json.loads(line)["loss"] for line in (folder / f"{name}.log.jsonl").read_text().splitlines()]


def fit_line(folder, **options):
    """A small regression, by the loop that trains the networks."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))

    def loss(step, generator):
        x = torch.randn(32, 4, generator=generator)
        value = (network(x) - x.sum(1, keepdim=True)).square().mean()
        return value, {"twice": 2 * value.item()}

    recipe = Recipe(steps=60, save_every=20, warm_up=5)
    return training.train("line", network, loss, recipe, folder, others=lambda name: name.startswith("2"), **options)


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path):
    whole = fit_line(tmp_path / "whole")
    fit_line(tmp_path / "killed", stop_at=25)
    resumed = fit_line(tmp_path / "killed")
    assert losses(tmp_path / "whole", "line") == losses(tmp_path / "killed", "line")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert losses(tmp_path / "whole", "line")[-1] < 0.3 * losses(tmp_path / "whole", "line")[0]
    assert (tmp_path / "whole" / "line.png").stat().st_size > 1000


def test_another_seed_does_not_go_on_from_the_checkpoint(tmp_path):
    fit_line(tmp_path, stop_at=20)
    with pytest.raises(SystemExit, match="is of seed 0, not 1"):
        fit_line(tmp_path, seed=1)


def test_updates_of_muon_are_orthogonal():
    matrices = torch.randn(3, 24, 60, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(training.newton_schulz(matrices))
    assert values.min() > 0.6 and values.max() < 1.3
    assert torch.linalg.svdvals(training.newton_schulz(matrices.mT)).allclose(values, atol=1e-4)


def test_the_vae_takes_wans_latent_statistics_without_changing_its_pictures():
    network = vae.build().eval().requires_grad_(False)
    images = torch.randint(256, (40, 64, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    batch = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    before = network.decode(network.encode(batch))
    vae.standardise(network, images)
    latents = network.encode(batch).squeeze(2)  # normalised by Wan's numbers
    assert latents.mean((0, 2, 3)).abs().max() < 1e-3 and (latents.std((0, 2, 3)) - 1).abs().max() < 1e-3
    assert torch.allclose(network.decode(latents[:, :, None]), before, atol=1e-4)
    assert network.config.latents_mean == WAN_LATENTS_MEAN and network.config.latents_std == WAN_LATENTS_STD


def test_the_encoder_is_trained_on_what_the_library_feeds_it():
    """The fast path of training against `Encoder.encode` with its own image processor."""
    from PIL import Image

    from joyimage import prompts as chat
    from tools.tiny.render import render
    from tools.tiny.tokens import tokenizer

    tokens = tokenizer(["Remove the red cube.", chat.CONDITIONING_SYSTEM] * 2, 300)
    network: Encoder = encoder.build(tokens)
    network.model.eval()
    pixels = torch.from_numpy(render(scenes.draw(2, np.random.default_rng(0))).pixels)
    small = [Image.fromarray(picture) for picture in pixels.numpy()]
    large = np.stack([np.asarray(picture.resize((256, 256), Image.Resampling.BICUBIC)) for picture in small])
    levels = (encoder.enlarged(pixels) + 1) * 127.5 - torch.from_numpy(large).permute(0, 3, 1, 2)
    assert levels.abs().max() < 1.01  # Pillow and torch round apart

    pixels = torch.from_numpy(large)
    pictures = [Image.fromarray(picture) for picture in large]
    (expected,) = network.encode(["Remove the red cube."], pictures)
    pieces = chat.opening(chat.CONDITIONING_SYSTEM, 2, "Remove the red cube.") + chat.closing()
    ids = torch.tensor([network._ids(pieces, [(4, 4)] * 2)])
    with torch.no_grad():
        found = encoder.run(network, ids, pixels[None])[0, network._prefix_length :]
    assert (found - expected).norm() < 1e-5 * expected.norm()
