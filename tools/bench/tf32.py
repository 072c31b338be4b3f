"""What TF32 does to the VAE: torch lets float32 convolutions run in it on Ampere and newer, unless told not to."""

from __future__ import annotations

import torch

from joyimage.config import WanVAEConfig
from joyimage.vae import WanVAE

from .cases import Machine, build, picture_tensor
from .measure import median_times

LEVEL = 2 / 255  # of a picture in [-1, 1]


def compare(machine: Machine, repeats: int) -> dict:
    """Seconds of encode and decode with TF32 and without, and the largest difference between their results.

    `latent` is in units of a normalised latent, `levels` in levels of 255 of the decoded picture. On a CPU there is no
    TF32, and both are equal.
    """
    exact = Machine(machine.device, torch.float32, machine.image, machine.mmdit, machine.text, machine.vision)
    vae, image = build(exact, lambda: WanVAE(WanVAEConfig())), picture_tensor(exact)
    results = {}

    def run(allowed: bool) -> None:
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = allowed
        try:
            latent = vae.encode(image)
            results[allowed] = latent, vae.decode(results.get(False, (latent,))[0])  # of the same latent
        finally:
            torch.backends.cudnn.allow_tf32 = before

    with torch.inference_mode():
        run(False)
        sides = {"float32": lambda: run(False), "tf32": lambda: run(True)}
        seconds = median_times(sides, repeats, machine.device == "cuda")
    (latent, picture), (latent_tf32, picture_tf32) = results[False], results[True]
    return {
        "seconds": seconds,
        "latent": (latent - latent_tf32).abs().max().item(),
        "levels": (picture - picture_tf32).abs().max().item() / LEVEL,
    }
