"""Pictures in and out: reading files, bucket sizes, cropping to them, tensors, batches, and PNGs with their parameters.

Sizes are (height, width) in pixels throughout, as in tensors; Pillow's own `.size` is (width, height).
"""

from __future__ import annotations

import json
import math
import numbers
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from .atomic import Part
from .errors import JoyImageError, MissingFileError
from .settings import BASE_SIZES, MAX_SIDE, NATIVE_BASE_SIZE

if TYPE_CHECKING:
    from torch import Tensor

Size = tuple[int, int]

MULTIPLE = 16  # the VAE shrinks by 8 and the MMDiT's patches by 2
BATCH_CHANNELS = (1, 3, 4)  # gray, RGB, RGB and opacity
PARAMETERS = "joyimage"  # the PNG text chunk that `save_png` writes

LYING = (5, 6, 7, 8)  # orientations of EXIF that swap a picture's sides
# The value that is white, for modes deeper than 8 bits. 16-bit gray files open as I;16, or as I in older Pillow.
WHITE = {"I": 65535, "I;16": 65535, "I;16B": 65535, "I;16L": 65535, "I;16N": 65535, "F": 1.0}


def buckets(base_size: int = NATIVE_BASE_SIZE) -> list[Size]:
    """The (height, width) pairs that references are cropped to, by ascending height, then width.

    Made at 256 as the original's `bucket.py` does and scaled by `base_size / 256`: sides in steps of 16, areas of at
    most 256 x 256, sides at most 4 : 1. At 1024 these are Diffusers' 49 pairs. At 64, the bundled model's, there is
    only the square, as it knows no other shape.
    Raises `JoyImageError` if `base_size` is not one of `BASE_SIZES`.
    """
    if base_size not in BASE_SIZES:
        raise JoyImageError(f"base size {base_size} is not one of {', '.join(map(str, BASE_SIZES))}")
    if base_size == 64:
        return [(64, 64)]
    scale = base_size // 256
    return sorted((h * scale, w * scale) for h, w in _staircase() if max(h, w) <= 4 * min(h, w))


def _staircase() -> Iterator[Size]:
    """Walk along height * width = 256 * 256 from below, from tall to wide, in steps of 16."""
    height, width = 4096, 16
    while height > 0:
        yield height, width
        if height * (width + 16) <= 256 * 256:
            width += 16
        else:
            height -= 16


def best_bucket(height: int, width: int, base_size: int = NATIVE_BASE_SIZE) -> Size:
    """The bucket whose height / width is nearest to the picture's; of two equally near, the lower one.

    Ratios are compared by difference, as in the original, which favours wide buckets a little; logarithms would not.
    Raises `JoyImageError` for sides below 1 or an unknown base size.
    """
    if min(height, width) < 1:
        raise JoyImageError(f"a picture of {height} x {width} (height x width) has no pixels")
    return min(buckets(base_size), key=lambda bucket: abs(bucket[0] / bucket[1] - height / width))


