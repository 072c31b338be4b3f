"""What the server hands to a process with the model, and what comes back. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = Literal["edit", "generate", "ask", "locate", "reason"]


@dataclass(frozen=True, eq=False)
class Job:
    """One request, checked: the method of `JoyImage` and its arguments, whose pictures are Pillow's and never paths.

    `place` is an object and the words for where it is to go, for which the box is found and drawn first. `units` is
    the work in it, in steps of a picture or in answers, by which times are estimated. Jobs that are alike in
    `together` may share a call.
    """

    kind: Kind
    arguments: dict[str, Any]
    units: int = 1
    place: tuple[str, str] | None = None
    together: Hashable = None


@dataclass(frozen=True, eq=False)
class Result:
    """What a job came to: pictures, boxes, a text, and what else there is to tell."""

    pictures: list[Any] = field(default_factory=list)
    boxes: list[tuple[int, int, int, int]] = field(default_factory=list)
    text: str = ""
    told: dict[str, Any] = field(default_factory=dict)


# What is sent to a process. With None, and when the connection is closed, it ends.
@dataclass(frozen=True, eq=False)
class Start:
    """Jobs that share a call, by their numbers."""

    jobs: dict[int, Job]


@dataclass(frozen=True)
class Cancel:
    """Nobody waits for this job any more."""

    number: int


# What a process sends.
@dataclass(frozen=True)
class Ready:
    """The model is loaded. Its own base size and number of steps."""

    base_size: int
    steps: int


@dataclass(frozen=True)
class Unusable:
    """The model could not be loaded."""

    why: str


@dataclass(frozen=True)
class Stepped:
    """All jobs at work are a step further."""


@dataclass(frozen=True)
class Said:
    """The next piece of a job's answer."""

    number: int
    text: str


@dataclass(frozen=True, eq=False)
class Done:
    number: int
    result: Result


@dataclass(frozen=True)
class Failed:
    """Why a job has no result: `refused` for what it asked for, else for what went wrong in the process."""

    number: int
    why: str
    refused: bool
    code: str | None = None


@dataclass(frozen=True)
class Idle:
    """The call is over, and the next jobs can come."""
