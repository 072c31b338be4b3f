"""What the processes of a group tell each other within a forward, over torch.distributed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import JoyImageError

WAITING = timedelta(minutes=10)  # for a process that is there and does not answer, as one that compiles
LOOK = 0.01  # seconds between looks at who has come


@dataclass(frozen=True)
class Place:
    """One process's place in its group, whose processes find each other by a file that none of them has made yet."""

    index: int
    count: int
    file: Path
    backend: str  # of torch.distributed

    @property
    def first(self) -> bool:
        return self.index == 0


def backend_for(devices: Sequence[str]) -> str:
    """NCCL between different CUDA devices, where torch has it, else gloo, by way of main memory."""
    names = [torch.device(device) for device in devices]
    cards = all(name.type == "cuda" for name in names) and len({name.index or 0 for name in names}) == len(names)
    return "nccl" if cards and dist.is_nccl_available() else "gloo"


class Left(RuntimeError):
    """Another process of the group is gone."""


class Exchange:
    """The group that this process joins; torch has one for each process, so a second one is refused.

    `check` is called while others are waited for, to raise where one of them will not come: torch itself would wait.
    Raises `JoyImageError` where there is a group already, and where not all have come within `WAITING`.
    """

    def __init__(self, place: Place, check: Callable[[], None] = lambda: None):
        if not dist.is_available() or dist.is_initialized():
            raise JoyImageError(
                "sequence_devices needs torch.distributed to itself, and "
                + ("this process is in a group already" if dist.is_available() else "this torch is built without it")
            )
        self.place = place
        store = dist.FileStore(str(place.file), place.count)  # pyright: ignore[reportPrivateImportUsage] - documented
        _meet(store, place, check)
        dist.init_process_group(place.backend, store=store, rank=place.index, world_size=place.count, timeout=WAITING)

    def swap(self, pieces: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Give piece i to process i, and get from each the one that is for us, of these shapes.

        Pieces are of one dtype and may be empty. They go as bytes: gloo does not know every dtype. Raises `Left`.
        """
        like = pieces[0]
        sent = torch.cat([piece.reshape(-1) for piece in pieces])
        counts = [math.prod(shape) for shape in shapes]
        got = self._room(sent, sum(counts))
        with _told_apart():
            dist.all_to_all_single(
                got.view(torch.uint8),
                self._outgoing(sent).view(torch.uint8),
                [count * like.itemsize for count in counts],
                [piece.numel() * like.itemsize for piece in pieces],
            )
        return [part.view(shape) for part, shape in zip(got.to(like.device).split(counts), shapes, strict=True)]

    def total(self, x: Tensor) -> Tensor:
        """The sum over all processes, the same to the bit in each. Raises `Left`."""
        sums = self._outgoing(x).clone()
        with _told_apart():
            dist.all_reduce(sums)
        return sums.to(x.device)

    def _room(self, like: Tensor, count: int) -> Tensor:
        return torch.empty(count, dtype=like.dtype, device="cpu" if self.place.backend == "gloo" else like.device)

    def _outgoing(self, x: Tensor) -> Tensor:
        return x.cpu() if self.place.backend == "gloo" else x

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        """End the group, without waiting for what others may never send."""
        abort = getattr(dist.distributed_c10d, "_abort_process_group", None)  # of newer versions
        end = abort if abort is not None and self.place.backend == "nccl" else dist.destroy_process_group
        end()


def _meet(store: Any, place: Place, check: Callable[[], None]) -> None:
    """Return when all processes of a group have come so far."""
    store.set(f"come/{place.index}", "")
    late = time.monotonic() + WAITING.total_seconds()
    while not store.check([f"come/{index}" for index in range(place.count)]):
        check()
        if time.monotonic() > late:
            raise JoyImageError(f"the {place.count} processes of a group have not all come within {WAITING}; run again")
        time.sleep(LOOK)


@contextmanager
def _told_apart() -> Iterator[None]:
    """What torch raises when another process is gone, told apart from errors of our own."""
    try:
        yield
    except RuntimeError as error:
        raise Left(str(error)) from error
