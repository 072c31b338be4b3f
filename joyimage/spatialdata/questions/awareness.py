"""Scene-aware reasoning: what a picture shows, how many, where in space, and from which side."""

from __future__ import annotations

import itertools
import json
from collections import Counter

from .. import margins
from ..cameras import field_of_view
from ..sides import SIDES, shown_side
from .asker import Asker
from .draw import Draw, beyond
from .form import Question

PHRASES = {
    "scene_caption": {
        "en": (
            "Describe what this picture shows and how it is arranged.",
            "What is in this picture, and where?",
            "Write a short description of the scene.",
        ),
        "zh": ("请描述这张图里有什么，以及它们如何摆放。", "图中有哪些物体？各在什么位置？", "请简要描述这个场景。"),
    },
    "counting": {
        "en": (
            "How many objects of the kind “{tag}” does the picture show?",
            "Count every {tag} in the picture. How many are there?",
            "What is the number of things called “{tag}” in this picture?",
        ),
        "zh": ("图中有几个{tag}？", "请数一数图里{tag}的数量。", "这张图里一共有多少个{tag}？"),
    },
    "grounding_3d": {
        "en": (
            "Find every {tags} in 3-D. The field of view is {horizontal:.1f}° by {vertical:.1f}°. {format}",
            "Give the 3-D boxes of every {tags}; the camera sees {horizontal:.1f}° across and {vertical:.1f}° down. "
            "{format}",
            "Locate every {tags} in the camera's space (field of view {horizontal:.1f}° x {vertical:.1f}°). {format}",
        ),
        "zh": (
            "请给出图中每个{tags}的三维框。水平视角{horizontal:.1f}°，垂直视角{vertical:.1f}°。{format}",
            "在相机坐标系中定位每个{tags}（视角{horizontal:.1f}° × {vertical:.1f}°）。{format}",
            "每个{tags}在三维空间中的位置是什么？视角为{horizontal:.1f}°（横）和{vertical:.1f}°（纵）。{format}",
        ),
    },
    "orientation": {
        "en": (
            "Which side of {a} does the camera see?",
            "From which of its eight sides is {a} shown?",
            "What view of {a} is this: which side of it faces the camera?",
        ),
        "zh": (
            "相机看到的是{a}的哪一面？",
            "图中{a}以八个方向中的哪一面朝向相机？",
            "这是{a}的哪个视角：哪一面对着相机？",
        ),
    },
}
BOXES = {
    "en": (
        "Answer with a JSON list, the smallest z first, of objects with “label” and “bbox_3d”: centre x, y, z and "
        "extents in metres (x right, y down, z forward), and three angles in radians about z, the turned x, the turned "
        "y."
    ),
    "zh": (
        "请用JSON列表回答，按z由小到大，每项含“label”和“bbox_3d”：中心x、y、z与三个边长，单位为米（x向右，y向下，z向前），"
        "以及依次绕z、转动后的x、转动后的y的三个角，单位为弧度。"
    ),
}
SHOWS = {
    "en": ("The picture shows {list}.", "There is {list} in the picture."),
    "zh": ("图中有{list}。", "画面里有{list}。"),
}
NEAREST = {"en": "The {a} is nearest to the camera.", "zh": "离相机最近的是{a}。"}
ACROSS = {"en": "From left to right, they are the {list}.", "zh": "从左到右依次是{list}。"}
TALLEST = {"en": "The {a} is the tallest.", "zh": "最高的是{a}。"}
SIDE_WORDS = {
    "en": SIDES,
    "zh": ("正面", "右前面", "右侧面", "右后面", "后面", "左后面", "左侧面", "左前面"),
}


def scene_caption(draw: Draw) -> list[Question]:
    """What a picture shows, what is nearest, the order from left to right, the tallest, as far as these are clear."""
    index, view = draw.index, draw.random.randrange(len(draw.index.frames))
    things = draw.random.sample(index.clear[view], len(index.clear[view]))
    if not things or not index.complete[view] or not all(index.names[n] for n in things):
        return []
    asker = Asker(draw, (view,))
    language = asker.language
    words = {n: asker.bare(n) for n in things}
    listed = asker.list([f"{_article(word)} {word}" if language == "en" else word for word in words.values()])
    said = [draw.random.choice(SHOWS[language]).format(list=listed)]
    if len(things) > 1:
        said += _arrangement(draw, view, words, asker)
    answer = (" " if language == "en" else "").join(said)
    return [asker.open(PHRASES, "scene_caption", answer, {"objects": draw.numbers(sorted(things)), "said": len(said)})]


