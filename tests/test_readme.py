"""The README's promises that can be checked against the code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from diffusers import JoyImageEditPipeline

from joyimage import JoyImage
from joyimage.cli import build_parser

README = (Path(__file__).parents[1] / "README.md").read_text()


def section(title: str) -> str:
    return re.split(r"^#+ ", README.split(title, 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def names_in_first_column(table: str) -> set[str]:
    return {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}


def test_every_parameter_of_diffusers_has_a_row():
    parameters = set(inspect.signature(JoyImageEditPipeline.__call__).parameters) - {"self"}
    assert names_in_first_column(section("### Coming from Diffusers")) == parameters


def test_every_option_of_an_edit_is_listed_with_its_default():
    sampling = inspect.signature(JoyImage.sample).parameters | inspect.signature(JoyImage.render).parameters
    options = {name for name, value in sampling.items() if value.kind is value.KEYWORD_ONLY}
    options |= set(inspect.signature(JoyImage.edit).parameters) - {"self", "images", "instruction", "options"}
    assert names_in_first_column(section("## Python")) == options - {"callback", "progress"}


def test_every_command_of_the_readme_is_understood():
    lines = re.findall(r"^    joyimage (.*)$", section("## Command line"), re.MULTILINE)
    assert len(lines) > 10
    import shlex

    for line in lines:
        build_parser().parse_args(shlex.split(line, comments=True))
