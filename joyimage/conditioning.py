"""From pictures and prompts to what a picture is conditioned on, for several edits at once, in two passes.

First all texts, with their pictures, visit the encoder; then all pictures visit the VAE. So each network is needed
once, however many edits there are: within a memory budget it comes and goes once, in ComfyUI it is loaded once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from .errors import JoyImageError
from .images import Size, best_bucket, check_size, cover, nearest_size
from .wishes import near_miss

if TYPE_CHECKING:
    from .inpainting import Area


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What one edit or generation is conditioned on; reusable over seeds, schedules and guidance scales."""

    positive: Tensor  # (L, text_dim)
    negative: Tensor  # (L', text_dim)
    references: tuple[Tensor, ...]  # clean latents, each (1, 16, 1, h_i, w_i)
    size: Size  # height, width of the target in pixels
    area: Area | None = None  # all that may change of the last picture, whose latent is the last reference

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Samples with equal shapes can share a batch; their prompts need not have one length."""
        mask = () if self.area is None else (tuple(self.area.mask.shape),)
        return (self.size, *(tuple(reference.shape) for reference in self.references), *mask)


@dataclass(frozen=True, eq=False)
class Group:
    """Edits of the same pictures, whose encodings they share."""

    pictures: tuple[Image.Image, ...]  # fitted
    size: Size  # height, width of the results in pixels
    prompts: tuple[tuple[str, str], ...]  # positive and negative, of each edit
    area: Area | None = None  # all that may change of the last picture

    @property
    def texts(self) -> list[str]:
        """What the encoder reads, nothing twice."""
        return list(dict.fromkeys(text for pair in self.prompts for text in pair))

    @property
    def pixels(self) -> int:
        """Of its largest picture."""
        return max((picture.width * picture.height for picture in self.pictures), default=0)


# of an edit: positive (L, text_dim), negative (L', text_dim)
Contexts = tuple[Tensor, Tensor]
# texts and the pictures they are about -> one context (L, text_dim) each; the texts run two at a time
EncodeTexts = Callable[[list[str], Sequence[Image.Image]], Sequence[Tensor]]
# a picture -> its clean latent (1, 16, 1, h, w)
EncodePicture = Callable[[Image.Image], Tensor]


def encode_texts(groups: Sequence[Group], encode: EncodeTexts) -> list[list[Contexts]]:
    """The first pass: the contexts of each edit, group by group. Warns of prompts that nearly are spatial instructions.

    Each edit's two texts run as they do in an edit alone, so that its contexts are the same to the bit.
    """
    for prompt in dict.fromkeys(positive for group in groups for positive, _ in group.prompts):
        if warning := near_miss(prompt):
            warnings.warn(warning, stacklevel=2)
    return [_group_contexts(group, encode) for group in groups]


def _group_contexts(group: Group, encode: EncodeTexts) -> list[Contexts]:
    pairs = list(dict.fromkeys(group.prompts))
    if all(positive != negative for positive, negative in pairs):
        encoded = encode([text for pair in pairs for text in pair], group.pictures)
        contexts = dict(zip(pairs, zip(encoded[::2], encoded[1::2], strict=True), strict=True))
    else:  # an edit of one text in place of two would shift the pairs
        own = {pair: encode(list(dict.fromkeys(pair)), group.pictures) for pair in pairs}
        contexts = {pair: (encoded[0], encoded[-1]) for pair, encoded in own.items()}
    return [contexts[pair] for pair in group.prompts]


def encode_pictures(groups: Sequence[Group], encode: EncodePicture) -> list[tuple[Tensor, ...]]:
    """The second pass: the references of each group."""
    return [tuple(encode(picture) for picture in group.pictures) for group in groups]


def join(
    groups: Sequence[Group], contexts: Sequence[Sequence[Contexts]], references: Sequence[tuple[Tensor, ...]]
) -> list[Conditioning]:
    """One conditioning per edit, group by group."""
    return [
        Conditioning(positive, negative, own, group.size, group.area)
        for group, encoded, own in zip(groups, contexts, references, strict=True)
        for positive, negative in encoded
    ]


def fit(
    pictures: Sequence[Image.Image], size: Size | None, base_size: int | None
) -> tuple[tuple[Image.Image, ...], Size]:
    """Scale and crop the pictures of one edit; returns them with the (height, width) of the target.

    One picture shares the target's size, as Edit was trained; of several, each has its own bucket and the target
    that of the last, as Edit-Plus was. Without pictures the target is a square with the side `base_size`.
    Raises `JoyImageError` for a size that cannot be, and where there is nothing to take one from.
    """
    if size is None and not pictures:
        if base_size is None:
            raise JoyImageError("there is no picture whose size to keep: give a size, or a base size")
        size = base_size, base_size
    if size is not None:
        size = check_size(size)
    if size is not None and len(pictures) < 2:
        sizes = [size] * len(pictures)
    elif base_size is None:
        sizes = [nearest_size(picture.height, picture.width) for picture in pictures]
    else:
        sizes = [best_bucket(picture.height, picture.width, base_size) for picture in pictures]
    fitted = tuple(cover(picture, own) for picture, own in zip(pictures, sizes, strict=True))
    return fitted, size or sizes[-1]
