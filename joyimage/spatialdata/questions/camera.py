"""Camera perception: how near the camera is to an object, how it moved, and where several views were taken."""

from __future__ import annotations

from random import Random

from .. import margins
from ..motion import Motion, instruction, motion
from .asker import Asker
from .draw import Draw, beyond
from .form import Question

PHRASES = {
    "camera_distance": {
        "en": (
            "In which picture was the camera nearer to {a}?",
            "Compare both pictures: from where was {a} photographed at the shorter distance?",
            "{a} is in picture 2, too. In which of the two is the camera closer to it?",
        ),
        "zh": (
            "哪张图里的相机离{a}更近？",
            "比较两张图：拍摄时相机与{a}的距离哪张更短？",
            "{a}在图2里也能看到。哪一张的相机离它更近？",
        ),
    },
    "camera_motion": {
        "en": (
            "How did the camera move from picture 1 to picture {n}?",
            "Which camera motion leads from the first picture to the last?",
            "The scene is static. What did the camera do between picture 1 and picture {n}?",
        ),
        "zh": (
            "从图1到图{n}，相机是怎样移动的？",
            "相机做了什么运动，使画面由第一张变成最后一张？",
            "场景是静止的。图1与图{n}之间相机如何运动？",
        ),
    },
    "camera_pose": {
        "en": (
            "Where was each other picture taken, relative to picture 1?",
            "Give the camera of every later picture relative to that of picture 1.",
            "All pictures show one place. Locate their cameras against the first.",
        ),
        "zh": (
            "其余各图的相机相对于图1在哪里？",
            "请给出图1之后每张图的相机相对图1的位置。",
            "这些图片拍的是同一处。请以第一张为基准说明各相机的方位。",
        ),
    },
}
SIGNS = {
    "en": " Yaw is positive where it goes around to the right, pitch where it goes up; angles in degrees.",
    "zh": "偏航以向右绕行为正，俯仰以向上为正，单位为度。",
}
RATIO = {
    "en": " Distance is that from the middle of the scene, over that of picture 1.",
    "zh": "距离是到场景中心的距离与图1的之比。",
}
NEARER = {"en": ("picture 1", "picture 2", "about equally near in both"), "zh": ("图1", "图2", "两张差不多")}
ZOOM = {
    "en": {"in": "zoom in", "out": "zoom out", "unchanged": "zoom unchanged"},
    "zh": {"in": "拉近", "out": "拉远", "unchanged": "远近不变"},
}
MOVED = {"en": "Yaw {yaw:.0f}°, Pitch {pitch:.0f}°, {zoom}", "zh": "偏航 {yaw:.0f}°，俯仰 {pitch:.0f}°，{zoom}"}
POSED = {
    "en": "picture {n}: Yaw {yaw:.0f}°, Pitch {pitch:.0f}°, distance {distance:.2f}",
    "zh": "图{n}：偏航 {yaw:.0f}°，俯仰 {pitch:.0f}°，距离 {distance:.2f}",
}
LARGEST = 165.0  # degrees of yaw, beyond which left and right are hardly told apart
SEQUENCES = 0.3  # of the questions about motion, the share with views in between


def camera_distance(draw: Draw) -> list[Question]:
    """In which of two views of an object the camera is nearer to it."""
    equal = draw.turn("kind", 3) == 0
    for _ in range(6 if equal else 3):
        if (found := _two_distances(draw)) is None:
            continue
        views, thing, near = found
        same = not beyond(*near, margins.SAME_DISTANCE / margins.SPARE**0.5)
        if same != equal or not (same or beyond(*near, margins.OTHER_DISTANCE * margins.SPARE)):
            continue
        return [_camera_distance(draw, views, thing, same, near[0] < near[1])]
    return []


def _two_distances(draw: Draw) -> tuple[tuple[int, int], int, tuple[float, float]] | None:
    if (views := draw.chain(2, 2)) is None:
        return None
    first, second = views[0], views[-1]
    thing = draw.random.choice([n for n in draw.index.clear[first] if n in draw.index.clear[second]])
    close = draw.index.close
    return (first, second), thing, (float(close[first, thing]), float(close[second, thing]))


