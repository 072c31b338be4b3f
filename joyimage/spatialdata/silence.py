"""Why nothing came of a scene that can be read and does not contradict itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..errors import counted
from .index import LIMITS, STRUCTURE, SceneIndex
from .settings import Making
from .tasks import TASKS
from .visibility import Limits, visibility


def silence(index: SceneIndex, settings: Making) -> str:
    """Why neither questions nor pairs came of a scene, in words."""
    return (
        _of_objects(index) or _of_sights(index) or "; ".join((*_of_needs(index, settings), *_of_rest(index, settings)))
    )


def _of_objects(index: SceneIndex) -> str:
    if index.things:
        return ""
    others = f" but {', '.join(sorted(STRUCTURE))}" if index.scene.objects else ""
    return f"it names no objects{others}: give objects with boxes, or with masks and --lift"


def _of_sights(index: SceneIndex, limits: Limits = LIMITS) -> str:
    """Where no object counts as visible."""
    views = counted(len(index.frames), "view")
    if not index.sights:
        return f"none of its objects has a pixel in {views}"
    if any(sight.clear for sight in index.sights.values()):
        return ""
    why = Counter(_unclear(index, v, n, limits) for v, n in index.sights)
    told = ", ".join(f"{count} times {reason}" for reason, count in why.most_common())
    return f"no object counts as visible in {views}: {told}"


def _unclear(index: SceneIndex, v: int, n: int, limits: Limits) -> str:
    frame, box, sight = index.frames[v], index.things[n].box, index.sights[v, n]
    assert box is not None
    if sight.share < limits.mask:
        return f"it covers less than {limits.mask:.1%} of the picture"
    seen = visibility(box, frame.camera, frame.depth)
    if seen.in_picture < limits.in_picture:
        return f"less than {limits.in_picture:.0%} of its box lies in the picture"
    if seen.hidden > limits.hidden:
        return f"more than {limits.hidden:.0%} of its box is hidden"
    if seen.points < limits.points:
        return f"fewer than {limits.points} points were measured on it"
    return f"what was measured on it fills less than {limits.hull:.0%} of its box"


def _of_needs(index: SceneIndex, settings: Making) -> Iterator[str]:
    """What sub-tasks need and the scene has not."""
    lacking: dict[str, list[str]] = {}
    for task in settings.tasks:
        needs = TASKS[task].needs
        if needs.met(index):
            continue
        has = (
            (len(index.frames) >= needs.views, counted(needs.views, "view")),
            (len(index.things) >= needs.objects, counted(needs.objects, "object")),
            (index.scene.metric or not needs.metric, "lengths in metres (metric)"),
            (any(thing.faces for thing in index.things) or not needs.faces, "an object whose front is known (faces)"),
        )
        lacking.setdefault(" and ".join(words for held, words in has if not held), []).append(task)
    for words, tasks in lacking.items():
        yield f"{', '.join(tasks)} {'needs' if len(tasks) == 1 else 'need'} {words}"


def _of_rest(index: SceneIndex, settings: Making) -> Iterator[str]:
    """What is asked, but of nothing that is clear here."""
    if asked := [task for task in settings.tasks if TASKS[task].needs.met(index)]:
        seen = len({n for inside in index.clear for n in inside})
        yield (
            f"{', '.join(asked)}: of {counted(seen, 'visible object')} in {counted(len(index.frames), 'view')} nothing "
            "is clear enough to be asked"
        )
    if "camera" in settings.edits:
        yield "camera pairs: no two views show much of the same and differ by what a sentence says"
    if states := [kind for kind in settings.edits if kind != "camera"]:
        yield f"{' and '.join(states)} pairs: they need another state of a scene, in which one object differs"
