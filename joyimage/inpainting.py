"""Edits of a part of a picture, or of what is to lie around it; all else stays as it is, to the pixel.

The model sees the whole picture. In each step what lies outside the mask is put back into the latent, by the rule of
ComfyUI, so that both make the same picture; what was made is laid over the picture through the mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from . import prompts
from .conditioning import Group, fit
from .config import WanVAEConfig
from .errors import JoyImageError
from .images import Size, best_bucket, cover, load_mask, nearest_size, to_tensor
from .inputs import listed, spread
from .sampling import Velocity
from .settings import AUTO, MAX_CANVAS, MAX_SIDE, NATIVE_BASE_SIZE, check_outpaint

Mask = str | Path | Image.Image | np.ndarray | Tensor
Sides = tuple[int, int, int, int]  # left, top, right, bottom

EDGE = 1  # the soft edge within a mask: shrunk by so many pixels, then blurred over as many
OVERLAP = 8  # pixels of a picture's rim that are blended with what is made around it
GRAY = (128, 128, 128)
LEAST = 0.5 / 255  # of a mask: below it what is laid over a picture is lost in rounding
SPATIAL_FACTOR = WanVAEConfig().spatial_factor


@dataclass(frozen=True, eq=False)
class Area:
    """What of a picture may change, at the size of the result."""

    source: Image.Image  # the picture as it was given, which a caption is about
    beginning: str  # of the sentence that the caption completes
    picture: Image.Image  # fitted, and with its border where there is one
    mask: Tensor  # (H, W) in [0, 1], float32: what is made anew is 1
    share: Tensor  # (H, W): of what was made, when it is laid over the picture; nowhere more than the mask

    @cached_property
    def latent_mask(self) -> Tensor:
        """(1, 1, 1, h, w): each value of it the mean of the four in the middle of its 8 x 8 pixels, as in ComfyUI."""
        size = [side // SPATIAL_FACTOR for side in self.mask.shape]
        return F.interpolate(self.mask[None, None], size, mode="bilinear")[:, :, None]

    def lay_over(self, made: Tensor) -> Tensor:
        """What was made (1, 3, H, W), in [-1, 1] and on the CPU, within the picture."""
        return self.share * made + (1 - self.share) * to_tensor(self.picture)


@dataclass(frozen=True, eq=False)
class Region:
    """A picture with its mask, a Pillow image of mode F, before they are fitted to the size of the result."""

    source: Image.Image
    picture: Image.Image
    mask: Image.Image
    outpaints: bool = False

    def fit(
        self, others: Sequence[Image.Image], size: Size | None, base_size: int | str | None, own: int
    ) -> tuple[tuple[Image.Image, ...], Size, Area]:
        """As `conditioning.fit`, with the picture as the last of an edit's, which has the size of the result.

        `own` is the base size of the model.
        """
        base = own if isinstance(base_size, str) else base_size
        size = size or self._size(base_size, base)
        picture, mask = cover(self.picture, size), torch.from_numpy(np.array(cover(self.mask, size))).clamp(0, 1)
        beginning, share = (prompts.OUTPAINT, mask) if self.outpaints else (prompts.INPAINT, soft_edge(mask))
        area = Area(self.source, beginning, picture, mask, share)
        if not (area.share.any() and area.latent_mask.any()):
            raise JoyImageError(
                f"the mask is too thin: at {size[0]} x {size[1]} (height x width) nothing of it is left; paint it at "
                f"least {SPATIAL_FACTOR + 2 * EDGE} pixels wide"
            )
        return (*(fit(others, None, base)[0] if others else ()), picture), size, area

    def _size(self, base_size: int | str | None, base: int | None) -> Size:
        """A widened picture keeps its shape, and by "auto" its size, up to the area of the published models'."""
        height, width = self.picture.height, self.picture.width
        if self.outpaints and base is not None:
            automatic = base_size == AUTO
            scale = (NATIVE_BASE_SIZE if automatic else base) / math.sqrt(height * width)
            scale = min(scale, 1) if automatic else scale
            return nearest_size(height * scale, width * scale)
        return nearest_size(height, width) if base is None else best_bucket(height, width, base)


def regions(
    edits: Sequence[Sequence[Image.Image]],
    mask: Mask | Sequence[Mask] | None = None,
    outpaint: Sequence[int] | None = None,
) -> list[Region] | None:
    """The regions of edits by their pictures, of which the last is the one that changes; None without a mask.

    A mask is a picture or an array as `read_mask` takes it, one for all edits or one each. `outpaint` is the pixels to
    add on the left, at the top, on the right and at the bottom.
    Raises `JoyImageError` for both at once, for a mask that is black or of another size than its picture, and for
    pixels that are not four whole numbers of at least 0, one of them above 0.
    """
    if mask is not None and outpaint is not None:
        raise JoyImageError("mask and outpaint cannot go together: run one edit after the other")
    if mask is None and outpaint is None:
        return None
    if not all(edits):
        raise JoyImageError("a mask, and outpaint, need a picture that they change")
    if outpaint is not None:
        sides = check_outpaint(outpaint)
        return [_widened(edit[-1], sides) for edit in edits]
    masks = [read_mask(one) for one in listed(mask, Mask, "the mask")]
    return [_region(edit[-1], one) for edit, one in zip(edits, spread(masks, len(edits), "masks"), strict=True)]


def _region(picture: Image.Image, mask: Image.Image) -> Region:
    if mask.size != picture.size:
        raise JoyImageError(
            f"the mask is {mask.height} x {mask.width} and its picture {picture.height} x {picture.width} "
            "(height x width): they must be of one size"
        )
    return Region(picture, picture, mask)


