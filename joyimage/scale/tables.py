"""Tables of jobs: JSON lines, CSV, Parquet or a folder of pictures, read row by row, so that none is too long.

A table that cannot be read at all is an error. A line that cannot be read is a row with a fault, and the rest is read.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import JoyImageError, check_columns, counted
from ..extras import extra
from .addresses import is_remote, opened, shown, suffix

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")  # of a folder's files
AT_ONCE = 1000  # rows of a Parquet file that are in memory together
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # what spreadsheets and PowerShell write where nobody asks


@dataclass(frozen=True)
class Row:
    """Row `number` of a table, from 1 and without a CSV's header: its cells by their columns, or why it has none."""

    number: int
    cells: dict[str, Any] = field(default_factory=dict)
    fault: str = ""


def read_table(source: str) -> Iterator[Row]:
    """The rows of a table, in their order, or of a folder: a row for each picture in it, by name.

    Raises `MissingFileError` for one that is not there, and `JoyImageError` for one that cannot be read as a whole.
    """
    if not is_remote(source) and os.path.isdir(source):
        return _folder(Path(source))
    reader = READERS.get(suffix(source))
    if reader is None:
        told = shown(source) or "an empty name"
        raise JoyImageError(f"{told}: a table of jobs is {', '.join(READERS)} or a folder of pictures")
    return reader(source)


def _folder(folder: Path) -> Iterator[Row]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    pictures = sorted(path for path in found if not any(part.startswith(".") for part in path.parts))
    several = _doubled([path.with_suffix("") for path in pictures])
    for number, path in enumerate(pictures, 1):
        # cat.jpg beside cat.png: the suffix tells their results apart
        name = path.with_name(path.name.replace(".", "-")) if path.with_suffix("") in several else path.with_suffix("")
        yield Row(number, {"images": [path.as_posix()], "name": name.as_posix()})


def _doubled(names: list[Path]) -> set[Path]:
    seen: set[Path] = set()
    return {name for name in names if name in seen or seen.add(name)}


def _json_lines(source: str) -> Iterator[Row]:
    with opened(source) as file:
        _check_encoding(source, file)
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                cells = json.loads(line, object_pairs_hook=_object)
            except (ValueError, RecursionError) as error:
                yield Row(number, fault=f"the line cannot be read as JSON: {error}")
                continue
            told = "" if isinstance(cells, dict) else f"the line is {cells!r:.40} and no JSON object"
            yield Row(number, {} if told else cells, told)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises `ValueError` for a name that comes twice, of which JSON itself would take the last."""
    cells = dict(pairs)
    if len(cells) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r:.60} is there more than once")
    return cells


def _csv(source: str) -> Iterator[Row]:
    with opened(source) as binary:
        _check_encoding(source, binary)
        # bytes that are no UTF-8 stay halves of characters, which each row's own check refuses
        text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="")
        rows = csv.reader(text, strict=True)  # so that a quote that is never closed makes no row of all that follow
        header = _header(source, rows)
        number = 0
        while True:
            line = rows.line_num + 1
            try:
                values = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                number += 1
                yield Row(number, fault=_unreadable(line, rows.line_num, error))
                continue
            if not any(map(str.strip, values)):  # an empty line, which spreadsheets write with its commas
                continue
            number += 1
            if any(values[len(header) :]):
                cells, columns = counted(len(values), "cell"), counted(len(header), "column")
                yield Row(number, fault=f"the row has {cells} under {columns}; quote commas")
                continue
            yield Row(number, dict(zip(header, values, strict=False)))


def _unreadable(first: int, last: int, error: csv.Error) -> str:
    """Why a row cannot be read; the lines that are lost with it, as a quote that is never closed goes on over them."""
    if last <= first:
        return f"line {first} cannot be read: {error}"
    return f"lines {first} to {last:,} are one row, which cannot be read: {error}; close the quote of line {first}"


def _check_encoding(source: str, file: Any) -> None:
    start = file.read(2)
    file.seek(0)
    if start in UTF_16:
        raise JoyImageError(f"{shown(source)} is in UTF-16; save it as UTF-8")


def _header(source: str, rows: Iterator[list[str]]) -> list[str]:
    try:
        header = [name.strip() for name in next(rows, [])]
    except csv.Error as error:
        raise JoyImageError(f"{shown(source)}: the header cannot be read: {error}") from None
    if not any(header):
        raise JoyImageError(f"{shown(source)}: the first line must name the columns, such as images,instruction")
    if len(header) == 1 and (found := next((each for each in (";", "\t") if each in header[0]), None)):
        raise JoyImageError(f"{shown(source)}: {found!r} stands between the columns of the first line; use commas")
    check_columns(shown(source), header)
    return header


def _parquet(source: str) -> Iterator[Row]:
    parquet, arrow = extra("pyarrow.parquet", "scale"), extra("pyarrow", "scale")
    with opened(source) as file:
        number = 0
        try:
            table = parquet.ParquetFile(file)
            check_columns(shown(source), table.schema_arrow.names)
            for batch in table.iter_batches(AT_ONCE):
                for cells in batch.to_pylist():
                    number += 1
                    yield Row(number, cells)
        except JoyImageError:
            raise
        except (arrow.ArrowException, OSError, ValueError) as error:
            where = f"after row {number}" if number else "at its start"
            raise JoyImageError(f"{shown(source)} cannot be read as Parquet {where}: {error}") from None


READERS: dict[str, Callable[[str], Iterator[Row]]] = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}
