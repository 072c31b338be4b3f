"""The model as the judge of its own pictures: where an object is, which side it shows, what moved, yes or no.

Each kind of instruction has the question that its result answers best. Scores are from 0 to 1; see `candidates`.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from . import prompts, rewriting, spatial
from .boxes import PixelBox, locate_question, overlap, parse_boxes, red_box, red_line
from .candidates import Attempt, Verdict
from .errors import JoyImageError
from .settings import VIEWS

JUDGE = "JOYIMAGE_JUDGE"  # in the environment
DESCRIBED = 0.995  # mean probability of a text's tokens from which on it surely fits: 95 % of such pictures were right
AHEAD = 0.001  # of that probability: what fits better
SURE = 0.9  # probability from which on nothing better is looked for
IN_BOX = 0.55  # overlap with the red box from which on an object is in it: boxes are drawn with some room
LINE_LEFT = 0.1  # of the red line that may be seen
NAMED = 6  # objects at most that are looked for after the camera moved
WENT = 0.7  # score from which on things surely went where the camera's motion takes them
STILL = 0.75  # overlap of places before and after a motion from which on it cannot be told
# The camera that a photo is taken with, where nothing is known of it: its elevation, and its field of view.
ELEVATION, FIELD_OF_VIEW = math.radians(35), math.radians(38)
ZOOM = {"in": 0.78, "unchanged": 1.0, "out": 1.28}  # factors of the distance
OPPOSITE = {"in": "out", "out": "in", "unchanged": "unchanged"}


@dataclass(frozen=True)
class Mind:
    """What a judge asks an encoder: `answer(pictures, question)` in words, `likelihoods(pictures, question, answers)`
    as logarithms, of whole answers or `per_token`.
    """

    answer: Callable[[Sequence[Image.Image], str], str]
    likelihoods: Callable[..., list[float]]

    def probabilities(self, pictures: Sequence[Image.Image], question: str, answers: Sequence[str]) -> list[float]:
        """Of each answer, if one of them it must be."""
        logs = self.likelihoods(pictures, question, answers)
        weights = [math.exp(log - max(logs)) for log in logs]
        return [weight / sum(weights) for weight in weights]

    def locate(self, picture: Image.Image, obj: str) -> list[PixelBox]:
        """Boxes of an object; none where the model names none."""
        try:
            return parse_boxes(self.answer([picture], locate_question(obj)), *picture.size)
        except JoyImageError:
            return []


def own_judge(mind: Mind) -> Callable[[Attempt], Verdict]:
    """The judge that asks the model itself, each kind of instruction in its own way."""

    def judge(attempt: Attempt) -> Verdict:
        instruction = spatial.parse(attempt.instruction).instruction if attempt.pictures else None
        if isinstance(instruction, spatial.Move) and (box := red_box(attempt.pictures[-1])):
            return judge_move(mind, instruction, box, attempt)
        if isinstance(instruction, spatial.Rotate):
            return judge_rotation(mind, instruction, attempt)
        if isinstance(instruction, spatial.Camera):
            return judge_camera(mind, instruction, attempt)
        return judge_by_asking(mind, attempt) if attempt.pictures else judge_text(mind, attempt)

    return judge


def by_server() -> bool:
    """Whether the environment asks for the rewriting server's model as the judge. Raises `JoyImageError` for a value of
    `JOYIMAGE_JUDGE` that names no judge, and for a server that is not named.
    """
    named = os.environ.get(JUDGE, "").strip().lower()
    if named not in ("", "own", "server"):
        raise JoyImageError(f'{JUDGE} must be "own", the model itself, or "server", that of the rewriter')
    if named == "server" and not rewriting.has_server():
        raise JoyImageError(f'{JUDGE} is "server", but no server is named: set {rewriting.URL}')
    return named == "server"


def check_environment() -> None:
    """Raise `JoyImageError` for a judge that the environment names and that could not be asked."""
    if by_server():
        rewriting.Server.from_environment()


def server_judge(
    while_waiting: Callable[[], object] = lambda: None,
    system: str = prompts.JUDGING_SYSTEM,
    ask: Callable[[Attempt], str] | None = None,
) -> Callable[[Attempt], Verdict]:
    """The judge that asks the rewriting server's model for a score and a reason. `system` says what is judged, and
    `ask` what of an attempt is told: by default, whether it was done.

    Where it gives none it warns, and cannot tell. `while_waiting` is called several times a second and ends the wait by
    raising. Raises `JoyImageError` for an address or a key that cannot be used.
    """
    server = rewriting.Server.from_environment()

    def judge(attempt: Attempt) -> Verdict:
        request = server.request((ask or _asked)(attempt), [*attempt.pictures, attempt.result], system)
        try:
            said = server.answer(request, time.monotonic() + rewriting.TIMEOUT, while_waiting)
            score, reason = prompts.parse_score(said)
            reason = "" if server.key and server.key in reason else reason
            return Verdict(score, reason, score >= SURE)
        except JoyImageError as error:
            warnings.warn(f"the server did not judge: {error}", stacklevel=2)
            return Verdict(None, "the server did not judge")

    return judge


def _asked(attempt: Attempt) -> str:
    if attempt.pictures:
        return prompts.edit_question(attempt.instruction, len(attempt.pictures))
    return prompts.picture_question(attempt.instruction)


def judge_move(mind: Mind, move: spatial.Move, box: PixelBox, attempt: Attempt) -> Verdict:
    """The overlap of the object with its box, and 0 where the line is left."""
    left = red_line(attempt.result, box)
    if left > LINE_LEFT:
        return Verdict(0.0, f"{left:.0%} of the red line are left")
    found = mind.locate(attempt.result, move.object)
    if not found:
        return Verdict(0.0, f"no {move.object} is found")
    shared = max(overlap(each, box) for each in found)
    where = "in" if shared >= IN_BOX else "outside"
    return Verdict(shared, f"the {move.object} is {where} its box ({shared:.0%} in common)", shared >= IN_BOX)


def judge_rotation(mind: Mind, rotate: spatial.Rotate, attempt: Attempt) -> Verdict:
    """How likely the model finds it that this is the side it sees."""
    chances: dict[str, float] = dict(
        zip(VIEWS, mind.probabilities([attempt.result], prompts.view_question(rotate.object), VIEWS), strict=True)
    )
    seen = max(VIEWS, key=lambda view: chances[view])
    chance = chances[rotate.view]
    return Verdict(chance, f"the {seen} side is seen ({chances[seen]:.0%})", chance >= SURE)


def judge_by_asking(mind: Mind, attempt: Attempt) -> Verdict:
    """How likely the model finds "yes" to whether the edit is what the result shows."""
    yes, _ = mind.probabilities([*attempt.pictures, attempt.result], _asked(attempt), prompts.YES_OR_NO)
    return Verdict(yes, f"the model says {'yes' if yes >= 0.5 else 'no'} ({max(yes, 1 - yes):.0%} sure)", yes >= SURE)


def judge_text(mind: Mind, attempt: Attempt) -> Verdict:
    """How likely the text is as the model's own description of the picture, a token on the average.

    It tells the pictures of one text from each other better than the answer to a question, yes or no.
    """
    [log] = mind.likelihoods([attempt.result], prompts.DEFAULT_QUESTION, [attempt.instruction], per_token=True)
    chance = math.exp(log)
    return Verdict(
        chance, f"the text is {chance:.1%} likely a token as a description of it", chance >= DESCRIBED, AHEAD
    )


def judge_camera(mind: Mind, camera: spatial.Camera, attempt: Attempt) -> Verdict:
    """Whether what is in the picture has gone where the motion takes it, rather than stayed or gone the other way.

    Objects are named and located before and after. Where none is found in both, or where the motion moves them too
    little to tell, the score is None.
    """
    before, after = attempt.pictures[-1], attempt.result
    names = [name.strip() for name in mind.answer([before], prompts.NAMES_QUESTION).split(",") if name.strip()]
    pairs = []
    for name in dict.fromkeys(names[:NAMED]):
        first, second = mind.locate(before, name), mind.locate(after, name)
        if len(first) == len(second) == 1:
            pairs.append((first[0], second[0]))
    if not pairs:
        return Verdict(None, "no object is found both before and after, so the motion cannot be told")
    others = [spatial.Camera(0), spatial.Camera(-camera.yaw, -camera.pitch, OPPOSITE[camera.zoom])]
    expected = [[moved_box(first, motion, before.size) for first, _ in pairs] for motion in (camera, *others)]
    still = [overlap(a, b) for a, b in zip(expected[0], expected[1], strict=True)]
    if min(still) > STILL:
        return Verdict(None, "the motion moves what is in the picture too little to be told")
    right, *wrong = (
        float(np.mean([overlap(box, second) for box, (_, second) in zip(boxes, pairs, strict=True)]))
        for boxes in expected
    )
    score = right / (right + max(wrong)) if right + max(wrong) > 0 else 0.0
    went = "went as the camera's motion takes it" if score > 0.5 else "did not go as the camera's motion takes it"
    return Verdict(score, f"{_listed(len(pairs))} {went}", score >= WENT)


def _listed(count: int) -> str:
    return "one object" if count == 1 else f"{count} objects"


def moved_box(box: PixelBox, camera: spatial.Camera, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Where a box goes when the camera moves around the middle of the picture, of `size` (width, height).

    It is taken to stand on a plane below a camera of `ELEVATION` and `FIELD_OF_VIEW`; its shape stays, its size goes
    with the distance.
    """
    width, height = size
    half = math.tan(FIELD_OF_VIEW / 2)
    left, top, right, bottom = box
    u = ((left + right) / width - 1) * half
    v = (1 - (top + bottom) / height) * half * height / width
    eye, axes = orbited(0.0, ELEVATION, 1.0)
    ray = u * axes[0] + v * axes[1] + axes[2]
    reach = min(-eye[2] / ray[2], 3.0) if ray[2] < -1e-3 else 3.0  # what is above the horizon is far away
    point = eye + reach * ray
    pitch = min(math.radians(85), max(math.radians(5), ELEVATION + math.radians(camera.pitch)))
    eye, axes = orbited(math.radians(camera.yaw), pitch, ZOOM[camera.zoom])
    x, y, depth = axes @ (point - eye)
    depth = max(depth, 0.05)
    scale = reach / depth
    middle = (x / depth / half + 1) * width / 2, (1 - y / depth / half * width / height) * height / 2
    w, h = (right - left) * scale / 2, (bottom - top) * scale / 2
    return middle[0] - w, middle[1] - h, middle[0] + w, middle[1] + h


def orbited(yaw: float, elevation: float, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """The eye (3,), and the right, up and forward directions as rows (3, 3), of a camera that looks at the origin."""
    back = np.array([math.cos(elevation) * math.sin(yaw), -math.cos(elevation) * math.cos(yaw), math.sin(elevation)])
    right = np.array([math.cos(yaw), math.sin(yaw), 0.0])
    return distance * back, np.stack([right, np.cross(back, right), -back])
