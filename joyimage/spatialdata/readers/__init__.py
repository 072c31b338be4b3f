"""Scenes from the folders and files that they come in: one reader for each format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...errors import JoyImageError, MissingFileError
from ..index import check_scene
from ..scenes import Scene
from . import arkitscenes, nerfstudio, openspatial, scannet
from .common import Found


@dataclass(frozen=True)
class Reader:
    """`holds`: whether a folder or file is a scene, or scenes, of this format. `read`: those scenes, one by one.

    find: the same without reading them, where there may be several.
    """

    holds: Callable[[Path], bool]
    read: Callable[[Path], Iterator[Scene]]
    find: Callable[[Path], Iterator[Found]] | None = None


READERS = {
    "nerfstudio": Reader(nerfstudio.holds, nerfstudio.read),
    "scannet": Reader(scannet.holds, scannet.read),
    "arkitscenes": Reader(arkitscenes.holds, arkitscenes.read),
    "openspatial": Reader(openspatial.holds, openspatial.read, openspatial.find),
}
Place = tuple[Path, Reader]


def read_scenes(path: str | Path, format: str | None = None, *, check: bool = False) -> Iterator[Scene]:
    """All scenes of a folder or file, one by one, in the order of their names.

    A folder is a scene itself or holds scenes, of any of `READERS`. check: also hold depth, boxes, masks and cameras of
    each scene against each other, for which its depth and masks are read; `index.index_scene` and `lifting.lift` do so,
    too. Raises `JoyImageError` where there are none, for an unknown format, what the readers raise, and then for a
    scene that contradicts itself.
    """
    for found in find_scenes(scene_places(path, format)):
        scene = found.read()
        if check:
            check_scene(scene)
        yield scene


def scene_places(path: str | Path, format: str | None = None) -> list[Place]:
    """The folders and files of scenes, each with its reader, as `read_scenes` takes them. Errors as there."""
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
    return found


def find_scenes(places: list[Place]) -> Iterator[Found]:
    """The scenes of some places, one by one, not yet read, so that one that cannot be read does not end the others."""
    for place, reader in places:
        if reader.find is None:
            yield Found(place.name, partial(_only, reader, place))
            continue
        try:
            yield from reader.find(place)
        except JoyImageError as error:
            yield Found(place.name, partial(_refuse, error))


def _only(reader: Reader, place: Path) -> Scene:
    (scene,) = reader.read(place)
    return scene


def _refuse(error: JoyImageError) -> Scene:
    raise error


def _places(path: Path) -> list[Path]:
    if any(reader.holds(path) for reader in READERS.values()) or path.is_file():
        return [path]
    return sorted(path.iterdir())
