"""What is measured: each case builds the same work on this library and on Diffusers, with the same random weights.

Sizes are small on the CPU and those of the published model on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import diffusers
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from joyimage.config import MMDiTConfig, WanVAEConfig
from joyimage.encoder import Encoder
from joyimage.mmdit import MMDiT
from joyimage.sampling import guide
from joyimage.vae import WanVAE
from tools.oracle import pipeline
from tools.photograph import photograph
from tools.tiny.tokens import tokenizer

from .budgets import TEXT_TOKENS
from .measure import Run

FORMER_TEXT = (300, 290)  # what the step had before it had a real condition's; kept, so that older figures compare
PROMPTS = ("Move the cup on the left into the red box and finally remove the red box.", "")


@dataclass(frozen=True)
class Case:
    name: str
    what: str
    bound: float  # largest ratio of times, ours to Diffusers'
    sides: dict[str, Callable[[Machine], Run]]
    once: bool = False  # on a CPU, where a run takes most of a minute: timed in the process that measures its peak


@dataclass(frozen=True)
class Machine:
    """Where the cases run and how large they are."""

    device: str
    dtype: torch.dtype
    image: int  # side of pictures for the VAE and of the latent's picture, in pixels
    mmdit: MMDiTConfig
    text: dict
    vision: dict

    @property
    def latent(self) -> int:
        return self.image // 8


CPU = Machine(
    "cpu",
    torch.float32,
    512,
    MMDiTConfig(hidden_size=512, num_heads=4, num_layers=4, text_dim=512, mlp_size=2048),
    {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 4,
     "num_key_value_heads": 2, "head_dim": 64},
    {"depth": 4, "hidden_size": 128, "intermediate_size": 512, "num_heads": 4, "deepstack_visual_indexes": [0, 1, 2]},
)  # fmt: skip
GPU = Machine(
    "cuda",
    torch.bfloat16,
    1024,
    MMDiTConfig(),
    {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
     "num_key_value_heads": 8, "head_dim": 128},
    {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16,
     "deepstack_visual_indexes": [8, 16, 24]},
)  # fmt: skip


def build(machine: Machine, make: Callable[[], nn.Module]) -> nn.Module:
    """A network with random weights, made where it runs and in its precision."""
    default = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(machine.dtype)
    try:
        with torch.device(machine.device):
            return make().eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(default)


# VAE: encode and decode one picture


def vae_ours(machine: Machine) -> Run:
    vae = build(machine, lambda: WanVAE(WanVAEConfig()))
    image = picture_tensor(machine)
    return lambda: vae.decode(vae.encode(image))


def vae_diffusers(machine: Machine) -> Run:
    vae = build(machine, diffusers.AutoencoderKLWan)
    image = picture_tensor(machine)[:, :, None]

    def run():
        with torch.inference_mode():
            return vae.decode(vae.encode(image).latent_dist.mean).sample

    return run


def picture_tensor(machine: Machine) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, machine.image, machine.image, generator=generator) * 2 - 1
    return image.to(machine.device, machine.dtype)


# Conditioning: a positive and a negative prompt with one picture of 1024 x 1024


def qwen(machine: Machine) -> tuple[nn.Module, object]:
    tokens = tokenizer()
    ids = tokens.get_vocab()
    text = {"vocab_size": 151936, "rope_theta": 5e6, "pad_token_id": ids["<|endoftext|>"], **machine.text}
    head = text["head_dim"]
    sections = [head // 2 - 2 * (head * 5 // 32), head * 5 // 32, head * 5 // 32]  # (24, 20, 20) of 128
    text["rope_scaling"] = {"rope_type": "default", "mrope_section": sections, "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config=text,
        vision_config={**machine.vision, "out_hidden_size": text["hidden_size"]},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    return build(machine, lambda: Qwen3VLForConditionalGeneration(config)), tokens


def megapixel() -> Image.Image:
    return photograph().resize((1024, 1024), Image.Resampling.BILINEAR)


def conditioning_ours(machine: Machine) -> Run:
    encoder, image = Encoder(*qwen(machine)), megapixel()
    return lambda: encoder.encode(PROMPTS, [image])


def conditioning_diffusers(machine: Machine) -> Run:
    model, tokens = qwen(machine)
    oracle = pipeline(None, None, model, tokens)
    image = megapixel()

    def run():
        with torch.inference_mode():
            for prompt in PROMPTS:
                oracle.encode_prompt_multiple_images(
                    prompt, images=image, device=torch.device(machine.device), max_sequence_length=4096
                )

    return run


# One guided step of the MMDiT with one reference


def step_inputs(machine: Machine, text: tuple[int, int]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    size = machine.latent
    shapes = [(1, 16, 1, size, size)] * 2 + [(1, length, machine.mmdit.text_dim) for length in text]
    return tuple(torch.randn(shape, generator=generator).to(machine.device, machine.dtype) for shape in shapes)


def step_ours(machine: Machine, text: tuple[int, int]) -> Run:
    model = build(machine, lambda: MMDiT(machine.mmdit, dtype=machine.dtype))
    latent, reference, positive, negative = step_inputs(machine, text)
    latent, t = latent.float(), torch.tensor([731.25], device=machine.device)

    def run():
        with torch.inference_mode():
            return guide(*(model(latent, t, prompt, [reference]) for prompt in (positive, negative)), 4.0)

    return run


def step_diffusers(machine: Machine, text: tuple[int, int]) -> Run:
    sizes = machine.mmdit
    model = build(
        machine,
        lambda: diffusers.JoyImageEditTransformer3DModel(
            hidden_size=sizes.hidden_size,
            num_attention_heads=sizes.num_heads,
            num_layers=sizes.num_layers,
            in_channels=16,
            text_dim=sizes.text_dim,
            rope_dim_list=list(sizes.rope_dims),
            theta=sizes.theta,
        ),
    )
    latent, reference, positive, negative = step_inputs(machine, text)
    items, t = torch.stack([reference, latent], dim=1), torch.tensor([731.25], device=machine.device)

    def run():
        with torch.inference_mode():
            cond, uncond = (model(items, t, prompt, return_dict=False)[0] for prompt in (positive, negative))
            v = uncond + 4.0 * (cond - uncond)
            return v * (cond.norm(dim=2, keepdim=True) / v.norm(dim=2, keepdim=True).clamp_min(1e-6))

    return run


def operations(config: MMDiTConfig, targets: int, references: int, text: int) -> float:
    """Multiplications and additions that a forward needs; `targets`, `references` and `text` are tokens.

    Of the last block's only the target's tokens are queries and go through projection and MLP: the rest comes to
    nothing.
    """
    hidden, tokens = config.hidden_size, targets + references + text
    projections = 4 * hidden**2 + 2 * hidden * config.mlp_size  # weights of a stream in a block
    whole = 2 * tokens * projections + 4 * tokens**2 * hidden
    inputs = 3 * hidden**2  # of these, queries, keys and values
    last = 2 * (tokens * inputs + targets * (projections - inputs)) + 4 * tokens * targets * hidden
    return (config.num_layers - 1) * whole + last


def step_operations(machine: Machine, text: tuple[int, int]) -> float:
    """Of a guided step with one reference."""
    image = (machine.latent // 2) ** 2
    return sum(operations(machine.mmdit, image, image, prompt) for prompt in text)


def step(name: str, bound: float, text: tuple[int, int]) -> Case:
    sides = {"ours": partial(step_ours, text=text), "diffusers": partial(step_diffusers, text=text)}
    return Case(name, f"guided step, one reference, {text[0]} + {text[1]} tokens of text", bound, sides)


STEP = "step"
CASES = [
    Case("vae", "VAE encode + decode", 0.40, {"ours": vae_ours, "diffusers": vae_diffusers}, once=True),
    Case(
        "conditioning",
        "conditioning, positive + negative, one 1024x1024 picture",
        0.35,
        {"ours": conditioning_ours, "diffusers": conditioning_diffusers},
    ),
    step(STEP, 0.97, TEXT_TOKENS),
    step("former step", 0.97, FORMER_TEXT),
]
