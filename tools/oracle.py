"""Diffusers' JoyImage pipelines around given networks: what tests and benchmarks compare with."""

from __future__ import annotations

from diffusers import FlowMatchEulerDiscreteScheduler, JoyImageEditPipeline, JoyImageEditPlusPipeline
from torch import nn

from .processor import processor


def pipeline(transformer: nn.Module, vae: nn.Module, text_encoder: nn.Module, tokenizer, plus: bool = False):
    """The Edit pipeline, or Edit-Plus, with the published scheduler settings and no progress bar."""
    kind = JoyImageEditPlusPipeline if plus else JoyImageEditPipeline
    vision = text_encoder.config.vision_config
    made = kind(
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.5),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=transformer,
        processor=processor(tokenizer, vision.patch_size, vision.temporal_patch_size),
    )
    # Diffusers drops 34 tokens, which the system's turn has with the published tokenizer.
    system = made.prompt_template_encode["multiple_images"].split("{}")[0] + "<|im_start|>"
    dropped = len(tokenizer(system).input_ids)
    made.prompt_template_encode_start_idx = dict.fromkeys(made.prompt_template_encode_start_idx, dropped)
    made.set_progress_bar_config(disable=True)
    return made
