"""Questions about scenes with their answers, as the encoder is trained and judged on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from joyimage.boxes import locate_question
from joyimage.prompts import DEFAULT_QUESTION
from joyimage.spatial import VIEWS

from . import scenes as world
from .render import render
from .scenes import CAR, COLOUR_NAMES, KINDS, SIZE, Scenes
from .tasks import describe

CLEAR_OFFSET = 0.6  # units by which places must differ for a question about them
CLEAR_SIZE = 1.15  # ratio of sizes
CLEAR_VIEW = 15.0  # degrees from one of the eight views
# Paints that scenes do not have: the more colours there are, the less a colour is learned together with a shape.
PAINTS = {
    "navy": (24, 34, 96), "teal": (0, 108, 104), "maroon": (112, 18, 36), "olive": (118, 116, 22),
    "black": (34, 34, 36), "lime": (170, 232, 60), "coral": (250, 132, 108), "lavender": (186, 166, 240),
}  # fmt: skip


@dataclass(frozen=True)
class Question:
    kind: str
    text: str
    answer: str
    box: tuple[int, int, int, int] | None = None  # in pixels, for `locate`


@dataclass(frozen=True)
class Exam:
    """Pictures (N, SIZE, SIZE, 3) uint8 and the questions on each."""

    pixels: np.ndarray
    questions: list[list[Question]]
    scenes: Scenes


def make(count: int, generator: np.random.Generator, test: bool = False, every_object: bool = False) -> Exam:
    """Pictures with every question that can be asked of them about object 0; in tests of a combination never seen.

    With `every_object` the others are asked about too, though nothing twice.
    """
    half = count // 3
    scenes = world.concatenate(
        [world.draw(half, generator, test=test, kind=CAR), world.draw(count - half, generator, test=test)]
    )
    order = generator.permutation(count)
    scenes = scenes[order]
    near = generator.random(count) < 0.5  # a third of all cars stand near one of the named views
    view = generator.integers(len(VIEWS), size=count)
    turned = scenes.with_slot(0, yaw=world.view_yaw(scenes, view) + generator.uniform(-12, 12, count))
    turn = near & (scenes.kind[:, 0] == CAR) & world.valid(turned)
    scenes = scenes.with_slot(0, yaw=np.where(turn, turned.yaw[:, 0], scenes.yaw[:, 0]))
    rendered = render(scenes)
    asked: list[dict[str, Question]] = [{} for _ in range(count)]
    for slot in range(world.SLOTS if every_object else 1):
        facts = Facts(scenes.starting_with(slot), rendered.box(slot), generator)
        for i in np.flatnonzero(scenes.present[:, slot]):
            for question in facts.questions(i):
                asked[i].setdefault(question.text, question)
    return Exam(rendered.pixels, [list(some.values()) for some in asked], scenes)


def painted(exam: Exam, share: float, generator: np.random.Generator) -> Exam:
    """With one object of a `share` of the pictures in a paint of `PAINTS`, and its questions asked of that.

    An object's light is kept: what is white or gray of it, as a car's front, stays so.
    """
    pixels, asked = exam.pixels.copy(), list(exam.questions)
    slots = render(exam.scenes).slots
    for i in np.flatnonzero(generator.random(len(pixels)) < share):
        slot = generator.choice(np.flatnonzero(exam.scenes.present[i]))
        old = COLOUR_NAMES[exam.scenes.colour[i, slot]]
        new = list(PAINTS)[generator.integers(len(PAINTS))]
        colour = np.array(world.COLOURS[old], dtype=np.float32)
        picture = exam.pixels[i].astype(np.float32)
        light = picture @ colour / (colour @ colour)
        off = np.abs(picture - light[..., None] * colour).max(-1)  # from a shade of the old colour
        covered = slots[i, ..., slot] * (off < 40)
        pixels[i] = (picture + (covered * light)[..., None] * (np.array(PAINTS[new]) - colour)).round().clip(0, 255)
        asked[i] = [replace(q, text=q.text.replace(old, new), answer=q.answer.replace(old, new)) for q in asked[i]]
    return Exam(pixels, asked, exam.scenes)


class Facts:
    """What can be asked of each scene, whose objects of slot 0 have these boxes."""

    def __init__(self, scenes: Scenes, boxes: np.ndarray, generator: np.random.Generator):
        self.scenes, self.boxes, self.generator = scenes, boxes, generator
        self.view, self.view_error = world.shown_view(scenes)
        self.middles = np.stack([world.middle(scenes, slot) for slot in range(world.SLOTS)], axis=1)

    def questions(self, i: int) -> Iterator[Question]:
        for ask in (count, colour, shape, relation, nearer, bigger, view, locate, description):
            found = ask(self, i)
            if found is not None:
                yield found

    def other(self, i: int) -> int | None:
        slots = [slot for slot in range(1, world.SLOTS) if self.scenes.present[i, slot]]
        return slots[self.generator.integers(len(slots))] if slots else None

    def pair(self, i: int, other: int) -> tuple[tuple[str, int], tuple[str, int]]:
        """Names and slots of object 0 and another one, in random order."""
        both = [(self.scenes.name(i, 0), 0), (self.scenes.name(i, other), other)]
        return tuple(both[::-1] if self.generator.random() < 0.5 else both)


def count(facts: Facts, i: int) -> Question:
    return Question("count", "How many objects are there?", str(facts.scenes.present[i].sum()))


def colour(facts: Facts, i: int) -> Question | None:
    scenes = facts.scenes
    kind = scenes.kind[i, 0]
    if (scenes.kind[i][scenes.present[i]] == kind).sum() > 1:
        return None
    return Question("colour", f"What color is the {KINDS[kind]}?", COLOUR_NAMES[scenes.colour[i, 0]])


def shape(facts: Facts, i: int) -> Question:
    scenes = facts.scenes
    return Question("shape", f"What shape is the {COLOUR_NAMES[scenes.colour[i, 0]]} object?", KINDS[scenes.kind[i, 0]])


def relation(facts: Facts, i: int) -> Question | None:
    other = facts.other(i)
    if other is None:
        return None
    (a, slot_a), (b, slot_b) = facts.pair(i, other)
    offset = facts.scenes.place[i, slot_a] - facts.scenes.place[i, slot_b]
    axis = int(facts.generator.integers(2))
    if abs(offset[axis]) < CLEAR_OFFSET:
        axis = 1 - axis
    if abs(offset[axis]) < CLEAR_OFFSET:
        return None
    if axis == 0:
        return Question(
            "relation",
            f"Is the {a} to the left or to the right of the {b}?",
            "to the right" if offset[0] > 0 else "to the left",
        )
    return Question(
        "relation", f"Is the {a} in front of the {b} or behind it?", "behind it" if offset[1] > 0 else "in front of it"
    )


def nearer(facts: Facts, i: int) -> Question | None:
    other = facts.other(i)
    if other is None or abs(facts.middles[i, 0, 2] - facts.middles[i, other, 2]) < CLEAR_OFFSET:
        return None
    (a, slot_a), (b, slot_b) = facts.pair(i, other)
    first = facts.middles[i, slot_a, 2] < facts.middles[i, slot_b, 2]
    return Question("nearer", f"Which is nearer to the camera, the {a} or the {b}?", f"the {a if first else b}")


def bigger(facts: Facts, i: int) -> Question | None:
    other = facts.other(i)
    if other is None:
        return None
    (a, slot_a), (b, slot_b) = facts.pair(i, other)
    ratio = facts.scenes.size[i, slot_a] / facts.scenes.size[i, slot_b]
    if max(ratio, 1 / ratio) < CLEAR_SIZE or facts.scenes.kind[i, slot_a] != facts.scenes.kind[i, slot_b]:
        return None
    return Question("bigger", f"Which is bigger, the {a} or the {b}?", f"the {a if ratio > 1 else b}")


def view(facts: Facts, i: int) -> Question | None:
    if facts.scenes.kind[i, 0] != CAR or facts.view_error[i] > CLEAR_VIEW:
        return None
    return Question("view", f"From which side is the {facts.scenes.name(i)} seen?", VIEWS[facts.view[i]])


def locate(facts: Facts, i: int) -> Question:
    name, box = facts.scenes.name(i), tuple(int(side) for side in facts.boxes[i])
    asked = f"the {name}" if facts.generator.random() < 0.5 else name
    return Question("locate", locate_question(asked), box_answer(name, box), box)


def box_answer(name: str, box: tuple[int, int, int, int]) -> str:
    """Qwen3-VL's form, in thousandths of the picture's sides, rounded to tens: finer is less than a pixel."""
    numbers = ", ".join(str(round(side / SIZE * 100) * 10) for side in box)
    return f'[{{"bbox_2d": [{numbers}], "label": "{name}"}}]'


def description(facts: Facts, i: int) -> Question:
    return Question("describe", DEFAULT_QUESTION, describe(facts.scenes, i))


KINDS_OF_QUESTION: tuple[Callable, ...] = (count, colour, shape, relation, nearer, bigger, view, locate, description)
