"""Options for settings, by their names, defaults and help; what commands share of that."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from ..errors import counted
from ..settings import AUTO, BASE_SIZES, Settings

MOST_DEVICES = 256  # for a plan


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


class More(argparse.Action):
    """Words of an option that may be repeated, all of them together."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        setattr(namespace, self.dest, (*getattr(namespace, self.dest), *(values or ())))


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in text.split(","))))


def devices(text: str) -> list[str]:
    """Devices with commas between, or how many: the first GPUs, or so many times the processor where there is none."""
    if not text.isdecimal():
        return list(words(text))
    import torch  # takes a second, and few name devices

    cards, count = torch.cuda.device_count() if torch.cuda.is_available() else 0, int(text)
    if count > (most := cards or processors()):
        have = counted(most, "GPU" if cards else "processor")
        raise argparse.ArgumentTypeError(f"{text:.20} devices, of {have} here; or name each, such as cpu,cpu")
    return [f"cuda:{i}" if cards else "cpu" for i in range(count)]


def device_count(text: str) -> int:
    """How many devices are named, or their number, whatever is on this machine."""
    count = int(text) if text.isdecimal() else len(words(text))
    if count > MOST_DEVICES:
        raise argparse.ArgumentTypeError(
            f"{text:.20} devices are more than can share a picture; give at most {MOST_DEVICES}"
        )
    return count


def processors() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
