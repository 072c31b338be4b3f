"""Tables of examples: musubi-tuner's JSON lines, DiffSynth's CSV and JSON.

Columns: `image_path`, or `image`, the picture to learn; `caption`, or `prompt`; the pictures that it comes from in
`control_path`, or `control_path_0` and on, or `edit_image`, one or a JSON list. `mask` is optional.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import JoyImageError, check_columns
from ..examples import Example
from .folders import SUFFIXES
from .keys import refuse_unread

TARGETS = ("image_path", "image")
CAPTIONS = ("caption", "prompt")
CONTROLS = ("control_path", "edit_image")
NUMBERED = re.compile(r"control_path_(\d+)")
MASKS = ("mask_path", "mask")
KNOWN = (*TARGETS, *CAPTIONS, *CONTROLS, *MASKS)

Row = Mapping[str, Any]


def read_csv(path: Path, folder: Path, default_caption: str) -> list[Example]:
    """`folder` is where relative paths begin. Raises `JoyImageError`, naming the row, for what is no such table."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.DictReader(file, strict=True)  # so that a quote that is never closed takes no rows into its cell
        try:
            check_columns(path, filter(None, rows.fieldnames or ()))
            return _examples(path, enumerate(rows, 2), folder, default_caption)
        except csv.Error as error:
            read = rows.reader.line_num
            raise JoyImageError(f"{path}: is no table of comma-separated values up to line {read}: {error}") from None


def read_jsonl(path: Path, folder: Path, default_caption: str) -> list[Example]:
    """One object in each line. Raises as `read_csv` does."""
    lines = enumerate(_text(path).split("\n"), 1)  # a caption may hold what else ends lines
    rows = ((i, _json(line, f"{path}, line {i}")) for i, line in lines if line.strip())
    return _examples(path, rows, folder, default_caption)


def read_json(path: Path, folder: Path, default_caption: str) -> list[Example]:
    """A list of objects. Raises as `read_csv` does."""
    rows = _json(_text(path), str(path))
    if not isinstance(rows, list):
        raise JoyImageError(
            f"{path}: holds no list of examples, each with {TARGETS[1]}, {CAPTIONS[1]} and {CONTROLS[1]}"
        )
    return _examples(path, enumerate(rows, 1), folder, default_caption)


def inside(folder: Path, name: str) -> Path:
    """A path as it stands in a file: from `folder` on, or from the working folder where only there is such a file."""
    path = folder / name
    return Path(name) if not _exists(path) and _exists(Path(name)) else path


def _exists(path: Path) -> bool:
    """What is no possible name, such as one that is too long, does not exist."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _examples(path: Path, rows: Iterable[tuple[int, Any]], folder: Path, default_caption: str) -> list[Example]:
    found = [_example(row, f"{path}, row {i}", folder, default_caption) for i, row in rows]
    if not found:
        raise JoyImageError(f"{path}: holds no examples")
    return found


def _example(row: Any, where: str, folder: Path, default_caption: str) -> Example:
    target = _first(row, TARGETS) if isinstance(row, Mapping) else None
    if not isinstance(target, str):
        held = ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
        raise JoyImageError(f"{where}: names no picture to learn; looked for {' or '.join(TARGETS)}, found {held}")
    if row.get(None):  # where `csv` puts them
        raise JoyImageError(f"{where}: has more cells than there are columns; a caption with commas needs quotes")
    unread = ((str(key), value) for key, value in row.items() if key not in KNOWN and not NUMBERED.fullmatch(str(key)))
    refuse_unread(unread, KNOWN, _names_pictures, where)
    caption = _first(row, CAPTIONS)
    if caption is not None and not isinstance(caption, str):
        raise JoyImageError(f"{where}: its caption is {caption!r:.80}, which is no text")
    controls = tuple(inside(folder, name) for name in _controls(row, where))
    mask = _first(row, MASKS)
    if mask is not None and not isinstance(mask, str):
        raise JoyImageError(f"{where}: its mask is {mask!r:.80} and no path")
    own = (caption or "").strip() or default_caption
    return Example(inside(folder, target), own, controls, inside(folder, mask) if mask else None)


def _controls(row: Row, where: str) -> Iterator[str]:
    numbered = sorted((int(match[1]), key) for key in row if (match := NUMBERED.fullmatch(str(key))))
    for key in (*CONTROLS, *(key for _, key in numbered)):
        value = row.get(key) or []
        if isinstance(value, str):
            value = _json(value, f"{where}, {key}") if value.lstrip().startswith("[") else [value]
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise JoyImageError(f"{where}: {key} is {value!r:.80}; give a path or a list of paths")
        yield from value


def _names_pictures(value: Any) -> bool:
    """Whether it is the path of a picture, or a list of paths, also where that is written as text."""
    several = value if isinstance(value, list) else [value]
    return any(isinstance(each, str) and each.rstrip("]\"' ").lower().endswith(SUFFIXES) for each in several)


def _first(row: Row, names: Iterable[str]) -> Any:
    return next((row[name] for name in names if row.get(name)), None)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig", errors="surrogateescape")


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JoyImageError(f"{where}: is no JSON ({error}): {text!r:.80}") from None
