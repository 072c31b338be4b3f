"""Training of the small Wan VAE: crops first, then whole pictures, objects and edges weighing more than ground."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from joyimage.config import WAN_LATENTS_MEAN, WAN_LATENTS_STD, WanVAEConfig
from joyimage.vae import WanVAE

from .data import to_images
from .training import Recipe, train

CONFIG, SMALL = WanVAEConfig(base_dim=12), WanVAEConfig(base_dim=4)  # of the bundled model, and of a trial
RECIPE = Recipe(steps=3600, average=0.995, hold=0.5)
DECODER = Recipe(steps=1200, matrix_rate=0.006, other_rate=6e-4, average=0.995, hold=0.4)
CROP, CROP_BATCH, BATCH = 32, 48, 24
CROPS = 0.7  # of the steps
KL = 2e-4
OBJECT = 4.0  # how much more what is coloured or an edge weighs


def build(config: WanVAEConfig = CONFIG) -> WanVAE:
    torch.manual_seed(0)
    vae = WanVAE(config)
    for module in vae.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    with torch.no_grad():
        vae.conv1.bias[config.z_dim :] = -5  # log variances: start nearly without noise
        vae.decoder.head[2].weight *= 0.1
    return vae.to(memory_format=torch.channels_last)


def importance(images: Tensor) -> Tensor:
    """Weights (B, 1, H, W) of pixels: 1, and more for colours and edges, which are what objects consist of."""
    saturation = images.amax(1, keepdim=True) - images.amin(1, keepdim=True)
    edges = (F.max_pool2d(images, 3, 1, 1) + F.max_pool2d(-images, 3, 1, 1)).amax(1, keepdim=True)
    return 1 + OBJECT * ((saturation > 0.5) | (edges > 0.4)).float()


def fit(images: Tensor, folder: Path, recipe: Recipe = RECIPE, config: WanVAEConfig = CONFIG, **options) -> WanVAE:
    """Train on `images` (N, H, W, 3) uint8. The weights' latents have the published model's mean and deviation."""
    vae = build(config)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        whole = step >= CROPS * recipe.steps
        picks = torch.randint(len(images), (recipe.batch(BATCH if whole else CROP_BATCH),), generator=generator)
        batch = images[picks]
        if not whole:
            top, left = (torch.randint(batch.shape[1] - CROP + 1, (2,), generator=generator)).tolist()
            batch = batch[:, top : top + CROP, left : left + CROP]
        batch = to_images(batch)
        mean, log_variance = vae.conv1(vae.encoder(batch)).chunk(2, dim=1)
        log_variance = log_variance.clamp(-20, 10)
        noise = torch.randn(mean.shape, generator=generator)
        output = vae.decoder(vae.conv2(mean + (0.5 * log_variance).exp() * noise))
        error, details = difference(output, batch)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return error + KL * divergence, details

    vae.load_state_dict(train("vae", vae, loss, recipe, folder, **options))
    return standardise(vae.eval().requires_grad_(False), images[:: max(1, len(images) // 2000)])


def refine(vae: WanVAE, images: Tensor, folder: Path, recipe: Recipe = DECODER, **options) -> WanVAE:
    """Train the decoder alone on whole pictures: latents, and what learned from them, stay what they are."""
    decoder = vae.decoder.requires_grad_(True)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        picks = torch.randint(len(images), (recipe.batch(BATCH),), generator=generator)
        batch = to_images(images[picks])
        with torch.no_grad():
            latent = vae.conv2(vae.conv1(vae.encoder(batch)).chunk(2, dim=1)[0])
        return difference(decoder(latent), batch)

    decoder.load_state_dict(train("decoder", decoder, loss, recipe, folder, **options))
    decoder.requires_grad_(False)
    return vae


def difference(output: Tensor, wanted: Tensor) -> tuple[Tensor, dict[str, float]]:
    """L1 and MSE with `importance`, and the plain PSNR."""
    weight = importance(wanted)
    weight = weight / weight.mean()
    error = output - wanted
    plain = error.detach().square().mean().item()
    return (weight * (error.abs() + error.square())).mean(), {"psnr": 10 * math.log10(4 / plain)}


@torch.no_grad()
def standardise(vae: WanVAE, images: Tensor) -> WanVAE:
    """Scale the latents to Wan's published mean and deviation, so that its constants hold for these weights too.

    The two 1x1 convolutions around the latent take up the scale: the pictures stay the same.
    """
    batches = (to_images(images[i : i + 100]) for i in range(0, len(images), 100))
    latents = torch.cat([vae.encode(batch) for batch in batches])  # normalised with the published numbers
    wanted_mean, wanted_std = torch.tensor(WAN_LATENTS_MEAN), torch.tensor(WAN_LATENTS_STD)
    raw = latents.squeeze(2) * wanted_std.view(1, -1, 1, 1) + wanted_mean.view(1, -1, 1, 1)
    mean, std = raw.mean(dim=(0, 2, 3)), raw.std(dim=(0, 2, 3))
    scale = wanted_std / std
    z = len(scale)
    vae.conv1.weight[:z] *= scale.view(-1, 1, 1, 1)
    vae.conv1.bias[:z] = (vae.conv1.bias[:z] - mean) * scale + wanted_mean
    vae.conv1.bias[z:] += 2 * scale.log()
    vae.conv2.bias += vae.conv2.weight[:, :, 0, 0] @ (mean - wanted_mean / scale)
    vae.conv2.weight /= scale.view(1, -1, 1, 1)
    return vae
