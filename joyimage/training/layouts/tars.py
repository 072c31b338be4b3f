"""Tars in the WebDataset form, as SpatialEdit's are: `stem.json`, `stem.0.jpg` the source, `stem.1.jpg` the target.

The instruction is the first turn of the JSON's `conversations`. With more pictures the last one is the target. The
library groups the names; pictures stay in the tar, and any of them is read where it lies, which a stream could not.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import JoyImageError
from ..examples import Example
from ..pictures import Member

NUMBERED = re.compile(r"(\d+)\.(jpg|jpeg|png|webp)")
PLACE = "<image>"  # of a picture in a conversation


def read_tar(path: Path, folder: Path, default_caption: str) -> list[Example]:
    """The examples of one tar. Raises `JoyImageError` for one that is damaged, compressed, or holds none."""
    group = _group_by_keys()
    try:
        samples = list(group(_members(path)))
    except tarfile.TarError as error:
        raise JoyImageError(f"{path}: is damaged, or no uncompressed tar: {error}") from None
    except ValueError as error:  # the library's for a name that is there twice
        raise JoyImageError(f"{path}: {error.args[0]}") from None
    found = [_example(sample, default_caption) for sample in samples if any(map(NUMBERED.fullmatch, sample))]
    if not found:
        raise JoyImageError(f"{path}: holds no examples; looked for stem.json, stem.0.jpg and stem.1.jpg")
    return found


def _group_by_keys() -> Callable[..., Iterator[dict[str, Any]]]:
    try:
        from webdataset.tariterators import group_by_keys
    except ModuleNotFoundError:
        raise JoyImageError('reading tars needs webdataset: pip install "joyimage[train]"') from None
    return group_by_keys


def _members(path: Path) -> Iterator[dict[str, Any]]:
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            if member.isfile() and not member.issparse():
                held = Member(path, member.name, member.offset_data, member.size)
                yield {"fname": member.name, "data": held, "__url__": str(path)}


def _example(sample: Mapping[str, Any], default_caption: str) -> Example:
    numbered = sorted((int(match[1]), name) for name in sample if (match := NUMBERED.fullmatch(name)))
    *controls, target = (sample[name] for _, name in numbered)
    return Example(target, _instruction(sample.get("json")) or default_caption, tuple(controls))


def _instruction(member: Member | None) -> str:
    """What is said first; nothing where there is no such text, which the check reports."""
    if member is None:
        return ""
    try:
        value = json.loads(member.read())["conversations"][0]["value"]
    except (ValueError, RecursionError, KeyError, IndexError, TypeError):
        return ""
    return value.replace(PLACE, "").strip() if isinstance(value, str) else ""
