"""Measure questions on drawn scenes, whose truth is known: `python -m tools.tiny.spatial_questions FOLDER`.

Scenes are written to the folder where they are missing. Each sub-task is asked until it has `--least` questions.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from joyimage.spatialdata.checking.truth import Truth
from joyimage.spatialdata.index import index_scene
from joyimage.spatialdata.questions.evening import Evening, balance, sides
from joyimage.spatialdata.questions.form import Asking, Question
from joyimage.spatialdata.readers import read_scenes
from joyimage.spatialdata.scenes import Scene
from joyimage.spatialdata.tasks import TASKS, check, make_questions

from . import captures

CROWDED = (0.05, 0.15, 0.3, 0.5)  # of the scenes that are written, the shares with one to four objects
QUOTA = 12  # questions of a sub-task in a scene
WORDS = re.compile(r"[A-Za-z0-9.-]+|[^\x00-\x7f]")  # each Chinese character is one


def alike(options: Sequence[str]) -> list[int]:
    """How many words each option has in common with the others."""
    words = [Counter(WORDS.findall(option)) for option in options]
    return [sum((one & other).total() for j, other in enumerate(words) if j != i) for i, one in enumerate(words)]


def lengths(options: Sequence[str]) -> list[int]:
    return list(map(len, options))


# Ways to guess by the options alone.
GUESSES = {
    "most alike": (alike, max), "least alike": (alike, min), "longest": (lengths, max), "shortest": (lengths, min),
}  # fmt: skip


def guessed(questions: Iterable[Question]) -> dict[str, float]:
    """By how much each way to guess is right more often than chance. Ties count in parts."""
    choices = [question for question in questions if question.options]
    gains = Counter()
    for question in choices:
        for name, (values_of, extreme) in GUESSES.items():
            values = values_of(question.options)
            taken = [i for i, value in enumerate(values) if value == extreme(values)]
            right = question.options.index(question.said) in taken
            gains[name] += right / len(taken) - 1 / len(values)
    return {name: round(gains[name] / len(choices), 3) for name in GUESSES if choices}


def learned(questions: Iterable[Question]) -> dict[str, float]:
    """What the texts of half of the scenes tell about those of the other half, without a picture.

    frequent option: by how much the option whose parts were right most often, beside these others, or the same
    direction, is right more often than chance. frequent answer: the share of the open questions with the answer that
    was most frequent.
    """
    halves = [list(one) for _, one in itertools.groupby(sorted(questions, key=_half), _half)]
    if len(halves) < 2:
        return {}
    seen, right, answers = Counter(), Counter(), Counter()
    for question in halves[0]:
        answers[question.answer] += not question.options
        for option, parts in zip(question.options, _parts(question), strict=True):
            seen.update(parts)
            right.update(parts if option == question.said else ())
    choices = [question for question in halves[1] if question.options]
    given = [question.answer for question in halves[1] if not question.options]
    gain = sum(_gained(question, seen, right) for question in choices)
    told = {"frequent option": gain / len(choices)} if choices else {}
    if given and answers.total():
        told["frequent answer"] = given.count(answers.most_common(1)[0][0]) / len(given)
    return {name: round(value, 3) for name, value in told.items()}


def _half(question: Question) -> int:
    return zlib.crc32(question.scene.encode()) % 2


def _parts(question: Question) -> list[list[tuple]]:
    """Of each option its parts, each with what stands in that place in all; of directions, with the one given."""
    rows = [re.split("[,，]", option) for option in question.options]
    beside = [tuple(sorted(set(column))) for column in itertools.zip_longest(*rows, fillvalue="")]
    given = question.about.get("given")
    return [[(part, beside[i] if given is None else given) for i, part in enumerate(row)] for row in rows]


def _gained(question: Question, seen: Counter, right: Counter) -> float:
    scores = [math.prod((right[part] + 0.5) / (seen[part] + 2) for part in parts) for parts in _parts(question)]
    taken = [i for i, score in enumerate(scores) if math.isclose(score, max(scores))]
    return (question.options.index(question.said) in taken) / len(taken) - 1 / len(scores)


def measure(scenes: Iterable[Scene], tasks: Sequence[str], least: int, quota: int = QUOTA, seed: int = 0) -> dict:
    """Counts, wrong and unclear answers, balance, what texts tell and seconds, by sub-task, until each has `least`
    questions.
    """
    asking = Asking(seed)
    questions: dict[str, list[Question]] = {task: [] for task in tasks}
    verdicts = {task: Counter() for task in tasks}
    seconds = dict.fromkeys(tasks, 0.0)
    used, index_seconds = 0, 0.0
    evening = {task: Evening() for task in tasks}
    for place, scene in enumerate(scenes):
        missing = [task for task in tasks if len(questions[task]) < least]
        if not missing:
            break
        start = time.process_time()
        index = index_scene(scene)
        index_seconds += time.process_time() - start
        truth, used = Truth(scene), place + 1
        for task in missing:
            start = time.process_time()
            made = list(make_questions(index, {task: quota}, asking, place))
            seconds[task] += time.process_time() - start
            made = [question for question in made if evening[task].takes(question)]
            questions[task] += made
            for question in made:
                verdict = check(truth, question)
                verdicts[task].update(wrong=not verdict.right, unclear=not verdict.clear)
    asked = sum(map(len, questions.values()))
    return {
        "scenes": used,
        "questions": asked,
        "questions a second and core": round(asked / max(sum(seconds.values()), 1e-9)),
        "index, ms a scene": round(1000 * index_seconds / max(used, 1), 1),
        "tasks": {
            task: {
                "questions": len(made),
                "wrong": verdicts[task]["wrong"],
                "unclear": verdicts[task]["unclear"],
                "a second": round(len(made) / max(seconds[task], 1e-9)),
                **balance(side for question in made for side in sides(question)).get(task, {}),
                **guessed(made),
                **learned(made),
            }
            for task, made in questions.items()
        },
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=300, help="scenes")
    parser.add_argument("--least", type=int, default=1000, help="questions of each sub-task")
    parser.add_argument("--quota", type=int, default=QUOTA, help="questions of a sub-task in a scene, at most")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    captures.make(options.folder, options.count, options.seed, shares=CROWDED)
    scenes = itertools.islice(read_scenes(options.folder), options.count)
    found = measure(scenes, options.tasks, options.least, options.quota, options.seed)
    print(json.dumps(found, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
