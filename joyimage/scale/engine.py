"""Work spread over processes by Ray: on this machine, where Ray is started for it alone, or on a cluster.

The workers are plain actors. Ray Data's pools of actors would give back whole blocks: a killed actor then repeats rows
that were done, and results come when a block is, minutes late where a picture takes one; and to bring rows with equal
pictures together it would have to shuffle the table. Here each worker has a task at hand and one waiting, and streams a
result for each item. So what a lost worker has done is known: others get its items, but for those with results.

Whatever makes its results in a folder by items can run on it: `make` is called in each worker and gives the function
that turns the items of a task into results, one each and in their order.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Generic, TypeVar

from ..errors import JoyImageError, counted
from ..extras import extra
from ..settings import AUTO
from ..waiting import not_loaded
from .settings import Pool

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[Sequence[Item]], Iterable[Result]]

TRIES = 3  # workers that an item may lose, before it is taken for the cause; and that may be lost before one is ready
MOST_LOSSES = 10  # the same for each worker without a result: three items in a row that cost three each, and one more
AT_HAND = 2  # tasks of a worker: one that it works on, and one so that it need not wait
CPUS = 0.5  # reserved for each: workers that took whole processors would leave none to tasks of other programs
STORE = 200 * 2**20  # bytes of Ray's object store on this machine; results are names and numbers
# Nothing is told to anybody unasked, and what Ray says of lost workers does not go among the output.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": ".", "RAY_IGNORE_UNHANDLED_ERRORS": "1"}
STARTS = 3  # tries to start Ray, which gives up after 30 seconds: too early on a machine that is busy
REACH = 10  # seconds for a connection to a cluster
PATIENCE = 600  # seconds without a worker, and without room for one, until that is an error
POLL = 5.0  # seconds after which a stopped command, or new room, is seen at the latest


class Stopped(JoyImageError):
    """What a worker raises to end the whole run: no other row would fare better."""


@dataclass(frozen=True)
class Need:
    """What Ray reserves for a worker."""

    cpus: float
    gpus: float

    def fits(self, resources: dict[str, float]) -> int:
        """How many workers a machine with these resources holds."""
        gpus = resources.get("GPU", 0.0) / self.gpus if self.gpus else float("inf")
        return int(min(resources.get("CPU", 0.0) / self.cpus, gpus) + 1e-9)


@contextmanager
def started(pool: Pool) -> Iterator[ModuleType]:
    """Ray, connected to the pool's cluster, or started on this machine and stopped again.

    Raises `JoyImageError` without the extra `scale`, and for a cluster that cannot be reached.
    """
    if pool.address not in (None, AUTO):
        _check_reached(pool.address)
    for name, value in QUIET.items():  # before it is imported
        os.environ.setdefault(name, value)
    ray = extra("ray", "scale")
    before = logging.getLogger("ray").level
    logging.getLogger("ray").setLevel(logging.ERROR)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if pool.address is None:
        options |= {"address": "local", "include_dashboard": False, "object_store_memory": STORE}
    else:
        options["address"] = pool.address
    try:
        with _own_signals():
            _connect(ray, options, STARTS if pool.address is None else 1)
    except Exception as error:  # of Ray, gRPC or the system
        where = "on this machine" if pool.address is None else f"at {pool.address}"
        why = (str(error) or type(error).__name__).rstrip(". ")
        raise JoyImageError(
            f"Ray cannot be used {where}: {why}. A cluster asks for its token in "
            "RAY_AUTH_TOKEN, or in the file that RAY_AUTH_TOKEN_PATH names"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
        logging.getLogger("ray").setLevel(before)


def _check_reached(address: str) -> None:
    """Raise `JoyImageError` where nobody listens: Ray itself would try for minutes, and write about each time."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise JoyImageError(
            f"no cluster can be reached at {address}: {error}. Give the address that `ray start --head` printed"
        ) from None