def read_mask(mask: Mask) -> Image.Image:
    """A mask as a Pillow image of mode F in [0, 1]: 1, or white, is what changes; 0, or black, stays.

    It is a picture as `images.load_mask` takes it, or an array or tensor (H, W) of bool, uint8 or floats in [0, 1],
    with axes of length 1 before, or with 1 or 3 channels behind as uint8.
    Raises `JoyImageError` for others, for NaN, and for a mask that is black all over, or too near to it to change any
    pixel by a level.
    """
    name = mask if isinstance(mask, str | Path) else "the mask"
    if isinstance(mask, Tensor):
        mask = (mask.detach().float() if mask.is_floating_point() else mask.detach()).cpu().numpy()
    read = _from_array(mask) if isinstance(mask, np.ndarray) else load_mask(mask)
    if np.asarray(read).max() < LEAST:
        raise JoyImageError(f"{name} is black all over, so nothing would change: white is what changes")
    return read


def _from_array(array: np.ndarray) -> Image.Image:
    shape = array.shape
    while array.ndim > 2 and len(array) == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8 and 0 not in array.shape:
        return load_mask(Image.fromarray(array))
    if array.ndim != 2 or 0 in array.shape or not (array.dtype in (np.bool_, np.uint8) or array.dtype.kind == "f"):
        raise JoyImageError(f"a mask is (H, W) of bool, uint8 or floats in [0, 1], not {array.dtype} {shape}")
    values = array.astype(np.float32) / (255 if array.dtype == np.uint8 else 1)
    if not (values.min() >= 0 and values.max() <= 1):  # NaN compares false
        raise JoyImageError("a mask of floats must lie in [0, 1], without NaN; as uint8 it runs from 0 to 255")
    return Image.fromarray(values)


def _widened(picture: Image.Image, sides: Sides) -> Region:
    """The picture on a larger gray canvas, whose mask is what was added and the picture's rim next to it."""
    left, top, right, bottom = sides
    width, height = picture.width + left + right, picture.height + top + bottom
    if max(width, height) > MAX_SIDE or width * height > MAX_CANVAS:
        raise JoyImageError(
            f"outpaint would make a picture of {height} x {width} (height x width); {MAX_SIDE} pixels a side are "
            f"the most, and {MAX_CANVAS:,} in all"
        )
    canvas = Image.new("RGB", (width, height), GRAY)
    canvas.paste(picture, (left, top))
    mask = np.ones((height, width), np.float32)
    mask[top : top + picture.height, left : left + picture.width] = _rim(picture.height, picture.width, sides)
    return Region(picture, canvas, Image.fromarray(mask), outpaints=True)


def _rim(height: int, width: int, sides: Sides) -> np.ndarray:
    """(height, width): from 1 where something is added to 0 at `OVERLAP` pixels, by the square.

    It is the feathering of ComfyUI's Pad Image for Outpainting; pictures too small for it have none.
    """
    distance = np.full((height, width), OVERLAP)
    if min(height, width) <= 2 * OVERLAP:
        return np.zeros(distance.shape, np.float32)
    left, top, right, bottom = sides
    rows, columns = np.arange(height)[:, None], np.arange(width)
    seams = ((rows, top), (height - rows, bottom), (columns, left), (width - columns, right))
    distance = reduce(np.minimum, (away for away, added in seams if added), distance)
    return np.square(1 - distance / OVERLAP, dtype=np.float32)


def soft_edge(mask: Tensor) -> Tensor:
    """A mask (H, W) that rises over 2 `EDGE` pixels from its border inwards, and is nowhere above the one given.

    What lies outside it is then the picture's own to the bit. Where a mask reaches the picture's border it has no edge.
    """
    inner = -F.max_pool2d(-mask[None, None], 2 * EDGE + 1, stride=1, padding=EDGE)
    kernel = torch.exp(-0.5 * (torch.arange(-EDGE, EDGE + 1) / EDGE) ** 2)
    kernel /= kernel.sum()
    blurred = F.conv2d(F.pad(inner, [EDGE] * 4, mode="reflect"), (kernel[:, None] * kernel)[None, None])
    return torch.minimum(blurred[0, 0], mask)


def within(velocity: Velocity, mask: Tensor, clean: Tensor, noise: Tensor) -> Velocity:
    """A velocity that moves what lies in the mask (B, 1, 1, h, w) alone.

    Outside, what the network sees is the `clean` latent with so much of the run's `noise` as belongs to sigma (both
    shaped like x), and what it estimates is replaced by the clean latent, to which the last step therefore leads.
    """
    rest = 1 - mask

    def masked(x: Tensor, sigma: float) -> Tensor:
        seen = x * mask + (sigma * noise + (1 - sigma) * clean) * rest
        denoised = (seen - sigma * velocity(seen, sigma).float()) * mask + clean * rest
        return (x - denoised) / sigma

    return masked


def with_beginnings(instruction: Any, mask: Any, outpaint: Any) -> Any:
    """The instructions of an edit, where there is a mask with the beginning of a sentence in place of empty ones."""
    if mask is None and outpaint is None:
        return instruction
    beginning = prompts.INPAINT if outpaint is None else prompts.OUTPAINT
    given = listed("" if instruction is None else instruction, str, "the prompt")
    return [beginning if one is None or (isinstance(one, str) and not one.strip()) else one for one in given]


def captioned(group: Group, caption: Callable[[Image.Image], str]) -> Group:
    """The edits with the caption of their picture in the prompts that are a bare beginning of a sentence."""
    area = group.area
    if area is None or all(positive != area.beginning for positive, _ in group.prompts):
        return group
    sentence = area.beginning + caption(area.source)
    pairs = ((sentence if positive == area.beginning else positive, other) for positive, other in group.prompts)
    return replace(group, prompts=tuple(pairs))
