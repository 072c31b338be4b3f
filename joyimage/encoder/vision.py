"""From images to what the vision tower takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ..errors import JoyImageError
from .chat import Grid
from .limits import MAX_ASPECT, MAX_PIXELS, MIN_PIXELS


class VisionInputs(NamedTuple):
    """The model's inputs for some images, by their names, and each image's grid of tokens; both empty without images.

    `pixel_values` is (patches, channels * frames * pixels of a patch) in [-1, 1]; those of
    patches that become one token follow each other. `image_grid_thw` is (images, 3): frames, rows and columns of
    patches.
    """

    tensors: dict[str, Tensor]
    grids: list[Grid]


NOTHING = VisionInputs({}, [])


class Vision:
    """Scales images and cuts them into patches; `config` is transformers' for the vision tower."""

    def __init__(self, config: Any):
        self._processor = image_processor(config)
        self._merge = config.spatial_merge_size

    def read(self, images: Sequence[Image.Image], device: torch.device | str) -> VisionInputs:
        """The inputs for `images`, on `device`.

        Raises `JoyImageError` for what is not a Pillow image, and for an image with one side over 200 times the
        other.
        """
        if not images:
            return NOTHING
        for index, image in enumerate(images):
            if not isinstance(image, Image.Image):
                raise JoyImageError(f"image {index} is a {type(image).__name__}, not a Pillow image")
            if max(image.size) > MAX_ASPECT * min(image.size):
                raise JoyImageError(f"image {index} is {image.size}: one side is over {MAX_ASPECT} times the other")
        # The layout is given because it cannot be told from the shape of an image three pixels high.
        pixels = [image.convert("RGB") for image in images]
        batch = self._processor(images=pixels, input_data_format="channels_last", return_tensors="pt")
        grids = [(h // self._merge, w // self._merge) for _, h, w in batch["image_grid_thw"].tolist()]
        return VisionInputs({name: batch[name].to(device) for name in ("pixel_values", "image_grid_thw")}, grids)


def image_processor(config: Any):
    """transformers' Qwen2-VL preprocessing in the variant that uses Pillow and needs no torchvision."""
    import transformers

    in_5 = hasattr(transformers, "Qwen2VLImageProcessorPil")
    name = "Qwen2VLImageProcessorPil" if in_5 else "Qwen2VLImageProcessor"
    return getattr(transformers, name)(
        patch_size=config.patch_size,
        temporal_patch_size=config.temporal_patch_size,
        merge_size=config.spatial_merge_size,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        resample=Image.Resampling.BICUBIC,
        min_pixels=MIN_PIXELS,
        max_pixels=MAX_PIXELS,
    )
