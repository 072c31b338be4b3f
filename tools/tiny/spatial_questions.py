"""Measure questions on drawn scenes, whose truth is known: `python -m tools.tiny.spatial_questions FOLDER`.

Scenes are written to the folder where they are missing. Each sub-task is asked until it has `--least` questions.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
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


def measure(scenes: Iterable[Scene], tasks: Sequence[str], least: int, quota: int = QUOTA, seed: int = 0) -> dict:
    """Counts, wrong and unclear answers, balance and seconds, by sub-task, until each has `least` questions."""
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
