"""Words that several sub-tasks share, in English and Chinese."""

from __future__ import annotations

import re
from collections.abc import Sequence

COLOURS = {
    "red": {"en": "red", "zh": "红", "rgb": (230, 30, 30)},
    "green": {"en": "green", "zh": "绿", "rgb": (20, 190, 60)},
    "blue": {"en": "blue", "zh": "蓝", "rgb": (40, 80, 240)},
    "yellow": {"en": "yellow", "zh": "黄", "rgb": (250, 220, 20)},
    "magenta": {"en": "magenta", "zh": "洋红", "rgb": (235, 40, 220)},
    "cyan": {"en": "cyan", "zh": "青", "rgb": (20, 215, 230)},
    "orange": {"en": "orange", "zh": "橙", "rgb": (250, 140, 20)},
    "white": {"en": "white", "zh": "白", "rgb": (250, 250, 250)},
}
UNIQUE = {"en": "the {name}", "zh": "{name}"}
MARKED = {
    "box": {"en": "the {tag} in the {colour} box", "zh": "{colour}色框里的{tag}"},
    "point": {"en": "the {tag} with the {colour} point", "zh": "标有{colour}色点的{tag}"},
    "tint": {"en": "the {tag} tinted {colour}", "zh": "染成{colour}色的{tag}"},
}
ANYTHING = {"en": "object", "zh": "物体"}
WITHIN = {"en": "{name} in picture {picture}", "zh": "图{picture}中{name}"}
YES = {"en": ("Yes", "No"), "zh": ("是", "否")}
CHOOSE = {
    "en": (
        "Answer with the letter.",
        "Give only the letter of the right option.",
        "Which letter is right?",
    ),
    "zh": ("请只回答选项字母。", "请选出正确的选项，只写字母。", "哪个选项正确？请用字母回答。"),
}
DIRECTIONS = ("front", "front right", "right", "back right", "back", "back left", "left", "front left")  # clockwise
DIRECTION_WORDS = {
    "en": dict(zip(DIRECTIONS, DIRECTIONS, strict=True)),
    "zh": dict(zip(DIRECTIONS, ("前", "右前", "右", "右后", "后", "左后", "左", "左前"), strict=True)),
}
LENGTH = {"en": "{0:.2f} m", "zh": "{0:.2f} 米"}


def joined(words: Sequence[str], language: str) -> str:
    """A list in words: "a, b and c"."""
    if language == "zh":
        return "、".join(words)
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def length(metres: float, language: str) -> str:
    return LENGTH[language].format(metres)


def read_lengths(text: str) -> list[float]:
    """The lengths that a text gives, in metres, in order."""
    return [float(number) for number in re.findall(r"(\d+(?:\.\d+)?) (?:m\b|米)", text)]
