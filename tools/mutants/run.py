"""Runs the tests for one mutant after another: the process that forks, in a copy of the tree.

What tests import most is imported once, here. Each mutant has a child of its own, so that nothing of one is left in
the next; with one thread per process a fork is safe.
"""

import contextlib
import faulthandler
import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from .reach import Recorder

PRELOADED = (
    "torch",
    "diffusers",
    "transformers",
    "transformers.models.qwen3_vl.modeling_qwen3_vl",
    "hypothesis",
    "peft",
)
OPTIONS = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0", "--no-header", "-W", "ignore")
OUTCOMES = {0: "survived", 1: "killed", 2: "killed", 5: "survived", None: "timeout"}  # by pytest's exit code


class Chosen:
    """Leaves of what is collected the chosen tests in their order, and keeps what fails: tests, or imports.

    Where a table gives tests their names, a mutant renames them: for a test that is gone all of its function run.
    """

    def __init__(self, tests: list[str]):
        self.order = {test: i for i, test in enumerate(tests)}
        self.failed: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        gone = {test.split("[")[0] for test in self.order.keys() - {item.nodeid for item in items}}
        kept = (item for item in items if item.nodeid in self.order or item.nodeid.split("[")[0] in gone)
        items[:] = sorted(kept, key=lambda item: self.order.get(item.nodeid, len(self.order)))

    def pytest_collectreport(self, report):
        if report.failed:
            self.failed.append(f"the import of {report.nodeid}")

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.append(report.nodeid)


def in_child(work: Callable[[], int], log: Path, limit: float) -> int | None:
    """The exit code of `work` in a forked process; None if it took over `limit` seconds.

    Everything that it started ends with it. What it printed is in `log`, and where it was when the time ran out.
    """
    if pid := os.fork():
        try:
            return _code(pid, limit)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # its code is read already, unless it was stopped
                os.waitpid(pid, 0)
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            faulthandler.dump_traceback_later(max(1, limit - 2), file=file)
            code = int(work())
            sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        code = pytest.ExitCode.INTERNAL_ERROR
    os._exit(code)


def _code(pid: int, limit: float) -> int | None:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def record(file: str, out: str, log: str) -> None:
    """Write down what a test file reaches."""
    Path(out).unlink(missing_ok=True)
    in_child(lambda: pytest.main([*OPTIONS, file], plugins=[Recorder(Path(out))]), Path(log), limit=1800)


def run(tests: list[str], limit: float, log: str, options: tuple[str, ...] = ()) -> tuple[int | None, list[str]]:
    """Run tests, file by file in their order: pytest's exit code and what failed.

    Raises `RuntimeError` where pytest itself failed, which tells nothing of the library.
    """
    verdict = Path(f"{log}.json")
    verdict.unlink(missing_ok=True)

    def work() -> int:
        chosen = Chosen(tests)
        files = dict.fromkeys(test.split("::")[0] for test in tests)
        code = pytest.main([*OPTIONS, *options, *files], plugins=[chosen])
        verdict.write_text(json.dumps(chosen.failed), encoding="utf-8")
        return code

    code = in_child(work, Path(log), limit)
    if code not in OUTCOMES and code >= 0:
        raise RuntimeError(f"pytest ended with exit code {code}; see {log}")
    return code, json.loads(verdict.read_text(encoding="utf-8")) if verdict.exists() else []


def judge(file: str, code: str, number: int, tests: list[str], limit: float, log: str) -> dict:
    """Run `tests` with this code in a module; what became of the mutant.

    Its `number` is the time that the module bears: Python knows compiled files by seconds and would take an older one.
    """
    target = Path(file)
    source, times = target.read_bytes(), target.stat()
    begin = time.monotonic()
    try:
        target.write_text(code, encoding="utf-8")
        os.utime(target, (number, number))
        status, failed = run(tests, limit, log, ("-x",))
    finally:
        target.write_bytes(source)
        os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
    by = failed[0] if failed else f"signal {-status}" if status and status < 0 else ""
    return {"outcome": OUTCOMES.get(status, "killed"), "by": by, "seconds": round(time.monotonic() - begin, 1)}


def control(tests: list[str], log: str) -> list[str]:
    """Those of the tests that fail without any change."""
    return run(tests, 3600, log)[1] if tests else []


JOBS = {"record": record, "judge": judge, "control": control}


def stop(*_) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    sys.exit()


def main() -> None:
    """Work through the jobs that come line by line on standard input as JSON, and answer each with a line."""
    for name in PRELOADED:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, stop)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    for line in sys.stdin:
        job = json.loads(line)
        answers.write(json.dumps(JOBS[job.pop("job")](**job)) + "\n")


if __name__ == "__main__":
    main()
