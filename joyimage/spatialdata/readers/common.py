"""What the readers share: texts, JSON, matrices in text files, and folders of pictures."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import JoyImageError, MissingFileError
from ..scenes import Scene
from .fields import LARGEST, lens

PICTURES = (".jpg", ".jpeg", ".png")
LARGE = 256 * 2**20  # bytes of a text file, at most


@dataclass(frozen=True)
class Found:
    """A scene that is there, not yet read. `read` raises `JoyImageError` for what cannot be used."""

    name: str
    read: Callable[[], Scene]


def load_text(path: Path) -> str:
    """Raises `JoyImageError` for a file that is not there, too large, or not UTF-8."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGE:
            raise JoyImageError(f"{path} must be a regular file of at most {LARGE >> 20} MiB")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise MissingFileError(f"there is no {path}") from error
    except UnicodeDecodeError as error:
        raise JoyImageError(f"{path}: byte {error.start + 1} is no UTF-8 text; save it as UTF-8") from error
    except OSError as error:
        raise JoyImageError(f"{path} cannot be read: {error.strerror or 'the system refuses'}") from error


def load_json(path: Path) -> Any:
    """Raises `JoyImageError` for a file that cannot be read or is no JSON."""
    text = load_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise JoyImageError(f"{path} is no JSON: it breaks off or goes wrong in {where}; write it again") from error
    except RecursionError as error:
        raise JoyImageError(
            f"{path} is no JSON that can be read: lists or records lie too deep in each other"
        ) from error
    except ValueError as error:
        raise JoyImageError(f"{path} is no JSON that can be read: a number has thousands of digits") from error


def load_numbers(path: Path) -> np.ndarray:
    """The numbers of a text file, (lines, numbers in a line), which may be infinite; what follows # is passed over.

    Raises `JoyImageError` for a file that cannot be read, words in it, and lines of different lengths.
    """
    rows: list[list[float]] = []
    for place, line in enumerate(load_text(path).splitlines(), start=1):
        words = line.partition("#")[0].split()
        try:
            row = [float(word) for word in words]
        except ValueError as error:
            raise JoyImageError(f"{path}: line {place} is {line!r:.60}; it must be numbers and spaces") from error
        if rows and row and len(row) != len(rows[0]):
            raise JoyImageError(f"{path}: line {place} has {len(row)} numbers and the first has {len(rows[0])}")
        rows += [row] if row else []
    return np.array(rows, dtype=float).reshape(len(rows), -1 if rows else 0)


def load_matrix(path: Path, shapes: tuple[tuple[int, int], ...] = ((4, 4),), lost: bool = False) -> np.ndarray:
    """A matrix in a text file, row by row. Raises `JoyImageError` for one of another shape, and where it is not finite.

    lost: it may be, as it is where something could not be measured.
    """
    matrix = load_numbers(path)
    if matrix.shape not in shapes:
        sizes = " or ".join(f"{rows} x {columns}" for rows, columns in shapes)
        raise JoyImageError(f"{path} has {matrix.shape[0]} lines of {matrix.shape[1]} numbers; it must have {sizes}")
    if not (lost and not np.isfinite(matrix).all()) and not (np.abs(matrix) <= LARGEST).all():
        raise JoyImageError(f"{path} has numbers that are not finite or beyond {LARGEST:g}; write it again")
    return matrix


def load_intrinsics(path: Path) -> np.ndarray:
    """Intrinsics (3, 3) in a text file of 4 x 4 or 3 x 3 numbers, which has the pixels' middles at whole numbers."""
    return centred(lens(load_matrix(path, ((4, 4), (3, 3))), path))


def centred(intrinsic: np.ndarray) -> np.ndarray:
    """Intrinsics (3, 3) with the pixels' middles at halves, from those that have them at whole numbers."""
    return intrinsic + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, numbers in names by their value. Raises `JoyImageError` where there is no folder."""
    if not folder.is_dir():
        raise MissingFileError(f"there is no folder {folder}, which has the scene's pictures")
    found = [path for path in folder.iterdir() if path.suffix.lower() in PICTURES]
    return sorted(found, key=lambda path: (len(path.stem), path.stem) if path.stem.isdigit() else (0, path.stem))
