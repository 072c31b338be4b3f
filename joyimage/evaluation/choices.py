"""Multiple choice in VLMEvalKit's tables: a letter is right or wrong, and nothing is asked of another model."""

from __future__ import annotations

import ast
import base64
import binascii
import csv
import io
import re
import string
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from ..errors import JoyImageError, MissingFileError, check_columns
from ..images import check_picture, load
from .kept import Kept, digest, one_by_one
from .report import Report, Row, Shown
from .tools import Find

ANSWERS = "answers.jsonl"
LONGEST_INDEX = 64  # characters: what is as short in the column of pictures is another row's index
GROUPS = ("category", "l2-category", "task", "split")
CLOSING = "Answer with the letter of the right option alone."
# An answer that is nothing but a letter, lines that start with one and a sign, and letters that are named somewhere.
ALONE = re.compile(r"\W*(?:\\boxed\{)?([A-Z])\W*")
STARTED = re.compile(r"^[\s*]*(?:\(([A-Za-z])\)|([A-Za-z])[).:、](?=[\s*]|$|[^\x00-\x7f]))", re.M)
OTHER = re.compile(r"[).:、,*\s]*(?:or|and|/|&|或|和)\s*\(?[A-Za-z]\b", re.I)  # as in "(A) or (B)"
LETTER = r"[\s:*]*\(?(?:([A-Z])(?![A-Za-z])|([a-z])(?=[).*。,]*\s*$|\)))"  # a small one may be a word: "is a cup"
NAMED = re.compile(
    rf"(?:(?i:answer|option|choice)(?i:\s+is)?|(?:答案|选项|选择|选)(?:应该|应当|应)?[是为]?|\\boxed\{{){LETTER}"
)

Choose: TypeAlias = Callable[["Question"], str]  # the letter, or "" where none was given


@dataclass(frozen=True)
class Question:
    """One row. `pictures` are base64 or paths; `options` by letter, in order; `answer` is the right letter."""

    index: str
    pictures: tuple[str | Path, ...]
    question: str
    options: Mapping[str, str]
    answer: str
    hint: str = ""
    groups: Mapping[str, str] | None = None

    @property
    def text(self) -> str:
        """What is asked."""
        listed = "\n".join(f"{letter}. {option}" for letter, option in self.options.items())
        return "\n".join(filter(None, (self.hint, self.question, listed, CLOSING)))

    def images(self) -> list[Image.Image]:
        """Raises `JoyImageError`, with the row's index, for a picture that cannot be read."""
        return [_picture(self.index, picture) for picture in self.pictures]


def _picture(index: str, picture: str | Path) -> Image.Image:
    try:
        if isinstance(picture, Path):
            return load(picture)
        with Image.open(_decoded(picture)) as image:
            return load(image)
    except (binascii.Error, OSError, JoyImageError) as error:
        raise JoyImageError(f"row {index}: its picture cannot be read: {error}") from error


def _decoded(picture: str) -> io.BytesIO:
    """Of base64, in which spaces and ends of lines do not count."""
    return io.BytesIO(base64.b64decode("".join(picture.split()), validate=True))


def check_pictures(questions: Sequence[Question]) -> None:
    """Raise `JoyImageError`, with the row's index, for a picture that is none. None is decoded."""
    seen: set[str | Path] = set()
    for question in questions:
        for picture in question.pictures:
            if picture in seen:
                continue
            seen.add(picture)
            try:
                check_picture(picture if isinstance(picture, Path) else _decoded(picture))
            except (binascii.Error, OSError, JoyImageError) as error:
                raise JoyImageError(f"row {question.index}: its picture cannot be read: {error}") from error


def read_questions(path: Path) -> list[Question]:
    """The rows of a table, with tabs between columns and a first line of names.

    Raises `JoyImageError` that names the row for what is missing or malformed; pictures are read when they are asked.
    """
    if not path.is_file():
        raise MissingFileError(f"there is no table {path}")
    rows = list(_rows(path))
    if not rows:
        raise JoyImageError(f"{path} holds no rows")
    pictures = {row["index"].strip(): row["image"] for row in rows if row.get("image") and row.get("index")}
    questions = [_question(path, number, row, pictures) for number, row in enumerate(rows, 1)]
    places: dict[str, int] = {}
    for number, question in enumerate(questions, 1):
        if places.setdefault(question.index, number) != number:
            same = places[question.index]
            raise JoyImageError(f"{path}, row {number}: its index {question.index!r:.40} is that of row {same}, too")
    return questions


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """With fields of any length, as pictures are; the limit of Python's reader is restored.

    Quotes are read strictly, so that one that is never closed makes no row of all that follow.
    """
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    cells, number = csv.reader((), delimiter="\t"), 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            cells = csv.reader(file, delimiter="\t", strict=True)
            columns = [name.strip() for name in next(cells, [])]
            check_columns(path, filter(None, columns))
            for row in filter(None, cells):
                number += 1
                if any(row[len(columns) :]):
                    told = f"{len(row)} cells, and the columns are {', '.join(columns)}"
                    raise JoyImageError(f"{path}, row {number}: it has {told:.200}; put tabs between quotes")
                yield dict(zip(columns, row, strict=False))
    except (csv.Error, UnicodeDecodeError) as error:
        where = f"row {number + 1}, up to line {cells.line_num}" if number else "its start"
        raise JoyImageError(f"{path} is no table in UTF-8 with tabs, from {where} on: {error}") from None
    finally:
        csv.field_size_limit(limit)


