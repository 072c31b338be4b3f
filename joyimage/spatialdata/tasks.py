"""The sub-tasks, one row each, and the questions of a scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ..errors import JoyImageError
from .checking import awareness as check_awareness
from .checking import camera as check_camera
from .checking import matching as check_matching
from .checking import measurement as check_measurement
from .checking import relationship as check_relationship
from .checking.truth import Truth, Verdict
from .index import SceneIndex
from .questions import awareness, camera, matching, measurement, relationship, several
from .questions.asker import UnnamedError
from .questions.draw import Draw, by_language
from .questions.form import USUAL, Asking, Question
from .translations import ENGLISH

CAPABILITIES = {
    "SM": "spatial measurement",
    "SR": "spatial relationship",
    "CP": "camera perception",
    "MC": "multi-view consistency",
    "SAR": "scene-aware reasoning",
}


@dataclass(frozen=True)
class Needs:
    """What a scene must have: views, objects, lengths in metres, and objects whose front is known."""

    views: int = 1
    objects: int = 1
    metric: bool = False
    faces: bool = False

    def met(self, index: SceneIndex) -> bool:
        """Whether a scene has it."""
        enough = len(index.frames) >= self.views and len(index.things) >= self.objects
        fronts = not self.faces or any(thing.faces for thing in index.things)
        return enough and fronts and (index.scene.metric or not self.metric)


@dataclass(frozen=True)
class SubTask:
    """`generate`: a question, those that must stand together, or none. `check`: against the scene's truth."""

    capability: str
    needs: Needs
    generate: Callable[[Draw], list[Question]]
    check: Callable[[Truth, Question], Verdict]


TASKS: dict[str, SubTask] = {
    "absolute_distance": SubTask(
        "SM", Needs(objects=2, metric=True), measurement.absolute_distance, check_measurement.distance
    ),
    "absolute_size": SubTask("SM", Needs(metric=True), measurement.absolute_size, check_measurement.size),
    "height": SubTask("SM", Needs(metric=True), measurement.height, check_measurement.height),
    "multiview_distance": SubTask(
        "SM", Needs(views=2, objects=2, metric=True), measurement.multiview_distance, check_measurement.distance
    ),
    "depth_order": SubTask("SM", Needs(), measurement.depth_order, check_measurement.depth_order),
    "depth_choice": SubTask("SM", Needs(), measurement.depth_choice, check_measurement.depth_choice),
    "relative_distance": SubTask(
        "SR", Needs(objects=3), relationship.relative_distance, check_relationship.relative_distance
    ),
    "relative_size": SubTask("SR", Needs(objects=2), relationship.relative_size, check_relationship.relative_size),
    "height_comparison": SubTask(
        "SR", Needs(objects=2), relationship.height_comparison, check_relationship.height_comparison
    ),
    "proximity": SubTask("SR", Needs(objects=2), relationship.proximity, check_relationship.proximity),
    "multiview_relative_distance": SubTask(
        "SR", Needs(views=3, objects=3), several.relative_distance, check_relationship.relative_distance
    ),
    "multiview_size_pair": SubTask(
        "SR", Needs(views=2, objects=2), several.size_pair, check_relationship.relative_size
    ),
    "multiview_size_ranking": SubTask(
        "SR", Needs(views=3, objects=3), several.size_ranking, check_relationship.size_ranking
    ),
    "multiview_direction": SubTask("SR", Needs(views=2, objects=3), several.direction, check_relationship.direction),
    "camera_distance": SubTask("CP", Needs(views=2), camera.camera_distance, check_camera.camera_distance),
    "camera_motion": SubTask("CP", Needs(views=2), camera.camera_motion, check_camera.camera_motion),
    "camera_pose": SubTask("CP", Needs(views=3), camera.camera_pose, check_camera.camera_pose),
    "point_correspondence": SubTask(
        "MC", Needs(views=2, metric=True), matching.point_correspondence, check_matching.point_correspondence
    ),
    "object_correspondence": SubTask(
        "MC", Needs(views=2, objects=2), matching.object_correspondence, check_matching.object_correspondence
    ),
    "scene_caption": SubTask("SAR", Needs(), awareness.scene_caption, check_awareness.scene_caption),
    "counting": SubTask("SAR", Needs(objects=2), awareness.counting, check_awareness.counting),
    "grounding_3d": SubTask("SAR", Needs(metric=True), awareness.grounding_3d, check_awareness.grounding_3d),
    "orientation": SubTask("SAR", Needs(faces=True), awareness.orientation, check_awareness.orientation),
}


def make_questions(
    index: SceneIndex, quotas: Mapping[str, int], asking: Asking = USUAL, place: int = 0
) -> Iterator[Question]:
    """Questions about a scene, at most `quotas` of each sub-task, the same ones for the same arguments.

    place: the scene's number among all that are asked about. Raises `JoyImageError` for sub-tasks not in `TASKS`.
    """
    if unknown := [task for task in quotas if task not in TASKS]:
        raise JoyImageError(f"no sub-task is called {', '.join(unknown)}; there are {', '.join(TASKS)}")
    called = by_language(index, asking)
    for task, quota in quotas.items():
        if TASKS[task].needs.met(index):
            yield from _of_task(Draw(index, task, asking, place, called), quota)


def _of_task(draw: Draw, quota: int) -> Iterator[Question]:
    """Up to `quota` different questions, until many draws one after the other bring no new one."""
    asked: set = set()
    count = failed = 0
    while count < quota and failed < draw.asking.tries:
        found = _drawn(draw)
        keys = {_subject(question) for question in found}
        if not found or keys & asked or count + len(found) > quota:
            failed += 1
            continue
        failed, count = 0, count + len(found)
        asked |= keys
        yield from found


def _drawn(draw: Draw) -> list[Question]:
    """The next question; in English where the language whose turn it is has no word for what it names."""
    before = draw.state()
    draw.begin()
    try:
        return TASKS[draw.task].generate(draw)
    except UnnamedError:
        if ENGLISH not in draw.asking.languages:
            return []
    draw.restore(before)
    draw.begin(ENGLISH)
    return TASKS[draw.task].generate(draw)


def _subject(question: Question) -> tuple:
    """What is asked, in whichever words."""
    worded = ("tag", "tags") if "objects" in question.about else ()
    return question.views, str(sorted((key, value) for key, value in question.about.items() if key not in worded))


def check(truth: Truth, question: Question) -> Verdict:
    """Whether a question's answer is true, and whether it is clear."""
    return TASKS[question.task].check(truth, question)
