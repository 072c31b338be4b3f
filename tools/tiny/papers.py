"""Question papers for the closed loop: edits to be judged, pictures to be compared with a text, views to be planned
and to be answered from. Each paper's rows have the same number of pictures and the same system text.

What is judged are true pictures, inputs that nobody edited, and the bundled editor's own attempts, whose marks come
from the scenes' truth (`judge`): those are the slips that a judge has to see.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from joyimage import JoyImage, prompts, spatial
from joyimage.spatial import VIEWS

from . import judge
from . import scenes as world
from .evaluate import condition, outputs
from .questions import CLEAR_OFFSET, CLEAR_VIEW, Question
from .render import Rendered, render
from .scenes import CAR, COLOUR_NAMES, KINDS, SLOTS, Scenes
from .tasks import RELATIONS, TASKS, Pairs, article, describe

UNTOUCHED = 27.0  # decibels of what an edit must leave alone
EDITS = tuple(task for task in TASKS if task != "generate")
SIDES = {"right": 90, "left": -90}  # yaws of the sides that a question asks from
COUNTED_FROM = 60  # yaw from which hidden objects are looked for
HIDDEN, FOUND = 0.12, 0.5  # shares of an object that are seen of it at most before, and at least after the camera moved
LOWEST = 16.0, 26.0  # elevations at which a small object can stand behind a large one
YES, NO = prompts.YES_OR_NO


@dataclass(frozen=True)
class Paper:
    """Rows of pictures (N, k, SIZE, SIZE, 3) uint8, each with its questions."""

    pictures: np.ndarray
    questions: list[list[Question]]
    system: str = prompts.CHAT_SYSTEM

    @staticmethod
    def joined(papers: list[Paper]) -> Paper:
        pictures = np.concatenate([paper.pictures for paper in papers])
        return Paper(pictures, [some for paper in papers for some in paper.questions], papers[0].system)


def attempts(model: JoyImage, pairs: Pairs, **options) -> tuple[np.ndarray, np.ndarray]:
    """The editor's pictures of pairs, and whether all in them is right, (N,)."""
    output = outputs(model, condition(model, pairs), **options)
    return output, right(pairs, output)


def right(pairs: Pairs, output: np.ndarray) -> np.ndarray:
    """Whether every judge says yes, (N,), and what was to stay has stayed."""
    verdict = judge.verdicts(pairs, output)
    good = np.ones(len(output), dtype=bool)
    for name, values in verdict.items():
        if name == "yaw direction":
            good[pairs.details["yaw"] != 0] &= values
        elif name == "PSNR":
            good &= values >= 18.0
        else:
            good &= values if values.dtype == bool else values >= UNTOUCHED
    return good


def judged_edits(pairs: Pairs, results: np.ndarray, good: np.ndarray, generator: np.random.Generator) -> Paper:
    """Of each pair whether a result (N, SIZE, SIZE, 3) shows the edit: what was asked, and two others that were not."""
    ask = prompts.edit_question
    count = len(pairs.references)
    questions = []
    for i, text in enumerate(pairs.texts):
        own = Question("edit", ask(text, count), YES if good[i] else NO)
        others = [Question("edit", ask(other, count), NO) for other in other_edits(pairs, i, generator)]
        questions.append([own, own, *others[:1]] if good[i] else [own, own])
    return Paper(np.stack([*pairs.references, results], axis=1), questions)


def other_edits(pairs: Pairs, i: int, generator: np.random.Generator) -> list[str]:
    """Instructions for a pair's first picture that lead elsewhere, in random order."""
    scenes, text = pairs.before, pairs.texts[i]
    names = [scenes.name(i, slot) for slot in range(SLOTS) if scenes.present[i, slot]]
    own = pairs.after.name(i) if pairs.task in ("add", "compose") else scenes.name(i)
    found = []
    others = [name for name in names if name != own]
    if pairs.task == "camera":
        d = pairs.details
        yaw, pitch, zoom = float(d["yaw"][i]), float(d["pitch"][i]), str(list(world.ZOOM)[d["zoom"][i]])
        if yaw:
            found.append(spatial.camera(-yaw, pitch, zoom))
        found += [spatial.camera(yaw + 45 * generator.choice((-1, 1)), pitch, zoom)]
        found += [spatial.camera(yaw, pitch, other) for other in world.ZOOM if other != zoom]
    elif pairs.task == "rotate":
        view = int(pairs.details["view"][i])
        found += [spatial.rotate_object(own, VIEWS[v]) for v in range(len(VIEWS)) if v != view]
    elif pairs.task in ("add", "compose"):
        words = list(RELATIONS)
        found += [text.replace(words[pairs.details["relation"][i]], word) for word in words if word not in text]
        found += [text.replace(own, another(own, generator))]
    elif pairs.task == "recolour":
        new = COLOUR_NAMES[pairs.after.colour[i, 0]]
        found += [text.replace(f"to {new}", f"to {colour}") for colour in COLOUR_NAMES if colour != new]
    found += [text.replace(own, other) for other in others]
    found += [f"Remove the {name}." for name in names if pairs.task != "remove" or name != own]
    found = [other for other in found if other != text]
    return [found[k] for k in generator.permutation(len(found))]


