"""Graphs up to the sampler on the bundled model, and the latents that come of them."""

from __future__ import annotations

import torch

from joyimage.config import WAN_LATENTS_MEAN, WAN_LATENTS_STD
from tools.client import TINY, Graph, output

PROMPT, NEGATIVE = "make the cup blue", "blurry, of low quality"
SIZE = 64
STEPS = 4


class Edit(Graph):
    """A graph up to the sampler: loaders, and the encoded prompt with or without the photograph."""

    def __init__(self, image: bool = False, batch_size: int = 1, negative: str = NEGATIVE, size: int = SIZE):
        super().__init__()
        self.model = self.add("JoyImageLoadMMDiT", model=TINY)
        self.vae = self.add("JoyImageLoadVAE", vae=TINY)
        encoder = self.add("JoyImageLoadEncoder", encoder=TINY)
        images = {"images.image0": self.add("LoadImage", image="photo.png"), "vae": self.vae} if image else {}
        size = {"base_size": "256", "width": size, "height": size, "batch_size": batch_size}
        texts = {"prompt": PROMPT, "negative_prompt": negative}
        self.positive = self.add("JoyImageEncodePrompt", encoder=encoder, **texts, **size, **images)
        self.negative, self.latent = output(self.positive, 1), output(self.positive, 2)

    def sample(self, **inputs) -> list:
        """Our sampler, with small settings unless told otherwise, and a SaveLatent whose output is returned."""
        given = {"positive": self.positive, "negative": self.negative, "model": self.model, "latent": self.latent}
        settings = {"seed": 7, "steps": STEPS, "guidance": 4.0}
        sampler = self.add("JoyImageSampler", **(given | settings | inputs))
        return self.save(sampler)

    def ksampler(self, model: list, **inputs) -> list:
        """ComfyUI's sampler with the schedule that equals ours."""
        settings = {"seed": 7, "steps": STEPS, "cfg": 4.0, "denoise": 1.0}
        settings |= {"sampler_name": "euler", "scheduler": "simple"}
        given = {"model": model, "positive": self.positive, "negative": self.negative, "latent_image": self.latent}
        return self.save(self.add("KSampler", **(settings | given | inputs)))

    def custom(self, guider: list, steps: int = STEPS) -> list:
        """ComfyUI's SamplerCustomAdvanced with our schedule."""
        return self.add(
            "SamplerCustomAdvanced",
            noise=self.add("RandomNoise", noise_seed=7),
            guider=guider,
            sampler=self.add("KSamplerSelect", sampler_name="euler"),
            sigmas=self.add("JoyImageSchedule", steps=steps),
            latent_image=self.latent,
        )

    def save(self, latent: list) -> list:
        return self.add("SaveLatent", samples=latent, filename_prefix="test")


def normalised(latent: torch.Tensor) -> torch.Tensor:
    """A LATENT as the library has it: ComfyUI keeps what the VAE gives."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (WAN_LATENTS_MEAN, WAN_LATENTS_STD))
    return (latent - mean) / std


def sampled(client, edit: Edit, **inputs) -> torch.Tensor:
    node = edit.sample(**inputs)
    return client.run(edit).latent(node)
