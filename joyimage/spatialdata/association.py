"""Which masks of different views are of one object: those whose points fall on each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .extras import extra
from .scenes import Sensed

LEAST = 0.4  # of the points that both views see, which must fall on each other's mask
SHARED = 10  # points that both must see, to tell


def same_numbers(sensed: Sequence[Sensed], surface: float = 0.03) -> list[Sensed]:
    """The views with their instances renumbered, so that one object has one number, from 1 on, in all views.

    Each view's masks are assigned, all at once, to the objects of the views before it. `surface`: of its depth, within
    which a point lies on what a view measured there.
    """
    assign = extra("scipy.optimize").linear_sum_assignment
    done: list[Sensed] = []
    count = 0
    for view in sensed:
        numbers, index = _labels(view)
        score = _scores(view, index, len(numbers), done, count, surface)
        names = np.zeros(len(numbers) + 1, dtype=np.int32)
        for mask, known in zip(*assign(-score), strict=True):
            if score[mask, known] >= LEAST:
                names[mask + 1] = known + 1
        for mask in np.flatnonzero(names[1:] == 0):
            count += 1
            names[mask + 1] = count
        done.append(replace(view, instances=names[index]))
    return done


def _labels(view: Sensed) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of a view's masks, and each pixel's place among them from 1 on, 0 for none."""
    assert view.instances is not None
    numbers = np.unique(view.instances[view.instances > 0])
    index = np.where(view.instances > 0, np.searchsorted(numbers, view.instances) + 1, 0)
    return numbers, index


def _scores(view: Sensed, index: np.ndarray, count: int, done: list[Sensed], known: int, surface: float) -> np.ndarray:
    """How well each of a view's masks fits each known object, (count, known), in [0, 1]."""
    forth, back = np.zeros((count, known + 1)), np.zeros((known, count + 1))
    for other in done:
        assert other.instances is not None
        forth += _falls(view, index, count, other, other.instances, known, surface)
        back += _falls(other, other.instances, known, view, index, count, surface)
    joint = forth.sum(axis=1)[:, None] + back.sum(axis=1)[None]
    shared = forth[:, 1:] + back[:, 1:].T
    return np.where(joint >= 2 * SHARED, shared / np.maximum(joint, 1), 0)


def _falls(view, index, count, other, other_index, other_count, surface: float) -> np.ndarray:
    """How many points of each mask (count) the other view shows in each of its own, (count, other_count + 1).

    First come those that lie in none. Points that something hides from it do not count.
    """
    masked = (index > 0) & (view.depth > 0)
    points = view.camera.points(view.depth, masked)
    rows, columns, distance, inside = other.camera.index(points)
    measured = other.depth[rows, columns]
    shown = inside & (np.abs(distance - measured) <= surface * measured)
    pairs = (index[masked][shown] - 1) * (other_count + 1) + other_index[rows[shown], columns[shown]]
    return np.bincount(pairs, minlength=count * (other_count + 1)).reshape(count, other_count + 1)
