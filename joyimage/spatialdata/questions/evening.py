"""Evening out answers over many scenes: what scenes do not offer equally often is left out where it is ahead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from .form import LETTERS, Question

AHEAD = 3  # questions by which one answer may be ahead of the least frequent


class Evening:
    """Takes questions whose letter and side are not more than `ahead` of the rarest of their sub-task.

    A side is what `Question.about` counts under "side of N": first or second, yes or no, one of eight directions.
    """

    def __init__(self, ahead: int = AHEAD):
        self.ahead = ahead
        self._counts: Counter[tuple[str, str, int]] = Counter()

    def takes(self, question: Question) -> bool:
        """Whether a question is taken; it then counts."""
        keys = list(sides(question))
        if any(self._counts[key] - self._least(key) >= self.ahead for key in keys):
            return False
        self._counts.update(keys)
        return True

    def _least(self, key: tuple[str, str, int]) -> int:
        task, kind, _ = key
        return min(self._counts[task, kind, value] for value in range(int(kind.rpartition(" ")[2])))


def evened(questions: Iterable[Question], ahead: int = AHEAD) -> Iterator[Question]:
    """The questions, in their order, without those that `Evening` does not take."""
    evening = Evening(ahead)
    return (question for question in questions if evening.takes(question))


def sides(question: Question) -> Iterator[tuple[str, str, int]]:
    """What must be even: the sub-task, what it is, of how many, and the value, from 0."""
    if question.options:
        yield question.task, f"letter of {len(question.options)}", LETTERS.index(question.answer)
    for key, value in question.about.items():
        if key.startswith("side"):
            yield question.task, key, value
