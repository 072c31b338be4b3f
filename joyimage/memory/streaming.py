"""Weights on the device only while they work, and blocks that stream through it when they do not all fit.

Weights have their home in main memory, for most of them the mapped file. A part that goes to work gets copies on the
device in place of its parameters and buffers, whatever their dtypes; when it is done the copies go, and nothing has to
be written back. Blocks that stream take turns in two slots: while one runs, the next is copied into the other slot on a
second CUDA stream. On devices without streams the same code copies at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from .budget import SLOTS, Placement, owners, padded

PINNED_CHUNK = 2**30  # bytes
PINNED_SHARE = 0.5  # of main memory: what is pinned can not be paged out

CudaEvent: TypeAlias = "torch.cuda.Event | torch.Event"  # torch's streams take and give either


# -- order of work on the device --------------------------------------------------------------------------------------


class Queue(Protocol):
    """Copies beside the computation. Events are opaque to whoever holds them."""

    def mark(self) -> Any:
        """The event that all computation so far is done."""

    def run(self, copy: Callable[[], None], after: Any) -> Any:
        """Copy as soon as `after` has happened; returns the event that it is done."""

    def wait(self, event: Any) -> None:
        """Let the computation that follows wait for `event`."""

    def finish(self) -> None:
        """Let the computation that follows wait for all copies."""


class CudaQueue:
    """Copies on a stream of their own; the processor waits for nothing."""

    def __init__(self, device: torch.device):
        self._stream = torch.cuda.Stream(device)

    def _computing(self) -> torch.cuda.Stream:
        return torch.cuda.current_stream(self._stream.device)

    def mark(self) -> CudaEvent:
        return self._computing().record_event()

    def run(self, copy: Callable[[], None], after: CudaEvent) -> CudaEvent:
        self._stream.wait_event(after)
        with torch.cuda.stream(self._stream):
            copy()
        return self._stream.record_event()

    def wait(self, event: CudaEvent) -> None:
        self._computing().wait_event(event)

    def finish(self) -> None:
        self._computing().wait_stream(self._stream)


class DirectQueue:
    """Copies at once."""

    def mark(self) -> None:
        pass

    def run(self, copy: Callable[[], None], after: None) -> None:
        copy()

    def wait(self, event: None) -> None:
        pass

    def finish(self) -> None:
        pass


def queue_for(device: torch.device) -> Queue:
    return CudaQueue(device) if device.type == "cuda" else DirectQueue()


# -- weights and their copies -----------------------------------------------------------------------------------------


class Pinned:
    """Page-locked main memory, from which a GPU copies while the processor does something else.

    It is taken in chunks of a power of two, as torch rounds each allocation up to one: a block of the published MMDiT,
    0.81 GB, would take 1.07 by itself. Where no more can be had, weights stay where they are and copy more slowly.
    """

    def __init__(self, limit: int, allocate: Callable[[int], Tensor] | None = None, chunk: int = PINNED_CHUNK):
        self.limit = limit
        self.total = 0
        self._allocate = allocate or partial(torch.empty, dtype=torch.uint8, pin_memory=True)
        self._chunk = chunk
        self._free = torch.empty(0, dtype=torch.uint8)  # the rest of the last chunk
        self._chunks: set[int] = set()

    def take(self, tensor: Tensor) -> Tensor:
        """A pinned copy, or `tensor` itself if it is pinned already or there is no room."""
        size = padded(tensor.nbytes)
        if tensor.untyped_storage().data_ptr() in self._chunks or not self._has_room(size):
            return tensor
        memory, self._free = self._free.tensor_split([size])
        return view(memory, tensor).copy_(tensor)

    def _has_room(self, size: int) -> bool:
        if size <= len(self._free):
            return True
        count = max(self._chunk, size)
        if self.total + count > self.limit:
            return False
        try:
            self._free = self._allocate(count)
        except RuntimeError:  # the system gives no more: what is there has to do
            self.limit = self.total
            return False
        self.total += count
        self._chunks.add(self._free.untyped_storage().data_ptr())
        return True


def pinned_for(device: torch.device, processes: int = 1) -> Pinned:
    """Up to half of the main memory for the GPUs of so many processes, nothing for other devices."""
    if device.type != "cuda":
        return Pinned(0)
    known = hasattr(os, "sysconf")  # not on Windows, which pins half of the memory itself and then refuses
    main = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else 2**63
    return Pinned(int(PINNED_SHARE * main / processes))


def view(memory: Tensor, like: Tensor) -> Tensor:
    """The start of `memory` (bytes) as a tensor of the shape and dtype of `like`."""
    return memory[: like.nbytes].view(like.dtype).view(like.shape)


class Tensors:
    """The parameters and buffers that modules have of their own, and their home.

    Parameters that are trained do not count: an optimiser holds them, so they stay where they are, on the device.
    """

    def __init__(self, modules: Iterable[nn.Module]):
        stores: list[dict[str, Any]] = [each for module in modules for each in (module._parameters, module._buffers)]
        self._places = [
            (store, name)
            for store in stores
            for name, tensor in store.items()
            if tensor is not None and not tensor.requires_grad
        ]
        self.home: list[Tensor] = [store[name] for store, name in self._places]
        self.nbytes = sum(padded(tensor.nbytes) for tensor in self.home)

    def copies(self, device: torch.device) -> list[Tensor]:
        """Copies on the device; what is shared stays shared."""
        unique = {id(tensor): tensor for tensor in self.home}
        made = {key: tensor.to(device, copy=True, non_blocking=True) for key, tensor in unique.items()}
        return [made[id(tensor)] for tensor in self.home]

    def use(self, tensors: Sequence[Tensor]) -> None:
        """Put other tensors in the places, for the modules to compute with."""
        for (store, name), own, tensor in zip(self._places, self.home, tensors, strict=True):
            store[name] = in_place_of(own, tensor)

    def restore(self) -> None:
        for (store, name), own in zip(self._places, self.home, strict=True):
            store[name] = own

    def pin(self, pinned: Pinned) -> None:
        """Move the home to pinned memory as far as there is any, letting go of the old: never two copies of a model."""
        for i, ((store, name), own) in enumerate(zip(self._places, self.home, strict=True)):
            moved = pinned.take(own)
            if moved is not own:
                self.home[i] = store[name] = in_place_of(own, moved)


def in_place_of(own: Tensor, tensor: Tensor) -> Tensor:
    """`tensor` as a parameter if `own` is one, else as it is, for a buffer."""
    return nn.Parameter(tensor.detach(), requires_grad=False) if isinstance(own, nn.Parameter) else tensor


class Slot:
    """Room on the device for one block at a time."""

    def __init__(self, size: int, device: torch.device, free: Any):
        self.memory = torch.empty(size, dtype=torch.uint8, device=device)
        self.free = free  # the event that the block before is done
        self.ready: Any = None  # the event that the copy is done
        self.block: Tensors | None = None
        self.copies: list[Tensor] = []

    def fill(self, block: Tensors, queue: Queue) -> None:
        parts = self.memory.split([padded(tensor.nbytes) for tensor in block.home] + [len(self.memory) - block.nbytes])
        self.block = block
        self.copies = [view(part, tensor) for part, tensor in zip(parts, block.home, strict=False)]
        self.ready = queue.run(partial(_copy, block.home, self.copies), self.free)


def _copy(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source, non_blocking=True)


class Streamer:
    """Streams blocks, which run in their order and then from the start again, through two slots.

    Works by hooks: a block finds its weights on the device when it starts, and the next one is on its way by then.
    In training each block has to be checkpointed: the backward pass then runs them once more, last to first.
    """

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device, queue: Queue, pinned: Pinned):
        self._queue = queue
        self._pinned = pinned
        self._blocks = [Tensors(block.modules()) for block in blocks]
        size = max(block.nbytes for block in self._blocks)
        self._slots = [Slot(size, device, queue.mark()) for _ in range(SLOTS)]
        self._last = -1  # the block that ran last
        self._hooks = []
        for i, block in enumerate(blocks):
            self._hooks += [
                block.register_forward_pre_hook(partial(self._before, i)),
                # also where it ends early, as a checkpointed one does when it has computed what the backward pass needs
                block.register_forward_hook(partial(self._after, i), always_call=True),
            ]

    def _before(self, i: int, *_) -> None:
        back = 0 < i <= self._last
        self._last = i
        with torch.inference_mode(False), torch.no_grad():  # a home made in inference mode could be used nowhere else
            if back:
                self._free_behind(i)
            slot = self._holding(i, self._slots)
            self._queue.wait(slot.ready)
            self._blocks[i].use(slot.copies)
            ahead = (i - 1 if back else i + 1) % len(self._blocks)
            self._holding(ahead, [other for other in self._slots if other is not slot])

    def _free_behind(self, i: int) -> None:
        """On the way back other blocks are done when their backward pass is, which is queued by now."""
        now = self._queue.mark()
        for slot in self._slots:
            if slot.block is not self._blocks[i]:
                slot.free = now

    def _after(self, i: int, *_) -> None:
        slot = next(slot for slot in self._slots if slot.block is self._blocks[i])
        slot.free = self._queue.mark()
        self._blocks[i].restore()

    def _holding(self, i: int, slots: Sequence[Slot]) -> Slot:
        """The slot with block i. If none has it, its copy into the first of `slots` starts."""
        block = self._blocks[i]
        for slot in self._slots:
            if slot.block is block:
                return slot
        block.pin(self._pinned)
        slots[0].fill(block, self._queue)
        return slots[0]

    def close(self) -> None:
        """Put the blocks back as they were, also after one that failed."""
        for hook in self._hooks:
            hook.remove()
        for block in self._blocks:
            block.restore()
        self._queue.finish()  # before the slots' memory is given to something else


class Worker:
    """A part of the model, on the device or at home."""

    def __init__(self, network: nn.Module, groups: Sequence[Iterable[nn.Module]], device: torch.device, pinned: Pinned):
        self.network = network
        self._groups = groups
        self._device = device
        self._pinned = pinned
        self._whole: Tensors | None = None
        self._streamers: list[Streamer] = []

    @property
    def present(self) -> bool:
        return self._whole is not None

    @torch.no_grad()
    def enter(self, placement: Placement, idle: Sequence[nn.Module] = ()) -> None:
        """Copy what stays to the device and prepare what streams; `idle` modules stay at home."""
        streamed = [
            [block for i, block in enumerate(group) if i not in stay]
            for group, stay in zip(self._groups, placement.resident, strict=True)
        ]
        with torch.inference_mode(False):  # made in inference mode they could be used nowhere else
            whole = Tensors(owners(self.network.modules(), [*idle, *chain(*streamed)]))
            whole.use(whole.copies(self._device))
            self._whole = whole
            self._streamers = [
                Streamer(blocks, self._device, queue_for(self._device), self._pinned) for blocks in streamed if blocks
            ]

    def leave(self) -> None:
        for streamer in self._streamers:
            streamer.close()
        self._streamers = []
        if self._whole is not None:
            self._whole.restore()
            self._whole = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
