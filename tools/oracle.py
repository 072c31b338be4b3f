"""Diffusers' JoyImage pipelines around given networks: what tests and benchmarks compare with."""

from __future__ import annotations

from diffusers import FlowMatchEulerDiscreteScheduler, JoyImageEditPipeline, JoyImageEditPlusPipeline
from torch import nn
from transformers import Qwen2VLImageProcessorPil, Qwen3VLProcessor


def processor(tokenizer) -> Qwen3VLProcessor:
    """Qwen3-VL's processor for images alone: its video half wants torchvision, which is not needed here."""
    images = Qwen2VLImageProcessorPil(
        patch_size=16,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": 65_536, "longest_edge": 16_777_216},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    bare = Qwen3VLProcessor.__new__(Qwen3VLProcessor)
    bare.image_processor, bare.tokenizer, bare.video_processor, bare.chat_template = images, tokenizer, None, None
    ids = tokenizer.get_vocab()
    for name in ("image", "video"):
        setattr(bare, f"{name}_token", f"<|{name}_pad|>")
        setattr(bare, f"{name}_token_id", ids[f"<|{name}_pad|>"])
    bare.vision_start_token, bare.vision_end_token = "<|vision_start|>", "<|vision_end|>"
    bare.vision_start_token_id, bare.vision_end_token_id = ids["<|vision_start|>"], ids["<|vision_end|>"]
    return bare


def pipeline(transformer: nn.Module, vae: nn.Module, text_encoder: nn.Module, tokenizer, plus: bool = False):
    """The Edit pipeline, or Edit-Plus, with the published scheduler settings and no progress bar."""
    kind = JoyImageEditPlusPipeline if plus else JoyImageEditPipeline
    made = kind(
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.5),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=transformer,
        processor=processor(tokenizer),
    )
    # Diffusers drops 34 tokens, which the system's turn has with the published tokenizer.
    system = made.prompt_template_encode["multiple_images"].split("{}")[0] + "<|im_start|>"
    dropped = len(tokenizer(system).input_ids)
    made.prompt_template_encode_start_idx = dict.fromkeys(made.prompt_template_encode_start_idx, dropped)
    made.set_progress_bar_config(disable=True)
    return made
