"""Formats of data sets, one file each: what writes samples of questions, and what reads them back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..records import Sample
from . import choices, conversations, parquet


class Writer(Protocol):
    """What takes samples one by one. Nothing is complete before `close`, after which the folder gets its name."""

    def add(self, sample: Sample) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Format:
    """`open`: a writer into a folder, whose files are followed by others from so many bytes on. `read`: the samples of
    such a folder. needs: packages of the extra `data`. choices: whether it takes multiple choice alone.
    """

    open: Callable[[Path, int], Writer]
    read: Callable[[Path], Iterator[Sample]]
    needs: tuple[str, ...] = ()
    choices: bool = False


FORMATS = {
    "jsonl": Format(conversations.ConversationWriter, conversations.read),
    "parquet": Format(parquet.ParquetWriter, parquet.read, ("pyarrow",)),
    "tsv": Format(choices.ChoiceWriter, choices.read, choices=True),
}
