"""Folders of pictures with texts beside them: targets, and as many folders of pictures that they come from.

ai-toolkit calls them `folder_path` and `control_path`, diffusion-pipe `path` and `control_path`, musubi-tuner
`image_directory` and `control_directory`. Names go together without their suffixes: `cat.png`, `cat.txt` and, in
another folder, `cat.jpg`. Of several controls in one folder the names end in numbers: `cat_0.jpg`, `cat_1.jpg`. An
accent is the same in one character, as most systems write it, and beside its letter, as macOS does.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import JoyImageError, MissingFileError
from ..examples import Example

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")
NUMBERED = re.compile(r"(.+)_(\d+)")


def pictures_in(folder: Path) -> list[Path]:
    """By name; what is hidden is passed over. Raises `MissingFileError` if there is no such folder."""
    if not folder.is_dir():
        raise MissingFileError(f"the folder {folder} does not exist")
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def has_pictures(folder: Path) -> bool:
    """Whether it is a folder with pictures; False for what no file can be called."""
    try:
        return folder.is_dir() and bool(pictures_in(folder))
    except (OSError, ValueError):
        return False


def read_folders(
    targets: Path,
    controls: Sequence[Path] = (),
    masks: Path | None = None,
    *,
    default_caption: str = "",
    caption_extension: str = ".txt",
) -> list[Example]:
    """An example for each picture in `targets`.

    What is missing does not end the reading: a control that is not there is named as it should be, and a caption is
    `default_caption`, so that the check can report it. Masks may be missing.
    Raises `MissingFileError` for a folder that does not exist, `JoyImageError` for one without pictures, or with two
    that differ by suffix alone.
    """
    own = pictures_in(targets)
    if not own:
        raise JoyImageError(f"{targets}: holds no pictures ({', '.join(SUFFIXES)})")
    stems = set(_alone(targets, own))
    found = [_by_stem(folder, stems) for folder in controls]
    shown = {} if masks is None else _by_stem(masks, stems)
    suffix = f".{caption_extension.lstrip('.')}"
    return [
        Example(
            target,
            caption_in(target.with_suffix(suffix), default_caption),
            tuple(
                path for folder, by_stem in zip(controls, found, strict=True) for path in _of(target, folder, by_stem)
            ),
            next(iter(shown.get(stem_of(target), ())), None),
        )
        for target in own
    ]


def stem_of(path: Path) -> str:
    """A name without suffix, by which pictures of several folders go together."""
    return unicodedata.normalize("NFC", path.stem)


def caption_in(path: Path, default: str) -> str:
    """The text of a file; bytes that are no UTF-8 become halves of characters, which the check reports."""
    if not path.is_file():
        return default
    return path.read_text(encoding="utf-8-sig", errors="surrogateescape").strip() or default


def _by_stem(folder: Path, stems: set[str]) -> dict[str, list[Path]]:
    """The pictures of a folder by the stem of the target that they belong to, numbered ones in their order."""
    found: dict[str, list[Path]] = {}
    numbered: dict[str, list[tuple[int, Path]]] = {}
    for path in pictures_in(folder):
        stem = stem_of(path)
        match = NUMBERED.fullmatch(stem)
        if stem not in stems and match and match[1] in stems:
            numbered.setdefault(match[1], []).append((int(match[2]), path))
        else:
            found.setdefault(stem, []).append(path)
    _alone(folder, [path for stem, paths in found.items() if stem in stems for path in paths])
    return {stem: [path for _, path in sorted(several)] for stem, several in numbered.items()} | found


def _alone(folder: Path, paths: Sequence[Path]) -> dict[str, Path]:
    """Pictures by stem. Raises `JoyImageError` for two of one stem: which of them is meant, nothing says."""
    found: dict[str, Path] = {}
    for path in paths:
        if (other := found.setdefault(stem_of(path), path)) is not path:
            raise JoyImageError(f"{folder}: {other.name} and {path.name} have one name without suffix; leave one")
    return found


def _of(target: Path, folder: Path, by_stem: Mapping[str, list[Path]]) -> list[Path]:
    return by_stem.get(stem_of(target)) or [folder / target.name]
