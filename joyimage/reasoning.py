"""Answers that look again: a plan of camera motions, the views that an editor renders of them, one answer from all.

After the paper's figure 13, in which a planner names a camera motion in numbers, the editor renders it, and the model
answers from both pictures. What is said to the model is our own (`joyimage.prompts`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from . import prompts, spatial
from .errors import JoyImageError
from .settings import check_text, whole

NONE = re.compile(r"\bnone\b", re.IGNORECASE)
MOST = 8  # views in all, which with the picture is more than the model was trained on
UNREADABLE = "the plan of views could not be read, so the answer is from the picture alone"

# pictures, a question, a system text or None for the usual one -> the answer
Answer = Callable[[Sequence[Image.Image], str, "str | None"], str]
# motions of the camera -> the picture seen after each, as it is made; all are known first, so that encodings are shared
Render = Callable[[Sequence[spatial.Camera]], Iterable[Image.Image]]


@dataclass(frozen=True, eq=False)
class View:
    """A picture of the scene after the camera has moved from where the first was taken."""

    camera: spatial.Camera
    picture: Image.Image

    @property
    def words(self) -> str:
        """The motion in few words."""
        return prompts.described_view(self.camera.yaw, self.camera.pitch, self.camera.zoom)

    @property
    def instruction(self) -> str:
        """The sentence that the editor was given."""
        return self.camera.text


@dataclass(frozen=True, eq=False)
class Reasoned:
    """An answer with the views that it rests on, and a note where something did not go as asked."""

    text: str
    views: tuple[View, ...] = ()
    note: str = ""

    @property
    def pictures(self) -> list[Image.Image]:
        return [view.picture for view in self.views]

    @property
    def instructions(self) -> list[str]:
        return [view.instruction for view in self.views]

    def __str__(self) -> str:
        return self.text


def reason(
    answer: Answer,
    render: Render,
    picture: Image.Image,
    question: str,
    *,
    views: int = 1,
    turns: int = 1,
    on_view: Callable[[View], object] | None = None,
) -> Reasoned:
    """Answer a question about a picture from it and from views that the model asks for, at most `views` in each turn.

    `on_view` gets each view as it is made. A plan that cannot be read, and one that asks for nothing, lead to a plain
    answer; the former with a note. Raises `JoyImageError` as `check_reasoning` does.
    """
    check_reasoning(question, views, turns)
    made: list[View] = []
    note = ""
    for _ in range(turns):
        asked = prompts.planning_question(_with(question, made), views)
        try:
            cameras = parse_plan(answer([picture, *(view.picture for view in made)], asked, prompts.PLANNING_SYSTEM))
        except JoyImageError as error:
            note = f"{UNREADABLE if not made else 'no further views'}: {error}"
            break
        known = {view.camera for view in made}
        cameras = [camera for camera in dict.fromkeys(cameras) if camera not in known][:views]
        if not cameras:
            break
        for camera, seen in zip(cameras, render(cameras), strict=True):
            made.append(View(camera, seen))
            if on_view:
                on_view(made[-1])
    text = answer([picture, *(view.picture for view in made)], _with(question, made), None)
    return Reasoned(text.strip(), tuple(made), note)


def _with(question: str, views: Sequence[View]) -> str:
    return prompts.question_with_views(question, [view.words for view in views])


def parse_plan(text: str) -> list[spatial.Camera]:
    """The camera motions of a plan, in its order; none for "none" or an empty list.

    Reads every JSON object with a yaw, pitch or zoom, wherever it stands: in a list, between code fences, amid prose.
    Motions that change nothing are left out.
    Raises `JoyImageError` for a text without any plan, and for numbers that `spatial.Camera` does not take.
    """
    text = text.rpartition("</think>")[2]
    found, motions = False, []
    for entry in _objects(text):
        if not {"yaw", "pitch", "zoom"} & entry.keys():
            continue
        found = True
        camera = spatial.Camera(entry.get("yaw", 0), entry.get("pitch", 0), entry.get("zoom", "unchanged"))
        if camera != spatial.Camera(0):
            motions.append(camera)
    if not found and not (NONE.search(text) or re.search(r"\[\s*\]", text)):
        raise JoyImageError(f"the model was to name camera motions in JSON; it answered: {text.strip()[:200]!r}")
    return motions


def _objects(text: str) -> list[dict]:
    """The innermost JSON objects in a text."""
    found = []
    for match in re.finditer(r"\{[^{}]*\}", text):
        try:
            entry = json.loads(match[0])
        except ValueError:
            continue
        found.append(entry)
    return found


def check_reasoning(question: str, views: int, turns: int) -> None:
    """Raise `JoyImageError` for a question that is empty or no text, and for numbers of views that cannot be used."""
    check_text("the question", question)
    if not question.strip():
        raise JoyImageError("the question is empty; ask what a view from elsewhere would show")
    for name, value in (("views", views), ("turns", turns)):
        if not whole(value) or value < 1:
            raise JoyImageError(f"{name} is {value!r:.40}; give a whole number of at least 1")
    if views * turns > MOST:
        raise JoyImageError(f"{views} views in each of {turns} turns are {views * turns}; at most {MOST} are of use")
