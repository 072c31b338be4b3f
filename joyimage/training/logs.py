"""What a run writes down while it works: JSON lines, and TensorBoard's events where that is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..atomic import Part

FILE = "log.jsonl"


def read(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run; what comes after one that was left half, or damaged, is not read."""
    path = folder / FILE
    lines: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            found = json.loads(line)
            int(found["step"])
        except (ValueError, TypeError, KeyError):
            break
        lines.append(found)
    return lines


class Log:
    """Lines of a run from step `start` on: what an earlier one wrote of later steps is dropped."""

    def __init__(self, folder: Path, start: int):
        kept = [line for line in read(folder) if line["step"] <= start]
        with Part(folder) as part:
            part.path.write_text("".join(f"{json.dumps(line)}\n" for line in kept), encoding="utf-8")
            part.publish([folder / FILE], replace=True)
        self._file = (folder / FILE).open("a", encoding="utf-8")
        self._board = _board(folder, start)

    def write(self, step: int, **values: Any) -> None:
        """A line of one step, counted from 1; numbers go to TensorBoard as well."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # pyright: ignore[reportPrivateImportUsage] - its public name
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
