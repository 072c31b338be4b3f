"""Keys that nothing is read from: misspelt, one would turn an edit into text to image, and nobody would know."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...errors import JoyImageError

NEAR = (
    0.85  # the similarity from which on a key is taken for another: "control_paths" is, "prompt_id" and "caption_en" no
)


def refuse_unread(
    unread: Iterable[tuple[str, Any]], known: Sequence[str], holds_pictures: Callable[[Any], bool], where: str
) -> None:
    """Raise `JoyImageError` for a key that is spelt nearly like one of `known`, or whose value names pictures."""
    for key, value in unread:
        if near := difflib.get_close_matches(key.lower(), known, 1, NEAR):
            raise JoyImageError(f"{where}: {key} is not read, and {near[0]} would be: spell it so, or leave it out")
        if holds_pictures(value):
            raise JoyImageError(
                f"{where}: {key} names pictures and is not read: call it one of {', '.join(known)}, or leave it out"
            )
