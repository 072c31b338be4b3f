"""The errors this library raises on purpose. Each message says what is wrong, where, and what to do."""

import re
from collections.abc import Iterable

MOST_CHARACTERS = 2000  # of a message; what it quotes, such as a prompt or the names in a file, may be far longer
CUT = 50  # characters, at most, that stand for what was cut out
# What moves a terminal's cursor or turns its text round, and halves of characters, which no output takes. A byte that
# is no UTF-8 in a file's name stays: Python has it as \udc80 to \udcff.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udc7f\udd00-\udfff]")


def one_line(text: str) -> str:
    """A text in one line that a terminal shows as it is: spaces for line breaks, and other control characters spelt."""
    return CONTROL.sub(lambda c: " " if c[0].isspace() else c[0].encode("unicode_escape").decode(), text)


def shortened(text: str) -> str:
    """A text as `one_line` gives it, of which at most `MOST_CHARACTERS` are left: its start and its end."""
    if len(text := one_line(text)) <= MOST_CHARACTERS:
        return text
    half = (MOST_CHARACTERS - CUT) // 2
    return f"{text[:half]} [… {len(text) - 2 * half:,} characters more …] {text[-half:]}"


def counted(count: int, noun: str) -> str:
    """As in "1 row" and "2 rows"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class JoyImageError(ValueError):
    """Input that cannot be used: a prompt, an image, a size, a schedule, a file."""

    def __init__(self, message: str):
        super().__init__(shortened(message))


class CheckpointError(JoyImageError):
    """A weight file, folder or tokenizer that cannot be used."""


class MissingFileError(CheckpointError, FileNotFoundError):
    """A path that does not exist; also a `FileNotFoundError`."""


def check_columns(table: object, names: Iterable[str]) -> None:
    """Raise `JoyImageError` for a column of a table that is there twice: one of them would not be read."""
    names = list(names)
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise JoyImageError(f"{table}: the column {doubled!r:.40} is there more than once")
