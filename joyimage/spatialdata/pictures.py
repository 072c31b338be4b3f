"""Pictures, depth and instance masks from their files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import JoyImageError, MissingFileError
from .cameras import Pinhole

BROKEN = (OSError, UnidentifiedImageError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


def read_picture(source: Path | Image.Image | bytes, name: str) -> Image.Image:
    """A picture in RGB, from a file, its bytes or as it is. Raises `JoyImageError` where it cannot be read."""
    if isinstance(source, Image.Image):
        return source.convert("RGB")
    return _open(source, name).convert("RGB")


def read_depth(source: Path | np.ndarray, scale: float, name: str) -> np.ndarray:
    """Depth (h, w) float32 in metres, 0 where unknown; a file's numbers are divided by `scale`, an array's are not.

    A file is a picture of one channel, or `.npy`. Raises `JoyImageError` for other shapes.
    """
    depth = source if isinstance(source, np.ndarray) else _numbers(source, name) / np.float32(scale)
    if depth.ndim == 3 and depth.shape[2] == 1:
        depth = depth[..., 0]
    if depth.ndim != 2 or not depth.size:
        raise JoyImageError(f"view {name}: depth is a picture of one channel, not of shape {depth.shape}")
    depth = depth.astype(np.float32)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def read_instances(source: Path | np.ndarray | Mapping[int, Path], name: str) -> np.ndarray:
    """Numbers of objects (h, w) int32, 0 for none. A later one of single masks lies over those before it.

    Raises `JoyImageError` for pictures of several channels, none at all, and masks of different sizes.
    """
    if isinstance(source, Mapping):
        return _joined(source, name)
    numbers = source if isinstance(source, np.ndarray) else _numbers(source, name)
    if numbers.ndim != 2:
        raise JoyImageError(f"view {name}: masks are a picture of one channel, not of shape {numbers.shape}")
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
        mask = _numbers(path, name)
        mask = mask.max(axis=2) if mask.ndim == 3 else mask
        if found is None:
            found = np.zeros(mask.shape, dtype=np.int32)
        if mask.shape != found.shape:
            raise JoyImageError(f"view {name}: {path} has another size than the masks before it")
        found[mask > 0] = number
    if found is None:
        raise JoyImageError(f"view {name} has no masks")
    return found


def _numbers(path: Path, name: str) -> np.ndarray:
    """The numbers of a picture or of a `.npy` as they are stored."""
    if Path(path).suffix == ".npy":
        try:
            return np.load(path, allow_pickle=False)
        except FileNotFoundError as error:
            raise MissingFileError(f"view {name}: there is no {path}") from error
        except BROKEN as error:
            raise JoyImageError(f"view {name}: {path} is no array that can be read ({error})") from error
    picture = _open(path, name)
    if picture.mode == "P":  # an index into a palette is the number itself
        return np.asarray(picture)
    return np.asarray(picture.convert("L") if picture.mode == "1" else picture)


def _open(source: Path | bytes, name: str) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        picture.load()
        return picture
    except FileNotFoundError as error:
        raise MissingFileError(f"view {name}: there is no {source}") from error
    except BROKEN as error:
        shown = "its picture" if isinstance(source, bytes) else source
        raise JoyImageError(f"view {name}: {shown} cannot be read ({error})") from error
