"""Pictures, depth and instance masks from their files."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import JoyImageError, MissingFileError
from .cameras import Pinhole

DEEPEST = 1e9  # metres; what is farther was not measured
MILLIMETRES = 1000.0  # what numbers in them are divided by
DEPTH = "depth"
LARGEST_NUMBER = 2**31 - 1  # of an object


def read_picture(source: Path | Image.Image | bytes, name: str) -> Image.Image:
    """A picture in RGB, from a file, its bytes or as it is. Raises `JoyImageError` where it cannot be read."""
    if isinstance(source, Image.Image):
        return source.convert("RGB")
    with opened(source, f"view {name}: ") as picture:
        return picture.convert("RGB")


def picture_size(source: Path | bytes) -> tuple[int, int]:
    """Width and height of a picture, from its header. Raises `JoyImageError` where it cannot be read."""
    with opened(source) as picture:
        return picture.size


@contextmanager
def opened(source: Path | bytes, about: str = "") -> Iterator[Image.Image]:
    """A picture, not yet decoded. What cannot be read, here or within the context, is a `JoyImageError`.

    about: what its message begins with.
    """
    shown = f"{about}{'the picture in the table' if isinstance(source, bytes) else source}"
    try:
        if not isinstance(source, bytes) and not stat.S_ISREG(os.stat(source).st_mode):
            raise JoyImageError(f"{shown} is no regular file, as a picture must be")
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            yield picture
    except (JoyImageError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"{about}there is no {source}") from error
    except UnidentifiedImageError as error:
        raise JoyImageError(
            f"{shown} cannot be read: it is no picture, or its start is damaged; make it again"
        ) from error
    except Image.DecompressionBombError as error:
        raise JoyImageError(f"{shown} is larger than any that is read: {error}") from error
    except Exception as error:  # for damaged data Pillow's readers raise almost any type
        told = isinstance(error, OSError) and error.errno is not None and error.strerror
        raise JoyImageError(f"{shown} cannot be read: {told or 'it is damaged or cut short; make it again'}") from error


def read_depth(source: Path | np.ndarray, scale: float | None, name: str) -> np.ndarray:
    """Depth (h, w) float32 in metres, 0 where unknown; a file's numbers are divided by `scale`, an array's are not.

    A file is a picture of one channel, or `.npy`. Raises `JoyImageError` for others, and without `scale` for all but
    whole numbers of more than 8 bits, which then are millimetres.
    """
    depth, shown = _numbers(source, name, DEPTH)
    if depth.ndim == 3 and depth.shape[2] == 1:
        depth = depth[..., 0]
    if depth.ndim != 2 or not depth.size or depth.dtype.kind not in "iuf":
        raise JoyImageError(
            f"{shown} must be one channel of numbers, and is {_kind(depth)}; save it as 16-bit PNG or .npy"
        )
    if isinstance(source, np.ndarray):
        scale = 1.0
    if scale is None and (depth.dtype.kind == "f" or depth.dtype.itemsize == 1):
        raise JoyImageError(
            f"{shown} has numbers of type {depth.dtype}, and nothing says their unit: give depth_unit_scale_factor "
            "in transforms.json (1 for metres), depth_scale in a table, or save millimetres as 16-bit PNG"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        metres = depth.astype(np.float32) / np.float32(MILLIMETRES if scale is None else scale)
        return np.where((metres > 0) & (metres <= DEEPEST), metres, np.float32(0))


def read_instances(source: Path | np.ndarray | Mapping[int, Path], name: str) -> np.ndarray:
    """Numbers of objects (h, w) int32, 0 for none. A later one of single masks lies over those before it.

    Raises `JoyImageError` for pictures of several channels, numbers that are not whole, and masks of different sizes.
    """
    if isinstance(source, Mapping):
        return _joined(source, name)
    numbers, shown = _numbers(source, name, "masks")
    if numbers.ndim != 2 or not numbers.size or numbers.dtype.kind not in "biuf":
        raise JoyImageError(f"{shown} must be one channel of objects' numbers, and is {_kind(numbers)}")
    with np.errstate(invalid="ignore"):
        whole = numbers.dtype.kind != "f" or (numbers == np.rint(numbers)).all()
        if not whole or not (np.abs(numbers.astype(float)) <= LARGEST_NUMBER).all():
            raise JoyImageError(f"{shown} must have whole numbers of objects, up to {LARGEST_NUMBER}, and 0 for none")
    return numbers.astype(np.int32)


def sample(values: np.ndarray, source: Pinhole, wanted: Pinhole) -> np.ndarray:
    """Values (h, w) on the grid of another camera at the same place, the nearest pixel's; 0 beyond the edge."""
    columns, rows = np.meshgrid(np.arange(wanted.width) + 0.5, np.arange(wanted.height) + 0.5)
    ahead = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
    pixels = (ahead @ (source.intrinsic @ np.linalg.inv(wanted.intrinsic)).T)[..., :2]
    inside = (pixels >= 0).all(-1) & (pixels[..., 0] < source.width) & (pixels[..., 1] < source.height)
    column, row = np.floor(np.where(inside[..., None], pixels, 0)).astype(int).transpose(2, 0, 1)
    return np.where(inside, values[row, column], 0).astype(values.dtype)


