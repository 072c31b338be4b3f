"""A process with the model, which does one job after the other, or several that share a call."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
from PIL import Image

from ...errors import JoyImageError
from ...pipeline import JoyImage
from ...settings import CANDIDATES
from ...spatial import draw_box
from ..loading import Loading
from ..noting import Noting
from .jobs import Cancel, Done, Failed, Idle, Job, Ready, Result, Said, Start, Stepped, Unusable


class Abandoned(Exception):
    """Nobody waits for the jobs at work."""


def main(connection: Connection, loading: Loading) -> None:
    """Load the model, and do what comes until None does. The first message says whether it loaded."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; who holds the connection decides
    try:
        model = loading.load()
    except (JoyImageError, OSError) as error:
        with suppress(OSError):  # the server is gone
            connection.send(Unusable(str(error)))
        return
    try:
        connection.send(Ready(model.base_size, model.steps))
        while (message := connection.recv()) is not None:
            if isinstance(message, Start):  # what is not is for a job that is done already
                Call(model, connection, message.jobs).run()
                connection.send(Idle())
    except (EOFError, OSError):  # whoever asked is gone
        return


class Call:
    """Jobs at work together: usually one, or several whose pictures share forwards."""

    def __init__(self, model: JoyImage, connection: Connection, jobs: dict[int, Job]):
        self.model, self.connection, self.jobs = model, connection, jobs
        self.cancelled: set[int] = set()
        self.steps = 0

    def run(self) -> None:
        """Send a result or a failure for each job that somebody waits for."""
        try:
            results = self._together() if len(self.jobs) > 1 else None
            for number, job in self.jobs.items():
                if number not in self.cancelled:
                    self._one(number, job, None if results is None else results[number])
        except Abandoned:
            return

    def _one(self, number: int, job: Job, result: Result | None) -> None:
        began = self.steps
        try:
            result = result or self._noted(job, partial(self.say, number))
        except JoyImageError as error:  # after the first step it is the model's fault, such as values that overflow
            self.connection.send(Failed(number, str(error), refused=self.steps == began))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            self.connection.send(Failed(number, OUT_OF_MEMORY, refused=False, code="out_of_memory"))
        except (Abandoned, EOFError, OSError):
            raise
        except Exception as error:  # a fault in here: the log has it all, the client that there is one
            traceback.print_exception(error)
            self.connection.send(Failed(number, FAULT, refused=False))
        else:
            self.connection.send(Done(number, result))

    def _noted(self, job: Job, say: Say) -> Result:
        """The result of one, with what the library warned of."""
        with Noting() as noted:
            result = WAYS[job.kind](self.model, job, self.check, say)
        return with_note(result, job, noted)

    def _together(self) -> dict[int, Result] | None:
        """The results of all by one call, or None where one of them is refused: then each is done by itself."""
        jobs = list(self.jobs.values())
        first = jobs[0].arguments
        many = {name: [job.arguments[name] for job in jobs] for name in EACH if name in first}
        shared = {name: value for name, value in first.items() if name not in many}
        method = getattr(self.model, jobs[0].kind)
        noted = Noting(shared=True)
        try:
            with noted:
                made = method(**shared, **many, batch_size=len(jobs) * first["count"], callback=self.check)
        except (Abandoned, EOFError, OSError):
            raise
        except Exception:  # whichever it is of: by itself each comes to its own end
            return None
        each = first["count"]
        results = [Result(made[i * each : (i + 1) * each]) for i in range(len(jobs))]
        return {
            number: with_note(result, job, noted)
            for result, (number, job) in zip(results, self.jobs.items(), strict=True)
        }

    def check(self, *_step: Any) -> None:
        """After each step: raise `Abandoned` once nobody waits, and `EOFError` where the server is gone."""
        self.steps += 1
        self.connection.send(Stepped())
        self._hear()

    def say(self, number: int, text: str) -> None:
        """The same for each piece of an answer."""
        self.connection.send(Said(number, text))
        self._hear()

    def _hear(self) -> None:
        while self.connection.poll():
            message = self.connection.recv()
            if message is None:
                raise EOFError
            if isinstance(message, Cancel):
                self.cancelled.add(message.number)
        if self.cancelled >= self.jobs.keys():
            raise Abandoned


def with_note(result: Result, job: Job, noted: Noting) -> Result:
    """A picture's result with what was warned of, or what its prompt may have been meant for, as "note"."""
    if job.kind in ("edit", "generate"):
        result.told["note"] = noted.text(job.arguments.get("instruction") or job.arguments.get("prompt") or "")
    return result


# Arguments of jobs that share a call which are given for each of them.
EACH = ("images", "instruction", "prompt", "negative_prompt", "seed", "mask")
OUT_OF_MEMORY = "the device ran out of memory: ask for a smaller size, or for fewer pictures"
FAULT = "the server failed with this request; its log says how"

Check = Callable[..., None]
Say = Callable[[str], None]


def _edit(model: JoyImage, job: Job, check: Check, say: Say) -> Result:
    arguments, told = dict(job.arguments), {}
    if job.place is not None:
        (picture,) = arguments["images"]
        box = model.place(picture, *job.place, on_text=lambda _: say(""))
        arguments["images"], told = [draw_box(picture, box)], {"box": list(box)}
    made = model.edit(**arguments, callback=check)
    return _chosen(made, told)


def _generate(model: JoyImage, job: Job, check: Check, say: Say) -> Result:
    return _chosen(model.generate(**job.arguments, callback=check), {})


def _chosen(pictures: list[Image.Image], told: dict[str, Any]) -> Result:
    """With what the pictures were chosen from."""
    chosen = [picture.info.pop(CANDIDATES) for picture in pictures if CANDIDATES in picture.info]
    return Result(pictures, told=told | ({CANDIDATES: chosen} if chosen else {}))


def _ask(model: JoyImage, job: Job, check: Check, say: Say) -> Result:
    reply = model.reply(**job.arguments, on_text=say)
    return Result(text=reply.text, told={"reply": reply})


def _locate(model: JoyImage, job: Job, check: Check, say: Say) -> Result:
    return Result(boxes=model.locate(**job.arguments, on_text=lambda _: say("")))


def _reason(model: JoyImage, job: Job, check: Check, say: Say) -> Result:
    reasoned = model.reason(**job.arguments, callback=check, on_text=lambda _: say(""))
    cameras = [vars(view.camera) for view in reasoned.views]
    return Result(reasoned.pictures, text=reasoned.text, told={"cameras": cameras, "note": reasoned.note})


WAYS: dict[str, Callable[[JoyImage, Job, Check, Say], Result]] = {
    "edit": _edit, "generate": _generate, "ask": _ask, "locate": _locate, "reason": _reason,
}  # fmt: skip
