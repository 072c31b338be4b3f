"""VLMEvalKit's table for multiple choice: tabs between columns, pictures in base64 within it.

Several pictures are a list. A picture that an earlier row of the scene has is given as that row's index, as the format
allows. Options and what closes a question are added by who reads it.
"""

from __future__ import annotations

import base64
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from ..questions.form import LETTERS
from ..records import Picture, Sample
from ..tasks import CAPABILITIES, TASKS
from .turns import compact, meta, reading, sample_of

FILE = "questions.tsv"
OPTIONS = LETTERS[:4]
COLUMNS: tuple[str, ...] = (
    "index",
    "image",
    "question",
    *OPTIONS,
    "answer",
    "category",
    "l2-category",
    "id",
    "source",
    "meta_info",
)


class ChoiceWriter:
    """Writes `questions.tsv`. Samples are choices of one turn with up to four options."""

    def __init__(self, folder: Path, size: int = 0):
        self._file = (folder / FILE).open("w", encoding="utf-8", newline="")
        self._rows = csv.DictWriter(self._file, COLUMNS, delimiter="\t", lineterminator="\n")
        self._rows.writeheader()
        self._count = 0
        self._scene, self._known = "", dict[str, int]()

    def add(self, sample: Sample) -> None:
        (turn,) = sample.turns
        row: dict[str, object] = {
            "index": self._count,
            "image": self._image(sample),
            "question": turn.stem,
            **dict(zip(OPTIONS, turn.options, strict=False)),
            "answer": turn.answer,
            "category": turn.task,
            "l2-category": CAPABILITIES[TASKS[turn.task].capability],
            "id": sample.id,
            "source": sample.source,
            "meta_info": compact({**meta(sample), "names": [picture.name for picture in sample.pictures]}),
        }
        self._rows.writerow(row)
        self._count += 1

    def _image(self, sample: Sample) -> str:
        picture, *others = sample.pictures
        if others:
            return compact([_text(each) for each in sample.pictures])
        scene = picture.name.partition("/")[0]
        if scene != self._scene:
            self._scene, self._known = scene, {}
        first = self._known.setdefault(picture.name, self._count)
        return str(first) if first != self._count else _text(picture)

    def close(self) -> None:
        self._file.close()


def _text(picture: Picture) -> str:
    return base64.b64encode(picture.content).decode()


def read(folder: Path) -> Iterator[Sample]:
    """The samples of a folder, with the whole text of a question in place of its stem.

    Raises `JoyImageError` for a row that is not as it was written.
    """
    path = folder / FILE
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with reading(path), path.open(encoding="utf-8", newline="") as file:
            earlier: dict[str, str] = {}
            scene = ""
            for row in csv.DictReader(file, delimiter="\t"):
                if scene != (scene := row["id"].partition("-")[0]):
                    earlier = {}
                image = earlier.get(row["image"], row["image"])
                earlier[row["index"]] = image
                yield _sample(row, image)
    finally:
        csv.field_size_limit(limit)


def _sample(row: dict[str, str], image: str) -> Sample:
    told = json.loads(row["meta_info"])
    texts = json.loads(image) if image.startswith("[") else [image]
    names = told.pop("names")
    pictures = [Picture(name, base64.b64decode(text)) for name, text in zip(names, texts, strict=True)]
    said = [{"value": row["question"]}, {"value": row["answer"]}]
    return sample_of(row["id"], row["source"], pictures, said, told)
