"""What objects are called in each language: a table from a scene's labels to words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import JoyImageError
from ..settings import check_text
from .settings import LANGUAGES

ENGLISH, CHINESE = LANGUAGES
Table = Mapping[str, str | Mapping[str, str]]
SIGNS = re.compile("[\u3400-\u9fff]")  # a label with one of these is Chinese


class Translations:
    """Words for labels, which are found whatever their case. Of a text the word is Chinese.

    Without a table, English labels stand as they are, and between quotation marks in Chinese. `JoyImageError` for what
    is no table.
    """

    def __init__(self, table: Table | None = None):
        self._words = {label.casefold(): words for label, words in checked(table or {}).items()}
        self._known = {language: {words.get(language) for words in self._words.values()} for language in LANGUAGES}

    def __bool__(self) -> bool:
        return bool(self._words)

    def word(self, label: str, language: str) -> str | None:
        """The word for a category, None where there is none."""
        own = self._words.get(label.casefold(), {}).get(language)
        return own or (label if self.says(label, language) else None)

    def words(self, description: str, category: str, language: str) -> str | None:
        """Words for a description: the table's, or those of its parts, as "red" and "car"; None where one lacks."""
        whole = self.word(description, language)
        named = description.casefold().endswith(f" {category.casefold()}")
        if (whole is not None and whole != description) or not named:
            return whole
        parts = [self.word(part, language) for part in (*description[: -len(category)].split(), category)]
        return (" " if language == ENGLISH else "").join(map(str, parts)) if all(parts) else None

    def says(self, word: str, language: str) -> bool:
        """Whether a word is of the language."""
        return language == ENGLISH or word in self._known[language] or bool(SIGNS.search(word))


def checked(table: Any) -> dict[str, dict[str, str]]:
    """A table with a record of words for each label. Raises `JoyImageError` for what is none, naming it."""
    if not isinstance(table, Mapping):
        raise JoyImageError(f"translations must be a table from English names to Chinese ones, not {table!r:.60}")
    found: dict[str, dict[str, str]] = {}
    for label, given in sorted(table.items(), key=lambda item: str(item[0])):
        words = {CHINESE: given} if isinstance(given, str) else given
        if not isinstance(words, Mapping) or not words or set(words) - set(LANGUAGES):
            raise JoyImageError(
                f"translations: {label!r:.60} has {given!r:.60}; it must have a Chinese name, or a name for each of "
                f"{' and '.join(LANGUAGES)}"
            )
        key = _line(label, "a name")
        if key.casefold() in map(str.casefold, found):
            raise JoyImageError(f"translations: {label!r:.60} is named twice; keep one of them")
        found[key] = {language: _line(words[language], f"{label!r:.60} in {language}") for language in sorted(words)}
    return found


def _line(text: Any, what: str) -> str:
    check_text(f"translations: {what}", text)
    if not (line := " ".join(text.split())):
        raise JoyImageError(f"translations: {what} is empty; give it a name, or leave it out")
    return line


def read_translations(path: str | Path) -> dict[str, dict[str, str]]:
    """The table of a file: JSON, or lines of a name, a tab and its Chinese name.

    Lines may begin with one that says the columns: name, en and zh. Raises `JoyImageError` for a file that is none.
    """
    from .readers.common import load_json, load_text  # here: they wait for numpy

    path = Path(path)
    table = load_json(path) if path.suffix.lower() == ".json" else _lines(path, load_text(path))
    try:
        return checked(table)
    except JoyImageError as error:
        raise JoyImageError(f"{path}: {error}") from error


def _lines(path: Path, text: str) -> dict[str, dict[str, str]]:
    columns: list[str] = [CHINESE]
    found: dict[str, dict[str, str]] = {}
    for place, line in enumerate(text.splitlines(), start=1):
        name, *cells = (cell.strip() for cell in line.split("\t"))
        if not line.strip() or name.startswith("#"):
            continue
        if not found and cells and not set(cells) - set(LANGUAGES):
            columns = cells
            continue
        if len(cells) != len(columns):
            raise JoyImageError(
                f"{path}: line {place} is {line!r:.60}; it must be a name, a tab and its name in {', '.join(columns)}"
            )
        if name in found:
            raise JoyImageError(f"{path}: line {place} names {name!r:.60} a second time; keep one of them")
        found[name] = {column: cell for column, cell in zip(columns, cells, strict=True) if cell}
    return {name: words for name, words in found.items() if words}
