"""The parts of the model on the device in turn, within a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch
from torch import nn

from .budget import RESERVES, TILES, Needs, place, place_all
from .streaming import Worker, pinned_for

Result = TypeVar("Result")

SMALLEST_PICTURE = 64 * 64  # pixels; a budget that is too small for it is refused at once
PIXELS_PER_TOKEN = 256  # of the MMDiT


class Memory:
    """Puts the parts of a model on the device in turn, within a budget in bytes; with none, they are there already.
    Main memory is shared with the other `processes` of the model.

    Raises `JoyImageError` for a budget that is too small even for a picture of 64x64, naming the least that works.
    """

    def __init__(self, needs: Needs, device: torch.device, budget: int | None = None, processes: int = 1):
        self.needs = needs
        self.device = device
        self.budget = budget
        self._reserve = RESERVES.get(device.type, 0)
        self._workers: dict[str, Worker] = {}
        if budget is not None:
            pinned = pinned_for(device, processes)
            self._workers = {
                name: Worker(network, list(needs.groups[name].values()), device, pinned)
                for name, network in needs.networks.items()
                if isinstance(network, nn.Module)  # an outline of one has nothing to move
            }
            self._check(budget)

    def _check(self, budget: int) -> None:
        least = {
            "encoder": self.needs.encoder(0, 1),
            "mmdit": self.needs.mmdit(SMALLEST_PICTURE // PIXELS_PER_TOKEN),
            "vae": self.needs.vae(SMALLEST_PICTURE, TILES[-1]),
        }
        place_all(self.needs, least, budget, self._reserve)

    @contextmanager
    def at_work(self, name: str, activations: int, idle: Sequence[nn.Module] = ()) -> Iterator[None]:
        """Have a part on the device, without its `idle` modules.

        It stays there afterwards only if all parts fit in at once.
        """
        if self.budget is None:
            yield
            return
        together = self._reserve + self.needs.weights + activations <= self.budget
        idle = () if together else idle
        placement = place(self.needs.part(name, idle), activations, self.budget, self._reserve)
        worker = self._workers[name]
        if not together:
            self.leave()
        try:
            if not worker.present:
                worker.enter(placement, idle)
            yield
        finally:
            if not together:
                worker.leave()

    def leave(self) -> None:
        """Bring all weights home, where they may be changed: the next part to work takes what is there then."""
        for worker in self._workers.values():
            worker.leave()

    def conditioning(self, pixels: int, text_tokens: int):
        """Context in which the encoder can condition; the language head stays at home."""
        return self.at_work("encoder", self.needs.encoder(pixels, text_tokens), self.needs.idle["encoder"])

    def answering(self, pixels: int, text_tokens: int):
        """Context in which the encoder can answer."""
        return self.at_work("encoder", self.needs.encoder(pixels, text_tokens))

    def denoising(self, tokens: int, kept: int = 0):
        """Context in which the MMDiT can run forwards over so many image and text tokens, and keep the keys and values
        of so many tokens of references.
        """
        return self.at_work("mmdit", self.needs.mmdit(tokens, kept))

    @contextmanager
    def vae(self, pixels: int) -> Iterator[Callable[[Callable[[int | None], Result]], Result]]:
        """Context in which the VAE can work on pictures of so many pixels; gives what calls it with a tile."""
        tile = None if self.budget is None else self.needs.tile(pixels, self.budget - self._reserve)
        with self.at_work("vae", self.needs.vae(pixels, tile)):
            yield partial(with_tiles, tiles=TILES[TILES.index(tile) :])


def with_tiles(run: Callable[[int | None], Result], tiles: Sequence[int | None] = TILES) -> Result:
    """`run` the VAE with the first of `tiles`, and with the next whenever the GPU's memory does not suffice."""
    for tile in tiles[:-1]:
        try:
            return run(tile)
        except torch.cuda.OutOfMemoryError:
            pass  # go on outside: the exception holds on to the tensors of the failed run
        torch.cuda.empty_cache()
    return run(tiles[-1])
