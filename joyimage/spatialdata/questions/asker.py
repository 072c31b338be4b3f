"""Putting a question into words: names and marks of objects, texts of answers, letters of choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .draw import Draw
from .form import LETTERS, MARKS, Mark, Question
from .words import CHOOSE, COLOURS, MARKED, UNIQUE, WITHIN, YES, joined

Phrases = Mapping[str, Mapping[str, Sequence[str]]]  # what is asked -> language -> wordings with {fields}


class Asker:
    """One question on its way. `letters`: how many options a choice has; `forms`: of "open" and "choice", in turn."""

    def __init__(self, draw: Draw, views: Sequence[int], forms: Sequence[str] = ("open",), letters: int = 4):
        self.draw, self.views, self.random, self.letters = draw, tuple(views), draw.random, letters
        languages = draw.asking.languages
        self.language = languages[draw.turn("language", len(languages))]
        turn = draw.turn("form", len(forms) * letters)  # one turn for both, as forms and letters must not go together
        self.form, self._letter = forms[turn % len(forms)], turn // len(forms)
        self._marks: list[Mark] = []
        self._names: dict[int, str] = {}

    @property
    def choice(self) -> bool:
        return self.form == "choice"

    def name(self, thing: int, picture: int = 0) -> str:
        """Words for an object in one of the pictures, which may mark it there."""
        index = self.draw.index
        tag, unique = index.things[thing].category, index.names[thing]
        if not unique or self.random.random() < self.draw.asking.marked:
            colour = self._colour()
            kind = self.random.choice(MARKS)
            sight = index.sights[self.views[picture], thing]
            at = sight.point if kind == "point" else None
            self._marks.append(Mark(picture, kind, colour, index.things[thing].number, at))
            shown = COLOURS[colour][self.language]
            words = MARKED[kind][self.language].format(tag=self._tag(tag), colour=shown)
        else:
            words = UNIQUE[self.language].format(name=self._tag(unique))
        if len(self.views) > 1:
            words = WITHIN[self.language].format(name=words, picture=picture + 1)
        self._names[index.things[thing].number] = words
        return words

    def point(self, at: tuple[float, float], picture: int = 0, label: str = "") -> str:
        """Mark a place and give the colour's word."""
        colour = self._colour()
        self._marks.append(Mark(picture, "label" if label else "point", colour, None, at, label))
        return COLOURS[colour][self.language]

    def tags(self, tag: str) -> str:
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

    def _colour(self) -> str:
        used = {mark.colour for mark in self._marks}
        return self.random.choice([colour for colour in COLOURS if colour not in used])

    def _tag(self, tag: str) -> str:
        if self.language == "en":
            return tag
        return self.draw.asking.translations.get(tag, f"“{tag}”")
