"""A table of jobs from its first row to the manifest: what is checked, what is there, and what is made."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any
from uuid import uuid4

from tqdm import tqdm

from ..atomic import held
from ..errors import JoyImageError, counted
from .addresses import is_remote, shown
from .engine import Crew, started
from .jobs import ASK, Fault, Job, read_jobs
from .limits import Limits
from .manifest import DONE, FAILED, FOLDER, Manifest, Record
from .results import RUN, Making, OtherSettings
from .settings import Pool
from .tables import read_table

WINDOW = 20_000  # rows in memory, among which those of equal pictures are brought together
SHARED = 16  # rows in a task: their encodings are in memory together, 20 MB each at the published size


@dataclass
class Survey:
    """What there is to do: rows in all, those with a result, and those with faults, which are settled too."""

    rows: int = 0
    there: int = 0
    faults: int = 0
    settled: bytearray = field(default_factory=lambda: bytearray(1))  # by the numbers of rows, from 1
    others: int = 0  # results of other settings
    first: str = ""  # what is wrong with the first row that has a fault, or a result of other settings

    def count(self, row: int, settled: bool) -> None:
        self.rows += 1
        self.settled += bytes(row - len(self.settled) + 1)
        self.settled[row] = settled


@dataclass(frozen=True)
class Summary:
    """What a run did: rows made and failed now, those that were there before, and where it says so of each."""

    rows: int
    made: int
    failed: int
    there: int
    seconds: float
    manifest: Path


def run_batch(
    source: str, making: Making, pool: Pool, defaults: Mapping[str, Any] | None = None, progress: bool = False
) -> Summary:
    """Make what a table's rows ask for, into the folder of `making`, and say of each row what became of it.

    All rows are checked before a worker starts. A row with a fault is a failure in the manifest, as is one that fails
    later; neither ends the run. A row whose result is there is passed over, so that the same call goes on where one was
    stopped or killed.
    Raises `JoyImageError` for a table that cannot be read or of which no row can be run, for a folder of results that
    lies in that of the pictures or that another run is at work in, for results that are there by other settings unless
    they are to be redone, and as `engine.Crew`.
    """
    _check_apart(source, making.folder)
    if next(read_table(source), None) is None:
        raise JoyImageError(f"{shown(source)} holds no rows: there is nothing to do")
    began = time.monotonic()
    _make_folder(making.folder)
    with held(making.folder, "batch"), Manifest(making.folder) as manifest:
        survey = surveyed(source, making, manifest, defaults)
        if survey.others:
            raise JoyImageError(
                f"{counted(survey.others, 'result')} in {making.folder} of other settings ({survey.first}): give "
                "those, name another folder, or have them made anew (--redo)"
            )
        made, failed = 0, survey.faults
        if survey.rows > survey.there + survey.faults:
            records = _records(source, making, pool, defaults, survey, progress)
            try:
                with closing(records):
                    for record in records:
                        manifest.add(record)
                        made, failed = made + (record.status == DONE), failed + (record.status == FAILED)
            except KeyboardInterrupt as stop:
                done = survey.there + made + failed
                raise type(stop)(f"{done} of {survey.rows} rows are done, and the same command goes on") from None
        path = manifest.finish()
    if survey.faults == survey.rows:
        none = f"none of the {survey.rows} rows can be run; the first" if survey.rows > 1 else "the row cannot be run"
        raise JoyImageError(f"{none}: {survey.first}. {path} has all")
    return Summary(survey.rows, made, failed, survey.there, round(time.monotonic() - began, 3), path)


def _check_apart(source: str, folder: Path) -> None:
    """Raise `JoyImageError` for results in the folder of pictures: the next run would take them for pictures, too."""
    if not is_remote(source) and os.path.isdir(source) and folder.resolve().is_relative_to(Path(source).resolve()):
        raise JoyImageError(f"{folder} lies in the folder of the pictures, {source}; name one that does not")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JoyImageError(f"{folder} cannot be made: {error.strerror or error}; name another folder") from None


def surveyed(source: str, making: Making, manifest: Manifest, defaults: Mapping[str, Any] | None = None) -> Survey:
    """Look at all rows, and at what is there of their results; faults, and results without a record, get theirs."""
    survey, known = Survey(), _known(manifest)
    for job in read_jobs(source, defaults, making.limits):
        if isinstance(job, Fault):
            survey.faults += 1
            survey.first = survey.first or job.reason
            manifest.add(Record(job.name, job.row, status=FAILED, reason=job.reason))
            survey.count(job.row, True)
            continue
        try:
            there = _there(job, making, manifest, known)
        except OtherSettings as error:
            survey.first = str(error) if not survey.others else survey.first
            survey.others += 1
            there = False
        except JoyImageError:  # another program's picture: a failure of this row, when its turn comes
            there = False
        survey.there += there
        survey.count(job.row, there)
    return survey


def _known(manifest: Manifest) -> dict[int, str]:
    """The fingerprints of results by their names; numbers for these, as for ten million they would fill gigabytes."""
    known: dict[int, str] = {}
    for record in manifest.records():
        if record["status"] == DONE:
            known[hash(record["name"])] = record["fingerprint"]
        else:
            known.pop(hash(record["name"]), None)
    return known


def _there(job: Job, making: Making, manifest: Manifest, known: Mapping[int, str]) -> bool:
    """Whether a row has its result. Raises `OtherSettings` where another's is in its place."""
    fingerprint = known.get(hash(job.name))
    if fingerprint == making.fingerprint(job):
        return job.kind == ASK or (making.folder / job.output).is_file()
    if job.kind == ASK and fingerprint is not None and not making.redo:
        raise OtherSettings(f"the answer {job.name} was given to another question, or by other settings")
    if (found := making.found(job)) is None:
        return False
    manifest.add(found)
    return True


