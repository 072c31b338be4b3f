"""An answer of a language model, checked against the wish that it rewrites, and what was changed, told in few words."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageChops

from . import prompts, spatial, wishes
from .errors import JoyImageError
from .numerals import named, told

FREE = "free"
MOST_TOKENS = 2000  # of a text whose changes are told word by word; the time is that number's square
MOST_CHARACTERS = 16_384  # of an answer to a shorter prompt: the model reads some 4096 tokens
UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")  # a terminal obeys some of them
LEAST_KEPT = 0.5  # of a prompt's words, or it is told as written anew

# Text to be rendered, as it is quoted in wishes; the model was trained on English double quotes.
QUOTED = re.compile(r"\"([^\"\n]+)\"|“([^”\n]+)”|「([^」\n]+)」|『([^』\n]+)』|‘([^’\n]+)’|(?<!\w)'([^'\n]+)'(?!\w)")
OTHER_QUOTES = re.compile(r"“([^”\n\"]+)”|「([^」\n\"]+)」|『([^』\n\"]+)』")
NAMES_A_BOX = re.compile(r"\b(?:box|frame|rectangle|square)\b|框", re.IGNORECASE)
TOKEN = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+(?:['’-][^\W\u3400-\u9fff]+)*|\s+|[^\w\s]")


class FailedTry(JoyImageError):
    """No answer, or one that cannot be taken; another try may bring a better one."""


@dataclass(frozen=True)
class Rewritten:
    """A prompt and what became of it: `kind` is that of a trained sentence, or "free"; `notes` say how it was made."""

    prompt: str
    text: str
    kind: str = FREE
    notes: tuple[str, ...] = ()

    @property
    def changes(self) -> list[str]:
        """What was changed, a line each, for people."""
        if self.text == self.prompt:
            return [*self.notes]
        if self.kind != FREE:
            return [f"{self.kind}: brought into the sentence that the model knows", *self.notes]
        return [*self.notes, word_changes(self.prompt, self.text) or "written anew"]


def from_sentence(prompt: str, found: wishes.Sentence, *notes: str) -> Rewritten:
    """What a sentence that was read from the prompt itself, by no model, makes of it."""
    return Rewritten(prompt, found.text, found.kind, (*found.notes, *notes))


def read_plainly(prompt: str) -> wishes.Sentence | None:
    """The trained sentence for a plain wish, if that keeps the wish's numbers."""
    found = wishes.sentence(prompt)
    return None if found is None or lost_numbers(prompt, found.text, found) else found


def checked(answer: str, prompt: str, images: Sequence[Image.Image], due: wishes.Sentence | None = None) -> Rewritten:
    """What an answer makes of a prompt about pictures, or without any.

    `due` is the sentence that the prompt plainly wishes for, of which the answer may only name the object otherwise.
    Raises `FailedTry` for an answer that is none, that is longer than anything reads, that holds what no prompt does,
    that is nearly a trained sentence and cannot be brought into it, or that loses a text or a number of the prompt.
    """
    text = prompts.parse_rewritten(answer)
    if text is None:
        raise FailedTry('the answer holds no {"Rewritten": "…"}')
    if len(text) > max(MOST_CHARACTERS, 2 * len(prompt)):
        raise FailedTry(f"the answer has {len(text):,} characters")
    if UNWRITABLE.search(text):
        raise FailedTry("the answer holds control characters, or halves of characters")
    found = wishes.sentence(text)
    if found is None and spatial.parse(text).problems:
        raise FailedTry("the answer is nearly a spatial instruction, and which one is unclear")
    _check_form(found, prompt, images, due)
    text, notes = (found.text, found.notes) if found else (re.sub(r"\s*\n\s*", " ", text), ())
    if found is None or found.instruction is None:
        text = with_quotes(prompt, text)
    if lost := lost_numbers(prompt, text, found):
        raise FailedTry(f"the answer loses the number {lost[0]:g}")
    return Rewritten(prompt, text, found.kind if found else FREE, notes)


def _check_form(
    found: wishes.Sentence | None, prompt: str, images: Sequence[Image.Image], due: wishes.Sentence | None
) -> None:
    """Raise `FailedTry` unless the answer is the sentence that the prompt asks for, where it asks for one."""
    wanted = due or (wishes.expected(prompt) if images else None)
    if wanted and (found is None or found.kind != wanted.kind):
        raise FailedTry(f"the answer is not the sentence that begins {wanted.text.partition('.')[0]!r}")
    view = getattr(due and due.instruction, "view", None)
    if view and view != getattr(found and found.instruction, "view", None):
        raise FailedTry(f"the answer shows another side than {view}")
    if found and found.kind == "move" and not (NAMES_A_BOX.search(prompt) or any(map(has_red, images))):
        raise FailedTry("the answer speaks of a red box, and the pictures have none")


def has_red(image: Image.Image) -> bool:
    """Whether any pixel is as red as the lines of the red box are, allowing for lossy files."""
    red, green, blue = image.convert("RGB").split()
    red = red.point([255 * (level > 200) for level in range(256)])
    others = ImageChops.lighter(green, blue).point([255 * (level < 90) for level in range(256)])
    return ImageChops.darker(red, others).getbbox() is not None


def lost_numbers(prompt: str, text: str, found: wishes.Sentence | None) -> list[float]:
    """The numbers named in the prompt that the text does not have; a camera's are angles, whatever their sign."""
    if found and isinstance(found.instruction, spatial.Camera):
        angles = (found.instruction.yaw, found.instruction.pitch)
        return [n for n in named(prompt) if not any(_same_angle(n, angle) for angle in angles)]
    kept = told(text)
    return [n for n in named(prompt) if n not in kept]


def _same_angle(number: float, angle: float) -> bool:
    return any(abs(math.remainder(number - signed, 360)) < 1e-3 for signed in (angle, -angle))


def with_quotes(prompt: str, text: str) -> str:
    """`text` with each text that the prompt quotes in English double quotes. `FailedTry` if it has one no more."""
    text = OTHER_QUOTES.sub(lambda match: f'"{next(filter(None, match.groups()))}"', text)
    for groups in QUOTED.findall(prompt):
        wanted = next(filter(None, groups)).strip()
        if any(wanted in quoted for quoted in re.findall(r"\"([^\"]*)\"", text)):
            continue
        bare = re.compile(rf"(?<![A-Za-z\d])['‘]?{re.escape(wanted)}['’]?(?![A-Za-z\d])")
        text, count = bare.subn(lambda _, words=wanted: f'"{words}"', text)
        if not count:
            raise FailedTry(f"the answer loses the text {wanted!r}")
    return text


def word_changes(before: str, after: str) -> str | None:
    """A text's changes, word by word, as `git diff --word-diff` writes them: Remove {+the teal+} cup.

    None where little of it is left, so that both texts say more than their differences.
    """
    old, new = TOKEN.findall(before), TOKEN.findall(after)
    if max(len(old), len(new)) > MOST_TOKENS:
        return None
    matcher = difflib.SequenceMatcher(None, [t.lower() for t in old], [t.lower() for t in new], autojunk=False)
    words = sum(not token.isspace() for token in old)
    kept = sum(not t.isspace() for block in matcher.get_matching_blocks() for t in old[block.a : block.a + block.size])
    if kept < LEAST_KEPT * words:
        return None
    parts: list[str] = []
    for kind, i, j, k, m in matcher.get_opcodes():
        gone, come = "".join(old[i:j]), "".join(new[k:m])
        parts.append(come if kind == "equal" else (f"[-{gone}-]" if gone else "") + (f"{{+{come}+}}" if come else ""))
    return "".join(parts)
