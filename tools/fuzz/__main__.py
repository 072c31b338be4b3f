"""Try damaged files of every kind on the library: `python -m tools.fuzz` (Linux).

Every input comes from its kind, the seed and its number. One with a fault is kept, with the fault and how to have it
again. Ends with 1 if there was any.
"""

from __future__ import annotations

import argparse
import json
import queue
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from .kinds import KINDS
from .uses import Case, Outcome, empty, examine
from .worker import Place, Worker, prepare

EVERY = 15.0  # seconds between two lines that say how far it is
RECORD = "fault.json"


@dataclass
class Tally:
    """What became of the inputs of one kind; the worst of what `inspect` took."""

    inputs: int = 0
    loaded: int = 0
    faults: int = 0
    seconds: float = 0.0
    bytes: int = 0

    def add(self, outcome: Outcome) -> None:
        self.inputs += 1
        self.loaded += outcome.loaded
        self.faults += bool(outcome.faults)
        self.seconds, self.bytes = max(self.seconds, outcome.seconds), max(self.bytes, outcome.bytes)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.inputs + other.inputs,
            self.loaded + other.loaded,
            self.faults + other.faults,
            max(self.seconds, other.seconds),
            max(self.bytes, other.bytes),
        )

    @property
    def refused(self) -> int:
        return self.inputs - self.loaded - self.faults


def table(tallies: dict[str, Tally]) -> str:
    line = "{:<30}{:>8}{:>9}{:>9}{:>8}{:>12}{:>12}".format
    total = sum(tallies.values(), Tally())
    rows = [
        line(kind, t.inputs, t.refused, t.loaded, t.faults, f"{t.seconds:.2f} s", f"{t.bytes / 2**20:.1f} MiB")
        for kind, t in [*tallies.items(), ("all", total)]
    ]
    return "\n".join([line("kind", "inputs", "refused", "loaded", "faults", "inspect", "inspect"), *rows])


class Run:
    """Inputs for some workers, and what has become of them so far."""

    def __init__(self, place: Place, keep: Path, seed: int, tasks: Iterable[tuple[str, int]]):
        self.place, self.keep, self.seed = place, keep, seed
        self.tasks: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        self.count = 0
        for task in tasks:
            self.tasks.put(task)
            self.count += 1
        self.tallies: dict[str, Tally] = {}
        self.lock = threading.Lock()

    def work(self, number: int) -> None:
        """Let one worker take inputs until there are no more."""
        worker = Worker(self.place, number)
        while True:
            try:
                kind, i = self.tasks.get_nowait()
            except queue.Empty:
                return worker.close()
            found = worker.run(kind, self.seed, i)
            outcome = Outcome(faults=[found]) if isinstance(found, str) else found
            if outcome.faults:
                self.record(number, kind, i, outcome)
            with self.lock:
                self.tallies.setdefault(kind, Tally()).add(outcome)

    def record(self, worker: int, kind: str, number: int, outcome: Outcome) -> None:
        """Keep an input with what went wrong."""
        folder = self.keep / f"{kind.replace(' ', '-')}-{self.seed}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.place.case(worker), folder / "input", symlinks=True)
        again = (
            f"python -m tools.fuzz --again {folder}",
            f"python -m tools.fuzz --kinds '{kind}' --seed {self.seed} --only {number}",
        )
        used = self.place.used(worker).read_text()
        details = {"kind": kind, "seed": self.seed, "number": number, "used": used, "again": again}
        (folder / RECORD).write_text(json.dumps(details | {"faults": outcome.faults}, indent=2) + "\n")
        print(f"{folder}: {outcome.faults[0].strip().splitlines()[-1]:.300}", flush=True)

    def done(self) -> int:
        return sum(tally.inputs for tally in self.tallies.values())


def fuzz(options: argparse.Namespace, root: Path) -> int:
    numbers = range(options.count) if options.only is None else [options.only]
    place = Place(root)
    prepare(place, options.kinds)
    options.keep.mkdir(parents=True, exist_ok=True)
    run = Run(place, options.keep, options.seed, ((kind, number) for number in numbers for kind in options.kinds))
    threads = [threading.Thread(target=run.work, args=(i,), daemon=True) for i in range(options.jobs)]
    start = shown = time.monotonic()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.2)
        if time.monotonic() - shown > EVERY:
            shown = time.monotonic()
            faults = sum(tally.faults for tally in run.tallies.values())
            print(
                f"{run.done()} of {run.count}, {faults} with faults, {shown - start:.0f} s", file=sys.stderr, flush=True
            )
    print(table({kind: run.tallies[kind] for kind in options.kinds if kind in run.tallies}))
    if run.done() < run.count:
        print(f"{run.count - run.done()} inputs were not tried: a worker has failed", file=sys.stderr)
    return int(run.done() < run.count or any(tally.faults for tally in run.tallies.values()))


def again(folder: Path, root: Path) -> int:
    """Put an input that was kept through its uses once more, in this process, and print its faults."""
    record = json.loads((folder / RECORD).read_text())
    place = Place(root)
    prepare(place, [])
    copy = Path(shutil.copytree(folder / "input", root / "input", symlinks=True))
    case = Case(copy / record["used"], empty(place.out(0)), place.model, place.picture, record["number"])
    outcome = examine(case, KINDS[record["kind"]].uses)
    print(json.dumps(asdict(outcome), indent=2).replace("\\n", "\n"))
    return int(bool(outcome.faults))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--count", type=int, default=100, help="inputs of each kind (100)")
    parser.add_argument("--seed", type=int, default=0, help="another gives other inputs (0)")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="the one input of this number, of each kind")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (2)")
    parser.add_argument(
        "--keep", type=Path, default=Path("build/fuzz"), help="where inputs with faults go (build/fuzz)"
    )
    parser.add_argument("--again", type=Path, metavar="FOLDER", help="a kept input, once more and nothing else")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse()
    with tempfile.TemporaryDirectory() as root:
        return again(options.again, Path(root)) if options.again else fuzz(options, Path(root))


if __name__ == "__main__":
    sys.exit(main())