def another(name: str, generator: np.random.Generator) -> str:
    """The name of a solid that differs in colour or kind, of a combination that training shows."""
    colour, kind = name.split()
    while True:
        other = int(generator.integers(len(COLOUR_NAMES))), int(generator.integers(len(KINDS)))
        other = (other[0], KINDS.index(kind)) if generator.random() < 0.5 else (COLOUR_NAMES.index(colour), other[1])
        found = f"{COLOUR_NAMES[other[0]]} {KINDS[other[1]]}"
        if found != name and not world.held_out(*other):
            return found


def judged_pictures(pairs: Pairs, results: np.ndarray, good: np.ndarray, generator: np.random.Generator) -> Paper:
    """Whether pictures show what a text says: their own, and one that says something else."""
    ask = prompts.picture_question
    questions = []
    for i, text in enumerate(pairs.texts):
        own = Question("picture", ask(text), YES if good[i] else NO)
        wrong = Question("picture", ask(misdescribed(pairs.after, i, generator)), NO)
        questions.append([own, own, wrong] if good[i] else [own])
    return Paper(results[:, None], questions)


def misdescribed(scenes: Scenes, i: int, generator: np.random.Generator) -> str:
    """The description of a scene with one solid changed, two exchanged, or one left out."""
    slots = np.flatnonzero(scenes.present[i])
    text, names = describe(scenes, i), [scenes.name(i, slot) for slot in slots]
    if len(slots) > 1 and generator.random() < 0.4:
        if generator.random() < 0.3:
            return describe(scenes.with_slot(int(generator.choice(slots)), present=False), i)
        a, b = generator.choice(len(names), 2, replace=False)
        swapped = {article(names[a]): article(names[b]), article(names[b]): article(names[a])}
        return exchanged(text, swapped)
    name = names[generator.integers(len(names))]
    return exchanged(text, {article(name): article(another(name, generator))})


def exchanged(text: str, words: dict[str, str]) -> str:
    """Text with some words exchanged for others, all at once, its first letter a capital."""
    text = text[0].lower() + text[1:]
    for k, old in enumerate(words):
        text = text.replace(old, f"<{k}>")
    for k, new in enumerate(words.values()):
        text = text.replace(f"<{k}>", new)
    return text[0].upper() + text[1:]


def named(scenes: Scenes, pictures: np.ndarray) -> Paper:
    """The objects of pictures, from left to right."""
    questions = []
    for i in range(len(scenes)):
        slots = np.flatnonzero(scenes.present[i])
        one = scenes[i : i + 1]
        slots = sorted(slots, key=lambda slot: world.middle(one, slot)[0, 0])
        answer = ", ".join(scenes.name(i, slot) for slot in slots)
        questions.append([Question("names", prompts.NAMES_QUESTION, answer)])
    return Paper(pictures[:, None], questions)


