"""Which samples a step takes, and what is drawn for them: functions of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..errors import JoyImageError
from .samples import Sample

Shape = tuple[tuple[int, ...], ...]
ORDER, DRAWS = 1, 2  # what a stream of random numbers is for


def shapes_of(samples: Sequence[Sample]) -> list[Shape]:
    """The shapes of each sample's target and references: those with equal ones may share a forward.

    A data set that knows them without reading all of its samples says so in an attribute `shapes`.
    """
    known: Any = getattr(samples, "shapes", None)
    if known is not None:
        return list(known)
    return [tuple(tuple(each.shape) for each in (sample.latent, *sample.references)) for sample in samples]


class Batches:
    """Batches of samples of equal shapes, without end: by `[number]`, as lists of places in the data set.

    In a round each sample comes once, in an order of the round's own; what is missing of a shape's last batch comes
    once more. Raises `JoyImageError` without samples.
    """

    def __init__(self, shapes: Sequence[Shape], size: int, seed: int):
        if not shapes:
            raise JoyImageError("there is nothing to train on: the data set is empty")
        groups: dict[Shape, list[int]] = {}
        for place, shape in enumerate(shapes):
            groups.setdefault(shape, []).append(place)
        self._groups = [np.array(group) for group in groups.values()]
        self._size, self._seed = size, seed
        self._round: tuple[int, list[list[int]]] = (-1, [])
        self.per_round = sum(-(-len(group) // size) for group in self._groups)

    def __getitem__(self, number: int) -> list[int]:
        turn, place = divmod(number, self.per_round)
        if self._round[0] != turn:
            self._round = turn, self._draw(turn)
        return self._round[1][place]

    def _draw(self, turn: int) -> list[list[int]]:
        generator = np.random.default_rng([self._seed, ORDER, turn])
        batches: list[list[int]] = []
        for group in self._groups:
            count = -(-len(group) // self._size) * self._size
            orders = [generator.permutation(group) for _ in range(-(-count // len(group)))]
            batches += np.concatenate(orders)[:count].reshape(-1, self._size).tolist()
        return [batches[i] for i in generator.permutation(len(batches))]


def generators(seed: int, number: int, count: int) -> list[torch.Generator]:
    """A generator on the CPU for each of the samples of batch `number`."""
    states = (np.random.SeedSequence([seed, DRAWS, number, place]) for place in range(count))
    return [torch.Generator().manual_seed(int(state.generate_state(1, np.uint64)[0])) for state in states]
