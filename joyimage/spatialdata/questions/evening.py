"""Evening out answers over many scenes: what scenes do not offer equally often is left out where it is ahead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from .form import LETTERS, Question

Side = tuple[str, str, int]  # the sub-task, what it is, of how many, and the value, from 0
AHEAD = 3  # questions by which one answer may be ahead of the least frequent


class Evening:
    """Takes questions whose letter and side are not more than `ahead` of the rarest of their sub-task.

    A side is what `Question.about` counts under "side of N": first or second, yes or no, one of eight directions.
    """

    def __init__(self, ahead: int = AHEAD):
        self.ahead = ahead
        self._counts: Counter[Side] = Counter()

    def takes(self, question: Question) -> bool:
        """Whether a question is taken; it then counts."""
        return self.takes_sides(list(sides(question)))

    def takes_sides(self, keys: Sequence[Side]) -> bool:
        """The same of a question that has these sides."""
        if any(self._counts[key] - self._least(key) >= self.ahead for key in keys):
            return False
        self._counts.update(keys)
        return True

    def _least(self, key: Side) -> int:
        task, kind, _ = key
        return min(self._counts[task, kind, value] for value in range(int(kind.rpartition(" ")[2])))


def evened(questions: Iterable[Question], ahead: int = AHEAD) -> Iterator[Question]:
    """The questions, in their order, without those that `Evening` does not take."""
    evening = Evening(ahead)
    return (question for question in questions if evening.takes(question))


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
        chance = 1 / int(kind.rpartition(" ")[2])
        told.setdefault(task, {})[kind] = round(max(values.values()) / sum(values.values()) - chance, 4)
    return told
