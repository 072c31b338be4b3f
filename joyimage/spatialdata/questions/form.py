"""A question, its marks, and what decides how questions are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import JoyImageError
from ..settings import LANGUAGES as LANGUAGES
from ..translations import Table, Translations

MARKS = ("tint", "box", "point")
OUTLINED = ("box", "point")  # those that leave an object's colours
LETTERS = "ABCDEFGH"


@dataclass(frozen=True)
class Mark:
    """What is drawn on a picture. `picture`: which of the question's, from 0. `kind`: one of `MARKS`, or "label".

    number: of the object that is marked, None for a place. at: (x, y) of points and labels, as fractions of the
    picture. label: the letter beside a labelled point.
    """

    picture: int
    kind: str
    colour: str
    number: int | None = None
    at: tuple[float, float] | None = None
    label: str = ""


@dataclass(frozen=True, eq=False)
class Question:
    """One question with its answer.

    views: of the scene, one for each picture, in order. form: "open" or "choice". answer: the text that is right; of a
    choice, its letter. options: the texts of a choice, in the letters' order. about: what is asked, in the scene's
    numbers of objects, so that the answer can be computed again. names: what the text calls each of these objects.
    """

    task: str
    scene: str
    views: tuple[int, ...]
    language: str
    form: str
    text: str
    answer: str
    options: tuple[str, ...] = ()
    marks: tuple[Mark, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)

    @property
    def said(self) -> str:
        """The answer in words: of a choice, the option's text."""
        return self.options[LETTERS.index(self.answer)] if self.options else self.answer

    @property
    def stem(self) -> str:
        """What is asked, without the list of options that the text of a choice has."""
        return self.text.partition(f"\n{LETTERS[0]}. ")[0] if self.options else self.text

    def lettered(self, options: tuple[str, ...]) -> Question:
        """As a choice of options that the pictures show beside their letters."""
        return replace(self, form="choice", options=options)

    def with_text(self, text: str) -> Question:
        return replace(self, text=text)


@dataclass(frozen=True)
class Asking:
    """How questions are made.

    languages: of `LANGUAGES`, that take turns. marked: the probability that an object that words alone can name is
    marked; others always are. tries: draws for a question until none is found. translations: what each language calls
    categories and descriptions, as `Translations` takes it. `JoyImageError` for values out of range.
    """

    seed: int = 0
    languages: tuple[str, ...] = LANGUAGES
    marked: float = 0.3
    tries: int = 24
    translations: Table = field(default_factory=dict)
    words: Translations = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        if not self.languages or set(self.languages) - set(LANGUAGES):
            raise JoyImageError(f"questions are asked in {' and '.join(LANGUAGES)}, not in {self.languages}")
        if not 0 <= self.marked <= 1:
            raise JoyImageError(f"the probability of a mark is 0 to 1, not {self.marked}")
        if self.tries < 1:
            raise JoyImageError(f"a question takes 1 try or more, not {self.tries}")
        object.__setattr__(self, "words", Translations(self.translations))


USUAL = Asking()
