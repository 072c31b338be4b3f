"""What the readers share: JSON, matrices and numbers in text files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import JoyImageError, MissingFileError
from ..scenes import Scene

PICTURES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Found:
    """A scene that is there, not yet read. `read` raises `JoyImageError` for what cannot be used."""

    name: str
    read: Callable[[], Scene]


def load_json(path: Path) -> Any:
    """Raises `JoyImageError` for a file that cannot be read or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise MissingFileError(f"there is no {path}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise JoyImageError(f"{path} is no JSON that can be read ({error})") from error


@contextmanager
def fields_of(file: Path | str) -> Iterator[None]:
    """Where fields of a file are taken for what they should be: says as a `JoyImageError` that one is not."""
    try:
        yield
    except JoyImageError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise JoyImageError(f"{file}: a field is missing or of another kind ({error!r})") from error


def load_matrix(path: Path, shapes: tuple[tuple[int, int], ...] = ((4, 4),)) -> np.ndarray:
    """A matrix in a text file, row by row; it may hold inf. Raises `JoyImageError` for one of another shape."""
    try:
        matrix = np.loadtxt(path, ndmin=2)
    except FileNotFoundError as error:
        raise MissingFileError(f"there is no {path}") from error
    except (OSError, ValueError) as error:
        raise JoyImageError(f"{path} holds no matrix ({error})") from error
    if matrix.shape not in shapes:
        raise JoyImageError(f"{path} holds a matrix of shape {matrix.shape}, not {' or '.join(map(str, shapes))}")
    return matrix


def centred(intrinsic: np.ndarray) -> np.ndarray:
    """Intrinsics (3, 3) with the pixels' middles at halves, from those that have them at whole numbers."""
    moved = np.array(intrinsic, dtype=float)[:3, :3]
    moved[:2, 2] += 0.5
    return moved


def picture_size(source: Path | bytes) -> tuple[int, int]:
    """Width and height of a picture, from its header. Raises `JoyImageError` where it cannot be read."""
    shown = "a picture in the file" if isinstance(source, bytes) else source
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            return picture.size
    except FileNotFoundError as error:
        raise MissingFileError(f"there is no {shown}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise JoyImageError(f"{shown} is no picture that can be read ({error})") from error


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, numbers in names by their value."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in PICTURES]
    return sorted(found, key=lambda path: (len(path.stem), path.stem) if path.stem.isdigit() else (0, path.stem))