def _question(path: Path, number: int, row: dict[str, str], pictures: Mapping[str, str]) -> Question:
    place = f"{path}, row {number}"
    index, question, answer = ((row.get(name) or "").strip() for name in ("index", "question", "answer"))
    letters = (letter for letter in string.ascii_uppercase if (row.get(letter) or "").strip() not in ("", "nan"))
    options = {letter: row[letter].strip() for letter in letters}
    if not index or not question:
        raise JoyImageError(
            f"{place}: it has no index or no question; the columns are {', '.join(filter(None, row))!s:.200}"
        )
    if len(options) < 2:
        raise JoyImageError(f"{place}: it has {len(options)} options; multiple choice needs the columns A, B …")
    if answer not in options:
        raise JoyImageError(f"{place}: its answer {answer!r:.40} is none of the letters {', '.join(options)}")
    given = _given(place, row, pictures, path.parent)
    groups = {name: row[name] for name in GROUPS if row.get(name)}
    hint = (row.get("hint") or "").strip()
    return Question(index, given, question, options, answer, "" if hint == "nan" else hint, groups)


def _given(place: str, row: dict[str, str], pictures: Mapping[str, str], folder: Path) -> tuple[str | Path, ...]:
    """The pictures of a row: its own, those of the row that it names, or files beside the table."""
    image = (row.get("image") or "").strip()
    if 0 < len(image) <= LONGEST_INDEX and not image.startswith("["):
        if image not in pictures or len(pictures[image]) <= LONGEST_INDEX:
            raise JoyImageError(f"{place}: its picture is that of the row {image!r}, which has none")
        image = pictures[image]
    if image:
        return _listed(place, image)
    paths = [folder / name for name in _listed(place, row.get("image_path") or "")]
    if not paths or not all(path.is_file() for path in paths):
        raise JoyImageError(f"{place}: it has no picture in the column image, nor files of image_path beside the table")
    return tuple(paths)


def _listed(place: str, text: str) -> tuple[str, ...]:
    """One, or several as a list is written in Python or JSON."""
    if not text.startswith("["):
        return (text,) if text else ()
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        values = None
    if not (isinstance(values, list) and values and all(isinstance(value, str) for value in values)):
        raise JoyImageError(f"{place}: its pictures are no list of texts")
    return tuple(values)


def by_likelihood(find: Find) -> Choose:
    """The letter that the model finds the likeliest as a whole answer: there always is one."""

    def choose(question: Question) -> str:
        letters = list(question.options)
        chances = find().probabilities(question.images(), question.text, letters)
        return letters[max(range(len(letters)), key=chances.__getitem__)]

    return choose


def by_answer(find: Find) -> Choose:
    """The letter in the model's likeliest words."""
    return lambda question: letter_of(find().answer(question.images(), question.text), question.options)


def letter_of(answer: str, options: Mapping[str, str]) -> str:
    """The letter that an answer names, large or small: alone, at its start with a sign or its option after it, after
    "answer", "答案" or the like, or the one whose option it repeats word for word. "" where it names none, or several.
    """
    text = unicodedata.normalize("NFKC", answer.rpartition("</think>")[2]).strip()  # （Ｂ） is (B)
    if match := ALONE.fullmatch(text.upper()):
        return match[1] if match[1] in options else ""
    started = _letters(STARTED, text)
    if len(started) == 1 and (first := STARTED.match(text)):
        (letter,) = started
        return letter if letter in options and not OTHER.match(text, first.end()) else ""
    named = (started or _letters(NAMED, text)) & options.keys()
    if not named:
        rest = re.sub(r"^[A-Z](?=[\s-])", "", text)  # of "B - right"
        named = {
            letter
            for letter, option in options.items()
            if _plain(option) == _plain(text) or (text[:1] == letter and _plain(option) == _plain(rest))
        }
    return named.pop() if len(named) == 1 else ""


def _letters(pattern: re.Pattern[str], text: str) -> set[str]:
    return {(match[1] or match[2]).upper() for match in pattern.finditer(text)}


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip(" .。*-\n").casefold()


@dataclass(frozen=True)
class Answered:
    question: Question
    letter: str

    @property
    def right(self) -> bool:
        return self.letter == self.question.answer


def answer_all(
    questions: Sequence[Question], choose: Choose, name: str, folder: Path, progress: bool = False
) -> list[Answered]:
    """Answers by what is called `name`, kept in the folder, so that nothing is asked twice."""
    kept = Kept(folder / ANSWERS)

    def answer(question: Question) -> Answered:
        pictures = (digest(each) if isinstance(each, Path) else each for each in question.pictures)
        of = (name, question.index, question.text, *pictures)
        return Answered(question, kept.get(of, partial(choose, question)))

    return one_by_one(questions, answer, "answer", progress)


def figures(answered: Sequence[Answered]) -> dict[str, dict[str, float | int]]:
    """Shares of right letters: of all, and of each group that the table names."""
    groups: dict[str, list[Answered]] = {"all": list(answered)}
    for each in answered:
        for name, value in (each.question.groups or {}).items():
            groups.setdefault(f"{name} {value}", []).append(each)
    return {
        name: {"accuracy": sum(each.right for each in own) / len(own), "questions": len(own)}
        for name, own in groups.items()
        if own
    }


def report(benchmark: str, answered: Sequence[Answered], about: dict[str, Any]) -> Report:
    unread = sum(not each.letter for each in answered)
    counts = {"items": len(answered), "without_a_letter": unread}
    return Report(benchmark, figures(answered), {**about, **counts}, list(map(_row, answered)))


def _row(each: Answered) -> Row:
    question = each.question
    shown = [
        Shown(f"picture {n}", partial(_picture, question.index, picture))
        for n, picture in enumerate(question.pictures, 1)
    ]
    values = {"right": question.answer, "answered": each.letter, **(question.groups or {})}
    note = "" if each.letter else "no letter is named"
    return Row(question.index, "", question.text, float(each.right), note, values, shown)
