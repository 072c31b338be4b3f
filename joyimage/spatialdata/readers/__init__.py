"""Scenes from the folders and files that they come in: one reader for each format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import JoyImageError, MissingFileError
from ..scenes import Scene
from . import arkitscenes, nerfstudio, openspatial, scannet


@dataclass(frozen=True)
class Reader:
    """`holds`: whether a folder or file is a scene, or scenes, of this format. `read`: those scenes, one by one."""

    holds: Callable[[Path], bool]
    read: Callable[[Path], Iterator[Scene]]


READERS = {
    "nerfstudio": Reader(nerfstudio.holds, nerfstudio.read),
    "scannet": Reader(scannet.holds, scannet.read),
    "arkitscenes": Reader(arkitscenes.holds, arkitscenes.read),
    "openspatial": Reader(openspatial.holds, openspatial.read),
}


def read_scenes(path: str | Path, format: str | None = None) -> Iterator[Scene]:
    """All scenes of a folder or file, one by one, in the order of their names.

    A folder is a scene itself or holds scenes, of any of `READERS`. Raises `JoyImageError` where there are none, for
    an unknown format, and what the readers raise.
    """
    path = Path(path)
    if format is not None and format not in READERS:
        raise JoyImageError(f"no format of scenes is called {format!r}; there are {', '.join(READERS)}")
    if not path.exists():
        raise MissingFileError(f"there is no {path}")
    readers = READERS.values() if format is None else [READERS[format]]
    found = [(place, reader) for place in _places(path) for reader in readers if reader.holds(place)]
    if not found:
        raise JoyImageError(
            f"{path}: neither is a scene nor holds scenes; those are a folder with transforms.json, a ScanNet or "
            "ARKitScenes export, or OpenSpatial's Parquet"
        )
    for place, reader in found:
        yield from reader.read(place)


def _places(path: Path) -> list[Path]:
    if any(reader.holds(path) for reader in READERS.values()) or path.is_file():
        return [path]
    return sorted(path.iterdir())