def _records(
    source: str, making: Making, pool: Pool, defaults: Mapping[str, Any] | None, survey: Survey, progress: bool
) -> Generator[Record, None, None]:
    """The records of the rows that are not settled, as they are made."""
    making = replace(making, run=uuid4().hex)
    marker = making.folder / FOLDER / RUN
    try:
        marker.write_text(making.run, encoding="utf-8")
    except OSError as error:
        raise JoyImageError(f"cannot write {marker}: {error.strerror or error}") from None
    settled = survey.there + survey.faults
    failed = survey.faults
    bar = tqdm(total=survey.rows, initial=settled, disable=not progress, unit="row", smoothing=0.05)
    with started(pool) as ray, bar:
        crew = Crew(ray, making, pool, making.failed)
        for record in crew.results(tasks(source, survey.settled, defaults, making.batch, making.limits)):
            failed += record.status == FAILED
            if bar.n == settled:
                bar.unpause()  # what it took to load the model says nothing of the time that is left
            bar.update()
            if failed:
                bar.set_postfix_str(f"{failed} failed", refresh=False)
            yield record


def tasks(
    source: str,
    settled: bytearray,
    defaults: Mapping[str, Any] | None = None,
    batch: int = 1,
    limits: Limits | None = None,
) -> Iterator[list[Job]]:
    """The rows that are not settled, those together that share their pictures' encodings; with a `batch` above 1 also
    those of other pictures that may share a forward.

    Within a window they are sorted by that, and are else in their order.
    """
    found = read_jobs(source, defaults, limits)
    jobs = (job for job in found if isinstance(job, Job) and not settled[job.row])
    while window := list(islice(jobs, WINDOW)):
        window.sort(key=lambda job: job.shared)
        for _, sharing in groupby(window, lambda job: job.shared if batch == 1 else job.alike):
            together = list(sharing)
            yield from (together[i : i + SHARED] for i in range(0, len(together), SHARED))