@dataclass(frozen=True)
class Reasoning:
    """Questions that a view answers: the camera motion, and of each scene the question and its answer."""

    before: Scenes
    after: Scenes
    motion: spatial.Camera
    questions: list[list[Question]]

    def __getitem__(self, index: slice) -> Reasoning:
        return replace(self, before=self.before[index], after=self.after[index], questions=self.questions[index])

    def paper(self, first: np.ndarray, view: np.ndarray) -> Paper:
        """Asked with the view: pictures (N, SIZE, SIZE, 3) before and after the camera moved."""
        told = [prompts.described_view(self.motion.yaw, self.motion.pitch, self.motion.zoom)]
        asked = [[replace(q, text=prompts.question_with_views(q.text, told)) for q in some] for some in self.questions]
        return Paper(np.stack([first, view], axis=1), asked)

    def plans(self, first: np.ndarray, generator: np.random.Generator) -> Paper:
        """The views to ask for: this one for these questions, and none for what the picture itself shows."""
        asked = []
        for i, some in enumerate(self.questions):
            views = int(generator.integers(1, 4))
            wanted = json.dumps([{"yaw": int(self.motion.yaw), "pitch": 0, "zoom": "unchanged"}])
            asked_of = some[generator.integers(len(some))].text
            row = [Question("plan", prompts.planning_question(asked_of, views), wanted)]
            slot = int(generator.choice(np.flatnonzero(self.before.present[i])))
            plain = f"What shape is the {COLOUR_NAMES[self.before.colour[i, slot]]} object?"
            row.append(Question("plan", prompts.planning_question(plain, views), '"none"'))
            asked.append(row)
        return Paper(first[:, None], asked, prompts.PLANNING_SYSTEM)


def seen_from_a_side(count: int, generator: np.random.Generator, side: str, test: bool = False) -> Reasoning:
    """Which of two solids is on the left, and what is seen of a car, for one who stands at a side of the scene."""

    def propose(n: int) -> tuple[np.ndarray, Scenes]:
        numbers = world.NUMBERS * [0, 1, 1, 0]
        kind = CAR if generator.random() < 0.5 else None
        scenes = world.draw(n, generator, test=test, kind=kind, numbers=numbers)
        return world.valid(turned(scenes, SIDES[side])), scenes

    before = collected(count, propose, generator)
    after = turned(before, SIDES[side])
    x = np.stack([world.middle(after, slot)[:, 0] for slot in range(SLOTS)], axis=1)
    view, error = world.shown_view(after)
    questions = []
    for i in range(count):
        slots = np.flatnonzero(before.present[i])
        a, b = generator.choice(slots, 2, replace=False)
        some = []
        if abs(after.place[i, a, 1] - after.place[i, b, 1]) >= CLEAR_OFFSET and abs(x[i, a] - x[i, b]) > 4:
            text = f"Seen from the {side}, is the {before.name(i, a)} to the left or to the right of the "
            some.append(
                Question("side", f"{text}{before.name(i, b)}?", f"to the {'right' if x[i, a] > x[i, b] else 'left'}")
            )
        if before.kind[i, 0] == CAR and error[i] <= CLEAR_VIEW:
            text = f"Seen from the {side}, from which side is the {before.name(i)} seen?"
            some.append(Question("car's side", text, VIEWS[view[i]]))
        questions.append(some)
    keep = [i for i in range(count) if questions[i]]
    motion = spatial.Camera(SIDES[side])
    return Reasoning(before[keep], after[keep], motion, [questions[i] for i in keep])


