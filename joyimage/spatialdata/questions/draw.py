"""Drawing what is asked: views and objects of an index, and answers in turn, so that none is more frequent."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from .. import margins
from ..index import SceneIndex, called
from .form import USUAL, Asking


class Draw:
    """Random choices for the questions of one sub-task in one scene.

    `place` is the scene's number among all: turns start from it, so that they are even over many scenes of a few
    questions each, and each scene can be done alone. called: as `by_language` gives it, where that is done already.
    """

    def __init__(
        self,
        index: SceneIndex,
        task: str,
        asking: Asking = USUAL,
        place: int = 0,
        called: Mapping[str, SceneIndex] | None = None,
    ):
        self.task, self.asking = task, asking
        self._called = called or by_language(index, asking)
        self._place = place
        self._turns: dict[tuple[str, int], int] = {}
        self.side = 0  # which of two answers is wanted now
        self.random = random.Random(f"{asking.seed}/{task}/{place}/{index.scene.name}")
        self.begin()

    def begin(self, language: str | None = None) -> None:
        """The next question: in the language whose turn it is, or another, by whose words `index` calls objects."""
        languages = self.asking.languages
        self.language = language or languages[self._next("language", len(languages))]
        self.index = self._called[self.language]

    def state(self) -> tuple:
        """What `restore` takes, to draw the same once more."""
        return self.random.getstate(), dict(self._turns), self.side

    def restore(self, state: tuple) -> None:
        number, turns, self.side = state
        self.random.setstate(number)
        self._turns = dict(turns)

    def turn(self, key: str, count: int) -> int:
        """One of 0 to `count` - 1, each as often as any other."""
        turn = self._next(key, count)
        self._turns[key, count] = (turn + 1) % count
        return turn

    def _next(self, key: str, count: int) -> int:
        turn = self._turns.get((key, count))
        if turn is None:
            block, within = divmod(self._place, count)
            order = random.Random(f"{self.asking.seed}/{self.task}/{key}/{block}").sample(range(count), count)
            turn = order[within]
        return turn

    def view(self, objects: int) -> tuple[int, tuple[int, ...]] | None:
        """A view with so many visible objects, and these in random order."""
        view = self.random.randrange(len(self.index.frames))
        inside = self.index.clear[view]
        if len(inside) < objects:
            return None
        return view, tuple(self.random.sample(inside, objects))

    def numbers(self, things: Sequence[int]) -> tuple[int, ...]:
        """The scene's numbers of objects of the index."""
        return tuple(self.index.things[n].number for n in things)

    def differ(self, first: int, second: int) -> bool:
        return first != second and bool(self.index.turned[first, second] >= margins.VIEWS_APART - 1e-6)

    def letters_apart(self, view: int) -> float:
        """Pixels of a view's frame between two points with letters, so that none lies on another's."""
        picture = self.index.scene.views[view].camera
        least = max(margins.OTHER_POINT, margins.OTHER_SHARE * min(picture.width, picture.height))
        return least * self.index.frames[view].camera.width / picture.width

    def chain(self, least: int, most: int) -> tuple[int, ...] | None:
        """Different views, each of which shares a visible object with the one before it and is turned against it."""
        length, count = self.random.randint(least, most), len(self.index.frames)
        views = [self.random.randrange(count)]
        rest = self.random.sample(range(count), count)
        for view in rest:
            if len(views) == length:
                break
            linked = set(self.index.clear[view]) & set(self.index.clear[views[-1]])
            if view not in views and linked and all(self.differ(view, other) for other in views):
                views.append(view)
        return tuple(views) if len(views) >= least else None

    def one_in_each(self, views: Sequence[int]) -> tuple[int, ...] | None:
        """A visible object of each view, all different."""
        chosen: list[int] = []
        for view in views:
            free = [n for n in self.index.clear[view] if n not in chosen]
            if not free:
                return None
            chosen.append(self.random.choice(free))
        return tuple(chosen)


def by_language(index: SceneIndex, asking: Asking) -> dict[str, SceneIndex]:
    """The index for each language that is asked in, with its words for objects."""
    return {language: called(index, asking.words, language) for language in asking.languages}


def beyond(first: float, second: float, factor: float) -> bool:
    """Whether the larger of two positive numbers is at least `factor` times the smaller."""
    return max(first, second) >= factor * min(first, second)
