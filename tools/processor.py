"""transformers' processor for text and images, which the oracles prepare their inputs with."""

from __future__ import annotations

import transformers
from transformers import PreTrainedTokenizerBase, Qwen3VLProcessor


def processor(tokens: PreTrainedTokenizerBase, patch_size: int = 16, temporal_patch_size: int = 2) -> Qwen3VLProcessor:
    """transformers' processor for text and images, with Qwen3-VL's preprocessing written out."""
    without_torchvision = "Qwen2VLImageProcessorPil"  # its name in transformers 5
    name = without_torchvision if hasattr(transformers, without_torchvision) else "Qwen2VLImageProcessor"
    images = getattr(transformers, name)(
        patch_size=patch_size,
        temporal_patch_size=temporal_patch_size,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        min_pixels=65_536,
        max_pixels=16_777_216,
    )
    return ImageTextProcessor(images, tokens, None)


class ImageTextProcessor(Qwen3VLProcessor):
    """Qwen3-VL's processor without its part for videos, which needs torchvision."""

    def check_argument_for_proper_class(self, argument_name, argument):
        return type(argument)
