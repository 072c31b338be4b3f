"""Results of rows: what a run is given, and what is in its folder already, of this command or of another."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from ..errors import JoyImageError, shortened
from ..images import read_parameters
from .addresses import shown
from .jobs import ASK, Job
from .limits import Limits
from .manifest import DONE, FAILED, FOLDER, Record

if TYPE_CHECKING:
    from ..pipeline import JoyImage
    from .making import Maker

RUN = "run"  # a file in the folder of results by which a worker sees that it is the command's
TAG = "batch"  # the key of a picture's parameters under which its row, fingerprint and seconds stand


@dataclass(frozen=True)
class Making:
    """What all workers of a run get. `load` gives the model; `model` and `networks` are what pictures tell of it."""

    load: Callable[[], JoyImage]
    folder: Path
    run: str = ""  # what the folder must hold, so that a worker knows it from one of the same path
    model: str = "tiny"
    networks: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 1
    redo: bool = False
    limits: Limits = field(default_factory=Limits)  # of each row

    def __call__(self) -> Maker:
        """A worker's model. Raises `JoyImageError` where the folder is not the one that the command writes."""
        marker = self.folder / FOLDER / RUN
        if not marker.is_file() or marker.read_text(encoding="utf-8") != self.run:
            raise JoyImageError(
                f"{self.folder} on {socket.gethostname()} is not the folder of this command: "
                "give one that all machines share under one path"
            )
        from .making import Maker  # here: the command itself needs no torch

        return Maker(self, self.load(), f"{socket.gethostname()}:{os.getpid()}")

    def fingerprint(self, job: Job) -> str:
        return job.fingerprint({"model": self.model, **self.networks})

    def found(self, job: Job) -> Record | None:
        """The record of a picture that is there, from what it tells. None where there is none, or one to be redone.

        Raises `JoyImageError` for a picture of other settings, which is not replaced, or of another program.
        """
        path = self.folder / job.output
        if job.kind == ASK or not path.is_file():
            return None
        try:
            told = read_parameters(path)
        except JoyImageError as error:
            raise JoyImageError(f"{error}, and another is to be made in its place: move it away") from None
        made = told.get(TAG) or {}
        if made.get("fingerprint") != self.fingerprint(job):
            if self.redo:
                return None
            raise OtherSettings(f"{path} {differences(told, job)}")
        seconds = {name: made.get(name, 0.0) for name in ("encode_seconds", "sample_seconds", "decode_seconds")}
        return replace(self.record(job), **seconds, worker=made.get("worker", ""), seed=told.get("seed", job.seed))

    def record(self, job: Job, status: str = DONE, reason: str = "") -> Record:
        output = job.output if status == DONE else ""
        return Record(
            job.name, job.row, job.kind, status, reason, job.seed, output=output, fingerprint=self.fingerprint(job)
        )

    def failed(self, job: Job, reason: str) -> Record:
        return self.record(job, FAILED, shortened(reason))


class OtherSettings(JoyImageError):
    """A picture that is there was made by other settings than those that are asked for."""


def differences(told: Mapping[str, Any], job: Job) -> str:
    """In what a picture differs from what a row asks for, as far as it tells."""
    wanted = {"prompt": job.text, "seed": job.seed, "images": names_of(job.images), **job.options}
    for name, value in wanted.items():
        if value and name in told and told[name] != (list(value) if isinstance(value, tuple) else value):
            return f"was made with {name} {told[name]!r:.80}, not {value!r:.80}"
    return "was made by other settings"


def names_of(addresses: Sequence[str]) -> list[str]:
    """The names of files, without the folders or storages that they lie in."""
    return [PurePath(shown(address)).name for address in addresses]
