"""Reading GGUF: the header is checked in full before anything is mapped, then tensors are views of the mapped file.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; versions 2 and 3, little-endian. What the file says of its
architecture is passed over: names and shapes tell what it is.
"""

from __future__ import annotations

import functools
import math
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from ..errors import CheckpointError
from ..quantisation.formats import BY_NUMBER
from .limits import MAX_DIMS, MAX_GGUF_HEADER_BYTES, MAX_JSON_BYTES, MAX_STRINGS, MAX_TENSORS
from .weights import TensorInfo, Weights

if TYPE_CHECKING:
    from torch import Tensor

    from ..quantisation.tensor import QuantizedTensor

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."  # of tensors whose rows do not divide into blocks, before their tensor's name
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


class Declared(NamedTuple):
    name: str
    shape: tuple[int, ...]  # as torch counts axes: the file has them the other way round
    type: int
    offset: int


def open_gguf(path: Path) -> Weights:
    """Raises `CheckpointError` for a header that does not fit the file."""
    try:
        with path.open("rb") as file:
            header = Header(file, path.stat().st_size)
            version, metadata, entries = header.parse()
            start = -(-file.tell() // header.alignment) * header.alignment
        if metadata.get("split.count", 1) != 1:
            raise CheckpointError(
                "is one of several pieces; join them with `llama-gguf-split --merge`, and give the whole"
            )
        info, spans = _check(entries, metadata, start, header.size, header.alignment)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: broken GGUF header: {error}; download it again") from None
    if version not in VERSIONS:
        raise CheckpointError(f"{path}: is GGUF version {version}; versions {VERSIONS} can be read: convert it again")
    size = header.size

    @functools.cache
    def mapped() -> Tensor:
        import torch  # here, and wherever else a tensor is read: headers are read without it

        return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)

    def read(name: str) -> Tensor | QuantizedTensor:
        return _read(mapped()[slice(*spans[name])], info[name])

    def read_bytes(name: str) -> bytes:
        begin, end = spans[name]
        with path.open("rb") as file:
            file.seek(begin)
            return file.read(end - begin)

    strings = {key: value for key, value in metadata.items() if isinstance(value, str)}
    return Weights((path,), info, read, read_bytes, strings, mapped.cache_clear)


def _read(data: Tensor, info: TensorInfo) -> Tensor | QuantizedTensor:
    import torch

    from ..quantisation.tensor import stored_tensor

    if info.quantised:
        return stored_tensor(data, (), info.format, info.shape)
    return data.view(getattr(torch, info.format.name)).reshape(info.shape)


