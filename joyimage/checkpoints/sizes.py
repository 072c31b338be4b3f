"""A part's network as a file would fill it, of the same sizes and without weights: for plans."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import nn

from .. import operations
from ..operations import Quantisable
from ..quantised import Packed
from .folders import open_part
from .load import EMPTY, empty_mmdit, own_dtype
from .weights import TensorInfo

BUILD = EMPTY | {"mmdit": partial(empty_mmdit, operations=operations)}  # whose layers can be quantised


def empty_part(path: str | Path, part: str, dtype: torch.dtype | None = None) -> nn.Module:
    """The network of the "mmdit", "vae" or "encoder" in a file or folder, on the meta device; reads headers only.

    `dtype` and errors as for `load_mmdit`. Weights that stay quantised have the bytes of the file.
    """
    source = open_part(path, part)
    network = BUILD[part](source, dtype or own_dtype(source))
    for name, info in source.info.items():
        _pack(network, name, info)
    return network.requires_grad_(False)


def _pack(network: nn.Module, name: str, info: TensorInfo) -> None:
    """Make the weight of a layer that can use it so a quantised one, as loading does."""
    encoding = info.encoding
    if not encoding or len(info.shape) != 2:
        return
    layer = network.get_submodule(name.rpartition(".")[0])
    if isinstance(layer, Quantisable):
        rows, columns = info.shape
        data = torch.empty(rows, columns // encoding.block * encoding.block_bytes, dtype=torch.uint8, device="meta")
        scale = torch.empty(rows, 1, device="meta") if encoding.block == 1 else None  # one per row at most
        layer.pack(Packed(data, scale, encoding, info.shape))