def _camera_distance(draw: Draw, views: tuple[int, int], thing: int, same: bool, first: bool) -> Question:
    side = 2 if same else draw.turn("side", 2)
    if not same and first != (side == 0):
        views = views[1], views[0]
    asker = Asker(draw, views, ("choice",), 3)
    options = NEARER[asker.language]
    about = {"objects": draw.numbers((thing,)), "side of 3": side}
    wrong = [option for i, option in enumerate(options) if i != side]
    return asker.choose(PHRASES, "camera_distance", options[side], wrong, about, a=asker.name(thing))


def camera_motion(draw: Draw) -> list[Question]:
    """How the camera moved from the first to the last of two to four views, where the model's sentence can say it."""
    most = 4 if draw.random.random() < SEQUENCES else 2
    if (views := draw.chain(2, most)) is None:
        return []
    if (move := _moved(draw, views[0], views[-1])) is None or abs(move.yaw) > LARGEST:
        return []
    side = None
    if abs(move.yaw) >= margins.TURN:
        side = draw.turn("side", 2)
        if (move.yaw > 0) != (side == 0):
            views = views[::-1]
            move = _moved(draw, views[0], views[-1])
    told = move and instruction(move)
    if told is None:
        return []
    right = told.yaw, told.pitch, told.zoom
    asker = Asker(draw, views, ("open", "choice"), 4)
    wrong = _other_motions(draw.random, *right)
    about = {} if side is None else {"side of 2": side}
    texts = [_said(asker.language, *motion) for motion in (right, *wrong)]
    question = asker.either(PHRASES, "camera_motion", texts[0], texts[1:], about, n=len(views))
    return [_explained(question, SIGNS)]


def camera_pose(draw: Draw) -> list[Question]:
    """Where the cameras of three to five views are, relative to the first."""
    if (views := draw.chain(3, 5)) is None:
        return []
    moves = [_moved(draw, views[0], view) for view in views[1:]]
    if not all(move and abs(move.yaw) <= LARGEST for move in moves):
        return []
    asker = Asker(draw, views)
    answer = "\n".join(
        POSED[asker.language].format(n=n, yaw=round(move.yaw), pitch=round(move.pitch), distance=move.distance)
        for n, move in enumerate(moves, start=2)
        if move
    )
    question = asker.open(PHRASES, "camera_pose", answer, {})
    return [_explained(_explained(question, SIGNS), RATIO)]


def _moved(draw: Draw, first: int, second: int) -> Motion | None:
    """The motion between two views, where it is one around what both look at."""
    move = motion(draw.index.frames[first].camera, draw.index.frames[second].camera)
    orbits = move is not None and abs(move.roll) <= 2 and move.miss <= 0.05 and move.lens <= 1.02
    return move if orbits else None


def _other_motions(random: Random, yaw: float, pitch: float, zoom: str) -> list[tuple[float, float, str]]:
    """Three motions that differ clearly from one: in one part, in a second, and in both.

    So each value stands in two of four options: what options share does not tell which of them is right.
    """
    other = {
        "yaw": [a for a in (-yaw, yaw + 45, yaw - 45) if abs(a - yaw) >= margins.TURN and abs(a) <= LARGEST],
        "pitch": [-pitch] if 2 * abs(pitch) >= margins.TURN else [],  # most are level: a steeper one would be wrong
        "zoom": [name for name in ZOOM["en"] if name != zoom],
    }
    right = {"yaw": yaw, "pitch": pitch, "zoom": zoom}
    parts = random.sample([part for part in other if other[part]], 2)
    first, second = ({part: random.choice(other[part])} for part in parts)
    return [tuple({**right, **change}.values()) for change in (first, second, {**first, **second})]


def _said(language: str, yaw: float, pitch: float, zoom: str) -> str:
    # Adding 0 makes a negative zero positive.
    return MOVED[language].format(yaw=yaw + 0.0, pitch=pitch + 0.0, zoom=ZOOM[language][zoom])


def _explained(question: Question, words) -> Question:
    """With a sentence after the first line."""
    said, line, rest = question.text.partition("\n")
    return question.with_text(f"{said}{words[question.language]}{line}{rest}")
