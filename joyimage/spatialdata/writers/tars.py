"""Edit pairs as WebDataset's tars, in SpatialEdit's form, as `joyimage train` reads them.

`stem.json` holds `conversations`, whose first value is the instruction; `stem.0.jpg` is the source, for a move with the
red box drawn, and `stem.1.jpg` the target.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..records import Pair, Picture
from ..settings import EDITS
from .turns import PLACE, compact, reading

FOLDER = "edits"


class PairWriter:
    """Writes `edits/KIND/00000.tar` and on, each followed by another from `size` bytes on."""

    def __init__(self, folder: Path, size: int):
        self._folder, self._size = folder / FOLDER, size
        self._tars: dict[str, Tars] = {}

    def add(self, pair: Pair) -> None:
        if pair.kind not in self._tars:
            self._tars[pair.kind] = Tars(self._folder / pair.kind, self._size)
        self._tars[pair.kind].write(
            {
                f"{pair.id}.0{pair.source.suffix}": pair.source.content,
                f"{pair.id}.1{pair.target.suffix}": pair.target.content,
                f"{pair.id}.json": compact(_described(pair)).encode(),
            }
        )

    def close(self) -> None:
        for tars in self._tars.values():
            tars.close()


class Tars:
    """The tars of one kind, by Python's module: WebDataset's writer reads paths as addresses, and waits for torch."""

    def __init__(self, folder: Path, size: int):
        folder.mkdir(parents=True)
        self._folder, self._size = folder, size
        self._number = self._written = 0
        self._tar: tarfile.TarFile | None = None

    def write(self, members: dict[str, bytes]) -> None:
        if self._tar is None:
            path = self._folder / f"{self._number:05d}.tar"
            self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - closed when it is full
        for name, data in members.items():
            member = tarfile.TarInfo(name)  # of no hour and nobody: equal pairs are to be equal files
            member.size = len(data)
            self._tar.addfile(member, io.BytesIO(data))
            self._written += len(data)
        # What it would keep for reading, half a kilobyte of each.
        self._tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - typeshed leaves it out
        if self._written >= self._size:
            self.close()

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None
            self._number += 1
            self._written = 0


def _described(pair: Pair) -> dict[str, Any]:
    said = [{"from": "human", "value": f"{PLACE}\n{pair.text}"}, {"from": "gpt", "value": PLACE}]
    told = {"kind": pair.kind, "scene": pair.scene, "views": pair.views, "box": pair.box}
    return {"id": pair.id, "conversations": said, "meta_info": told}


def read(folder: Path) -> Iterator[Pair]:
    """The pairs of a folder, kind by kind. Raises `JoyImageError` for a tar that is not as it was written."""
    for kind in EDITS:
        for path in sorted((folder / FOLDER / kind).glob("*.tar")):
            with reading(path):
                yield from _read(path)


def _read(path: Path) -> Iterator[Pair]:
    held: dict[str, bytes] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            file = tar.extractfile(member)
            held[member.name] = file.read() if file else b""
            if len(held) == 3:  # in the order of their names: 0, 1, json
                yield _pair(held)
                held = {}


def _pair(held: dict[str, bytes]) -> Pair:
    (source, before), (target, after), (_, text) = held.items()
    values = json.loads(text)
    told = values["meta_info"]
    return Pair(
        id=values["id"],
        kind=told["kind"],
        scene=told["scene"],
        text=values["conversations"][0]["value"].removeprefix(f"{PLACE}\n"),
        source=Picture(source, before),
        target=Picture(target, after),
        views=tuple(told["views"]),
        box=None if told["box"] is None else tuple(told["box"]),
    )
