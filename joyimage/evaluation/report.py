"""What a benchmark found, as JSON for programs and as one page of pictures for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..atomic import Part
from ..boxes import Box
from ..errors import JoyImageError

JSON, PAGE = "report.json", "report.html"


@dataclass(frozen=True)
class Shown:
    """A picture on the page, read when the page is made, with boxes drawn in colours."""

    title: str
    load: Callable[[], Image.Image]
    boxes: tuple[tuple[Box, str], ...] = ()


@dataclass(frozen=True)
class Row:
    """One item: how good it is from 0 to 1, None where that is not known; `note` says why one was not measured."""

    name: str
    kind: str
    text: str
    goodness: float | None
    note: str
    values: dict[str, Any]
    pictures: Sequence[Shown] = ()

    def as_dict(self) -> dict[str, Any]:
        note = {"note": self.note} if self.note else {}
        return {"item": self.name, "prompt": self.text, **rounded(self.values), **note}


@dataclass(frozen=True)
class Report:
    """The figures by group and name, by what they were measured, and every item."""

    benchmark: str
    figures: dict[str, dict[str, Any]]
    about: dict[str, Any]
    rows: Sequence[Row]

    def as_dict(self) -> dict[str, Any]:
        about = {"benchmark": self.benchmark, **self.about}
        return {**about, "figures": rounded(self.figures), "items": [row.as_dict() for row in self.rows]}

    @property
    def worst_first(self) -> list[Row]:
        """What failed, then what is not known to be good, then by how good it is."""
        return sorted(self.rows, key=lambda row: (not row.note, row.goodness or 0.0))

    def __str__(self) -> str:
        """The figures, one a line."""
        rows = [(group, name, value) for group, named in rounded(self.figures).items() for name, value in named.items()]
        width = max((len(f"{group} {name}") for group, name, _ in rows), default=0)
        return "\n".join(f"{f'{group} {name}':<{width}}  {said(value)}" for group, name, value in rows)

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Write both files, whole or not at all, over older ones. Raises `JoyImageError` if the disk refuses."""
        from .page import page

        text = json.dumps(self.as_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        return _write(folder / JSON, text + "\n"), _write(folder / PAGE, page(self))


def said(value: Any) -> str:
    if value is None:
        return "not measured"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def rounded(value: Any) -> Any:
    """Values of JSON with at most six decimals."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list | tuple) else value


def _write(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with Part(path.parent) as part:
            part.path.write_text(text, encoding="utf-8", errors="backslashreplace")  # of a name that is no UTF-8
            return part.publish([path], replace=True)
    except OSError as error:
        raise JoyImageError(f"cannot write {path}: {error.strerror or error}") from error
