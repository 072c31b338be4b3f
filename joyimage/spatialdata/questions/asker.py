"""Putting a question into words: names and marks of objects, texts of answers, letters of choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .draw import Draw
from .form import LETTERS, MARKS, OUTLINED, Mark, Question
from .words import ANYTHING, CHOOSE, COLOURS, MARKED, UNIQUE, WITHIN, YES, joined

Phrases = Mapping[str, Mapping[str, Sequence[str]]]  # what is asked -> language -> wordings with {fields}


class UnnamedError(Exception):
    """A category that the table of translations does not have in the language of the question."""


class Asker:
    """One question on its way. `letters`: how many options a choice has; `forms`: of "open" and "choice", in turn."""

    def __init__(self, draw: Draw, views: Sequence[int], forms: Sequence[str] = ("open",), letters: int = 4):
        self.draw, self.views, self.random, self.letters = draw, tuple(views), draw.random, letters
        self.language = draw.language
        draw.turn("language", len(draw.asking.languages))
        turn = draw.turn("form", len(forms) * letters)  # one turn for both, as forms and letters must not go together
        self.form, self._letter = forms[turn % len(forms)], turn // len(forms)
        self._marks: list[Mark] = []
        self._names: dict[int, str] = {}

    @property
    def choice(self) -> bool:
        return self.form == "choice"

    @property
    def letter(self) -> int:
        """The place of a choice's right option."""
        return self._letter

    def name(self, thing: int, picture: int = 0) -> str:
        """Words for an object in one of the pictures, which may mark it there."""
        index = self.draw.index
        tag, unique = index.things[thing].category, index.names[thing]
        if not unique or self.random.random() < self.draw.asking.marked:
            # Tinted, it could be taken for another of its kind that has the colour, or not be found in another view.
            kinds = MARKS if index.single[thing] else OUTLINED
            words = self._marked(thing, picture, self._tag(tag), kinds)
        else:
            words = UNIQUE[self.language].format(name=self._tag(unique))
        return self._named(thing, picture, words)

    def marked(self, thing: int, picture: int, kinds: Sequence[str]) -> str:
        """Words for a marked object that do not say what it is."""
        return self._named(thing, picture, self._marked(thing, picture, ANYTHING[self.language], kinds))

    def bare(self, thing: int) -> str:
        """The words that mean an object alone, without article or mark."""
        words = self._tag(self.draw.index.names[thing])
        self._names[self.draw.index.things[thing].number] = words
        return words

    def points(self, places: Sequence[tuple[float, float]], picture: int, labels: Sequence[str] = ()) -> str:
        """Mark places, with letters beside them or none, in one colour and give its word."""
        colour = self._colour()
        for at, label in zip(places, labels or [""] * len(places), strict=True):
            self._marks.append(Mark(picture, "label" if label else "point", colour, None, at, label))
        return COLOURS[colour][self.language]

    def tag(self, tag: str) -> str:
        """A category's word."""
        return self._tag(tag)

    def yes(self, holds: bool) -> str:
        return YES[self.language][0 if holds else 1]

    def list(self, words: Sequence[str]) -> str:
        return joined(words, self.language)

    def open(self, phrases: Phrases, key: str, answer: str, about: Mapping[str, Any], **words: object) -> Question:
        return self._question("open", self._said(phrases, key, words), answer, (), about)

    def choose(
        self, phrases: Phrases, key: str, right: str, wrong: Sequence[str], about: Mapping[str, Any], **words: object
    ) -> Question:
        """A choice: `wrong` options in random order, `right` where its turn is."""
        options = self.random.sample(list(wrong), len(wrong))
        options.insert(self._letter, right)
        listed = "".join(f"\n{LETTERS[i]}. {option}" for i, option in enumerate(options))
        text = f"{self._said(phrases, key, words)}{listed}\n{self.random.choice(CHOOSE[self.language])}"
        return self._question("choice", text, LETTERS[self._letter], tuple(options), about)

    def either(
        self, phrases: Phrases, key: str, right: str, wrong: Sequence[str], about: Mapping[str, Any], **words: object
    ) -> Question:
        """A choice or an open question, as its turn is."""
        if self.choice:
            return self.choose(phrases, key, right, wrong, about, **words)
        return self.open(phrases, key, right, about, **words)

    def _said(self, phrases: Phrases, key: str, words: Mapping[str, object]) -> str:
        text = self.random.choice(phrases[key][self.language]).format(**words)
        return text[0].upper() + text[1:]

    def _question(self, form: str, text: str, answer: str, options: tuple[str, ...], about) -> Question:
        return Question(
            task=self.draw.task,
            scene=self.draw.index.scene.name,
            views=self.views,
            language=self.language,
            form=form,
            text=text,
            answer=answer,
            options=options,
            marks=tuple(self._marks),
            about=dict(about),
            names=self._names,
        )

    def _marked(self, thing: int, picture: int, tag: str, kinds: Sequence[str]) -> str:
        colour, kind, index = self._colour(), self.random.choice(kinds), self.draw.index
        at = index.sights[self.views[picture], thing].point if kind == "point" else None
        self._marks.append(Mark(picture, kind, colour, index.things[thing].number, at))
        return MARKED[kind][self.language].format(tag=tag, colour=COLOURS[colour][self.language])

    def _named(self, thing: int, picture: int, words: str) -> str:
        if len(self.views) > 1:
            words = WITHIN[self.language].format(name=words, picture=picture + 1)
        self._names[self.draw.index.things[thing].number] = words
        return words

    def _colour(self) -> str:
        used = {mark.colour for mark in self._marks}
        return self.random.choice([colour for colour in COLOURS if colour not in used])

    def _tag(self, tag: str) -> str:
        """Raises `UnnamedError` where there are words for others, and none for this."""
        if self.draw.asking.words.says(tag, self.language):
            return tag
        if self.draw.asking.words:
            raise UnnamedError(tag)
        return f"“{tag}”"
