"""Options that are made from settings: their names, defaults and help."""

from __future__ import annotations

import argparse

from ..settings import AUTO, Settings


def add_setting(
    parser: argparse._ActionsContainer, settings: type[Settings], name: str, *short: str
) -> argparse.Action:
    """An option for a setting: its name, default and help."""
    default = getattr(settings, name)
    kind = type(settings.range(name).step if default is None else default)
    flag = f"--{name.replace('_', '-')}"
    return parser.add_argument(*short, flag, type=kind, default=default, help=settings.help(name))


def base_size(text: str) -> int | str:
    """A base size as it is typed."""
    if text != AUTO and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a number of pixels, such as 512")
    return text if text == AUTO else int(text)
