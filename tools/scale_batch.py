"""`python -m tools.scale_batch`: edits of the bundled model by `joyimage batch`: their rate, and what kills do to them.

First the same table with one worker and with two, each of one thread. Then once more with two workers, of which some
are killed at random moments, and the command itself twice: it is run again until it ends. Every row must have one
picture and one record, what was written before a kill must stay as it was, and the command's memory must not grow with
the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as parquet

from joyimage.demo import ASSETS

PICTURES = ("rotate.png", "move.png", "camera.png")
SHARED = 8  # rows of a picture in succession, as where a shop has eight wishes for each of its pictures
LEAST_RATIO = 1.6  # of two workers' rate to one's
MOST_GROWTH = 64 * 2**20  # bytes of the command's memory, from a quarter of the rows to their end
POLL_SECONDS = 0.2


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.scale_batch", description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--worker-kills", type=int, default=5)
    parser.add_argument("--driver-kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(dir="/tmp") as root:
        folder = Path(root)
        jobs = written(folder, options.rows)
        runs = {n: Run(jobs, folder / f"workers-{n}", n, options.steps) for n in (1, 2)}
        rates = {}
        for workers, run in runs.items():
            run.go()
            rates[workers] = run.rate()
            print(f"{workers} workers: {rates[workers]:.2f} rows a second", flush=True)
        faults = [fault for run in runs.values() for fault in run.faults(options.rows)]
        faults += [f"{name} is another picture with two workers" for name in different(runs[1].out, runs[2].out)]
        ratio = rates[2] / rates[1]
        if ratio < LEAST_RATIO:
            faults.append(f"two workers have {ratio:.2f} of one's rate, and {LEAST_RATIO} is the least")
        killed = Run(jobs, folder / "killed", 2, options.steps)
        told = kill(killed, options.worker_kills, options.driver_kills, options.rows, chance)
        faults += killed.faults(options.rows) + told.pop("faults")
        faults += [f"{name} is another picture after kills" for name in different(runs[1].out, killed.out)]
    growth = {workers: run.growth(options.rows) for workers, run in runs.items()}
    faults += [f"the command grew by {grown >> 20} MB" for grown in growth.values() if grown > MOST_GROWTH]
    grown = {f"workers_{workers}": value >> 20 for workers, value in growth.items()}
    report = {"rows": options.rows, "steps": options.steps, "rates": rates, "ratio": round(ratio, 3), "grown_mb": grown}
    print(json.dumps({**report, **told, "faults": faults}, indent=2))
    return 1 if faults else 0


def written(folder: Path, rows: int) -> Path:
    """A table of edits, with its pictures beside it."""
    for name in PICTURES:
        shutil.copy(ASSETS / name, folder / name)
    jobs = folder / "jobs.jsonl"
    with jobs.open("w", encoding="utf-8") as file:
        for i in range(rows):
            cells = {"images": PICTURES[i // SHARED % len(PICTURES)], "instruction": f"Make it {i}.", "seed": i}
            file.write(json.dumps(cells) + "\n")
    return jobs


@dataclass
class Run:
    """Runs of one command, and what was seen of the last: when rows were done, and the memory that it took."""

    jobs: Path
    out: Path
    workers: int
    steps: int
    seen: list[tuple[float, int, int]] = field(default_factory=list)  # seconds, rows done, bytes

    def start(self) -> subprocess.Popen:
        words = [
            sys.executable,
            "-m",
            "joyimage",
            "batch",
            str(self.jobs),
            str(self.out),
            "--workers",
            str(self.workers),
        ]
        words += ["--steps", str(self.steps), "--device", "cpu", "--threads", "1", "--quiet", "--json"]
        with self.log.open("w") as log:
            return subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)

    @property
    def log(self) -> Path:
        return self.out.with_suffix(".log")

    def go(self) -> None:
        """Run it whole."""
        process = self.start()
        self.watch(process, lambda: False)
        if process.returncode:
            raise SystemExit(f"joyimage batch failed: {self.log.read_text()}")

    def watch(self, process: subprocess.Popen, enough: Callable[[], bool]) -> None:
        """Until it ends, or there is enough."""
        self.seen.clear()
        while process.poll() is None and not enough():
            self.seen.append((time.monotonic(), len(self.done()), resident(process.pid)))
            time.sleep(POLL_SECONDS)

    def rate(self) -> float:
        """Rows a second from the first tenth on, when all workers have loaded, to the last row."""
        last = self.seen[-1][1]
        began, first, _ = next(each for each in self.seen if each[1] >= last // 10)
        ended, done, _ = next(each for each in self.seen if each[1] == last)
        return (done - first) / (ended - began)

    def growth(self, rows: int) -> int:
        """Bytes from a quarter of the rows to the last; what joins the manifest comes after it."""
        early = next((memory for _, done, memory in self.seen if done >= rows // 4), 0)
        return max((memory for _, done, memory in self.seen if rows // 4 <= done < rows), default=early) - early

    def done(self) -> set[str]:
        return {path.relative_to(self.out).as_posix() for path in self.out.rglob("*.png")}

    def pids(self) -> set[int]:
        """Of workers that have made something."""
        journal = self.out / ".batch/journal.jsonl"
        lines = journal.read_text(encoding="utf-8").splitlines(keepends=True) if journal.exists() else []
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        return {int(record["worker"].rpartition(":")[2]) for record in records}

    def faults(self, rows: int) -> list[str]:
        records = parquet.read_table(self.out / "manifest.parquet").to_pylist()
        found = []
        if [record["row"] for record in records] != list(range(1, rows + 1)):
            found.append(f"{self.out.name}: the manifest has {len(records)} records of {rows} rows")
        found += [f"{record['name']} failed: {record['reason']}" for record in records if record["status"] != "done"]
        if self.done() != {record["output"] for record in records}:
            found.append(f"{self.out.name}: the pictures are not those of the manifest")
        found += [f"{path} is left" for path in self.out.rglob(".joyimage-*")]
        return found


def kill(run: Run, workers: int, drivers: int, rows: int, chance: random.Random) -> dict:
    """Run until it ends, while so many workers and drivers are killed when random numbers of rows are done."""
    moments = sorted(chance.sample(range(rows // 20, rows - rows // 20), workers + drivers))
    victims = chance.sample(["worker"] * workers + ["driver"] * drivers, workers + drivers)
    kept: dict[str, int] = {}
    faults, happened = [], {"worker": 0, "driver": 0}
    process = run.start()
    for moment, victim in zip(moments, victims, strict=True):
        run.watch(process, lambda moment=moment: len(run.done()) >= moment and any(map(alive, run.pids())))
        if process.poll() is not None:
            break
        kept |= {name: (run.out / name).stat().st_ctime_ns for name in run.done()}
        with suppress(ProcessLookupError):
            os.kill(process.pid if victim == "driver" else chance.choice([*filter(alive, run.pids())]), signal.SIGKILL)
        happened[victim] += 1
        if victim == "driver":
            process.wait()
            process = run.start()
    run.watch(process, lambda: False)
    if process.returncode:
        faults.append(f"the command ended with {process.returncode}: {run.log.read_text()}")
    changed = [name for name, moment in kept.items() if (run.out / name).stat().st_ctime_ns != moment]
    faults += [f"{name} was written again" for name in changed]
    return {"kills": happened, "faults": faults}


def different(one: Path, other: Path) -> list[str]:
    """Names of pictures whose pixels differ; what they tell of workers and seconds may."""
    from PIL import Image

    names = (path.relative_to(one) for path in one.rglob("*.png"))
    return [str(name) for name in names if Image.open(one / name).tobytes() != Image.open(other / name).tobytes()]


def alive(pid: int) -> bool:
    with suppress(OSError):
        os.kill(pid, 0)
        return resident(pid) > 0
    return False


def resident(pid: int) -> int:
    """Bytes of memory that a process has; 0 of one that is none."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


if __name__ == "__main__":
    sys.exit(main())
