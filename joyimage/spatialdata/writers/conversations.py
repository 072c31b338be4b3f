"""Conversations as JSON lines with pictures beside them, which LLaVA's and Qwen's trainers read.

Beyond their fields a line has `task`, `type`, `source` and `meta_info`; paths of pictures begin at the file's folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ..records import Picture, Sample
from .turns import compact, conversation, meta, reading, sample_of

FILE, PICTURES = "questions.jsonl", "images"


class ConversationWriter:
    """Writes `questions.jsonl` and `images/`. A picture that several samples show is there once."""

    def __init__(self, folder: Path, size: int = 0):
        self._folder = folder
        self._file = (folder / FILE).open("w", encoding="utf-8", newline="\n")
        self._last: tuple[str, set[str]] = "", set()  # a scene's folder, and what is written there

    def add(self, sample: Sample) -> None:
        for picture in sample.pictures:
            self._write(picture)
        line = {
            "id": sample.id,
            "images": [f"{PICTURES}/{picture.name}" for picture in sample.pictures],
            "conversations": conversation(sample),
            "task": sample.task,
            "type": sample.type,
            "source": sample.source,
            "meta_info": meta(sample),
        }
        self._file.write(compact(line) + "\n")

    def _write(self, picture: Picture) -> None:
        place = self._folder / PICTURES / picture.name
        if self._last[0] != str(place.parent):
            place.parent.mkdir(parents=True, exist_ok=True)
            self._last = str(place.parent), set()
        if picture.name not in self._last[1]:
            place.write_bytes(picture.content)
            self._last[1].add(picture.name)

    def close(self) -> None:
        self._file.close()


def read(folder: Path) -> Iterator[Sample]:
    """The samples of a folder. Raises `JoyImageError` for a line that is not as it was written."""
    path = folder / FILE
    with reading(path), path.open(encoding="utf-8") as file:
        for line in file:
            values = json.loads(line)
            pictures = [Picture(name.removeprefix(f"{PICTURES}/"), folder / name) for name in values["images"]]
            yield sample_of(values["id"], values["source"], pictures, values["conversations"], values["meta_info"])
