"""A process that tries inputs, and what watches it: a crash or a hang is a fault of the input that was being tried."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

import torch

from .kinds import KINDS, write_model
from .pictures import drawn
from .uses import Case, Outcome, empty, examine, status

PATIENCE = 120.0  # seconds for one input, with other work on the machine
ROOM = 6 * 2**30  # bytes of address space that a worker may take above its start
LOG = "said"  # what a worker's libraries write to standard error


@dataclass(frozen=True)
class Place:
    """Folders of a run: the undamaged files of each kind, and where workers damage copies of them."""

    root: Path

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def picture(self) -> Path:
        return self.root / "picture.png"

    def originals(self, kind: str) -> Path:
        return self.root / "originals" / kind.replace(" ", "-")

    def case(self, worker: int) -> Path:
        return self.root / f"worker-{worker}" / "case"

    def out(self, worker: int) -> Path:
        return self.root / f"worker-{worker}" / "out"

    def used(self, worker: int) -> Path:
        """Names the path that is used, in the folder of the case."""
        return self.root / f"worker-{worker}" / "used"

    def log(self, worker: int) -> Path:
        return self.root / f"worker-{worker}" / LOG


def prepare(place: Place, kinds: Iterable[str]) -> None:
    """Write the undamaged files of these kinds, and what commands run with."""
    for kind in kinds:
        KINDS[kind].write(empty(place.originals(kind)))
    place.root.mkdir(parents=True, exist_ok=True)
    write_model(place.root)
    drawn("RGB").resize((64, 64)).save(place.picture)


def damaged(place: Place, worker: int, kind: str, seed: int, number: int) -> Path:
    """Make an input: the same for the same kind, seed and number."""
    folder = place.case(worker)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(place.originals(kind), folder)
    path = KINDS[kind].damage(folder, Random(f"{kind} {seed} {number}"))
    place.used(worker).write_text(str(path.relative_to(folder)))
    return path


def try_one(place: Place, worker: int, kind: str, seed: int, number: int) -> Outcome:
    """Make an input and put it through its uses."""
    path = damaged(place, worker, kind, seed, number)
    case = Case(path, empty(place.out(worker)), place.model, place.picture, number)
    return examine(case, KINDS[kind].uses)


def serve(connection: Connection, root: str, worker: int) -> None:
    """Try the inputs that come through a connection and send back what became of them."""
    place = Place(Path(root))
    place.case(worker).parent.mkdir(parents=True, exist_ok=True)
    log = os.open(place.log(worker), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 2)
    faulthandler.enable()
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + ROOM, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while (task := connection.recv()) is not None:
        connection.send(try_one(place, worker, *task))


Serve = Callable[[Connection, str, int], None]


class Worker:
    """A process that tries inputs, started anew after each that it does not survive."""

    def __init__(
        self, place: Place, number: int, target: Serve = serve, patience: float = PATIENCE, start: str = "spawn"
    ):
        self.place, self.number, self.target, self.patience = place, number, target, patience
        self.context = multiprocessing.get_context(start)
        self._start()

    def _start(self) -> None:
        self.connection, theirs = self.context.Pipe()
        self.process = self.context.Process(
            target=self.target, args=(theirs, str(self.place.root), self.number), daemon=True
        )
        self.process.start()
        theirs.close()

    def run(self, kind: str, seed: int, number: int) -> Outcome | str:
        """The `Outcome` of an input, or the text of how it ended the process."""
        self.connection.send((kind, seed, number))
        try:
            if self.connection.poll(self.patience):
                return self.connection.recv()
            ending = f"no end after {self.patience:g} s"
        except (EOFError, ConnectionError):
            self.process.join()
            ending = f"the process ended with {self.process.exitcode}"
        self.process.kill()
        self.process.join()
        log = self.place.log(self.number)
        said = log.read_text(errors="replace")[-4000:] if log.exists() else ""
        self._start()
        return f"{ending}\n{said}"

    def close(self) -> None:
        self.connection.send(None)
        self.process.join(10)
        self.process.kill()
