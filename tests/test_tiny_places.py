"""The measurement of moves to places in words: its scenes and its judge, on pictures whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from tools.tiny import places
from tools.tiny import scenes as world
from tools.tiny.example_scenes import placed
from tools.tiny.render import render
from tools.tiny.tasks import RELATIONS, Pairs

COUNT = 8
GAP = 0.7


@pytest.fixture(scope="module")
def made():
    return places.scenes(COUNT)


def beside(made: world.Scenes, relation: np.ndarray, sign: float = 1) -> world.Scenes:
    """The moved object where the words say, or on the other side."""
    apart = made.radius[:, [places.MOVED]] + made.radius[:, [places.ANCHOR]] + GAP
    return made.with_slot(places.MOVED, place=made.place[:, places.ANCHOR] + sign * places.DIRECTIONS[relation] * apart)


def test_scenes_are_the_same_every_time_and_held_out_with_each_relation_alike(made):
    scenes, relation = made
    again, _ = places.scenes(COUNT)
    assert all(np.array_equal(value, getattr(again, name)) for name, value in vars(scenes).items())
    assert np.array_equal(np.bincount(relation), [COUNT // len(RELATIONS)] * len(RELATIONS))
    assert world.held_out(scenes.colour[:, places.MOVED], scenes.kind[:, places.MOVED]).all()
    assert scenes.present[:, places.ANCHOR].all() and world.valid(scenes).all()
    assert places.words(scenes, relation)[2] == f"in front of the {scenes.name(2, places.ANCHOR)}"


def test_an_object_stands_where_it_is_seen(made):
    scenes, relation = made
    for sign in (1, -1):
        there = beside(scenes, relation, sign)
        box = world.boxes(there)[:, places.MOVED]
        whole = ((box >= 0) & (box <= world.SIZE)).all(axis=1)  # what is cut off is taken for something smaller
        assert whole.any()
        assert (places.stands_there(scenes, relation, render(there).pixels) == (sign == 1))[whole].all()
    gray = np.full((COUNT, world.SIZE, world.SIZE, 3), 128, np.uint8)
    assert not places.stands_there(scenes, relation, gray).any()


def test_a_true_move_is_right_and_none_is_wrong(made):
    scenes, relation = made
    box = render(beside(scenes, relation)).box(places.MOVED)
    after, first = placed(scenes, places.MOVED, box), render(scenes)
    truth = render(after)
    pairs = Pairs("move", [], [first.pixels], truth.pixels, scenes, after, truth, first, box)
    right = places.verdicts(pairs, relation, [""] * COUNT, truth.pixels)
    good = np.all(list(right.values()), axis=0)
    assert good.sum() >= COUNT - 2  # where the place is outside the picture or hidden, nothing is right
    still = places.verdicts(pairs, relation, ["no room"] * COUNT, first.pixels)
    assert not still["box found"].any() and not still["the same solid"].any() and still["box gone"].all()
