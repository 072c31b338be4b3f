"""Checks of camera perception, from where cameras look: headings and elevations of their axes, and where these meet."""

from __future__ import annotations

import re

import numpy as np

from .. import margins
from ..questions.form import Question
from .truth import Truth, Verdict, factor

NUMBER = r"(-?\d+(?:\.\d+)?)"
MOTION = re.compile(rf"(?:Yaw|偏航) {NUMBER}°[,，] ?(?:Pitch|俯仰) {NUMBER}°[,，] ?(.+)")
ZOOMS = {"zoom in": -1, "拉近": -1, "zoom out": 1, "拉远": 1, "zoom unchanged": 0, "远近不变": 0}
NEARER = {"picture 1": 0, "图1": 0, "picture 2": 1, "图2": 1, "about equally near in both": 2, "两张差不多": 2}
ZOOMED, UNZOOMED = 1.1, 1.06  # factors of the distance, from which on and up to which a zoom is one or none
DEGREES = 0.51
RATIO = 0.006


def camera_distance(truth: Truth, question: Question) -> Verdict:
    """The picture named against the nearest fifth of the object's points in both."""
    (number,) = question.about["objects"]
    near = [_near(truth, view, number) for view in question.views]
    times = factor(*near)
    true = 2 if times <= margins.SAME_DISTANCE else int(np.argmin(near))
    clear = times <= margins.SAME_DISTANCE or times >= margins.OTHER_DISTANCE
    return Verdict(NEARER[question.said] == true, clear)


def _near(truth: Truth, view: int, number: int) -> float:
    distances = np.sort(np.linalg.norm(truth.in_camera(view, truth.cloud(view, number)), axis=1))
    return float(distances[len(distances) // 5])


def camera_motion(truth: Truth, question: Question) -> Verdict:
    """The motion that the answer says against the true one; of a choice, no other option may be near it."""
    true = between(truth, question.views[0], question.views[-1])
    others = [option for option in question.options if option != question.said]
    right = _agrees(question.said, *true) and not any(_agrees(other, *true) for other in others)
    told = _read(question.said)
    clear = all(_differ(told, _read(other)) for other in others)
    return Verdict(right, clear)


def camera_pose(truth: Truth, question: Question) -> Verdict:
    """Each line's motion and distance against the true ones."""
    lines = question.answer.split("\n")
    right = len(lines) == len(question.views) - 1
    for n, (line, view) in enumerate(zip(lines, question.views[1:], strict=False), start=2):
        found = MOTION.search(line)
        yaw, pitch, times = between(truth, question.views[0], view)
        right = right and found is not None and str(n) in line[: found.start()]
        if found is not None:
            told = float(re.findall(NUMBER, found[3])[0])
            right = right and abs(_turn(float(found[1]) - yaw)) <= DEGREES and abs(float(found[2]) - pitch) <= DEGREES
            right = right and abs(told - times) <= RATIO
    return Verdict(bool(right))


def between(truth: Truth, first: int, second: int) -> tuple[float, float, float]:
    """Yaw and pitch in degrees between two views' axes, and the distances from where they meet, second over first."""
    (eye, axis), (other_eye, other_axis) = (_axis(truth, view) for view in (first, second))
    heading = [np.degrees(np.arctan2(a[1], a[0])) for a in (axis, other_axis)]
    slope = [np.degrees(np.arcsin(-a[2])) for a in (axis, other_axis)]
    # How far along each axis they are nearest to each other: normal equations of eye + s axis = other + t other axis.
    cosine, offset = axis @ other_axis, other_eye - eye
    along, other_along = np.linalg.solve([[1, -cosine], [cosine, -1]], [axis @ offset, other_axis @ offset])
    return _turn(heading[1] - heading[0]), float(slope[1] - slope[0]), float(other_along / along)


def _axis(truth: Truth, view: int) -> tuple[np.ndarray, np.ndarray]:
    _, rotation, shift = truth.camera(view)
    return -rotation.T @ shift, rotation[2]


def _read(text: str) -> tuple[float, float, int]:
    found = MOTION.fullmatch(text)
    assert found, text
    return float(found[1]), float(found[2]), ZOOMS[found[3]]


def _agrees(text: str, yaw: float, pitch: float, times: float) -> bool:
    told_yaw, told_pitch, zoom = _read(text)
    zoomed = times**zoom >= ZOOMED if zoom else factor(times, 1) <= UNZOOMED
    return abs(_turn(told_yaw - yaw)) <= DEGREES and abs(told_pitch - pitch) <= DEGREES and bool(zoomed)


def _differ(first: tuple[float, float, int], second: tuple[float, float, int]) -> bool:
    turned = max(abs(_turn(first[0] - second[0])), abs(first[1] - second[1]))
    return turned >= margins.TURN or first[2] != second[2]


def _turn(degrees: float) -> float:
    return float((degrees + 180) % 360 - 180)
