"""LongText-Bench: pictures of long texts, and how much of the texts a reader finds in them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..errors import JoyImageError, MissingFileError
from ..images import load
from ..settings import check_text, whole
from .kept import Kept, digest, one_by_one
from .predicting import Wanted
from .report import Report, Row, Shown
from .settings import Sampled
from .tools import Read, answer_of

if TYPE_CHECKING:
    from ..pipeline import JoyImage

NAME = "LongText-Bench"
FILES = {"en": "text_prompts.jsonl", "zh": "text_prompts_zh.jsonl"}
READINGS = "readings.jsonl"
LARGEST_ID = 10**18  # of a prompt, which names its pictures
# What counts of a text: letters (those of French too), digits and Chinese characters, as in the published metric.
COUNTED = r"\u4e00-\u9fa5a-zA-Z0-9àâäéèêëîïôöùûüçÀÂÄÉÈÊËÎÏÔÖÙÛÜÇ"
NOT_COUNTED, NOT_WORDS = re.compile(f"[^{COUNTED}]"), re.compile(rf"[^{COUNTED}\s]")


@dataclass(frozen=True)
class Prompt:
    """One prompt, and the texts that its pictures are to show."""

    id: int
    prompt: str
    texts: tuple[str, ...]
    category: str = ""
    length: str = ""

    def picture(self, folder: Path, repeat: int) -> Path:
        """Of `repeat` from 1."""
        return folder / f"{self.id:04d}_{repeat}.png"


def read_prompts(path: Path, language: str = "en") -> list[Prompt]:
    """The prompts in a file, or in the file of a language in a folder.

    Raises `JoyImageError` that names the line for what is missing or malformed.
    """
    path = path / FILES[language] if path.is_dir() else path
    if not path.is_file():
        raise MissingFileError(f"there is no {path}: give LongText-Bench's folder, or its file of prompts")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # a text may hold what else ends lines
    except UnicodeDecodeError as error:
        raise JoyImageError(f"{path} is no text in UTF-8: {error}") from None
    prompts: dict[int, Prompt] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            prompt = _prompt(line, len(prompts), f"{path}, line {number}")
            if prompt.id in prompts:
                raise JoyImageError(f"{path}, line {number}: prompt_id {prompt.id} is there twice")
            prompts[prompt.id] = prompt
    if not prompts:
        raise JoyImageError(f"{path} holds no prompts")
    _check_language(path, list(prompts.values()), language)
    return list(prompts.values())


def _check_language(path: Path, prompts: Sequence[Prompt], language: str) -> None:
    """Raise `JoyImageError` where nothing of the texts would count, or the units of the other language would."""
    signs = NOT_COUNTED.sub("", "".join(text for prompt in prompts for text in prompt.texts))
    chinese = sum("\u4e00" <= sign <= "\u9fa5" for sign in signs)
    if not signs:
        raise JoyImageError(f"{path}: its texts hold nothing that counts: Latin letters, digits, Chinese characters")
    if language == "en" and 2 * chinese > len(signs):
        raise JoyImageError(f"{path}: its texts are Chinese; give --language zh, which counts characters")
    if language == "zh" and not chinese:
        raise JoyImageError(f"{path}: its texts have no Chinese characters; give --language en, which counts words")


def _prompt(line: str, position: int, place: str) -> Prompt:
    try:
        fields = json.loads(line)
        texts, number, prompt = fields["text"], fields.get("prompt_id", position), fields["prompt"]
        texts = [texts] if isinstance(texts, str) else texts
        number = int(number) if isinstance(number, str) else number
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise JoyImageError(f"{place}: it is no JSON with prompt, text and prompt_id") from None
    if not (isinstance(texts, list) and texts and all(isinstance(each, str) for each in (prompt, *texts))):
        raise JoyImageError(f"{place}: prompt must be text, and text a list of texts")
    if not prompt.strip():
        raise JoyImageError(f"{place}: its prompt is empty")
    if not whole(number) or not 0 <= number <= LARGEST_ID:
        raise JoyImageError(f"{place}: its prompt_id is {number!r:.40}; give a whole number from 0 to {LARGEST_ID}")
    for each in (prompt, *texts):
        check_text(f"{place}: a text", each)
    return Prompt(number, prompt, tuple(texts), str(fields.get("category") or ""), str(fields.get("length") or ""))


def units(text: str, language: str) -> list[str]:
    """What is counted of a text: words in lower case in English, characters in Chinese."""
    if language == "zh":
        return list(NOT_COUNTED.sub("", text))
    return NOT_WORDS.sub("", text).lower().split()


@dataclass(frozen=True)
class Recall:
    """How many of a text's words or characters were read, each as often as it is there."""

    matched: int
    count: int

    @property
    def value(self) -> float:
        return self.matched / self.count if self.count else 0.0


