"""The promises of the README and of the pages in docs/ that can be checked against the code."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from pathlib import Path

import pytest
from diffusers import JoyImageEditPipeline

from joyimage import JoyImage, spatial
from joyimage.cli import build_parser
from joyimage.spatialdata.settings import QUESTIONS, Making
from joyimage.training.settings import Training

ROOT = Path(__file__).parents[1]
README, CLI, PYTHON, TRAINING, SPATIAL = (
    ROOT / name for name in ("README.md", "docs/cli.md", "docs/python.md", "docs/training.md", "docs/spatial-data.md")
)
DISPLAYED = re.compile(r'display_name="(.+) \(JoyImage\)"')


def section(page: Path, title: str) -> str:
    rest = page.read_text(encoding="utf-8").split(f"{title}\n", 1)[1]
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def names_in_first_column(table: str) -> set[str]:
    return {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}


def commands(page: Path) -> list[str]:
    return re.findall(r"^    joyimage (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_parameter_of_diffusers_has_a_row():
    parameters = set(inspect.signature(JoyImageEditPipeline.__call__).parameters) - {"self"}
    assert names_in_first_column(section(PYTHON, "## Coming from Diffusers")) == parameters


def test_every_option_of_an_edit_is_listed_with_its_default():
    sampling = inspect.signature(JoyImage.sample).parameters | inspect.signature(JoyImage.render).parameters
    options = {name for name, value in sampling.items() if value.kind is value.KEYWORD_ONLY}
    options |= set(inspect.signature(JoyImage.edit).parameters) - {"self", "images", "instruction", "options"}
    assert names_in_first_column(section(PYTHON, "## Options")) == options - {"callback", "progress"}


@pytest.mark.parametrize(("page", "least"), [(CLI, 15), (README, 3)], ids=["cli", "readme"])
def test_every_command_is_understood(page, least):
    lines = commands(page)
    assert len(lines) > least
    for line in lines:
        build_parser().parse_args(shlex.split(line, comments=True))


def test_every_way_to_train_is_understood():
    lines = re.findall(r"joyimage (train .*?)(?:`|$)", TRAINING.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) > 12
    for line in lines:
        build_parser().parse_args(shlex.split(line))


def test_every_setting_of_training_has_a_row():
    table = section(TRAINING, "## What each option does, and costs")
    rows = "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))
    guidance = {"objective", "guidance_scale", "rescale", "teacher_steps"}  # have a section of their own
    told = {name.replace("-", "_").removeprefix("no_") for name in re.findall(r"--([\w-]+)", rows)}
    assert set(Training.names()) - guidance - {"background"} <= told


def test_every_way_to_make_spatial_data_is_understood():
    lines = re.findall(r"^ +joyimage (.*)$", SPATIAL.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) > 2
    for line in lines:
        build_parser().parse_args(shlex.split(line))


def test_every_sub_task_has_a_row_and_every_setting_of_making_is_told():
    text = SPATIAL.read_text(encoding="utf-8")
    assert names_in_first_column(section(SPATIAL, "## Questions")) == set(QUESTIONS)
    told = {name.replace("-", "_") for name in re.findall(r"--([\w-]+)", text)}
    assert set(Making.names()) <= told


def test_every_command_has_an_example():
    offered = re.findall(r"^    (\w+)  ", build_parser().format_help(), re.MULTILINE)
    shown = {line.split()[0] for page in (CLI, ROOT / "docs" / "weights.md") for line in commands(page)}
    assert len(offered) > 5 and shown == set(offered)


@pytest.mark.parametrize("page", [README, PYTHON], ids=["readme", "python"])
def test_python_examples_call_what_there_is(page):
    """Their calls take the arguments that they give: of the model, and of `spatial`."""
    places = {"model": JoyImage, "JoyImage": JoyImage, "spatial": spatial}
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    calls = [node for block in blocks for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    checked = 0
    for call in calls:
        called = call.func
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id in places:
            function = getattr(places[called.value.id], called.attr)
            bound = [None] if called.value.id == "model" else []
            inspect.signature(function).bind(*bound, *call.args, **{k.arg: k.value for k in call.keywords})
            checked += 1
    assert checked > 3


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "comfyui.md"], ids=["readme", "comfyui"])
def test_every_node_is_in_the_table(page):
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "nodes").glob("*.py"))
    nodes = {name for source in sources for name in DISPLAYED.findall(source)}
    rows = re.findall(r"^\| (.*?) \|", section(page, "## Nodes"), re.MULTILINE)
    named = {name.split(" (")[0].split(" `")[0] for row in rows for name in row.split(", ")}
    assert len(nodes) > 15
    assert nodes <= named
