"""What other trainers' files say of their data: TOML of musubi-tuner and diffusion-pipe, YAML of ai-toolkit.

Only where pictures, captions and masks lie is read. Sizes, batches and repeats are settings here.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import JoyImageError, MissingFileError
from ..examples import Example
from .folders import has_pictures, read_folders
from .keys import refuse_unread
from .tables import inside, read_jsonl


class Vocabulary(NamedTuple):
    """What a trainer calls the folders of a data set, and the other things that are read."""

    targets: str
    controls: str
    masks: str = ""
    table: str = ""  # JSON lines in place of folders
    caption_extension: str = ""
    default_caption: str = ""


MUSUBI = Vocabulary(
    "image_directory", "control_directory", table="image_jsonl_file", caption_extension="caption_extension"
)
DIFFUSION_PIPE = Vocabulary("path", "control_path", masks="mask_path")
AI_TOOLKIT = Vocabulary("folder_path", "control_path", "mask_path", "", "caption_ext", "default_caption")
REPEATS = "num_repeats"


def read_toml(path: Path, folder: Path, default_caption: str) -> list[Example]:
    """`[[datasets]]` of musubi-tuner, or `[[directory]]` of diffusion-pipe; relative paths begin at `folder`.

    Raises `JoyImageError` for other files, naming what was looked for.
    """
    held = _toml(path)
    if "datasets" in held:
        general = held.get("general", {})
        if not isinstance(general, dict):
            raise JoyImageError(f"{path}: general is {general!r:.80} and no table")
        sets = [{**general, **each} for each in _sets(path, held["datasets"])]
        return _read(path, sets, MUSUBI, folder, default_caption)
    if "directory" in held:
        return _read(path, _sets(path, held["directory"]), DIFFUSION_PIPE, folder, default_caption)
    raise JoyImageError(
        f"{path}: describes no training set: looked for [[datasets]] with {MUSUBI.targets} or {MUSUBI.table}, as "
        f"musubi-tuner has it, and for [[directory]] with {DIFFUSION_PIPE.targets}, as diffusion-pipe has it"
    )


def read_yaml(path: Path, folder: Path, default_caption: str) -> list[Example]:
    """`config: process: datasets:` of ai-toolkit. Raises as `read_toml` does."""
    import yaml  # here: it comes with the libraries that read checkpoints, and nobody else needs it

    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # bytes, dates that are none, too deep a nesting
        raise JoyImageError(f"{path}: is no YAML: {error}") from None
    try:
        sets = [each for process in held["config"]["process"] for each in process["datasets"]]
    except (KeyError, TypeError):
        raise JoyImageError(
            f"{path}: describes no training set: looked for config: process: datasets: with {AI_TOOLKIT.targets}, as "
            "ai-toolkit has it"
        ) from None
    return _read(path, _sets(path, sets), AI_TOOLKIT, folder, default_caption)


def _toml(path: Path) -> dict[str, Any]:
    try:
        toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    except ModuleNotFoundError:
        raise JoyImageError('reading TOML needs tomli on Python 3.10: pip install "joyimage[train]"') from None
    try:
        return toml.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # what it cannot read, and what is no UTF-8
        raise JoyImageError(f"{path}: is no TOML: {error}") from None


def _sets(path: Path, held: Any) -> list[dict[str, Any]]:
    if not isinstance(held, list) or not held or not all(isinstance(each, dict) for each in held):
        raise JoyImageError(f"{path}: its data sets are {held!r:.80} and no list of tables")
    return held


def _read(
    path: Path, sets: Sequence[dict[str, Any]], words: Vocabulary, folder: Path, default_caption: str
) -> list[Example]:
    if len({repr(each.get(REPEATS, 1)) for each in sets}) > 1:
        warnings.warn(f"{path}: {REPEATS} is not read: each example is seen once in an epoch", stacklevel=5)
    found = []
    for i, each in enumerate(sets):
        where = f"{path}, data set {i + 1}"
        _check_keys(each, words, folder, where)
        if words.table and each.get(words.table):
            table = inside(folder, _text(each, words.table, where))
            if not table.is_file():
                raise MissingFileError(f"{where}: {words.table} is {table}, which does not exist")
            found += read_jsonl(table, table.parent, default_caption)
            continue
        if not each.get(words.targets):
            looked = " or ".join(filter(None, (words.targets, words.table)))
            raise JoyImageError(f"{where}: names no pictures; looked for {looked}, found {', '.join(each)}")
        found += read_folders(
            inside(folder, _text(each, words.targets, where)),
            [inside(folder, name) for name in _controls(each, words.controls, where)],
            inside(folder, masks) if (masks := _optional(each, words.masks, where)) else None,
            default_caption=_optional(each, words.default_caption, where) or default_caption,
            caption_extension=_optional(each, words.caption_extension, where) or ".txt",
        )
    return found


def _check_keys(each: Mapping[str, Any], words: Vocabulary, folder: Path, where: str) -> None:
    known = [*filter(None, words), REPEATS]
    numbered = {f"{words.controls}_{i}" for i in range(1, 7)}
    own = {each[name] for name in known if isinstance(each.get(name), str)}  # such as a cache beside the pictures

    def holds_pictures(value: Any) -> bool:
        return isinstance(value, str) and value not in own and has_pictures(inside(folder, value))

    unread = ((str(key), value) for key, value in each.items() if key not in known and key not in numbered)
    refuse_unread(unread, known, holds_pictures, where)


def _controls(each: Mapping[str, Any], name: str, where: str) -> list[str]:
    """One folder, a list of them, or several with numbers behind the name, as ai-toolkit's window writes them."""
    numbered = [each.get(f"{name}_{i}") for i in range(1, 7)]
    value = each.get(name) or [folder for folder in numbered if folder]
    folders = [value] if isinstance(value, str) else value
    if not isinstance(folders, list) or not all(isinstance(folder, str) for folder in folders):
        raise JoyImageError(f"{where}: {name} is {value!r:.80}; give a folder or a list of folders")
    return folders


def _text(each: Mapping[str, Any], name: str, where: str) -> str:
    if not isinstance(each[name], str):
        raise JoyImageError(f"{where}: {name} is {each[name]!r:.80} and no text")
    return each[name]


def _optional(each: Mapping[str, Any], name: str, where: str) -> str:
    return _text(each, name, where) if each.get(name) else ""
