"""Writing weight files tensor by tensor: the header first, under a temporary name, read back before it gets its own."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor
from tqdm import tqdm

from ..atomic import Part
from ..errors import CheckpointError, JoyImageError
from ..quantisation.recipes import gguf_package

# By file type: the dtypes in safetensors' own order, which keeps every tensor aligned
DTYPE_ORDER = ("I64", "F64", "F32", "I32", "BF16", "F16", "I16", "F8_E8M0", "F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL")
GGUF_ALIGNMENT = 32
READ_BYTES = 2**22
SPARE_BYTES = 2**20  # of the disk, for the header


@dataclass(frozen=True)
class Entry:
    """A tensor of a file to be written: its type as the header names it, its shape and its bytes."""

    name: str
    type: str
    shape: tuple[int, ...]
    nbytes: int


class Writer:
    """One file to be, as a context. Tensors may come in any order; `finish` takes all of them to have come.

    Raises `JoyImageError` if the disk is too small. A file that was not finished leaves nothing behind.
    """

    def __init__(self, path: Path, entries: Sequence[Entry], metadata: Mapping[str, str], file_type: str):
        self.path = path
        self._part = Part(path.parent)
        self.entries = {entry.name: entry for entry in entries}
        self.metadata = metadata
        self.write_header = HEADERS[file_type]
        self.checksums: dict[str, int] = {}

    def __enter__(self) -> Writer:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        check_room(self.path, sum(entry.nbytes for entry in self.entries.values()))
        with ExitStack() as stack:
            self.partial = stack.enter_context(self._part).path
            self.file = stack.enter_context(self.partial.open("w+b"))
            self.offsets = self.write_header(self.file, list(self.entries.values()), self.metadata)
            self._opened = stack.pop_all()  # all went well: `__exit__` will close them
        return self

    def write(self, name: str, tensor: Tensor) -> None:
        data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
        self.file.seek(self.offsets[name])
        self.file.write(data)
        self.checksums[name] = zlib.crc32(data)

    def finish(self, bar: tqdm) -> None:
        """Read everything back, then give the file its name. Raises `CheckpointError` if a byte differs."""
        self.file.flush()
        os.fsync(self.file.fileno())
        for name, entry in self.entries.items():
            if self._checksum(entry) != self.checksums[name]:
                raise CheckpointError(f"{self.path}: {name} reads back otherwise than it was written; check the disk")
            bar.update(entry.nbytes)
        self.file.close()
        self._part.publish([self.path], replace=True)

    def __exit__(self, *error) -> None:
        self._opened.close()

    def _checksum(self, entry: Entry) -> int:
        self.file.seek(self.offsets[entry.name])
        checksum, left = 0, entry.nbytes
        while left and (data := self.file.read(min(left, READ_BYTES))):
            checksum, left = zlib.crc32(data, checksum), left - len(data)
        return checksum


def check_room(output: Path, needed: int) -> None:
    """Raise `JoyImageError` if the disk of a file or folder to be has less than so many bytes left."""
    folder = next(parent for parent in output.absolute().parents if parent.is_dir())
    if (free := shutil.disk_usage(folder).free) < needed + SPARE_BYTES:
        raise JoyImageError(
            f"{output}: would take {needed:,} bytes, its disk has {free:,} left, of which {SPARE_BYTES:,} stay free; "
            "make room"
        )


def _safetensors_header(file: BinaryIO, entries: list[Entry], metadata: Mapping[str, str]) -> dict[str, int]:
    """In the order and the spelling of the safetensors library, so that equal tensors make equal files."""
    entries = sorted(entries, key=lambda entry: (DTYPE_ORDER.index(entry.type), entry.name))
    ends = list(accumulate((entry.nbytes for entry in entries), initial=0))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    for entry, begin, end in zip(entries, ends, ends[1:], strict=False):
        header[entry.name] = {"dtype": entry.type, "shape": entry.shape, "data_offsets": (begin, end)}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    file.truncate(8 + len(text) + ends[-1])
    return {entry.name: 8 + len(text) + begin for entry, begin in zip(entries, ends, strict=False)}


def _gguf_header(file: BinaryIO, entries: list[Entry], metadata: Mapping[str, str]) -> dict[str, int]:
    """By the gguf package, which wants the file for itself while it writes."""
    gguf = gguf_package()
    writer = gguf.GGUFWriter(None, metadata["general.architecture"])
    for key, value in metadata.items():
        if key != "general.architecture":
            writer.add_string(key, value)
    for entry in entries:
        code = gguf.GGMLQuantizationType[entry.type]
        writer.add_tensor_info(entry.name, entry.shape, None, entry.nbytes, raw_dtype=code)
    writer.write_header_to_file(Path(file.name))
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    sizes = (_padded(entry.nbytes) for entry in entries)
    starts = list(accumulate(sizes, initial=_padded(os.path.getsize(file.name))))
    file.truncate(starts[-1])
    return {entry.name: start for entry, start in zip(entries, starts, strict=False)}


def _padded(count: int) -> int:
    return -(-count // GGUF_ALIGNMENT) * GGUF_ALIGNMENT


HEADERS: dict[str, Callable[[BinaryIO, list[Entry], Mapping[str, str]], dict[str, int]]] = {
    "safetensors": _safetensors_header,
    "gguf": _gguf_header,
}
