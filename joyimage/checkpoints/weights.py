"""What every reader of weight files gives: a lazy mapping of names to tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..quantised import Encoding, Packed

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format


@dataclass(frozen=True)
class TensorInfo:
    """What a tensor is before it is read. `dtype` is what it is stored in: uint8 for blocks of quantised weights."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    encoding: Encoding | None = None

    @property
    def nbytes(self) -> int:
        if self.encoding:
            return math.prod(self.shape) // self.encoding.block * self.encoding.block_bytes
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def format(self) -> str:
        """ "bfloat16", "Q4_K", "int8_convrot", …"""
        return self.encoding.name if self.encoding else str(self.dtype).removeprefix("torch.")


@dataclass(frozen=True, eq=False)
class Weights(Mapping[str, "Tensor | Packed"]):
    """The tensors of one file, or of a set of shards. Indexing reads one tensor; everything else reads none.

    Quantised ones come as `Packed`.

    `release` lets go of the mapped file until the next read. Pages that were read count as the process's memory as long
    as they are mapped, so after copying a tensor it keeps the peak at the copies instead of the copies and the file.
    """

    files: tuple[Path, ...]
    info: dict[str, TensorInfo]
    read: Callable[[str], Tensor | Packed]
    metadata: dict[str, str] = field(default_factory=dict)
    release: Callable[[], None] = lambda: None

    def __getitem__(self, name: str) -> Tensor | Packed:
        return self.read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.info)

    def __len__(self) -> int:
        return len(self.info)

    def __contains__(self, name: object) -> bool:  # the Mapping's own would read the tensor
        return name in self.info

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: info.shape for name, info in self.info.items()}


def parse_json(text: bytes | str) -> dict[str, Any]:
    """Raises `ValueError` for text that is not a JSON object."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}")
    return value
