"""A scene's truth in plain numbers, and what a check finds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..extras import extra
from ..questions.form import Question
from ..scenes import Scene
from ..translations import Table, checked

SIGNS = np.array(np.meshgrid((-0.5, 0.5), (-0.5, 0.5), (-0.5, 0.5))).reshape(3, 8).T


@dataclass(frozen=True)
class Verdict:
    """right: whether the answer is the true one. clear: whether it hangs on no less than its margin."""

    right: bool
    clear: bool = True

    def __bool__(self) -> bool:
        return self.right and self.clear


class Truth:
    """What is true of a scene whose objects have boxes. Depth and masks are read once, when they are first needed.

    translations: the table that its questions were asked with.
    """

    def __init__(self, scene: Scene, translations: Table | None = None):
        self.scene = scene
        self._words = {name.casefold(): words for name, words in checked(translations or {}).items()}
        self.things = {thing.number: thing for thing in scene.objects}
        self._measured: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._clouds: dict[tuple[int, int], np.ndarray] = {}
        self._apart: dict[frozenset[int], float] = {}

    def called(self, number: int, language: str) -> str:
        """What a question in a language calls objects of this one's category."""
        category = self.things[number].category
        return self._words.get(category.casefold(), {}).get(language, category)

    def corners(self, number: int) -> np.ndarray:
        """The corners (8, 3) of an object's box."""
        box = self.things[number].box
        assert box is not None
        values = np.array(box.numbers)
        turn = extra("scipy.spatial.transform").Rotation.from_euler("ZXY", values[6:])
        return turn.apply(SIGNS * values[3:6]) + values[:3]

    def extents(self, number: int) -> np.ndarray:
        """The lengths (3,) of the box's edges, the shortest first."""
        corners = self.corners(number)
        lengths = np.linalg.norm(corners - corners[0], axis=1)
        order = np.argsort(lengths)
        return lengths[[i for i in order if np.abs(SIGNS[i] - SIGNS[0]).sum() == 1]]

    def volume(self, number: int) -> float:
        return float(np.prod(self.extents(number)))

    def height(self, number: int) -> tuple[float, float]:
        """The lowest and highest of the box's corners."""
        z = self.corners(number)[:, 2]
        return float(z.min()), float(z.max())

    def camera(self, view: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the picture: the matrix (3, 3), and rotation (3, 3) and translation (3,) from the world to the camera."""
        camera = self.scene.views[view].camera
        outwards = np.linalg.inv(camera.pose)
        return camera.intrinsic, outwards[:3, :3], outwards[:3, 3]

    def depth(self, view: int) -> np.ndarray:
        return self._view(view)[0]

    def numbers(self, view: int) -> np.ndarray:
        return self._view(view)[1]

    def measured(self, view: int, rows: np.ndarray, columns: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """World points (N, 3) of places of the depth picture, at its depth."""
        matrix = self._view(view)[2]
        pixels = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])
        _, rotation, shift = self.camera(view)
        return ((np.linalg.solve(matrix, pixels) * depth).T - shift) @ rotation

    def cloud(self, view: int, number: int) -> np.ndarray:
        """The world points (N, 3) of an object in a view."""
        if (view, number) not in self._clouds:
            depth, numbers, _ = self._view(view)
            rows, columns = np.nonzero((numbers == number) & (depth > 0))
            self._clouds[view, number] = self.measured(view, rows, columns, depth[rows, columns])
        return self._clouds[view, number]

    def in_camera(self, view: int, points: np.ndarray) -> np.ndarray:
        """World points (…, 3) in a view's camera frame."""
        _, rotation, shift = self.camera(view)
        return points @ rotation.T + shift

    def seen(self, view: int) -> set[int]:
        """The objects with a pixel in a view, of any kind."""
        return {int(number) for number in np.unique(self.numbers(view))} & set(self.things)

    def apart(self, first: int, second: int) -> float:
        """The least distance of two objects' points of all views; infinite where one has none."""
        key = frozenset((first, second))
        if key not in self._apart:
            views = range(len(self.scene.views))
            clouds = [np.concatenate([self.cloud(view, number) for view in views]) for number in (first, second)]
            self._apart[key] = least_distance(*clouds)
        return self._apart[key]

    def _view(self, view: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if view not in self._measured:
            sensed = self.scene.views[view].sensed()
            numbers = sensed.instances
            assert numbers is not None, "truth has masks"
            self._measured[view] = sensed.depth.astype(float), numbers, sensed.camera.intrinsic
        return self._measured[view]


def least_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Of points (N, 3) and (M, 3), every pair that can be nearest compared with every other."""
    if not len(first) or not len(second):
        return float("inf")
    bound = _pairs(first[::16], second[::16])
    first = first[_beside(first, second) <= bound]
    second = second[_beside(second, first) <= bound]
    return min(_pairs(part, second) for part in np.array_split(first, len(first) // 500 + 1))


def _pairs(first: np.ndarray, second: np.ndarray) -> float:
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * first @ second.T
    return float(np.sqrt(max(squares.min(), 0)))


def _beside(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How far points (N, 3) lie from the upright box around the others, in each axis' direction."""
    low, high = others.min(axis=0), others.max(axis=0)
    return np.linalg.norm(np.maximum(np.maximum(low - points, points - high), 0), axis=1)


def mentioned(text: str, names: Mapping[int, str]) -> list[int]:
    """The objects that a text names, in the order in which it does. A name within a longer one does not count."""
    numbers = {name.casefold(): number for number, name in names.items()}
    longest = sorted(map(re.escape, numbers), key=len, reverse=True)
    return [numbers[name] for name in re.findall("|".join(longest), text.casefold())] if longest else []


def same(answer: Sequence[float], truth: Iterable[float], share: float, least: float) -> bool:
    """Whether lengths are those that are true, but for a share of each or a least length."""
    true = np.array(list(truth))
    return len(answer) == len(true) and bool((np.abs(np.array(answer) - true) <= np.maximum(share * true, least)).all())


def factor(first: float, second: float) -> float:
    """How many times the larger holds the smaller."""
    return max(first, second) / max(min(first, second), 1e-12)


def said_number(question: Question) -> int | None:
    """The one object that an answer names."""
    found = mentioned(question.said, question.names)
    return found[0] if len(found) == 1 else None
