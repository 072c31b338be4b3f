"""Quantised weights: how they are stored, and their way back to floating point.

A weight stays as it lies in its file, as bytes, and becomes floating point where it is used (see `operations`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

CHUNK = 2**24  # elements made floating point at a time: bounds the float32 on the way to 64 MiB

# (rows, row bytes) uint8 and the scales of these rows -> (rows, row elements), floating
Unpack = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Encoding:
    """A way to store weights: `block` elements of a row take `block_bytes` bytes.

    `unpack` is None for what is recognised and not supported. With a `rotation`, groups of that many columns are
    rotated by `hadamard`, as `W @ H`, on top of what `unpack` undoes.
    """

    name: str
    unpack: Unpack | None
    block: int = 1
    block_bytes: int = 1
    rotation: int = 0


@dataclass(frozen=True, eq=False)
class Packed:
    """A quantised weight. `data` (rows, row bytes) is uint8, `scale` None, () or (rows, 1) float32.

    Bytes, so that `module.to(dtype)` and `module.dtype` pass over them. `shape` is that of the weight.
    """

    data: Tensor
    scale: Tensor | None
    encoding: Encoding
    shape: tuple[int, ...]

    def to(self, device: torch.device | str | None) -> Packed:
        scale = None if self.scale is None else self.scale.to(device)
        return replace(self, data=self.data.to(device), scale=scale)

    def reshape(self, shape: tuple[int, ...]) -> Packed:
        return replace(self, shape=shape)

    def rows(self, index: Tensor) -> Tensor:
        """The rows at `index` (n,) of the weight (rows, columns), float32."""
        scale = self.scale[index] if self.scale is not None and self.scale.ndim else self.scale
        return self._turned_back(self.encoding.unpack(self.data[index], scale).float())

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The weight; computed in float32 and rounded once."""
        return self._unpacked(dtype, self._turned_back)

    def dense_rotated(self, dtype: torch.dtype) -> Tensor:
        """The weight without undoing its rotation, for inputs that are rotated instead."""
        return self._unpacked(dtype, lambda rows: rows)

    def _unpacked(self, dtype: torch.dtype, finish: Callable[[Tensor], Tensor]) -> Tensor:
        total, row_bytes = self.data.shape
        columns = row_bytes // self.encoding.block_bytes * self.encoding.block
        step = max(1, CHUNK // max(1, columns))
        result = torch.empty(total, columns, dtype=dtype, device=self.data.device)
        for start in range(0, total, step):
            part = slice(start, start + step)
            scale = self.scale[part] if self.scale is not None and self.scale.ndim else self.scale
            result[part] = finish(self.encoding.unpack(self.data[part], scale))
        return result.reshape(self.shape)

    def _turned_back(self, rows: Tensor) -> Tensor:
        return rotate(rows, self.encoding.rotation) if self.encoding.rotation else rows


def rotate(x: Tensor, group: int) -> Tensor:
    """Multiply groups of `group` channels of x (…, C) by the Hadamard matrix; twice gives x again."""
    groups = x.unflatten(-1, (-1, group))  # (…, C / group, group)
    return (groups @ hadamard(group, x.dtype, x.device)).flatten(-2)


@functools.lru_cache(maxsize=8)  # a model has one or two sizes, on one device
def hadamard(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The normalised regular Hadamard matrix of ConvRot, symmetric and its own inverse; `size` is a power of 4.

    Regular means that all rows have one sum, so that a large common offset of the channels does not gather in one.
    """
    flipped = torch.eye(4, device=device).flip(0)
    four = 1 - 2 * flipped  # ones, with minus ones on the diagonal from the upper right
    matrix = torch.ones(1, 1, device=device)
    while len(matrix) < size:
        matrix = torch.kron(matrix, four)
    return (matrix / size**0.5).to(dtype)


def is_rotation(size: object) -> bool:
    """Whether there is such a matrix of this size."""
    return type(size) is int and 4 <= size <= 4**8 and size.bit_count() == 1 and size.bit_length() % 2 == 1


def _scaled(values: Tensor, scale: Tensor | None) -> Tensor:
    return values if scale is None else values.float() * scale


def fp8(dtype: torch.dtype) -> Encoding:
    """float8 values, with a scale for the whole weight, for each row, or none."""
    name = str(dtype).removeprefix("torch.")
    return Encoding(name, lambda rows, scale: _scaled(rows.view(dtype), scale))


def int8(rotation: int = 0) -> Encoding:
    """int8 values with scales, as ComfyUI's `int8_tensorwise`; with a rotation its `int8_convrot`."""
    name = "int8_convrot" if rotation else "int8"
    return Encoding(name, lambda rows, scale: _scaled(rows.view(torch.int8), scale), rotation=rotation)
