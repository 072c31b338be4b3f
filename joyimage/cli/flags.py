"""Options for settings, by their names, defaults and help; what commands share of that."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..settings import AUTO, BASE_SIZES, Settings

MOST_DEVICES = 64


def add_setting(
    parser: argparse._ActionsContainer, settings: type[Settings], name: str, *short: str
) -> argparse.Action:
    """An option for a setting: its name, default and help. Several words are given with commas between them."""
    default = getattr(settings, name)
    told = {"default": default, "help": settings.help(name)}
    if isinstance(default, bool):
        return parser.add_argument(*short, flag(name), action=argparse.BooleanOptionalAction, **told)
    kind = type(settings.range(name).step if default is None else default)
    if isinstance(default, Sequence) and not isinstance(default, str):
        return parser.add_argument(*short, flag(name), type=words, metavar="WORD,…", **told)
    return parser.add_argument(*short, flag(name), type=kind, **told)


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in text.split(","))))


def devices(text: str) -> list[str]:
    """Devices with commas between, or how many: the first GPUs, or so many times the processor where there is none."""
    if not text.isdecimal():
        return list(words(text))
    if int(text) > MOST_DEVICES:
        raise argparse.ArgumentTypeError(f"{text} are more devices than a machine has; name at most {MOST_DEVICES}")
    import torch  # takes a second, and few name devices

    return [f"cuda:{i}" if torch.cuda.is_available() else "cpu" for i in range(int(text))]


def add_base_size(parser: argparse._ActionsContainer) -> None:
    sizes = f"{', '.join(map(str, BASE_SIZES[:-1]))} or {BASE_SIZES[-1]}"
    parser.add_argument(
        "--base-size", type=base_size, default=AUTO, metavar="N",
        help=f"{sizes} ({AUTO}: the model's own, {BASE_SIZES[-1]} or tiny's {BASE_SIZES[0]})",
    )  # fmt: skip


def base_size(text: str) -> int | str:
    """A base size as it is typed."""
    if text != AUTO and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a number of pixels, such as 512")
    return text if text == AUTO else int(text)
