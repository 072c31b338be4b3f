"""Numbers in a text: digits, and words for small ones in English and Chinese."""

from __future__ import annotations

import re

SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
DIGITS = "零一二三四五六七八九"
_TENS, _ONES = "|".join(TENS), "|".join(SMALL[1:10])
ENGLISH = (
    rf"(?:one\s+hundred(?:\s+and)?(?:\s+(?:{_TENS}))?|(?:{_TENS})(?:[\s-](?:{_ONES}))?|{'|'.join(reversed(SMALL))})"
)
CHINESE = r"[零〇一二两三四五六七八九十百]+"
NUMERAL = rf"\b{ENGLISH}\b|{CHINESE}"
WRITTEN = re.compile(r"(?<![A-Za-z\d.])\d+(?:\.\d+)?(?![A-Za-z\d])")  # none of 3D, 2nd, 1980s, 4K
SPELLED = re.compile(NUMERAL, re.IGNORECASE)


def value(text: str) -> float:
    """The number that a match of digits or of `NUMERAL` stands for. `ValueError` for a word that is none."""
    text = text.lower().strip()
    try:
        return float(text.replace(" ", ""))
    except ValueError:
        return float(_chinese(text) if re.fullmatch(CHINESE, text) else _english(text))


def named(text: str) -> list[float]:
    """The numbers that a text names in digits, nothing twice: those that a rewriting must keep."""
    return list(dict.fromkeys(float(number) for number in WRITTEN.findall(_ungrouped(text))))


def told(text: str) -> set[float]:
    """All numbers of a text, in digits or words, cardinal or ordinal."""
    ordinals = (
        number for number, word in enumerate(ORDINALS, start=1) if re.search(rf"\b{word}\b", text, re.IGNORECASE)
    )
    digits = map(float, re.findall(r"\d+(?:\.\d+)?", _ungrouped(text)))
    return {*digits, *ordinals, *(value(word) for word in SPELLED.findall(text))}


def _ungrouped(text: str) -> str:
    """Without commas between thousands."""
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)


def _english(text: str) -> int:
    words = re.split(r"[\s-]+", text.replace("one hundred", "hundred"))
    table = {"hundred": 100, "and": 0} | {word: n for n, word in enumerate(SMALL)}
    return sum((table | {word: 10 * n for n, word in enumerate(TENS, start=2)})[word] for word in words)


def _chinese(text: str) -> int:
    """Up to 999: 三十, 四十五, 一百八十, 一百零五."""
    total, digit = 0, None
    for sign in text.replace("两", "二").replace("〇", "零"):
        if sign in "十百":
            total += (1 if digit is None else digit) * (10 if sign == "十" else 100)
            digit = None
        else:
            digit = DIGITS.index(sign)
    return total + (digit or 0)
