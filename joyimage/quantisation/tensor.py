"""Quantised weights in memory, and their way back to floating point.

A weight stays as it lies in its file, as bytes, and becomes floating point where it is used (see `layers`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from . import ggml
from .formats import SWIZZLE_COLUMNS, SWIZZLE_ROWS, UNPACKED_AT_ONCE, Format, Scale, as_matrix

# Some rows of a weight, their bytes (n, row bytes) uint8 and their scales, each () or (n or 1, blocks across) float32,
# -> (n, columns), floating
Unpack = Callable[[Tensor, Sequence[Tensor], Format], Tensor]


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """A quantised weight of this shape, in memory.

    `data` (rows, row bytes) is uint8. `scales` are those of `format.scales`, each () or (blocks down, blocks across):
    float32, or the bytes of what the format has them in. Bytes, so that `module.to(dtype)` and `module.dtype` pass over
    them.
    """

    data: Tensor
    scales: tuple[Tensor, ...]
    format: Format
    shape: tuple[int, ...]

    def to(self, device: torch.device | str | None) -> QuantizedTensor:
        return replace(self, data=self.data.to(device), scales=tuple(scale.to(device) for scale in self.scales))

    def fit(self, shape: tuple[int, ...]) -> QuantizedTensor:
        """The weight in this shape: reshaped, or without what fills its rows and columns up in the file."""
        if shape == self.shape:
            return self
        if math.prod(shape) == math.prod(self.shape):
            return replace(self, data=in_rows(self.data, self.format, shape), shape=shape)
        rows, columns = shape
        data = self.data[:rows, : self.format.nbytes((columns,))].contiguous()
        sizes = [kind.shape(shape) for kind in self.format.scales]
        scales = (s[: n[0], : n[1]].contiguous() if n else s for s, n in zip(self.scales, sizes, strict=True))
        return replace(self, data=data, scales=tuple(scales), shape=shape)

    def rows(self, index: Tensor) -> Tensor:
        """The rows at `index` (n,) of the weight (rows, columns), float32."""
        return self._turned_back(self._unpack(index).float())

    def parts(self, count: int) -> Iterator[slice]:
        """Slices of rows with about so many weights each, for `part`."""
        whole = max((scale.rows for scale in self.format.scales), default=0) or 1  # rows that share a scale
        rows = max(1, count // max(1, self.shape[1]) // whole) * whole
        return (slice(start, start + rows) for start in range(0, self.shape[0], rows))

    def part(self, rows: slice) -> QuantizedTensor:
        """Some rows of a weight (rows, columns), as `parts` gives them; what it holds are views."""
        data = self.data[rows]
        kinds = zip(self.scales, self.format.scales, strict=True)
        scales = (s[rows.start // k.rows : -(-rows.stop // k.rows)] if k.rows else s for s, k in kinds)
        return replace(self, data=data, scales=tuple(scales), shape=(len(data), self.shape[1]))

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The weight; computed in float32 and rounded once."""
        return self._dense(dtype, self._turned_back)

    def dense_rotated(self, dtype: torch.dtype) -> Tensor:
        """The weight without undoing its rotation, for inputs that are rotated instead."""
        return self._dense(dtype, lambda rows: rows)

    def _dense(self, dtype: torch.dtype, finish: Callable[[Tensor], Tensor]) -> Tensor:
        total, row_bytes = self.data.shape
        columns = row_bytes // self.format.block_bytes * self.format.block
        step = max(1, UNPACKED_AT_ONCE // max(1, columns))
        if total <= step:
            return finish(self._unpack(slice(None))).to(dtype).reshape(self.shape)
        result = torch.empty(total, columns, dtype=dtype, device=self.data.device)
        for start in range(0, total, step):
            part = slice(start, start + step)
            result[part] = finish(self._unpack(part))
        return result.reshape(self.shape)

    def _unpack(self, rows: slice | Tensor) -> Tensor:
        """Some rows (n, columns), floating, before their rotation is undone."""
        kinds = zip(self.scales, self.format.scales, strict=True)
        scales = [as_float(self._of_rows(scale, kind, rows), kind.dtype) for scale, kind in kinds]
        return UNPACK[self.format.name](self.data[rows], scales, self.format)

    def _of_rows(self, scales: Tensor, kind: Scale, rows: slice | Tensor) -> Tensor:
        """The scales of some rows of the weight: (), or (n or 1, blocks across)."""
        if kind.rows <= 1:
            return scales[rows] if kind.rows else scales
        row_numbers = torch.arange(len(self.data), device=self.data.device)[rows]
        return scales[row_numbers // kind.rows]

    def _turned_back(self, rows: Tensor) -> Tensor:
        return rotate(rows, self.format.rotation) if self.format.rotation else rows


def dense(weight: Tensor | QuantizedTensor) -> Tensor:
    """A weight in float32 if it is quantised, else as it is."""
    return weight.dense(torch.float32) if isinstance(weight, QuantizedTensor) else weight


def stored_tensor(data: Tensor, scales: Sequence[Tensor], form: Format, shape: tuple[int, ...]) -> QuantizedTensor:
    """A weight of this shape from its tensors in a file, `scales` in the order of `form.scales`."""
    made = tuple(_in_memory(scale, kind, shape) for scale, kind in zip(scales, form.scales, strict=True))
    return QuantizedTensor(in_rows(data.contiguous().view(torch.uint8), form, shape), made, form, shape)


def in_rows(data: Tensor, form: Format, shape: tuple[int, ...]) -> Tensor:
    """The bytes of a weight (rows, …) as (rows, row bytes), or block by block where blocks run over rows' ends."""
    rows, columns = as_matrix(shape)
    return data.reshape(-1, form.block_bytes) if columns % form.block else data.reshape(rows, -1)


def _in_memory(scale: Tensor, kind: Scale, weight: tuple[int, ...]) -> Tensor:
    if kind.dtype == "float32":
        return scale.float().reshape(kind.shape(weight))
    scale = scale.contiguous().view(torch.uint8)
    if not kind.swizzled:
        return scale.reshape(kind.shape(weight))
    rows, columns = kind.shape(weight)
    return unswizzled(scale.reshape(kind.stored_shape(weight)))[:rows, :columns].contiguous()


# -- scales -----------------------------------------------------------------------------------------------------------


def as_float(scales: Tensor, dtype: str) -> Tensor:
    """Scales as they lie in memory -> float32."""
    if dtype == "float32":
        return scales
    if dtype == "float8_e8m0fnu":  # an exponent of float32; 0, the scale of a block of zeros, gives 0
        return (scales.int() << 23).view(torch.float32)
    return scales.view(getattr(torch, dtype)).float()


def scaled(values: Tensor, scales: Sequence[Tensor], form: Format) -> Tensor:
    """Values (n, columns) times their scales, of which those of the whole weight go into the others first."""
    if not scales:
        return values
    whole = math.prod(scale for scale in scales if scale.ndim == 0)  # 1 if there is none
    blocks = [(scale, kind.columns) for scale, kind in zip(scales, form.scales, strict=True) if scale.ndim]
    values = values.float()
    if not blocks:
        return values * whole
    for scale, columns in blocks:
        values, whole = times(values, scale * whole, columns), 1
    return values


def times(values: Tensor, scale: Tensor, block: int) -> Tensor:
    """Values (n, columns) times scales (n or 1, blocks) of so many columns each, the last of which may be cut off."""
    columns = values.shape[1]
    if scale.shape[1] == 1:
        return values * scale
    if columns % block:
        return values * scale.repeat_interleave(block, dim=1)[:, :columns]
    return (values.unflatten(1, (-1, block)) * scale[..., None]).flatten(1)  # (n, blocks, block)


def unswizzled(scales: Tensor) -> Tensor:
    """Scales in the order of tensor cores (rows, columns), multiples of 128 and 4 -> the same in plain order.

    https://docs.nvidia.com/cuda/cublas/index.html#d-block-scaling-factors-layout: tiles of 128 x 4 follow each other
    along a row of tiles, and in each one row k of 32 holds rows k, k + 32, k + 64 and k + 96 one after the other.
    """
    down, across = scales.shape[0] // SWIZZLE_ROWS, scales.shape[1] // SWIZZLE_COLUMNS
    parts = scales.reshape(down, across, 32, 4, SWIZZLE_COLUMNS)  # tile (down, across), k, quarter, column
    return parts.permute(0, 3, 2, 1, 4).reshape(scales.shape)


def swizzled(scales: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The inverse of `unswizzled`, filled up with zeros to `shape`."""
    rows, columns = scales.shape
    full = scales.new_zeros(shape)
    full[:rows, :columns] = scales
    down, across = shape[0] // SWIZZLE_ROWS, shape[1] // SWIZZLE_COLUMNS
    parts = full.view(down, 4, 32, across, SWIZZLE_COLUMNS)  # tile's row, quarter, k, tile's column, column
    return parts.permute(0, 3, 2, 1, 4).reshape(shape)


def constant(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Keep the tensors of a function by its arguments: a model has one or two, on one device.

    They are made outside of inference mode, since a gradient may need them later.
    """

    @functools.lru_cache(maxsize=8)
    def kept(*arguments) -> Tensor:
        with torch.inference_mode(False):
            return make(*arguments)

    # a plain function: a compiler looks through lru_cache and would trace what it holds
    return lambda *arguments: kept(*arguments)


# -- rotations --------------------------------------------------------------------------------------------------------


def rotate(x: Tensor, group: int) -> Tensor:
    """Multiply groups of `group` channels of x (…, C) by the Hadamard matrix; twice gives x again."""
    groups = x.unflatten(-1, (-1, group))  # (…, C / group, group)
    return (groups @ hadamard(group, x.dtype, x.device)).flatten(-2)


@constant
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


# -- formats ----------------------------------------------------------------------------------------------------------


def elements(dtype: torch.dtype) -> Unpack:
    """Numbers of a dtype of torch's, times their scales."""
    return lambda data, scales, form: scaled(numbers(data, dtype, torch.float32), scales, form)


def numbers(data: Tensor, stored: torch.dtype, dtype: torch.dtype) -> Tensor:
    """Bytes as the numbers of an 8-bit dtype that they are, in another one, which holds each exactly."""
    if data.device.type != "cpu" or stored == torch.int8 or torch.compiler.is_compiling():
        return data.view(stored).to(dtype)
    # torch's own conversion of float8 takes 3.4 times as long on a processor
    return table(stored, dtype).index_select(0, data.flatten().int()).view(data.shape)


@constant
def table(stored: torch.dtype, dtype: torch.dtype) -> Tensor:
    """The numbers of all 256 bytes."""
    return torch.arange(256, dtype=torch.uint8).view(stored).to(dtype)


def nvfp4(data: Tensor, scales: Sequence[Tensor], form: Format) -> Tensor:
    """Two numbers of e2m1 in a byte, the first of them in its upper half.

    Shifted by one, the bits of such a number are those of a float8 e5m2 whose exponent is 14 too low.
    """
    halves = torch.stack([data >> 4, data & 15], dim=-1).flatten(1)  # (n, columns)
    codes = ((halves & 8) << 4) | ((halves & 7) << 1)
    return scaled(numbers(codes, torch.float8_e5m2, torch.float32) * 2**14, scales, form)


# By the format's name
UNPACK: dict[str, Unpack] = {
    "float8_e4m3fn": elements(torch.float8_e4m3fn),
    "float8_e5m2": elements(torch.float8_e5m2),
    "int8": elements(torch.int8),
    "int8_convrot": elements(torch.int8),
    "mxfp8": elements(torch.float8_e4m3fn),
    "nvfp4": nvfp4,
    **{name: ggml.unpack_rows(name) for name in ggml.UNPACK_BLOCKS},
}