def nearest_size(height: float, width: float, multiple: int = MULTIPLE) -> Size:
    """The nearest (height, width) that are positive multiples of `multiple`; halves round up."""

    def nearest(side: float) -> int:
        return max(multiple, int((2 * side + multiple) // (2 * multiple)) * multiple)

    return nearest(height), nearest(width)


def check_size(size: Sequence[int]) -> Size:
    """Return `size` as (height, width) if both are positive multiples of 16, up to `MAX_SIDE`.

    Raises `JoyImageError` otherwise, naming the nearest size that works.
    """
    sides = tuple(size) if isinstance(size, Iterable) else ()
    if len(sides) != 2 or not all(isinstance(s, numbers.Integral) and not isinstance(s, bool) for s in sides):
        raise JoyImageError(f"a size is (height, width) in whole pixels, not {size!r}")
    height, width = map(int, sides)
    nearest = nearest_size(height, width)
    if (height, width) != nearest:
        raise JoyImageError(
            f"size {height} x {width} (height x width): both must be positive multiples of {MULTIPLE}; "
            f"the nearest is {nearest[0]} x {nearest[1]}"
        )
    if max(height, width) > MAX_SIDE:
        raise JoyImageError(f"size {height} x {width} (height x width): {MAX_SIDE} pixels a side are the most")
    return height, width


def load(source: str | os.PathLike | Image.Image | np.ndarray) -> Image.Image:
    """Read a picture as a new upright RGB Pillow image of 8 bits.

    `source` is a path, a Pillow image of any mode, or a uint8 array (H, W, 3).
    The EXIF orientation is applied, transparency is composited on white, and an animated file gives its first frame.
    16-bit gray and mode `I` are taken as 0 to 65535 and mode `F` as 0 to 1, and rounded to 8 bits; values outside
    are an error, as nothing says which of them is white. (Of 16-bit colour Pillow itself keeps the high byte.)
    Colour profiles are not applied: the reference pipelines do not either.

    Raises `MissingFileError` for a path that does not exist, and `JoyImageError` for what is not a picture, is cut off,
    has no pixels, or has more than Pillow's limit of 179 million.
    """
    if isinstance(source, str | os.PathLike):
        with decoding(source), _opened(source) as image:
            return _upright_rgb(image)
    if not isinstance(source, Image.Image | np.ndarray):
        raise JoyImageError(f"a picture is a path, a Pillow image or an array (H, W, 3), not {type(source).__name__}")
    with decoding("the picture"):
        return _upright_rgb(source if isinstance(source, Image.Image) else _from_array(source))


def check_picture(source: str | os.PathLike | BytesIO) -> Size:
    """The (height, width) of an upright picture, as its file or the bytes of one say, without decoding it.

    Raises as `load` does; of damage it finds that of a PNG alone.
    """
    held = isinstance(source, BytesIO)
    with decoding("the picture" if held else source), Image.open(source) if held else _opened(source) as image:
        lies = "exif" in image.info and image.getexif().get(ExifTags.Base.Orientation) in LYING
        height, width = image.size if lies else image.size[::-1]
        image.verify()
        return height, width


def load_mask(source: str | os.PathLike | Image.Image) -> Image.Image:
    """Read a mask as a new upright Pillow image of mode F, from black, 0, to white, 1; colours count by their luma.

    Of a picture with transparency the mask is what is transparent, as in ComfyUI and where parts are erased.
    `source` is a path or a Pillow image of any mode. Raises as `load` does.
    """
    if isinstance(source, str | os.PathLike):
        with decoding(source), _opened(source) as image:
            return _upright_mask(image)
    if not isinstance(source, Image.Image):
        raise JoyImageError(f"a mask is a path, a Pillow image, an array or a tensor, not {type(source).__name__}")
    with decoding("the mask"):
        return _upright_mask(source)


def _upright_mask(image: Image.Image) -> Image.Image:
    image = _upright(image)
    if image.mode in WHITE:
        return _fractions(_to_8_bit(image))
    if image.has_transparency_data:
        opacity = image.convert("RGBA").getchannel("A")
        if np.asarray(opacity).min() < 255:
            return _fractions(ImageOps.invert(opacity))
    return _fractions(image.convert("RGB").convert("L"))


def _fractions(gray: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(gray, np.float32) / 255)


@contextmanager
def decoding(name: str | os.PathLike) -> Iterator[None]:
    """Turn what Pillow raises for missing and damaged files into one error that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise MissingFileError(f"{name} does not exist") from None
    except UnidentifiedImageError:
        raise JoyImageError(f"{name} is not a picture, or of a format that Pillow cannot read") from None
    except MemoryError:
        raise
    except Exception as error:  # for damaged data Pillow's readers raise almost any type
        raise JoyImageError(f"cannot read {name}: {str(error) or type(error).__name__}") from error


def _opened(path: str | os.PathLike) -> Image.Image:
    """A picture in a file, not yet decoded. What is neither a file nor a folder, such as a pipe, might never end."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise JoyImageError("it is no regular file")
    return Image.open(path)


def _upright(image: Image.Image) -> Image.Image:
    if 0 in image.size:
        raise JoyImageError(f"it is {image.height} x {image.width} (height x width) and has no pixels")
    return ImageOps.exif_transpose(image)


def _upright_rgb(image: Image.Image) -> Image.Image:
    image = _upright(image)
    if image.mode in WHITE:
        return _to_8_bit(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    flat = Image.new("RGBA", image.size, "white")
    flat.alpha_composite(image.convert("RGBA"))
    return flat.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    white = WHITE[image.mode]
    values = np.asarray(image).astype(np.float32)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= white):
        raise JoyImageError(
            f"pixels of mode {image.mode} run from {values.min():g} to {values.max():g}; scale them to 0 to {white}"
        )
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise JoyImageError(f"an array must be uint8 (H, W, 3), not {array.dtype} {array.shape}")
    return Image.fromarray(array)


def cover(image: Image.Image, size: Size) -> Image.Image:
    """Scale an RGB picture, or a mask of mode F, until it covers `size` (height, width), and cut out the centre.

    Pillow's bilinear averages over what it shrinks; torch's does not. The roundings are the original's: the
    scaled sides up, the crop's offset down. Rounded up they never fall short of `size`, whatever the float's last bit.
    Raises `JoyImageError` for strips so narrow that all but 1/64 of the enlarged picture would be cut away.
    """
    height, width = size
    scale = max(height / image.height, width / image.width)
    scaled_height, scaled_width = math.ceil(image.height * scale), math.ceil(image.width * scale)
    if scaled_height * scaled_width > 64 * height * width:
        raise JoyImageError(
            f"a picture of {image.height} x {image.width} is too narrow for {height} x {width} (height x width): "
            "crop it first"
        )
    image = image.resize((scaled_width, scaled_height), Image.Resampling.BILINEAR)
    left, top = (scaled_width - width) // 2, (scaled_height - height) // 2
    return image.crop((left, top, left + width, top + height))


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB picture as (1, 3, H, W) float32 in [-1, 1]: 0 becomes -1, 255 becomes 1."""
    import torch  # here: sizes are checked without it

    if image.mode != "RGB":
        raise JoyImageError(f"a picture of mode {image.mode} must go through `load` first, which makes it RGB")
    pixels = torch.from_numpy(np.array(image))  # (H, W, 3)
    return pixels.permute(2, 0, 1)[None].to(torch.float32, memory_format=torch.contiguous_format) / 127.5 - 1


def to_pil(tensor: Tensor) -> list[Image.Image]:
    """Pictures (B, 3, H, W) in [-1, 1], of any float type and device, as RGB Pillow images; values beyond are clipped.

    Rounds to the nearest of 256 levels. Truncating would darken every edit by half a level, and a chain of edits by as
    many halves. Raises `JoyImageError` for NaN or infinite values, and for another shape.
    """
    import torch

    if tensor.ndim != 4 or tensor.shape[1] != 3:
        raise JoyImageError(f"pictures have shape (B, 3, H, W), not {tuple(tensor.shape)}")
    values = tensor.detach().float()
    broken = [i for i, sample in enumerate(values) if not sample.isfinite().all()]
    if broken:
        raise JoyImageError(f"NaN or infinite pixels in picture {broken[0]} of {len(values)}: the networks overflowed")
    levels = ((values + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return [Image.fromarray(sample) for sample in levels.permute(0, 2, 3, 1).cpu().numpy()]


def from_batch(batch: Tensor) -> list[Image.Image]:
    """A batch (B, H, W, C) of floats in [0, 1], the form in which graph editors pass pictures on, as RGB Pillow images.

    It has 1, 3 or 4 channels and is rounded to 8 bits; values beyond [0, 1] are clipped. What is transparent becomes
    white, as when a file is read: a batch made from a file gives what `load` gives for it.
    Raises `JoyImageError` for another shape, no pixels, and NaN or infinite values.
    """
    import torch

    if batch.ndim != 4 or batch.shape[3] not in BATCH_CHANNELS or 0 in batch.shape:
        raise JoyImageError(f"pictures have shape (B, H, W, C) with 1, 3 or 4 channels, not {tuple(batch.shape)}")
    values = batch.detach().float()
    if not values.isfinite().all():
        raise JoyImageError("the pictures hold NaN or infinite values: what made them went wrong")
    levels = (values * 255).round().clamp(0, 255).to(torch.uint8).cpu()
    return [load(Image.fromarray(picture.squeeze(2).numpy())) for picture in levels]  # squeezes gray to (H, W)


def to_batch(pictures: Sequence[Image.Image]) -> Tensor:
    """RGB pictures of one size as a batch (B, H, W, 3), float32 in [0, 1]."""
    import torch

    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).float() / 255


def save_png(
    image: Image.Image, path: str | os.PathLike, parameters: dict, otherwise: Iterable[Path] | None = None
) -> Path:
    """Write `image` as a PNG that carries `parameters` as JSON, to be read back by `read_parameters`.

    Complete or not at all: it is written under another name in the folder and then renamed, so neither Ctrl-C nor
    a full disk leaves half a file or harms the one that was there. A file at `path` is replaced; with names to take
    `otherwise` it stays, and the picture gets the first that is free. No folder is made: a mistyped one is an error.
    The JSON is plain ASCII in a `tEXt` chunk named "joyimage", which every PNG reader shows.
    Returns the path of the picture.

    Raises `MissingFileError` if the folder does not exist, `JoyImageError` if the name does not end in `.png` or the
    disk refuses, and `TypeError` or `ValueError` for parameters that JSON cannot hold.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise JoyImageError(f"{path}: pictures are saved as PNG, so the name must end in .png")
    if not path.parent.is_dir():
        raise MissingFileError(f"the folder {path.parent} does not exist; make it first")
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(PARAMETERS, json.dumps(parameters, allow_nan=False))
    try:
        with Part(path.parent) as part:
            image.save(part.path, format="PNG", pnginfo=chunks)
            return part.publish(chain([path], otherwise or ()), replace=otherwise is None)
    except OSError as error:
        raise JoyImageError(f"cannot write {path}: {error.strerror or error}") from error


def is_picture(path: str | os.PathLike) -> bool:
    """Whether a file begins as a PNG, JPEG or WebP does."""
    with open(path, "rb") as file:
        head = file.read(12)
    return head.startswith((b"\x89PNG", b"\xff\xd8\xff")) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def read_parameters(path: str | os.PathLike) -> dict:
    """The parameters that `save_png` put into a PNG. Raises `JoyImageError` if it holds none, or `MissingFileError`."""
    with decoding(path), _opened(path) as image:
        text = image.info.get(PARAMETERS)
        if not isinstance(text, str):
            raise JoyImageError("it carries no parameters; only PNGs that joyimage has written do")
        parameters = json.loads(text)
        if not isinstance(parameters, dict):
            raise JoyImageError(f"its parameters are {parameters!r:.40} instead of names with values")
        return parameters
