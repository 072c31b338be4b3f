"""A chat in words and pictures: what was said before, and a reply with what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .errors import JoyImageError
from .settings import check_text

Role = Literal["user", "assistant"]


@dataclass(frozen=True)
class Message:
    """What the user or the assistant said. Pictures, as `JoyImage.ask` takes them, are the user's, and stand before the
    text.

    Raises `JoyImageError` for another role, for what is no text, and for pictures of the assistant.
    """

    role: Role
    text: str
    images: Sequence[Any] = ()

    def __post_init__(self):
        if self.role not in get_args(Role):
            raise JoyImageError(f"a message has the role {self.role!r:.40}; give user or assistant")
        check_text(f"a message of the {self.role}", self.text)
        if self.role == "assistant" and not (isinstance(self.images, Sequence) and len(self.images) == 0):
            raise JoyImageError("a message of the assistant has pictures; give them with one of the user")


@dataclass(frozen=True)
class Reply:
    """An answer. `prompt_tokens` are those of all that was before it, pictures among them; `tokens` those that were
    drawn for it, with its end. `whole` says whether it came to an end, and not to its greatest length.
    """

    text: str
    prompt_tokens: int
    tokens: int
    whole: bool
