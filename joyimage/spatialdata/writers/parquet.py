"""OpenSpatial's Parquet: conversations with the bytes of their pictures. Hugging Face's `datasets` decodes these."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..extras import extra
from ..records import Picture, Sample
from .turns import compact, conversation, meta, reading, sample_of

NAME = "questions-{:05d}.parquet"
ROWS, HELD = 256, 32_000_000  # of a group, at most: rows, and bytes of their pictures
# What tells `datasets` that bytes are pictures, as it writes it itself.
FEATURES = {
    "conversations": [{name: {"dtype": "string", "_type": "Value"} for name in ("from", "value")}],
    "id": {"dtype": "string", "_type": "Value"},
    "data_source": {"dtype": "string", "_type": "Value"},
    "images": {"feature": {"_type": "Image"}, "_type": "Sequence"},
    "type": {"dtype": "string", "_type": "Value"},
    "meta_info": {"dtype": "string", "_type": "Value"},
}


def schema() -> Any:
    """PyArrow's, with `datasets`' features in its metadata."""
    arrow = extra("pyarrow")
    text = arrow.string()
    fields = {
        "conversations": arrow.list_(arrow.struct([("from", text), ("value", text)])),
        "id": text,
        "data_source": text,
        "images": arrow.list_(arrow.struct([("bytes", arrow.binary()), ("path", text)])),
        "type": text,
        "meta_info": text,
    }
    return arrow.schema(list(fields.items()), {"huggingface": json.dumps({"info": {"features": FEATURES}})})


class ParquetWriter:
    """Writes `questions-00000.parquet` and on, each followed by another from `size` bytes of pictures on."""

    def __init__(self, folder: Path, size: int):
        self._folder, self._size = folder, size
        self._schema, self._parquet, self._arrow = schema(), extra("pyarrow.parquet"), extra("pyarrow")
        self._rows: list[dict[str, Any]] = []
        self._held = self._written = self._count = 0
        self._file: Any = self._next()  # a set without samples is a file without rows

    def add(self, sample: Sample) -> None:
        images = [{"bytes": picture.content, "path": picture.name} for picture in sample.pictures]
        row = {
            "conversations": conversation(sample),
            "id": sample.id,
            "data_source": sample.source,
            "images": images,
            "type": sample.type,
            "meta_info": compact({"task": sample.task, **meta(sample)}),
        }
        self._rows.append(row)
        self._held += sum(len(image["bytes"]) for image in images)
        full = self._written + self._held >= self._size
        if full or len(self._rows) >= ROWS or self._held >= HELD:
            self._flush()
        if full:
            self._file.close()
            self._file, self._written = None, 0

    def _next(self) -> Any:
        path = self._folder / NAME.format(self._count)
        self._count += 1
        return self._parquet.ParquetWriter(path, self._schema)

    def _flush(self) -> None:
        if self._file is None:
            self._file = self._next()
        self._file.write_table(self._arrow.Table.from_pylist(self._rows, self._schema))
        self._written, self._held, self._rows = self._written + self._held, 0, []

    def close(self) -> None:
        if self._rows:
            self._flush()
        if self._file is not None:
            self._file.close()


def read(folder: Path) -> Iterator[Sample]:
    """The samples of a folder. Raises `JoyImageError` for a file that is not as it was written."""
    parquet, arrow = extra("pyarrow.parquet"), extra("pyarrow")
    for path in sorted(folder.glob(NAME.replace("{:05d}", "*"))):
        with reading(path):
            try:
                for batch in parquet.ParquetFile(path).iter_batches(ROWS):
                    yield from map(_sample, batch.to_pylist())
            except arrow.ArrowException as error:
                raise ValueError(error) from error


def _sample(row: dict[str, Any]) -> Sample:
    pictures = [Picture(image["path"], image["bytes"]) for image in row["images"]]
    told = json.loads(row["meta_info"])
    return sample_of(row["id"], row["data_source"], pictures, row["conversations"], told)
