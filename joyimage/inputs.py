"""What callers give, in one form: pictures, prompts, files, a device; and what they amount to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .encoder.limits import MAX_PIXELS, MIN_PIXELS, PACK_LIMIT
from .errors import JoyImageError
from .images import Size, load
from .settings import MAX_REFERENCES, check_text

TEMPLATE_TOKENS = 64  # at most, of a message besides its text and images

Picture = str | Path | Image.Image | np.ndarray


def usable_device(device: torch.device | str | None) -> torch.device:
    """The device asked for, or the GPU where there is one. Raises `JoyImageError` for one that nothing can run on."""
    try:
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise JoyImageError(f"there is no device {device!r}; use cpu, cuda, cuda:1 …") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise JoyImageError("torch finds no CUDA GPU; use the device cpu, or install torch for this machine's GPU")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        last = f"cuda:0 to cuda:{count - 1}" if count > 1 else "cuda:0 alone"
        raise JoyImageError(f"there is no device {device}: torch finds {last}")
    if device.type == "meta":
        raise JoyImageError("the device meta holds no numbers, so that nothing runs on it; use cpu, cuda, cuda:1 …")
    try:
        torch.empty(0, device=device)
    except (NotImplementedError, ImportError):  # the first with a list of all that torch knows
        raise JoyImageError(
            f"this torch, or this machine, has no device {device.type}; use cpu, cuda, cuda:1 …"
        ) from None
    except (RuntimeError, AssertionError) as error:  # the latter from torch that was built without it
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise JoyImageError(f"the device {device} cannot be used here ({why}); use cpu, cuda, cuda:1 …") from None
    return device


def load_all(pictures: Picture | Sequence[Picture]) -> list[Image.Image]:
    return [load(picture) for picture in listed(pictures, Picture, "images")]


def listed(value: Any, kind: Any, name: str) -> list:
    """One of a kind, or many of them, as a list. Raises `JoyImageError` for what is neither."""
    if isinstance(value, kind):
        return [value]
    if not isinstance(value, Iterable):
        raise JoyImageError(f"{name} cannot be {value!r}: give one or a list of them")
    return list(value)


def check_called(name: str, function: Any, takes: str) -> None:
    """Raise `JoyImageError` unless `function` is None or can be called."""
    if not (function is None or callable(function)):
        raise JoyImageError(f"{name} must take {takes}; it is {function!r:.60}")


def pair(
    pictures: Picture | Sequence[Picture] | Sequence[Sequence[Picture]],
    instruction: str | Sequence[str],
    empty: bool = False,
) -> tuple[list[list[Picture]], list[str]]:
    """Normalise the inputs of `edit`: a list of edits, each a list of pictures, and a list of prompts.

    The lists are of one length, or one edit has several prompts. With `empty` an edit may have no pictures.
    """
    prompts = listed(instruction, str, "the prompt")
    for i, prompt in enumerate(prompts):
        check_text(f"prompt {i + 1} of {len(prompts)}", prompt)
        if not prompt.strip():
            raise JoyImageError(f"prompt {i + 1} of {len(prompts)} is empty; say what to make or change")
    if not prompts:
        raise JoyImageError("no prompt given; say what to make or change")
    given = listed(pictures, Picture, "images")
    single = [each for each in given if isinstance(each, Picture)]
    several = [each for each in given if not isinstance(each, Picture)]
    if not given:
        raise JoyImageError("no image given; `generate` makes pictures from text alone")
    if single and several:
        raise JoyImageError("images and lists of images are mixed; give one list for one edit, or a list of lists")
    edits = [listed(edit, Picture, "images") for edit in several] or [single]
    for edit in edits:
        if not edit and not empty:
            raise JoyImageError("an edit has no image; `generate` makes pictures from text alone")
        if len(edit) > MAX_REFERENCES:
            raise JoyImageError(f"an edit has {len(edit)} images; the model takes at most {MAX_REFERENCES}")
    if len(edits) > 1:
        prompts = spread(prompts, len(edits), "instructions")
    return edits, prompts


def one_each(latent: Tensor, count: int) -> Tensor:
    if len(latent) not in (1, count):
        raise JoyImageError(
            f"the latent holds {len(latent)} samples for {count} pictures; give one for all or one each"
        )
    return latent.expand(count, *latent.shape[1:])


def spread(value, length: int, name: str) -> list:
    """One value for all, or a list of one each."""
    values = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    if len(values) == 1:
        values *= length
    if len(values) != length:
        raise JoyImageError(f"{len(values)} {name} for {length} edits; give one for all or one each")
    return values


def vision_pixels(pictures: Sequence[Image.Image]) -> int:
    """Pixels that the vision tower sees."""
    return seen_pixels((picture.height, picture.width) for picture in pictures)


def seen_pixels(sizes: Iterable[Size]) -> int:
    """The same of pictures of these sizes."""
    return sum(min(max(height * width, MIN_PIXELS), MAX_PIXELS) for height, width in sizes)


def text_tokens(texts: Sequence[str]) -> int:
    """A bound on the tokens that run at once: there is at most one per byte, and the template's."""
    return min(sum(TEMPLATE_TOKENS + len(text.encode(errors="replace")) for text in texts), PACK_LIMIT)
