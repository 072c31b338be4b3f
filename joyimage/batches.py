"""Pictures as batches (B, H, W, C) of floats in [0, 1], the form in which graph editors pass them on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .errors import JoyImageError
from .images import load

CHANNELS = (1, 3, 4)  # gray, RGB, RGB and opacity


def from_batch(batch: Tensor) -> list[Image.Image]:
    """A batch of 1, 3 or 4 channels as RGB Pillow images, rounded to 8 bits; values beyond [0, 1] are clipped.

    What is transparent becomes white, as when a file is read: a batch made from a file gives what `load` gives for it.
    Raises `JoyImageError` for another shape, no pixels, and NaN or infinite values.
    """
    if batch.ndim != 4 or batch.shape[3] not in CHANNELS or 0 in batch.shape:
        raise JoyImageError(f"pictures have shape (B, H, W, C) with 1, 3 or 4 channels, not {tuple(batch.shape)}")
    values = batch.detach().float()
    if not values.isfinite().all():
        raise JoyImageError("the pictures hold NaN or infinite values: what made them went wrong")
    levels = (values * 255).round().clamp(0, 255).to(torch.uint8).cpu()
    return [load(Image.fromarray(picture.squeeze(2).numpy())) for picture in levels]  # squeezes gray to (H, W)


def to_batch(pictures: Sequence[Image.Image]) -> Tensor:
    """RGB pictures of one size as a batch (B, H, W, 3), float32 in [0, 1]."""
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).float() / 255