def _arrangement(draw: Draw, view: int, words: dict[int, str], asker: Asker) -> list[str]:
    index, language, said = draw.index, asker.language, []
    # By distance, as the words say: away from the middle of a wide picture, depth has another order.
    first, second = sorted(words, key=lambda n: index.close[view, n])[:2]
    if beyond(index.close[view, first], index.close[view, second], margins.DEPTH * margins.SPARE):
        said.append(NEAREST[language].format(a=words[first]))
    middle = {n: sum(index.sights[view, n].box[::2]) / 2 for n in words}
    across = sorted(words, key=lambda n: middle[n])
    if all(middle[b] - middle[a] >= margins.SIDE for a, b in itertools.pairwise(across)):
        said.append(ACROSS[language].format(list=asker.list([words[n] for n in across])))
    tall = {n: float(index.bottom_top[n, 1] - index.bottom_top[n, 0]) for n in words}
    first, second = sorted(words, key=lambda n: -tall[n])[:2]
    if tall[first] - tall[second] >= margins.HEIGHT * tall[first]:
        said.append(TALLEST[language].format(a=words[first]))
    return said


def _article(word: str) -> str:
    return "an" if word[0].casefold() in "aeiou" else "a"


def counting(draw: Draw) -> list[Question]:
    """How many of a kind a picture shows, each of them visible: one and several in turn, as most often it is two."""
    index, view = draw.index, draw.random.randrange(len(draw.index.frames))
    shown = Counter(index.things[n].category for n in index.shown[view])
    clear = Counter(index.things[n].category for n in index.clear[view])
    alone = draw.turn("alone", 2) == 0
    tags = [tag for tag, count in clear.items() if count == shown[tag] and (count == 1) == alone]
    if not tags:
        return []
    tag = draw.random.choice(tags)
    count = clear[tag]
    asker = Asker(draw, (view,), ("open", "choice"), 4)
    # Four in a row that are the same for each of them: where a row begins would tell something.
    lowest = count - (count - 1) % 4
    wrong = [str(n) for n in range(lowest, lowest + 4) if n != count]
    about = {"objects": draw.numbers(_of(draw, view, tag)), "tag": tag, "side": count}
    return [asker.either(PHRASES, "counting", str(count), wrong, about, tag=asker.tag(tag))]


def _of(draw: Draw, view: int, tag: str) -> list[int]:
    return [n for n in draw.index.clear[view] if draw.index.things[n].category == tag]


def grounding_3d(draw: Draw) -> list[Question]:
    """The boxes, in the camera's frame, of all objects of one to three kinds that a picture shows."""
    index, view = draw.index, draw.random.randrange(len(draw.index.frames))
    clear, shown = set(index.clear[view]), index.shown[view]
    hidden = {index.things[n].category for n in shown if n not in clear}
    tags = sorted({index.things[n].category for n in clear} - hidden)
    if not tags:
        return []
    tags = draw.random.sample(tags, draw.random.randint(1, min(3, len(tags))))
    camera = index.frames[view].camera
    inwards = _inverse(camera.pose)
    boxes = {n: box.moved(inwards) for n in clear if index.things[n].category in tags and (box := index.things[n].box)}
    things = sorted(boxes, key=lambda n: boxes[n].centre[2])
    ahead = [float(boxes[n].centre[2]) for n in things]
    if not all(b >= a * margins.DEPTH**0.5 for a, b in itertools.pairwise(ahead)):
        return []
    asker = Asker(draw, (view,))
    answer = [
        {"label": index.things[n].category, "bbox_3d": [round(value, 3) for value in boxes[n].numbers]} for n in things
    ]
    horizontal, vertical = field_of_view(camera.intrinsic, camera.width, camera.height)
    words = {"horizontal": horizontal, "vertical": vertical, "format": BOXES[asker.language]}
    listed = asker.list([asker.tag(tag) for tag in tags])
    about = {"objects": draw.numbers(things), "tags": tuple(tags)}
    text = json.dumps(answer, ensure_ascii=False)
    return [asker.open(PHRASES, "grounding_3d", text, about, tags=listed, **words)]


def _inverse(pose):
    inwards = pose.copy()
    inwards[:3, :3] = pose[:3, :3].T
    inwards[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return inwards


def orientation(draw: Draw) -> list[Question]:
    """Which of its eight sides an object with a front shows to the camera."""
    index, view = draw.index, draw.random.randrange(len(draw.index.frames))
    things = [n for n in index.clear[view] if index.things[n].faces]
    if not things:
        return []
    thing = draw.random.choice(things)
    box = index.things[thing].box
    if box is None or (side := shown_side(box, index.frames[view].camera)) is None:
        return []
    asker = Asker(draw, (view,), ("open", "choice"), 4)
    words = SIDE_WORDS[asker.language]
    wrong = draw.random.sample([word for i, word in enumerate(words) if i != side], 3)
    about = {"objects": draw.numbers((thing,)), "side of 8": side}
    return [asker.either(PHRASES, "orientation", words[side], wrong, about, a=asker.name(thing))]