def _joined(masks: Mapping[int, Path], name: str) -> np.ndarray:
    found: np.ndarray | None = None
    for number, path in masks.items():
        mask, shown = _numbers(path, name, "a mask")
        if mask.ndim == 3:
            mask = mask[..., : -1 if mask.shape[2] in (2, 4) else None].max(axis=2)  # without opacity
        if mask.ndim != 2 or not mask.size or mask.dtype.kind not in "biuf":
            raise JoyImageError(f"{shown} must be black where its object is not, and is {_kind(mask)}")
        if found is None:
            found = np.zeros(mask.shape, dtype=np.int32)
        if mask.shape != found.shape:
            raise JoyImageError(f"{shown} is {_kind(mask)}, and the masks before it have {_sides(found)} pixels")
        found[mask > 0] = number
    if found is None:
        raise JoyImageError(f"view {name} has no masks")
    return found


def _numbers(source: Path | np.ndarray, name: str, what: str) -> tuple[np.ndarray, str]:
    """The numbers of a picture or of a `.npy` as they are stored, and what an error calls them."""
    if isinstance(source, np.ndarray):
        return source, f"view {name}: {what}"
    if not isinstance(source, str | os.PathLike):
        raise JoyImageError(f"view {name}: {what} must be a file or an array, not {type(source).__name__}")
    shown = f"view {name}: {source}, {what},"
    if Path(source).suffix == ".npy":
        return _stored(source, shown), shown
    with opened(source, f"view {name}: ") as picture:
        if picture.mode == "P" and what == DEPTH:
            raise JoyImageError(f"{shown} has a palette of colours; save depth as 16-bit PNG or .npy")
        # Of masks an index into a palette is the number itself.
        return np.asarray(picture.convert("L") if picture.mode == "1" else picture), shown


def _stored(path: Path, shown: str) -> np.ndarray:
    """The array of a `.npy`."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped, as a header may say any size
    except FileNotFoundError as error:
        raise MissingFileError(f"{shown} is not there") from error
    except Exception as error:  # for damaged headers NumPy raises almost any type
        raise JoyImageError(f"{shown} is no array that can be read: damaged, cut short, or of objects") from error
    if not isinstance(array, np.ndarray):  # several arrays
        raise JoyImageError(f"{shown} must be one array, as numpy.save writes it")
    return np.array(array)


def _kind(array: np.ndarray) -> str:
    return (
        f"of {_sides(array)} and type {array.dtype}"
        if array.ndim > 1
        else f"of shape {array.shape} and type {array.dtype}"
    )


def _sides(array: np.ndarray) -> str:
    """Width x height, and channels where there are several."""
    height, width, *channels = array.shape
    return "x".join(map(str, (width, height, *channels)))