class Header:
    """A cursor over the header. What would reach past the file, or past the limit on headers, is a `ValueError`."""

    def __init__(self, file: BinaryIO, size: int):
        self.file = file
        self.size = size
        self.left = min(size, MAX_GGUF_HEADER_BYTES)
        self.strings_left = MAX_STRINGS
        self.alignment = 32

    def parse(self) -> tuple[int, dict[str, Any], list[Declared]]:
        if self.take(4) != MAGIC:
            raise ValueError("it does not begin with GGUF")
        version = self.number("I")
        if version not in VERSIONS:
            return version, {}, []
        tensors, values = self.number("Q"), self.number("Q")
        if max(tensors, values) > MAX_TENSORS:
            raise ValueError(f"it lists {tensors:,} tensors and {values:,} values; at most {MAX_TENSORS:,} are read")
        metadata = {}
        for _ in range(values):  # each takes bytes, so that a false count ends at the end of the file
            name = self.string()
            metadata[name] = self.value(self.number("I"))
        self.alignment = metadata.get("general.alignment", 32)
        if type(self.alignment) is not int or self.alignment < 8 or self.alignment.bit_count() != 1:
            raise ValueError(f"its alignment is {self.alignment!r}, which must be a power of two from 8 on")
        return version, metadata, [self.entry() for _ in range(tensors)]

    def entry(self) -> Declared:
        name, dims = self.string(), self.number("I")
        if dims > MAX_DIMS:
            raise ValueError(f"{name} has {dims} dimensions")
        shape = tuple(self.number("Q") for _ in range(dims))
        return Declared(name, shape[::-1], self.number("I"), self.number("Q"))

    def value(self, kind: int) -> Any:
        """A scalar, a string, a short list of numbers; other lists, such as a tokenizer's, are passed over (None).

        Arrays of arrays are nothing that anybody writes.
        """
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            return self.number(self.scalar(kind))
        kind, count = self.number("I"), self.number("Q")
        if kind == STRING:
            if count > self.strings_left:
                raise ValueError(f"it has a list of {count:,} strings, and at most {MAX_STRINGS:,} are read")
            self.strings_left -= count
            for _ in range(count):
                self.skip(self.number("Q"))
            return None
        code = self.scalar(kind)
        if count > MAX_DIMS:
            return self.skip(count * struct.calcsize(code))
        return list(struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize(code))))

    def scalar(self, kind: int) -> str:
        if kind not in SCALARS:
            raise ValueError(f"a value has the unknown type {kind}")
        return SCALARS[kind]

    def string(self) -> str:
        if (count := self.number("Q")) > MAX_JSON_BYTES:
            raise ValueError(f"it has a text of {count:,} bytes, and at most {MAX_JSON_BYTES:,} are read")
        return self.take(count).decode()

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0]

    def take(self, count: int) -> bytes:
        self.spend(count)
        return self.file.read(count)

    def skip(self, count: int) -> None:
        self.spend(count)
        self.file.seek(count, os.SEEK_CUR)

    def spend(self, count: int) -> None:
        if count > self.left:
            raise ValueError(f"it is truncated, or its header is longer than {MAX_GGUF_HEADER_BYTES:,} bytes")
        self.left -= count


def _check(
    entries: list[Declared], metadata: dict[str, Any], start: int, size: int, alignment: int
) -> tuple[dict[str, TensorInfo], dict[str, tuple[int, int]]]:
    """What each tensor is, and where in the file."""
    info: dict[str, TensorInfo] = {}
    spans: dict[str, tuple[int, int]] = {}
    for entry in entries:
        if entry.name in info:
            raise ValueError(f"{entry.name} is there twice")
        if entry.offset % alignment:
            raise ValueError(f"{entry.name} lies at {entry.offset}, which is no multiple of {alignment}")
        info[entry.name] = _describe(entry, metadata.get(ORIGINAL_SHAPE + entry.name))
        begin = start + entry.offset
        spans[entry.name] = begin, begin + info[entry.name].nbytes
    position = start
    for begin, end, name in sorted((*span, name) for name, span in spans.items()):
        if begin < position:
            raise ValueError(f"{name} overlaps the tensor before it")
        position = end
    if position > size:
        raise ValueError(f"the file is truncated: its tensors end at {position:,}, it has {size:,} bytes")
    return info, spans


def _describe(entry: Declared, original: Any) -> TensorInfo:
    elements, columns = math.prod(entry.shape), entry.shape[-1] if entry.shape else 1
    shape = entry.shape
    if not elements:
        raise ValueError(f"{entry.name} of shape {shape} is empty")
    if original is not None:
        shape = tuple(original) if isinstance(original, list) else ()
        if not all(type(n) is int and n > 0 for n in shape) or math.prod(shape) != elements:
            raise ValueError(f"{entry.name} has {elements:,} elements and the original shape {original}")
    if entry.type not in BY_NUMBER:
        raise ValueError(f"{entry.name} has the unknown type {entry.type}")
    form = BY_NUMBER[entry.type]
    if columns % form.block:
        raise ValueError(f"{entry.name} has rows of {columns} weights, which are no blocks of {form.block}")
    return TensorInfo(shape, form, quantised=form.ggml)
