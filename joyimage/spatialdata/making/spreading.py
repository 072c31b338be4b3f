"""What does the work on scenes: this process, or several. Results come in the order of the jobs, whoever does them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from ...errors import JoyImageError
from .work import Job

Do = Callable[[Job], Path]  # the shard of a scene; it can be pickled
Paths = Generator[Path, None, None]
Spread = Callable[[Do, Iterable[Job]], Paths]
AHEAD = 4  # jobs for each process that are on their way, so that scenes are read no further than that


def here(do: Do, jobs: Iterable[Job]) -> Paths:
    """One scene after the other, in this process."""
    for job in jobs:
        yield do(job)


def processes(workers: int) -> Spread:
    """So many processes. They finish the scenes at hand when this one is interrupted, and end when it is killed.

    Raises `JoyImageError` where one of them ends by itself, as for want of memory.
    """

    def spread(do: Do, jobs: Iterable[Job]) -> Paths:
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads hold
        pool = ProcessPoolExecutor(workers, context, _follow)
        waiting: deque[Future[Path]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(do, job))
                if len(waiting) >= AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise JoyImageError(
                "a process that works on scenes was ended, perhaps for want of memory; the same command goes on, with "
                "fewer workers if it happens again"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)

    return spread


def _follow() -> None:
    """Leave Ctrl-C to the process that gives work, and end with it: a pool's process would wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