def recall(texts: Sequence[str], read: str, language: str) -> Recall:
    """Order does not count, and what is read beyond the texts neither."""
    wanted = Counter(units(" ".join(texts), language))
    return Recall((wanted & Counter(units(read, language))).total(), wanted.total())


def wanted(prompts: Sequence[Prompt], folder: Path, settings: Sampled, told: dict[str, Any]) -> list[Wanted]:
    """The pictures to make, `settings.repeats` of each prompt. `told` is what pictures say of the model."""
    options = settings.options()
    repeats, seed = options.pop("repeats"), options.pop("seed")
    return [
        Wanted(
            prompt.picture(folder, repeat + 1),
            {"prompt": prompt.prompt, **options, "seed": seed + repeat, **told},
            partial(_generated, prompt.prompt, {**options, "seed": seed + repeat}),
        )
        for prompt in prompts
        for repeat in range(repeats)
    ]


def _generated(prompt: str, options: dict[str, Any], model: JoyImage) -> Image.Image:
    return model.generate(prompt, **options)[0]


@dataclass(frozen=True)
class Reading:
    """A picture, and what was read in it; None where there is no picture."""

    prompt: Prompt
    path: Path
    text: str | None
    recall: Recall


def read(
    prompts: Sequence[Prompt],
    folder: Path,
    reader: Read,
    name: str,
    language: str,
    repeats: int,
    progress: bool = False,
) -> list[Reading]:
    """What a reader called `name` finds in each picture; kept in the folder, so that none is read twice."""
    kept = Kept(folder / READINGS)
    pictures = [(prompt, prompt.picture(folder, repeat)) for prompt in prompts for repeat in range(1, repeats + 1)]

    def read_one(picture: tuple[Prompt, Path]) -> Reading:
        (prompt, path), text = picture, None
        if path.exists():
            text = kept.get((name, digest(path)), partial(answer_of, name, partial(_read, reader, path)))
        return Reading(prompt, path, text, recall(prompt.texts, text or "", language))

    return one_by_one(pictures, read_one, "reading", progress)


def _read(reader: Read, path: Path) -> str:
    text = reader(load(path))
    if not isinstance(text, str):
        raise JoyImageError(f"the reader gives {type(text).__name__} for {path}; it must give the text")
    return text


def figures(readings: Sequence[Reading]) -> dict[str, dict[str, float | int]]:
    """The score, pooled over all that was to be read, and that of each category."""
    there = [reading for reading in readings if reading.text is not None]
    categories = sorted({reading.prompt.category for reading in there} - {""})
    groups = {"all": there}
    for name in categories:
        groups["category all" if name == "all" else name] = [r for r in there if r.prompt.category == name]
    return {name: {"recall": _pooled(own), "pictures": len(own)} for name, own in groups.items() if own}


def _pooled(readings: Sequence[Reading]) -> float:
    matched = sum(reading.recall.matched for reading in readings)
    return Recall(matched, sum(reading.recall.count for reading in readings)).value


def report(readings: Sequence[Reading], about: dict[str, Any]) -> Report:
    missing = sum(reading.text is None for reading in readings)
    return Report(
        NAME, figures(readings), {**about, "items": len(readings), "missing": missing}, list(map(_row, readings))
    )


def _row(reading: Reading) -> Row:
    prompt, there = reading.prompt, reading.text is not None
    shown = [Shown("picture", partial(load, reading.path))] if there else []
    values = {
        "recall": reading.recall.value,
        "of": reading.recall.count,
        "text": " ".join(prompt.texts),
        "read": reading.text,
    }
    goodness, note = (reading.recall.value, "") if there else (None, "there is no picture")
    return Row(reading.path.stem, prompt.category, prompt.prompt, goodness, note, values, shown)
