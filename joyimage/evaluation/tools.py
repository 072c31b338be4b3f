"""What finds boxes, poses, sides, texts and faults in pictures: callables, each replaceable by a user's own.

The defaults ask the model at hand. A figure tells in the report which tool it rests on: those by other tools than the
published ones are not the published figures.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from PIL import Image

from .. import judging, prompts, rewriting
from ..boxes import Box
from ..candidates import Attempt, Verdict
from ..errors import JoyImageError, MissingFileError
from ..judging import NAMED, Mind
from ..settings import VIEWS
from .framing import Detection
from .orbits import estimate
from .viewpoint import Pose

Locate: TypeAlias = Callable[[Image.Image, str], Sequence[Box]]  # an object in words -> its boxes in pixels, best first
Detect: TypeAlias = Callable[[Sequence[Image.Image]], Sequence[Sequence[Detection]]]  # the things in each picture
Estimate: TypeAlias = Callable[[Sequence[Image.Image]], "Sequence[Pose] | None"]  # a pose of each, in one world
See: TypeAlias = Callable[[Image.Image, str], str]  # an object in words -> the one of VIEWS that it shows
Read: TypeAlias = Callable[[Image.Image], str]  # all text in the picture
Judge: TypeAlias = Callable[[Attempt], "Verdict | float | None"]  # consistency, 0 to 1
Find: TypeAlias = Callable[[], Mind]  # the mind of a model, which is loaded when it is first asked

OWN = "own"
READING = "Read all text in this picture, in its order. Answer with the text alone; if there is none, with nothing."
CONSISTENCY_SYSTEM = """\
You compare a picture with an edit of it. Judge identity alone: whether the object is the very same one, in shape, \
colour, material and details, whether the rest of the scene stayed as it was, and whether nothing was added or left \
over, such as a drawn red box. Whether the edit was made does not count, nor does the object's new place or side.
Answer with nothing but a JSON object, with a score from 0 (another object or scene) to 100 (nothing differs) and a \
short reason:
{"score": 85, "reason": "the same cup, but the plate behind it is gone"}"""


@dataclass(frozen=True)
class Tools:
    """The tools of one run, and where each is from, by field; a judge and a pose estimator of None are not there."""

    locate: Locate
    detect: Detect
    see: See
    estimate: Estimate | None = None
    judge: Judge | None = None
    names: dict[str, str] = field(default_factory=dict)

    def with_tool(self, kind: str, tool: Callable, name: str) -> Tools:
        return replace(self, **{kind: tool}, names={**self.names, kind: name})


def own_tools(find: Find, name: str = OWN) -> Tools:
    """All that the model itself can do, without a judge. `name` is that of the model, for the report."""
    own = f"{OWN}: {name}" if name != OWN else OWN
    things = remembered(lambda pictures: detect(find(), pictures))
    tools = Tools(
        locate=lambda picture, obj: find().locate(picture, obj),
        detect=things,
        see=lambda picture, obj: see(find(), picture, obj),
        estimate=partial(estimate, things),
    )
    return replace(tools, names=dict.fromkeys(("locate", "detect", "see", "estimate"), own))


def detect(mind: Mind, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
    """The things that the model names in the first picture, where it locates them in each: so that one thing has one
    name in all.
    """
    told = mind.answer([pictures[0]], prompts.NAMES_QUESTION)
    names = list(dict.fromkeys(name.strip() for name in told.split(",") if name.strip()))[:NAMED]
    return [[Detection(name, box) for name in names for box in mind.locate(picture, name)] for picture in pictures]


def remembered(find: Detect) -> Detect:
    """The same detector, which remembers its last pictures: an edit's framing and its poses ask for the same."""
    known: dict[tuple, Sequence[Sequence[Detection]]] = {}

    def detect(pictures: Sequence[Image.Image]) -> Sequence[Sequence[Detection]]:
        key = tuple((picture.size, picture.tobytes()) for picture in pictures)
        if key not in known:
            known.clear()
            known[key] = find(pictures)
        return known[key]

    return detect


def see(mind: Mind, picture: Image.Image, obj: str) -> str:
    """The side of an object that the model finds the likeliest."""
    chances = mind.probabilities([picture], prompts.view_question(obj), VIEWS)
    return max(zip(chances, VIEWS, strict=True))[1]


def own_judge(find: Find) -> Judge:
    """How likely the model finds it that the edit was made and nothing else changed."""
    return lambda attempt: judging.judge_by_asking(find(), attempt)


def server_judge() -> Judge:
    """The model of the rewriting server, asked for identity alone. `JoyImageError` where none is named."""
    if not rewriting.has_server():
        raise JoyImageError(f"the judge is to be the server, but none is named: set {rewriting.URL}")
    return judging.server_judge(system=CONSISTENCY_SYSTEM, ask=lambda attempt: f"The edit was: {attempt.instruction}")


def reader(find: Find) -> Read:
    """The model itself as the reader of text."""
    return lambda picture: find().answer([picture], READING)


def load_tool(name: str) -> Callable[..., Any]:
    """The callable that MODULE:NAME or FILE.py:NAME names.

    Raises `JoyImageError` if there is none, and with what the module itself raises when it is imported.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise JoyImageError(f"{name!r} names no tool; give MODULE:NAME or FILE.py:NAME, such as my_tools.py:detect")
    try:
        module = _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except JoyImageError:
        raise
    except Exception as error:  # whatever runs in a module of a user's
        raise JoyImageError(f"the tool {name} cannot be imported: {type(error).__name__}: {error}") from error
    tool = getattr(module, attribute, None)
    if not callable(tool):
        raise JoyImageError(f"{place} has nothing to call that is named {attribute}")
    return tool


def answer_of(name: str, find: Callable[[], Any]) -> Any:
    """What a tool called `name` says. Raises `JoyImageError` with its name where it fails."""
    try:
        return find()
    except JoyImageError as error:
        raise JoyImageError(f"the tool {name}: {error}") from error
    except OSError:
        raise
    except Exception as error:  # whatever runs in a module of a user's
        raise JoyImageError(f"the tool {name} failed: {type(error).__name__}: {error}") from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise MissingFileError(f"there is no file {path} with a tool")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
