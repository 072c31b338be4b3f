"""What a complete data set was made of and consists of, as its `data.json` says, against what is there now."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..writers.tars import FOLDER as EDITS

Sizes = dict[str, list[int]]  # of a file or folder: how many files it is, and their bytes


def listing(names: Sequence[str]) -> dict[str, Any]:
    """How many scenes, or files of them, there are, and what tells their names from others."""
    digest = hashlib.sha256("\0".join(names).encode(errors="surrogatepass")).hexdigest()[:12]
    return {"count": len(names), "names": digest}


def named(place: Path) -> str:
    """The name of a scene's folder, or of a file of scenes with its size."""
    return f"{place.name} {place.stat().st_size}" if place.is_file() else place.name


def other_scenes(known: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In what scenes differ from those of a data set, "" where they do not."""
    if known["count"] != now["count"]:
        return f"there were {known['count']} and are {now['count']}"
    return "" if known["names"] == now["names"] else "they had other names or sizes"


def measured(out: Path, names: Sequence[str]) -> Sizes:
    """Of the files and folders of a data set, in those of edit pairs of each kind."""
    found: Sizes = {}
    for name in names:
        within = sorted(each.name for each in (out / name).iterdir()) if name == EDITS else ()
        for each in [f"{name}/{kind}" for kind in within] or [name]:
            sizes = list(_sizes(out / each))
            found[each] = [len(sizes), sum(sizes)]
    return found


def lost(out: Path, known: Sizes) -> list[str]:
    """What is not there any more, or not all of it."""
    told = []
    for name, (count, size) in known.items():
        sizes = list(_sizes(out / name))
        if len(sizes) < count:
            told.append(f"{name} ({len(sizes)} of {count} files)" if count > 1 else name)
        elif sum(sizes) < size:
            told.append(f"{name} ({sum(sizes):,} of {size:,} bytes)")
    return told


def _sizes(path: Path) -> Iterator[int]:
    files = [path] if path.is_file() else path.rglob("*")
    return (each.stat().st_size for each in files if each.is_file())