def _connect(ray: ModuleType, options: dict[str, Any], tries: int) -> None:
    try:
        ray.init(**options)
    except Exception:
        ray.shutdown()
        if tries == 1:
            raise
        _connect(ray, options, tries - 1)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM over when it starts; it stays with those who had it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Actor:
    """A worker's process."""

    def __init__(self):
        self.work: Work | None = None

    def arrive(self) -> str:
        """Where this process is, once it is there at all: from here on it loads."""
        return f"{socket.gethostname()}, process {os.getpid()}"

    def prepare(self, make: Callable[[], Work]) -> str:
        """Make what does the work, and return what is wrong with that, or nothing."""
        try:
            self.work = make()
        except (JoyImageError, OSError) as error:
            return str(error)
        return ""

    def results(self, items: Sequence[Any]) -> Iterator[Any]:
        work, self.work = self.work, None
        if work is None:
            raise RuntimeError("the worker is broken")
        yield from work(items)
        self.work = work  # not after an error: what is broken begins nothing more, until it is replaced


@dataclass(eq=False)
class Task(Generic[Item]):
    """Items for one worker, how many of them have results, and how many workers were lost at the first."""

    items: list[Item]
    tries: int = 0
    done: int = 0
    stream: Any = None


@dataclass(eq=False)
class Worker:
    actor: Any
    arriving: Any  # until its process is there: on a cluster it may wait for a machine
    preparing: Any  # until the model is loaded
    place: str = ""
    began: float = 0.0  # to load
    tasks: deque[Task] = field(default_factory=deque)

    @property
    def sources(self) -> list[Any]:
        """What may have something to say."""
        first = self.arriving if self.arriving is not None else self.preparing
        return ([] if first is None else [first]) + ([self.tasks[0].stream] if self.tasks else [])


