"""Pieces of graphs on the bundled model, and what came out of them beside what the library makes."""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import load_file

from joyimage import JoyImage
from joyimage.config import WAN_LATENTS_MEAN, WAN_LATENTS_STD
from joyimage.images import load
from tools.client import TINY, Graph, output

NO_EXTRA = "ComfyUI's Python has no peft and accelerate: `pip install peft accelerate` there"
STEPS = 1  # conditioning is under test, not the sampler
PROMPT = "Remove the red cube."
BOX = {"x": 0.25, "y": 0.5, "w": 0.5, "h": 0.25}


def load_image(graph: Graph, name: str) -> list:
    return graph.add("LoadImage", image=name)


def encoder(graph: Graph) -> list:
    return graph.add("JoyImageLoadEncoder", encoder=TINY)


def encode(graph: Graph, images: tuple[list, ...] = (), **inputs) -> list:
    """Encode Prompt with loaders; `inputs` in place of its defaults, None for none."""
    slots = {f"images.image{i}": image for i, image in enumerate(images)}
    if images:
        slots["vae"] = graph.add("JoyImageLoadVAE", vae=TINY)
    defaults = {"prompt": PROMPT, "negative_prompt": "", "base_size": "256"}
    inputs = {"encoder": encoder(graph), **defaults, **slots, **inputs}
    return graph.add("JoyImageEncodePrompt", **{name: value for name, value in inputs.items() if value is not None})


def sampled(graph: Graph, encoded: list) -> list:
    latent = graph.add(
        "JoyImageSampler",
        model=graph.add("JoyImageLoadMMDiT", model=TINY, weight_dtype="default"),
        positive=encoded,
        negative=output(encoded, 1),
        latent=output(encoded, 2),
        seed=7,
        steps=STEPS,
        guidance=4.0,
    )
    return graph.add("SaveLatent", samples=latent, filename_prefix="nodes")


def latents(run, saved: list) -> list[torch.Tensor]:
    """What a SaveLatent node saved, one per item of a list, normalised as the library's are."""
    mean, std = (torch.tensor(values)[:, None, None, None] for values in (WAN_LATENTS_MEAN, WAN_LATENTS_STD))
    return [(load_file(file)["latent_tensor"] - mean) / std for file in run.files(saved, "latents")]


def edited(library: JoyImage, images, prompt, **options) -> torch.Tensor:
    options = {"base_size": 256, "steps": STEPS, "seed": 7, "output": "latent", **options}
    return library.edit(images, prompt, **options)


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The norm of what two tensors differ by, as a share of the expected one's.

    The largest difference of all would be that of the unluckiest rounding: guidance multiplies what two builds of
    torch round differently, and how much that is at one place depends on the processor.
    """
    return float((found - expected).norm() / expected.norm())


def shown_image(run, node: list) -> np.ndarray:
    return np.asarray(load(run.files(node)[0]))


def text_of(run, node: list) -> str:
    return run.outputs[node[0]]["text"][0]


def int8_is_exact() -> bool:
    """Whether this processor's products of int8 are: without VNNI torch's saturate, and ComfyUI's kernels use them."""
    a, b = torch.full((32, 64), 127, dtype=torch.int8), torch.full((64, 32), 127, dtype=torch.int8)
    return bool((torch._int_mm(a, b) == 64 * 127**2).all())


NO_VNNI = "this processor's products of int8 saturate, and ComfyUI's kernels with them"
