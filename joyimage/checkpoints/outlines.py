"""Networks as files would fill them, without tensors and without torch: what plans measure in place of real ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..quantisation.formats import FORMATS, stays_quantised
from .configs import config_of, own_dtype
from .folders import Source
from .qwen import EMBEDDING
from .shapes import fitting_shapes
from .weights import TensorInfo

ALWAYS_FLOAT32 = "condition_embedder.time_embedder."  # whatever the rest of the MMDiT is


@dataclass(frozen=True, eq=False)
class Held:
    """A tensor's sizes: its shape, its bytes, and those of an element."""

    shape: tuple[int, ...]
    nbytes: int
    itemsize: int

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def element_size(self) -> int:
        return self.itemsize


class Outline:
    """A module's sizes, with as much of `nn.Module`'s interface as `memory.budget` uses.

    `packed` is the weight of a quantised layer, of the shape that it has unpacked.
    """

    def __init__(self, config: Any = None):
        self.config = config
        self.packed: Held | None = None
        self._children: dict[str, Outline] = {}
        self._tensors: dict[str, Held] = {}

    def __getattr__(self, name: str) -> Outline:
        try:
            return self.__dict__["_children"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __iter__(self) -> Iterator[Outline]:
        """The modules of a list."""
        return iter(self._children.values())

    def child(self, path: str) -> Outline:
        """The module of this dotted name, made if it is not there yet."""
        found = self
        for name in filter(None, path.split(".")):
            found = found._children.setdefault(name, Outline())
        return found

    def modules(self) -> Iterator[Outline]:
        yield self
        for child in self:
            yield from child.modules()

    def named_parameters(self, recurse: bool = True) -> Iterator[tuple[str, Held]]:
        for module in self.modules() if recurse else (self,):
            yield from module._tensors.items()

    def named_buffers(self, recurse: bool = True) -> Iterable[tuple[str, Held]]:
        """None apart: scales count among the parameters."""
        return ()

    def hold(self, name: str, tensor: Held) -> None:
        path, _, leaf = name.rpartition(".")
        self.child(path)._tensors[leaf] = tensor


def outline(source: Source, dtype: str | None = None) -> Outline:
    """The network that a source fills; `dtype` as for `load_mmdit`, by its name.

    Weights that stay quantised have the bytes of the file. Raises `CheckpointError` where its sizes cannot be told, or
    the weights have others.
    """
    config, dtype = config_of(source), dtype or own_dtype(source)
    expected = fitting_shapes(source)
    source, network = source.fitted(expected), Outline(config)
    for name, shape in expected.items():
        info = source.info.get(name)
        if info and info.quantised and stays_quantised(source.component, name, shape, info.format):
            _pack(network, name, info)
        else:
            network.hold(name, _plain(shape, "float32" if name.startswith(ALWAYS_FLOAT32) else dtype))
    if getattr(config, "tied", False):
        embedding = network.child(EMBEDDING.removesuffix(".weight"))
        network.child("lm_head")._tensors.update(embedding._tensors)
    return network


def _plain(shape: tuple[int, ...], dtype: str) -> Held:
    form = FORMATS[dtype]
    return Held(shape, form.nbytes(shape), form.block_bytes)


def _pack(network: Outline, name: str, info: TensorInfo) -> None:
    network.hold(name, Held(info.shape, info.nbytes, 1))
    for kind in info.format.scales:
        network.hold(f"{name}{kind.suffix}", _plain(kind.shape(info.shape), kind.dtype))
    network.child(name.rpartition(".")[0]).packed = Held(info.shape, info.nbytes, 1)
