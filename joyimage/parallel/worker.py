"""A further device's process, which computes what its leader says.

Orders come pickled on the standard input, results go on the standard output; both belong to the leader's process and
to nobody else. When the leader is gone, so is this, whatever it was at.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from .. import lora
from ..errors import JoyImageError
from ..loading import Recipe
from ..memory.budget import RESERVES, Placement, itemsize, kept_references, measure, mmdit_activations, place, unpacking
from ..memory.streaming import Worker as Mover
from ..memory.streaming import pinned_for
from ..mmdit import MMDiT
from .exchange import Exchange, Left, Place
from .node import Failure, Node


class Room:
    """The memory of a device on which the MMDiT is alone, within a budget in bytes; with none, it is there already."""

    def __init__(self, mmdit: MMDiT, device: torch.device, budget: int | None, processes: int):
        self._mmdit, self._device, self._budget = mmdit, device, budget
        self._placement: Placement | None = None
        if budget is not None:
            self._mover = Mover(mmdit, [mmdit.double_blocks], device, pinned_for(device, processes))

    def enter(self, tokens: int, kept: int) -> None:
        """Make room for forwards over so many image and text tokens.

        Raises `JoyImageError` where there is too little.
        """
        if self._budget is None:
            return
        item, config = itemsize(self._mmdit), self._mmdit.config
        activations = mmdit_activations(config, tokens, item) + kept_references(config, kept, item)
        activations += unpacking(self._mmdit, item)
        part = measure("mmdit", self._mmdit, {"blocks": self._mmdit.double_blocks})
        placement = place(part, activations, self._budget, RESERVES.get(self._device.type, 0))
        if self._placement is None or placement.resident != self._placement.resident:
            self.leave()
            self._mover.enter(placement)
            self._placement = placement

    def leave(self) -> None:
        """Bring all weights home, where they may be changed."""
        if self._placement is not None:
            self._mover.leave()
            self._placement = None


class Worker:
    """What a leader may tell its worker; all but `forward` answer nothing."""

    def __init__(self, recipe: Recipe, device: str, processes: int, threads: int, out: BinaryIO):
        torch.set_num_threads(threads)
        self.device = torch.device(device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        mmdit = recipe.mmdit(self.device)
        self._node = Node(mmdit, self.device)
        self._room = Room(mmdit, self.device, recipe.budget, processes)
        self._loras = lora.Applied()
        self._out = out
        self._left = ExitStack()

    def join(self, place: Place) -> None:
        """Share tokens with a group."""
        self._node.exchange = self._left.enter_context(Exchange(place))

    def set_loras(self, loras: Sequence[tuple[str | Path, float]], merge: bool, dtype: torch.dtype) -> None:
        pairs = [(lora.read(path), strength) for path, strength in loras]
        found = lora.match((self._node.mmdit,), pairs, whole=False)
        self._room.leave()
        self._loras.remove()
        self._loras = found.apply(dtype, merge)

    def begin(self, tokens: int, kept: int, threads: int) -> None:
        torch.set_num_threads(threads)
        self._room.enter(tokens, kept)

    def learn(self, *told) -> None:
        self._node.learn(*told)

    def forget(self, numbers: Sequence[int]) -> None:
        self._node.forget(numbers)

    def forward(self, number: int, x: Tensor, t: Tensor) -> None:
        velocity = self._node.forward(number, x, t)
        if velocity is not None:
            answer(self._out, velocity.cpu())


def answer(out: BinaryIO, message: object) -> None:
    pickle.dump(message, out, pickle.HIGHEST_PROTOCOL)
    out.flush()


def read(stream: BinaryIO) -> Iterator[tuple]:
    """Orders until the leader is gone, which ends this process even while one is carried out."""
    orders: queue.Queue[tuple] = queue.Queue()

    def wait() -> None:
        try:
            while True:
                orders.put(pickle.load(stream))
        except (EOFError, OSError, pickle.UnpicklingError):  # the last where it was killed in the middle of one
            os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
    while True:
        yield orders.get()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the leader, which ends this process
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever is printed must not get among the answers
    warnings.simplefilter("ignore")  # the leader has said it
    orders = read(sys.stdin.buffer)
    try:
        recipe, device, processes, threads = next(orders)
        worker = Worker(recipe, device, processes, threads, out)
        answer(out, "ready")
        with torch.inference_mode():
            for name, *told in orders:
                getattr(worker, name)(*told)
    except Exception as error:
        text = str(error) if isinstance(error, JoyImageError) else f"{type(error).__name__}: {error}"
        answer(out, Failure(text, itself=not isinstance(error, Left)))
