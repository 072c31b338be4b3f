"""What became of each row, in one Parquet file at the end and in parts until then, so that a killed run loses nothing.

A record is in `.batch/journal.jsonl` as soon as it is known. The journal becomes a part, `.batch/part-….parquet`, when
it is long enough, and at the end all parts become `manifest.parquet`. A kill between any two of these steps leaves a
record twice; of records of one name the last counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..atomic import Part
from ..errors import JoyImageError
from ..extras import extra

FOLDER, JOURNAL, MANIFEST = ".batch", "journal.jsonl", "manifest.parquet"
PART_RECORDS = 10_000  # of a part, which takes a second to write
DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class Record:
    """What became of a row. Seconds are the row's share where it was encoded or sampled together with others.

    `output` is the picture's path in the folder of results, `answer` what was said to a question, `note` what the
    library warned of, `fingerprint` that of the row and the networks.
    """

    name: str
    row: int
    kind: str = ""
    status: str = DONE
    reason: str = ""
    seed: int = 0
    encode_seconds: float = 0.0
    sample_seconds: float = 0.0
    decode_seconds: float = 0.0
    worker: str = ""
    output: str = ""
    answer: str = ""
    note: str = ""
    fingerprint: str = ""


NAMES = [each.name for each in fields(Record)]


class Manifest:
    """The records of a folder of results, as a context. Raises `JoyImageError` for a folder that cannot be written."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.inner = folder / FOLDER
        self._arrow = extra("pyarrow", "scale")
        self._parquet = extra("pyarrow.parquet", "scale")
        self._pending: list[dict[str, Any]] = []

    def __enter__(self) -> Manifest:
        try:
            self.inner.mkdir(parents=True, exist_ok=True)
            self._pending = self._read_journal()
            self._journal = (self.inner / JOURNAL).open("a", encoding="utf-8")
        except OSError as error:
            raise JoyImageError(f"nothing can be written into {self.inner}: {error.strerror or error}") from None
        return self

    def __exit__(self, *_error: object) -> None:
        with suppress(OSError):  # what is still to be written has been told of
            self._journal.close()

    def _read_journal(self) -> list[dict[str, Any]]:
        """The journal's records; a line that a killed process has not finished is cut off."""
        path = self.inner / JOURNAL
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with path.open("r+b") as file:
                file.truncate(len(whole))
        try:
            records = [json.loads(line) for line in whole.splitlines()]
            return [{name: record[name] for name in NAMES} for record in records]
        except (ValueError, KeyError, TypeError):
            raise JoyImageError(
                f"{path} is no journal of a batch; move it away, and the results are looked at"
            ) from None

    def _files(self) -> list[Path]:
        """Those written before, the oldest first."""
        finished = [path for path in [self.folder / MANIFEST] if path.exists()]
        return finished + sorted(self.inner.glob("part-*.parquet"))

    def records(self) -> Iterator[dict[str, Any]]:
        """All records, the newest of a name last."""
        for path in self._files():
            try:
                for batch in self._parquet.ParquetFile(path).iter_batches():
                    yield from batch.to_pylist()
            except (self._arrow.ArrowException, OSError) as error:
                raise JoyImageError(
                    f"{path} cannot be read: {error}; move it away, and the results are looked at"
                ) from None
        yield from list(self._pending)

    def add(self, record: Record) -> None:
        """Raises `JoyImageError` where it cannot be written."""
        values = {name: _storable(value) for name, value in asdict(record).items()}
        try:
            self._journal.write(json.dumps(values) + "\n")
            self._journal.flush()
        except OSError as error:
            raise JoyImageError(
                f"cannot write {self.inner / JOURNAL}: {error.strerror or error}; the same command goes on later"
            ) from error
        self._pending.append(values)
        if len(self._pending) >= PART_RECORDS:
            self._seal()

    def finish(self) -> Path:
        """Write the manifest with one row of each name, by the numbers of rows, and return it. Parts go."""
        self._seal()
        parts = self._files()
        table = self._arrow.concat_tables([self._table([]), *(self._parquet.read_table(path) for path in parts)])
        newest = {name: place for place, name in enumerate(table["name"].to_pylist())}
        table = table.take(self._arrow.array(sorted(newest.values()), self._arrow.int64())).sort_by("row")
        self._write(table, self.folder / MANIFEST)
        for path in parts:
            if path.parent == self.inner:
                path.unlink()
        return self.folder / MANIFEST

    def _seal(self) -> None:
        """Make a part of the journal, and then empty it."""
        if not self._pending:
            return
        numbers = [int(path.stem.partition("-")[2]) for path in self.inner.glob("part-*.parquet")]
        self._write(self._table(self._pending), self.inner / f"part-{max(numbers, default=0) + 1:06}.parquet")
        self._journal.truncate(0)
        self._pending = []

    def _table(self, records: list[dict[str, Any]]) -> Any:
        kinds = {"str": self._arrow.string(), "int": self._arrow.int64(), "float": self._arrow.float64()}
        own = {"seed": self._arrow.uint64()}
        schema = self._arrow.schema([(each.name, own.get(each.name, kinds[str(each.type)])) for each in fields(Record)])
        return self._arrow.Table.from_pylist(records, schema)

    def _write(self, table: Any, path: Path) -> None:
        try:
            with Part(path.parent) as part:
                self._parquet.write_table(table, part.path)
                part.publish([path], replace=True)
        except OSError as error:
            raise JoyImageError(f"cannot write {path}: {error.strerror or error}") from error


def _storable(value: Any) -> Any:
    """Halves of characters, as in a file's name that is no UTF-8, are spelt: Parquet has none."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
