"""Names of the Wan VAE's weights: the original's, which `joyimage.vae` uses, and Diffusers' (`AutoencoderKLWan`).

The original numbers the decoder's layers straight through (`decoder.upsamples.N`), Diffusers groups them by level
(`decoder.up_blocks.N.resnets.M`), so a name can be translated only by who knows how many residual blocks a level has.
That is read off the keys, which is why the maps take all of them at once. A key that is in neither naming is mapped to
itself, so that strict loading reports it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ..config import count_blocks

if TYPE_CHECKING:
    from torch import Tensor

# original module: Diffusers' module
FIXED_MODULES = {
    "encoder.conv1": "encoder.conv_in",
    "encoder.middle.0": "encoder.mid_block.resnets.0",
    "encoder.middle.1": "encoder.mid_block.attentions.0",
    "encoder.middle.2": "encoder.mid_block.resnets.1",
    "encoder.head.0": "encoder.norm_out",
    "encoder.head.2": "encoder.conv_out",
    "conv1": "quant_conv",
    "conv2": "post_quant_conv",
    "decoder.conv1": "decoder.conv_in",
    "decoder.middle.0": "decoder.mid_block.resnets.0",
    "decoder.middle.1": "decoder.mid_block.attentions.0",
    "decoder.middle.2": "decoder.mid_block.resnets.1",
    "decoder.head.0": "decoder.norm_out",
    "decoder.head.2": "decoder.conv_out",
}
IMAGE_LAYER = re.compile(r"\.(resample|to_qkv|proj)\.")  # what works on frames one by one, and so has kernels of 2-D
# inside a residual block; what attention and resampling hold has the same names in both
BLOCK_MODULES = {
    "residual.0": "norm1",
    "residual.2": "conv1",
    "residual.3": "norm2",
    "residual.6": "conv2",
    "shortcut": "conv_shortcut",
}


def diffusers_to_original(keys: Collection[str]) -> dict[str, str]:
    """Original name of each key of a whole VAE in Diffusers' naming."""
    modules = _modules(
        down_layers=count_blocks(keys, "encoder.down_blocks"),
        up_levels=count_blocks(keys, "decoder.up_blocks"),
        level_blocks=count_blocks(keys, "decoder.up_blocks.0.resnets"),
    )
    return _rename(keys, _inverse(modules), _inverse(BLOCK_MODULES))


def original_to_diffusers(keys: Collection[str]) -> dict[str, str]:
    """Diffusers' name of each key of a whole VAE in the original naming; the inverse of `diffusers_to_original`."""
    up_layers = count_blocks(keys, "decoder.upsamples")
    resamples = (i for i in range(up_layers) if f"decoder.upsamples.{i}.resample.1.weight" in keys)
    level_blocks = next(resamples, up_layers)
    modules = _modules(
        down_layers=count_blocks(keys, "encoder.downsamples"),
        up_levels=-(-up_layers // (level_blocks + 1)),
        level_blocks=level_blocks,
    )
    return _rename(keys, modules, BLOCK_MODULES)


def image_kernels(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn a VAE's weights in the original naming, 3-D or already 2-D, into those that `WanVAE` loads.

    A causal 3-D convolution sees one frame behind zeros, so only the last temporal slice of its kernel,
    (out, in, 3, h, w) -> (out, in, h, w), meets the image; the temporal resampling (`time_conv`) is never reached.
    Kernels come out in channels_last, norms as (C,), everything else as it is.
    """
    return {key: _image_kernel(key, tensor) for key, tensor in state.items() if not is_temporal(key)}


def video_kernels(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `image_kernels` in shapes: kernels whose last temporal slice is the image's and the others zeros,
    norms with axes of length 1. The temporal resampling is left out."""
    return {key: _video_kernel(key, tensor) for key, tensor in state.items()}


def image_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes of what `image_kernels` makes of weights of these shapes."""
    return {key: _image_shape(key, shape) for key, shape in shapes.items() if not is_temporal(key)}


def is_temporal(key: str) -> bool:
    """Whether a weight resamples frames, of which there is one."""
    return ".time_conv." in key


def _image_kernel(key: str, tensor: Tensor) -> Tensor:
    import torch  # here: names and shapes are worked with without it

    if key.endswith(".gamma"):
        return tensor.flatten()  # (C, 1, 1, 1) -> (C,)
    if tensor.ndim == 5:
        tensor = tensor[:, :, -1]
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _video_kernel(key: str, tensor: Tensor) -> Tensor:
    import torch

    if key.endswith(".gamma"):
        return tensor.view(-1, *[1] * (2 if ".norm." in key else 3))  # (C, 1, 1) in attention, else (C, 1, 1, 1)
    if tensor.ndim != 4 or IMAGE_LAYER.search(key):
        return tensor
    earlier = tensor.new_zeros(*tensor.shape[:2], tensor.shape[-1] - 1, *tensor.shape[2:])  # as long as it is wide
    return torch.cat([earlier, tensor.unsqueeze(2)], dim=2)  # (out, in, frames, h, w)


def _image_shape(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if key.endswith(".gamma"):
        return (math.prod(shape),)
    return shape[:2] + shape[3:] if len(shape) == 5 else shape


def _modules(down_layers: int, up_levels: int, level_blocks: int) -> dict[str, str]:
    """Every module's original name with Diffusers'. A level of the decoder is its residual blocks and an upsampling."""
    modules = dict(FIXED_MODULES)
    for i in range(down_layers):
        modules[f"encoder.downsamples.{i}"] = f"encoder.down_blocks.{i}"
    for level in range(up_levels):
        first = level * (level_blocks + 1)
        for i in range(level_blocks):
            modules[f"decoder.upsamples.{first + i}"] = f"decoder.up_blocks.{level}.resnets.{i}"
        modules[f"decoder.upsamples.{first + level_blocks}"] = f"decoder.up_blocks.{level}.upsamplers.0"
    return modules


def _rename(keys: Collection[str], modules: Mapping[str, str], block_modules: Mapping[str, str]) -> dict[str, str]:
    renamed = {}
    for key in keys:
        module, inner = _split(key, modules)
        block_module, parameter = _split(inner, block_modules)
        new = (modules.get(module), block_modules.get(block_module, block_module), parameter)
        renamed[key] = ".".join(filter(None, new)) if module else key
    return renamed


def _split(name: str, known: Mapping[str, str]) -> tuple[str, str]:
    """Cut a dotted name after the longest leading part that is known; the first half is empty if none is."""
    cut = len(name)
    while cut > 0 and name[:cut] not in known:
        cut = name.rfind(".", 0, cut)
    return (name[:cut], name[cut + 1 :]) if cut > 0 else ("", name)


def _inverse(table: Mapping[str, str]) -> dict[str, str]:
    return {new: old for old, new in table.items()}
