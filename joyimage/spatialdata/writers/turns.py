"""What formats share: a sample as turns of a conversation, and what is told of it besides."""

from __future__ import annotations

import csv
import json
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...errors import JoyImageError
from ..records import Picture, Sample, Shown, Turn

BROKEN = (
    OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, csv.Error, tarfile.TarError,
)  # fmt: skip
PLACE = "<image>"  # of a picture, at the start of what is asked first


def conversation(sample: Sample) -> list[dict[str, str]]:
    """Turns of a human and gpt; the first begins with a place for each picture, each in a line of its own."""
    said: list[dict[str, str]] = []
    for turn in sample.turns:
        places = f"{PLACE}\n" * len(sample.pictures) if not said else ""
        said.append({"from": "human", "value": f"{places}{turn.text}"})
        said.append({"from": "gpt", "value": turn.answer})
    return said


def meta(sample: Sample) -> dict[str, Any]:
    """What is known of a sample besides its conversation, in JSON's types, with the same keys for all."""
    turns = []
    for turn in sample.turns:
        values = asdict(turn)
        del values["text"], values["answer"]
        turns.append({**values, "sides": [{"of": kind, "value": value} for kind, value in turn.sides]})
    return {"scene": sample.scene, "pictures": [asdict(each) for each in sample.shown], "turns": turns}


def sample_of(
    key: str, source: str, pictures: Sequence[Picture], said: Sequence[dict[str, str]], told: dict[str, Any]
) -> Sample:
    """A sample from `conversation` and `meta`."""
    texts = [turn["value"] for turn in said]
    texts[0] = texts[0].removeprefix(f"{PLACE}\n" * len(pictures))
    turns = []
    for number, values in enumerate(told["turns"]):
        sides = [(side["of"], side["value"]) for side in values["sides"]]
        own = {"text": texts[2 * number], "answer": texts[2 * number + 1], "sides": sides}
        turns.append(Turn.of({**values, **own}))
    shown = tuple(map(Shown.of, told["pictures"]))
    return Sample(key, told["scene"], source, tuple(pictures), shown, tuple(turns))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Where a file is read: says as a `JoyImageError` that it is not as it was written."""
    try:
        yield
    except JoyImageError:
        raise
    except BROKEN as error:
        raise JoyImageError(f"{path} is no data set as `joyimage data make` writes it ({error!r:.200})") from error


def compact(values: Any) -> str:
    """JSON in one line."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))
