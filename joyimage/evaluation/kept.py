"""Answers that cost time or money, kept in a file of JSON lines, so that what was asked once is not asked again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from ..errors import JoyImageError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Kept:
    """Values of JSON by what they answer. Each is in the file as soon as it is known; a line that a killed process left
    unfinished is dropped when the file is opened again.

    Raises `JoyImageError` for a file that holds something else, or that cannot be written.
    """

    def __init__(self, path: Path):
        self.path = path
        self._values: dict[str, Any] = {}
        if path.exists():
            self._read()

    def __len__(self) -> int:
        return len(self._values)

    def _read(self) -> None:
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                record = json.loads(line)
                self._values[record["of"]] = record["is"]
            except (ValueError, RecursionError, KeyError, TypeError):
                raise JoyImageError(
                    f"{self.path}, line {number}: it holds no answer of a benchmark; move the file away"
                ) from None
        if len(whole) < len(data):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))

    def get(self, of: tuple[str, ...], find: Callable[[], Any]) -> Any:
        """What is known, or what `find` gives now. None is not kept: another time it may be known."""
        key = hashlib.sha256("\0".join(of).encode(errors="surrogatepass")).hexdigest()[:32]
        if key not in self._values:
            value = find()
            if value is None:
                return None
            self._values[key] = value
            self._append({"of": key, "is": value})
        return self._values[key]

    def _append(self, record: dict) -> None:
        line = json.dumps(record, allow_nan=False) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(line.encode())
        except OSError as error:
            raise JoyImageError(f"cannot write {self.path}: {error.strerror or error}") from error


def one_by_one(
    items: Sequence[Item], work: Callable[[Item], Result], unit: str, progress: bool, done: int = 0
) -> list[Result]:
    """What `work` gives for each item, with a bar; `done` were before. A stop by the user says how many are kept."""
    found: list[Result] = []
    total = done + len(items)
    with tqdm(total=total, initial=done, disable=not progress, unit=unit) as bar:
        for item in items:
            try:
                found.append(work(item))
            except KeyboardInterrupt as stop:  # of whatever kind
                told = f"{done + len(found)} of {total} {unit}s are kept, and the same command goes on from there"
                raise type(stop)(told) from None
            bar.update()
    return found


def digest(path: Path) -> str:
    """Of a file's bytes: another picture of the same name is another question."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
