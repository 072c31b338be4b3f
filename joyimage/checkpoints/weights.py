"""What every reader of weight files gives: a lazy mapping of names to tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..quantisation.formats import Format
from .limits import MAX_JSON_BYTES, MAX_JSON_SIGNS

if TYPE_CHECKING:
    from torch import Tensor

    from ..quantisation.tensor import QuantizedTensor

# Of a file that may stay mapped, and so count as memory, when the next tensor is read: half a millisecond maps it anew.
RELEASE_BYTES = 2**25


@dataclass(frozen=True)
class TensorInfo:
    """What a tensor is before it is read: its shape, and the format that its numbers are in.

    One that is `quantised` comes as a `QuantizedTensor`; its shape is the weight's.
    """

    shape: tuple[int, ...]
    format: Format
    quantised: bool = False

    @property
    def nbytes(self) -> int:
        """Of its own, without scales beside it."""
        return self.format.nbytes(self.shape)

    @property
    def floating(self) -> bool:
        """Whether it becomes, or is, floating point."""
        return self.quantised or self.format.floating


@dataclass(frozen=True, eq=False)
class Weights(Mapping[str, "Tensor | QuantizedTensor"]):
    """The tensors of one file, or of a set of shards. Indexing reads one tensor; everything else reads none.

    Quantised ones come as `QuantizedTensor`. `read_bytes` gives those of a small tensor, without torch where that can
    be.

    `release` lets go of the mapped file until the next read. Pages that were read count as the process's memory as long
    as they are mapped, so after copying a tensor it keeps the peak at the copies instead of the copies and the file.
    """

    files: tuple[Path, ...]
    info: dict[str, TensorInfo]
    read: Callable[[str], Tensor | QuantizedTensor]
    read_bytes: Callable[[str], bytes]
    metadata: dict[str, str] = field(default_factory=dict)
    release: Callable[[], None] = lambda: None

    def __getitem__(self, name: str) -> Tensor | QuantizedTensor:
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
    """Raises `ValueError` for text that is not a JSON object, or larger than any that belongs to weights."""
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"it has {len(text):,} bytes, and at most {MAX_JSON_BYTES:,} are read")
    for sign, most in MAX_JSON_SIGNS.items():
        if (count := _count(text, sign)) > most:
            raise ValueError(f"it has {count:,} of the sign {sign!r}, and at most {most:,} are read")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if _count(text, "\\u"):
        json.dumps(value, ensure_ascii=False).encode()  # a ValueError for half a character, which no file can hold
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}")
    return value


def _count(text: bytes | str, sign: str) -> int:
    return text.count(sign) if isinstance(text, str) else text.count(sign.encode())
