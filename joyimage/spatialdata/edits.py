"""Edit pairs from an index: two pictures of a scene and the model's own sentence that leads from one to the other."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .. import spatial
from . import margins
from .cameras import Pinhole
from .index import SceneIndex
from .motion import Motion, Sayable, instruction, meeting_point, motion
from .oriented import OrientedBox
from .sides import SIDES, shown_side

SAME = 1e-3  # metres, and parts of a turn, by which what has not changed may differ between two states of a scene
MOVED = 0.3  # of an object's longest extent, by which one that has moved has at least
PixelBox = tuple[int, int, int, int]
SHARED = 0.5  # of the objects that either view shows, at least so many must be in both
SAYABLE = Sayable()


@dataclass(frozen=True, eq=False)
class CameraPair:
    """Two views of a scene: `first` is edited, `second` is the target. `motion` is the true one that is said."""

    scene: str
    first: int
    second: int
    motion: Motion
    instruction: spatial.Camera

    @property
    def text(self) -> str:
        """The sentence, word for word as the model was trained on it."""
        return self.instruction.text


def camera_pair(index: SceneIndex, first: int, second: int, sayable: Sayable = SAYABLE) -> CameraPair | None:
    """The pair of two views; None where the sentence cannot say the move, or they show too little of the same."""
    seen, other = set(index.clear[first]), set(index.clear[second])
    if not seen & other or len(seen & other) < SHARED * len(seen | other):
        return None
    before, after = index.frames[first].camera, index.frames[second].camera
    # Axes that are parallel meet nowhere: then what all views look at is what the camera nears or leaves.
    target = meeting_point((before, after))
    if target is None:
        target = meeting_point([frame.camera for frame in index.frames])
    move = motion(before, after, target) if target is not None else None
    said = instruction(move, sayable) if move is not None else None
    return CameraPair(index.scene.name, first, second, move, said) if move is not None and said is not None else None


def camera_pairs(
    index: SceneIndex, limit: int | None = None, seed: int = 0, sayable: Sayable = SAYABLE
) -> Iterator[CameraPair]:
    """Pairs of a scene's views in an order that the seed gives, both ways round, at most `limit`.

    Views that hardly differ in rotation are left out unless a zoom is what differs.
    """
    count, made = len(index.frames), 0
    order = [(first, second) for first in range(count) for second in range(count) if first != second]
    random.Random(f"{seed}/{index.scene.name}").shuffle(order)
    for first, second in order:
        if limit is not None and made >= limit:
            return
        pair = camera_pair(index, first, second, sayable)
        if pair is None:
            continue
        if pair.instruction.zoom != "unchanged" or index.turned[first, second] >= margins.VIEWS_APART - 1e-6:
            made += 1
            yield pair


@dataclass(frozen=True, eq=False)
class ObjectPair:
    """One view of a scene in two states, in which one object differs. `number`: that object.

    box: of a move, where the object then is, (left, top, right, bottom) in pixels of the picture, for `boxes.draw_box`
    on the picture that is edited. None of a rotation.
    """

    scene: str
    view: int
    number: int
    instruction: spatial.Move | spatial.Rotate
    box: PixelBox | None = None

    @property
    def text(self) -> str:
        """The sentence, word for word as the model was trained on it."""
        return self.instruction.text


def object_pairs(before: SceneIndex, after: SceneIndex) -> Iterator[ObjectPair]:
    """A pair for each view that shows what changed between two states of a scene with the same cameras and objects.

    One object has moved, without a turn, or turned where it stands and shows another of its sides; otherwise there are
    none. It must be visible in both states, and words must mean it alone.
    """
    changed = _changed(before, after)
    if changed is None or not before.names[changed]:
        return
    for view in range(len(before.frames)):
        if changed in before.clear[view] and changed in after.clear[view]:
            pair = _object_pair(before, after, view, changed)
            if pair is not None:
                yield pair


def _changed(before: SceneIndex, after: SceneIndex) -> int | None:
    """The one object whose box differs; None where that is none or several, or the cameras or objects differ."""
    same = len(before.frames) == len(after.frames) and all(
        _alike(a.camera, b.camera) for a, b in zip(before.frames, after.frames, strict=True)
    )
    if not same or [thing.number for thing in before.things] != [thing.number for thing in after.things]:
        return None
    boxes = [(a.box, b.box) for a, b in zip(before.things, after.things, strict=True)]
    changed = [n for n, (a, b) in enumerate(boxes) if a and b and not (_placed(a, b) and _turned_alike(a, b))]
    resized = any(a and b and not np.allclose(a.size, b.size, atol=SAME) for a, b in boxes)
    return changed[0] if len(changed) == 1 and not resized else None


def _object_pair(before: SceneIndex, after: SceneIndex, view: int, n: int) -> ObjectPair | None:
    old, new, name = before.things[n].box, after.things[n].box, before.names[n]
    assert old is not None and new is not None
    picture, number = after.scene.views[view].camera, after.things[n].number
    if _turned_alike(old, new):
        if np.linalg.norm(new.centre - old.centre) < MOVED * old.size.max():
            return None
        left, top, right, bottom = after.sights[view, n].box
        box = (
            round(left * picture.width),
            round(top * picture.height),
            round(right * picture.width),
            round(bottom * picture.height),
        )
        if box[0] == box[2] or box[1] == box[3]:  # of a picture with fewer pixels than its depth
            return None
        return ObjectPair(after.scene.name, view, number, spatial.Move(name), box)
    was, shows = (shown_side(box, picture) for box in (old, new))
    if not after.things[n].faces or not _placed(old, new) or shows is None or was == shows:
        return None
    return ObjectPair(after.scene.name, view, number, spatial.Rotate(name, SIDES[shows]))


def _alike(first: Pinhole, second: Pinhole) -> bool:
    same = np.allclose(first.pose, second.pose, atol=SAME) and np.allclose(first.intrinsic, second.intrinsic, atol=SAME)
    return bool(same)


def _placed(first: OrientedBox, second: OrientedBox) -> bool:
    return bool(np.allclose(first.centre, second.centre, atol=SAME))


def _turned_alike(first: OrientedBox, second: OrientedBox) -> bool:
    return bool(np.allclose(first.rotation, second.rotation, atol=SAME))