class Crew(Generic[Item, Result]):
    """Workers on a Ray that is started, and the tasks that they do.

    `lost` makes the result of an item at which so many workers were lost, from the reason.
    """

    def __init__(self, ray: ModuleType, make: Callable[[], Work], pool: Pool, lost: Callable[[Item, str], Result]):
        self.ray, self.lost = ray, lost
        self.load_seconds = pool.load_seconds
        self.need = need_of(pool, ray.cluster_resources().get("GPU", 0.0))
        self.wanted = self._wanted(pool)
        self._make = ray.put(make)
        self._class = ray.remote(num_cpus=self.need.cpus, num_gpus=self.need.gpus, max_restarts=0)(Actor)
        self._workers: list[Worker] = []
        self._again: deque[Task[Item]] = deque()  # of lost workers
        self._suspects: deque[Task[Item]] = deque()  # an item each, at which a worker was lost
        self._losses = 0  # since the last result
        self._ready = False  # whether any worker has ever been
        self._ended = False  # whether all tasks are handed out, but for those of lost workers
        self._since = time.monotonic()  # when there was a worker last

    def _wanted(self, pool: Pool) -> int:
        room = self.room()
        gpus = self.ray.cluster_resources().get("GPU", 0.0)
        wanted = pool.workers or (max(1, room) if self.need.gpus else 1)
        if room == 0 or (pool.address is None and room < wanted):
            have = f"{self.ray.cluster_resources().get('CPU', 0.0):g} processors and {gpus:g} GPUs"
            raise JoyImageError(
                f"{counted(wanted, 'worker')} of {self.need.cpus:g} processors and {self.need.gpus:g} GPUs each would "
                f"find no room: there are {have}, which hold {room}. Ask for fewer workers, or for less in each"
            )
        return wanted

    def room(self) -> int:
        """Workers that the machines hold, were nothing else on them."""
        return sum(self.need.fits(node["Resources"]) for node in self.ray.nodes() if node["Alive"])

    def results(self, tasks: Iterable[list[Item]]) -> Iterator[Result]:
        """The results of all items, as they come.

        Raises `JoyImageError` where no worker can be made ready, where workers are lost one after the other without a
        result, and what a worker raises as `Stopped`.
        """
        waiting = iter(tasks)
        try:
            self._hand_out(waiting)
            while not self._ended or self._again or self._suspects or any(worker.tasks for worker in self._workers):
                for source in self._heard():
                    yield from self._listen(source)
                self._check_loading()
                self._hand_out(waiting)
        finally:
            for worker in self._workers:
                self.ray.kill(worker.actor)
            self._workers.clear()

    def _hand_out(self, waiting: Iterator[list[Item]]) -> None:
        """Replace lost workers, and fill up what each has at hand."""
        while len(self._workers) < self.wanted and not (self._ended and not self._again and not self._suspects):
            actor = self._class.remote()
            self._workers.append(Worker(actor, actor.arrive.remote(), actor.prepare.remote(self._make)))
        for _ in range(AT_HAND):  # in turns, so that the last tasks are spread
            for worker in self._workers:
                if task := self._task_for(worker, waiting):
                    task.stream = worker.actor.results.options(num_returns="streaming").remote(task.items)
                    worker.tasks.append(task)

    def _task_for(self, worker: Worker, waiting: Iterator[list[Item]]) -> Task[Item] | None:
        """What a worker is to do next. An item that may have cost one is alone with its worker, so that no other item
        is taken for the cause.
        """
        full = worker.preparing is not None or len(worker.tasks) >= AT_HAND or any(task.tries for task in worker.tasks)
        if full:
            return None
        if self._suspects and not worker.tasks:
            return self._suspects.popleft()
        return self._again.popleft() if self._again else self._next(waiting)

    def _next(self, waiting: Iterator[list[Item]]) -> Task[Item] | None:
        items = next(waiting, None)
        self._ended = items is None
        return None if items is None else Task(items)

    def _heard(self) -> list[Any]:
        """What has something to say: a worker that is there or prepared, or the stream of a task."""
        sources = [source for worker in self._workers for source in worker.sources]
        heard, _ = self.ray.wait(sources, num_returns=1, timeout=POLL, fetch_local=False)
        if any(worker.preparing is None for worker in self._workers) or self.room():
            self._since = time.monotonic()
        elif time.monotonic() - self._since > PATIENCE:
            raise JoyImageError(
                "no machine of the cluster has room for a worker any more; the same command goes on later"
            )
        return heard

    def _listen(self, source: Any) -> Iterator[Result]:
        worker = next(each for each in self._workers if source in each.sources)
        try:
            if source is worker.arriving:
                worker.place, worker.began, worker.arriving = self.ray.get(source), time.monotonic(), None
                return
            if source is worker.preparing:
                self._prepared(worker, self.ray.get(source))
                return
            result = self.ray.get(next(source))
        except StopIteration:
            worker.tasks.popleft()
        except (self.ray.exceptions.RayError, Stopped) as error:
            yield from self._replaced(worker, error)
        else:
            worker.tasks[0].done += 1
            self._losses = 0
            yield result

    def _check_loading(self) -> None:
        """Give up the workers that take longer to load than they have."""
        late = time.monotonic() - self.load_seconds
        for worker in list(self._workers):
            if worker.preparing is not None and worker.arriving is None and worker.began < late:
                self._prepared(worker, not_loaded(f"a worker on {worker.place},", self.load_seconds))

    def _prepared(self, worker: Worker, problem: str) -> None:
        if problem and not self._ready:
            raise JoyImageError(problem)
        if problem:  # on a machine that came later
            self._lose(worker, problem)
            return
        worker.preparing, self._ready = None, True

    def _replaced(self, worker: Worker, error: Exception) -> Iterator[Result]:
        """Give a lost worker's items to others; the one at which `TRIES` were lost gets the result that says so."""
        cause = getattr(error, "cause", None)
        if isinstance(cause or error, Stopped):
            raise cause or error
        reason = next(iter(str(cause or error).split("\n")), "") or type(cause or error).__name__
        tasks = list(worker.tasks)
        self._lose(worker, reason)
        for task in tasks:
            left = task.items[task.done :]
            if left and task is tasks[0]:
                tries = task.tries + 1
                if tries >= TRIES:
                    yield self.lost(left[0], f"{tries} workers were lost at this row, the last one so: {reason}")
                else:
                    self._suspects.append(Task(left[:1], tries))
                left = left[1:]
            if left:
                self._again.append(Task(left))

    def _lose(self, worker: Worker, reason: str) -> None:
        self.ray.kill(worker.actor)
        self._workers.remove(worker)
        self._losses += 1
        if self._losses >= (MOST_LOSSES * self.wanted if self._ready else TRIES):
            raise JoyImageError(
                f"{self._losses} workers were lost without a result between them, the last one so: {reason}"
            )
        warnings.warn(f"a worker was lost, and its rows go to another: {reason}", stacklevel=1)


def need_of(pool: Pool, gpus: float) -> Need:
    """What a worker gets: a GPU where there are any."""
    own = pool.gpus_per_worker if pool.gpus_per_worker is not None else float(gpus > 0)
    return Need(pool.cpus_per_worker or CPUS, own)
