"""Evening out answers over many scenes: what scenes do not offer equally often is left out where it is ahead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from .form import LETTERS, Question

Side = tuple[str, str, int]  # the sub-task, what it is, of how many, and the value, from 0
AHEAD = 3  # questions by which one answer may be ahead of the least frequent


class Evening:
    """Takes questions whose letter and side are not more than `ahead` of the rarest of their sub-task.

    A side is what `Question.about` counts under "side of N": first or second, yes or no, one of eight directions. What
    a "side" without a number counts has no end: it is taken until it is ahead of the next frequent one.
    """

    def __init__(self, ahead: int = AHEAD):
        self.ahead = ahead
        self._counts: Counter[Side] = Counter()

    def takes(self, question: Question) -> bool:
        """Whether a question is taken; it then counts."""
        return self.takes_sides(list(sides(question)))

    def takes_sides(self, keys: Sequence[Side]) -> bool:
        """The same of a question that has these sides."""
        if any(self._counts[key] - self._bound(key) >= self.ahead for key in keys):
            return False
        self._counts.update(keys)
        return True

    def _bound(self, key: Side) -> int:
        """How often the rarest value occurred or, of values without end, the most frequent other one."""
        task, kind, value = key
        if count := values_of(kind):
            return min(self._counts[task, kind, value] for value in range(count))
        others = (key for key in self._counts if key[:2] == (task, kind) and key[2] != value)
        return max((self._counts[key] for key in others), default=0)


def evened(questions: Iterable[Question], ahead: int = AHEAD) -> Iterator[Question]:
    """The questions, in their order, without those that `Evening` does not take."""
    evening = Evening(ahead)
    return (question for question in questions if evening.takes(question))


def values_of(kind: str) -> int:
    """How many values there are of a kind of side; 0 where they have no end."""
    count = kind.rpartition(" ")[2]
    return int(count) if count.isdecimal() else 0


def sides(question: Question) -> Iterator[Side]:
    """What must be even."""
    if question.options:
        yield question.task, f"letter of {len(question.options)}", LETTERS.index(question.answer)
    for key, value in question.about.items():
        if key.startswith("side"):
            yield question.task, key, value


def balance(found: Iterable[Side]) -> dict[str, dict[str, float]]:
    """By sub-task: by how much the most frequent letter, side, or yes or no lies above chance, as a share."""
    counts: dict[tuple[str, str], Counter[int]] = {}
    for task, kind, value in found:
        counts.setdefault((task, kind), Counter())[value] += 1
    told: dict[str, dict[str, float]] = {}
    for (task, kind), values in sorted(counts.items()):
        if count := values_of(kind):  # what has no end has no chance to be held against
            told.setdefault(task, {})[kind] = round(max(values.values()) / sum(values.values()) - 1 / count, 4)
    return told