def hiding(count: int, generator: np.random.Generator, test: bool = False) -> Reasoning:
    """How many objects there are, in scenes of which in one half a small solid stands hidden behind a large one."""
    tucked = collected(count // 2, lambda n: _tucked(n, generator, test), generator)
    plain = collected(count - count // 2, lambda n: _plain(n, generator, test), generator)
    before = world.concatenate([tucked, plain])[generator.permutation(count)]
    text = "How many objects are there?"
    questions = [[Question("hidden", text, str(before.present[i].sum()))] for i in range(count)]
    return Reasoning(before, turned(before, COUNTED_FROM), spatial.Camera(COUNTED_FROM), questions)


def _from_low(n: int, generator: np.random.Generator, test: bool, numbers: np.ndarray) -> Scenes:
    """Scenes whose first object is large, seen from where it can hide a small one."""
    scenes = world.draw(n, generator, test=test, numbers=numbers)
    camera = scenes.camera.copy()
    camera[:, 1] = generator.uniform(*LOWEST, n)
    return replace(scenes, camera=camera).with_slot(0, size=generator.uniform(0.9, 1.0, n))


def _plain(n: int, generator: np.random.Generator, test: bool) -> tuple[np.ndarray, Scenes]:
    scenes = _from_low(n, generator, test, world.NUMBERS * [2, 1, 1, 0])
    return _shown_later(scenes) & ((visible(scenes) >= FOUND) | ~scenes.present).all(axis=1), scenes


def _tucked(n: int, generator: np.random.Generator, test: bool) -> tuple[np.ndarray, Scenes]:
    """The last object of each stands behind the first."""
    scenes = _from_low(n, generator, test, world.NUMBERS * [0, 1, 1, 0])
    rows, last = np.arange(n), scenes.count - 1
    scenes = replace(scenes, size=np.where(np.arange(SLOTS) == last[:, None], 0.5, scenes.size))
    gap = scenes.radius[:, 0] + scenes.radius[rows, last] + generator.uniform(0.05, 0.5, n)
    place = scenes.place.copy()
    place[rows, last] = place[:, 0] + np.stack([generator.uniform(-0.2, 0.2, n), gap], axis=1)
    scenes = replace(scenes, place=place)
    hidden = np.arange(SLOTS) == last[:, None]
    seen = visible(scenes)
    good = np.where(hidden, seen <= HIDDEN, (seen >= FOUND) | ~scenes.present).all(axis=1)
    return _shown_later(scenes) & good, scenes


def _shown_later(scenes: Scenes) -> np.ndarray:
    """Whether all is in sight once the camera has moved, (N,)."""
    after = turned(scenes, COUNTED_FROM)
    return inside(scenes) & inside(after) & ((visible(after) >= FOUND) | ~scenes.present).all(axis=1)


def turned(scenes: Scenes, yaw: float) -> Scenes:
    n = len(scenes)
    same = np.full(n, list(world.ZOOM).index("unchanged"))
    return replace(scenes, camera=world.moved_camera(scenes.camera, np.full(n, yaw), np.zeros(n), same))


def inside(scenes: Scenes) -> np.ndarray:
    """Whether all objects are apart and in the picture, (N,), whatever they hide."""
    found = world.boxes(scenes)
    good = (found[..., :2] >= 0).all(-1) & (found[..., 2:] <= world.SIZE).all(-1)
    apart = np.ones(len(scenes), dtype=bool)
    for i in range(SLOTS):
        for j in range(i):
            both = scenes.present[:, i] & scenes.present[:, j]
            gap = np.linalg.norm(scenes.place[:, i] - scenes.place[:, j], axis=-1)
            apart &= ~both | (gap > world.APART * (scenes.radius[:, i] + scenes.radius[:, j]))
            apart &= ~both | (scenes.colour[:, i] != scenes.colour[:, j])
    return (good | ~scenes.present).all(axis=1) & apart


def visible(scenes: Scenes) -> np.ndarray:
    """The share of each object that others leave to be seen, (N, SLOTS)."""
    together = render(scenes).slots.sum((1, 2))
    alone = np.zeros_like(together)
    for slot in range(SLOTS):
        single = replace(scenes, present=scenes.present & (np.arange(SLOTS) == slot))
        alone[:, slot] = render(single).slots[..., slot].sum((1, 2))
    return together / np.maximum(alone, 1e-6)


def collected(
    count: int, propose: Callable[[int], tuple[np.ndarray, Scenes]], generator: np.random.Generator
) -> Scenes:
    parts, missing = [], count
    while missing > 0:
        good, scenes = propose(int(np.clip(8 * missing, 64, 400)))
        parts.append(scenes[np.flatnonzero(good)[:missing]])
        missing -= len(parts[-1])
    return world.concatenate(parts)[generator.permutation(count)]


def viewed(model: JoyImage, pictures: np.ndarray, motion: spatial.Camera, **options) -> np.ndarray:
    """What the editor makes of pictures (N, SIZE, SIZE, 3) when the camera moves."""
    images = [[Image.fromarray(picture)] for picture in pictures]
    size = pictures.shape[1:3]
    return outputs(model, model.condition(images, [motion.text] * len(images), size=size), **options)


def rendered_pair(reasoning: Reasoning) -> tuple[Rendered, Rendered]:
    return render(reasoning.before), render(reasoning.after)


def edits(model: JoyImage, count: int, generator: np.random.Generator, **options) -> Iterator[tuple[str, Paper]]:
    """For each task `count` pairs with their true pictures, the editor's, and inputs that stayed as they were."""
    for task in EDITS:
        pairs = TASKS[task](count, generator)
        made, good = attempts(model, pairs, **options)
        yes, no = np.ones(count, dtype=bool), np.zeros(count, dtype=bool)
        parts = [judged_edits(pairs, pairs.target, yes, generator), judged_edits(pairs, made, good, generator)]
        few = slice(0, count // 4)
        undone = judged_edits(pairs, pairs.references[0], no, generator)
        parts.append(Paper(undone.pictures[few], undone.questions[few]))
        print(f"{task}: {good.mean():.2f} of the editor's are right", flush=True)
        yield task, Paper.joined(parts)
