"""Damaged files of every kind, a few of each, and that the tool which tries thousands of them finds what is wrong.

`make fuzz` runs many more.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import pytest

from joyimage.errors import JoyImageError
from tools.fuzz import __main__ as tool
from tools.fuzz import uses, worker
from tools.fuzz.kinds import KINDS
from tools.fuzz.uses import Case, Outcome, examine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux only")

INPUTS = 5
SEED = 20


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> worker.Place:
    made = worker.Place(tmp_path_factory.mktemp("fuzz"))
    worker.prepare(made, KINDS)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_give_our_errors_or_load(place, kind):
    for number in range(INPUTS):
        assert worker.try_one(place, 0, kind, SEED, number).faults == [], number


def test_an_input_comes_again_from_its_seed_and_number(place):
    def content(*which) -> dict[str, bytes]:
        worker.damaged(place, 0, *which)
        files = (file for file in place.case(0).rglob("*") if file.is_file())
        return {file.name: file.read_bytes() for file in files}

    assert content("shards", 1, 2) == content("shards", 1, 2) != content("shards", 1, 3)


# -- the oracle -------------------------------------------------------------------------------------------------------


def take_memory(case: Case) -> None:
    bytearray(os.urandom(2**10) * 2**17)


def take_time(case: Case) -> None:
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass


def raises(error: BaseException):
    def call(case: Case) -> None:
        raise error

    return call


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        (raises(KeyError("a")), "KeyError: 'a'"),
        (raises(SystemExit(2)), "SystemExit: 2"),
        (raises(JoyImageError("no such thing")), "a message without the path"),
        (take_memory, "bytes for"),
        (take_time, "s of a processor"),
    ],
)
def test_what_breaks_a_promise_is_a_fault(tmp_path, monkeypatch, call, fault):
    monkeypatch.setitem(uses.CALLS, "inspect", call)
    monkeypatch.setattr(uses, "INSPECT_SECONDS", 0.05 if call is take_time else 5)
    case = Case(tmp_path, tmp_path, tmp_path, tmp_path, 0)
    assert fault in examine(case, ("inspect",)).faults[0]


def note(arguments) -> int:
    print(f"joyimage: note: {'x' * 3000}", file=sys.stderr)
    return 0


@pytest.mark.parametrize(
    ("main", "fault"),
    [
        (lambda arguments: 1, "exit code 1"),
        (lambda arguments: 2, "exit code 2"),  # without a line that says why
        (lambda arguments: print("\x1b[2J") or 0, "the control character '\\x1b'"),
        (lambda arguments: print("\ud800") or 0, "UnicodeEncodeError"),
        (note, "a line of 3,016 characters"),
        (lambda arguments: 0, ""),
    ],
)
def test_what_a_command_must_not_do_is_a_fault(monkeypatch, main, fault):
    monkeypatch.setattr(uses, "main", main)
    found = uses.command_fault(["inspect"])
    assert fault in found if fault else found == ""


# -- the run ----------------------------------------------------------------------------------------------------------


def crash(connection, root: str, number: int) -> None:
    if connection.recv()[2] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    connection.send(Outcome(loaded=True))


def hang(connection, root: str, number: int) -> None:
    connection.recv()
    time.sleep(60)


@pytest.mark.parametrize(("target", "fault"), [(crash, "the process ended with -9"), (hang, "no end after 0.1 s")])
def test_what_ends_or_holds_a_process_is_said_and_the_next_input_tried(tmp_path, target, fault):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads in a process that forks
        one = worker.Worker(worker.Place(tmp_path), 0, target, patience=0.1 if target is hang else 60, start="fork")
        assert str(one.run("pth", 0, 1)).startswith(fault)
        if target is crash:
            assert one.run("pth", 0, 2) == Outcome(loaded=True)
        one.process.kill()


class InThisProcess:
    def __init__(self, place: worker.Place, number: int):
        self.place, self.number = place, number

    def run(self, *which) -> Outcome:
        return worker.try_one(self.place, self.number, *which)

    def close(self) -> None:
        pass


def test_an_input_with_a_fault_is_kept_and_can_be_tried_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, "Worker", InThisProcess)
    keep = tmp_path / "kept"
    options = argparse.Namespace(kinds=["picture gif"], count=3, seed=5, only=None, jobs=1, keep=keep)
    assert tool.fuzz(options, tmp_path / "good") == 0 and not list(keep.iterdir())
    with monkeypatch.context() as broken:
        broken.setitem(uses.CALLS, "picture", raises(KeyError("a")))
        assert tool.fuzz(options, tmp_path / "bad") == 1
        folder = keep / "picture-gif-5-2"
        assert json.loads((folder / tool.RECORD).read_text())["again"][0] == f"python -m tools.fuzz --again {folder}"
        capsys.readouterr()
        assert tool.again(folder, Path(tmp_path / "again")) == 1
        assert "KeyError: 'a'" in capsys.readouterr().out
    assert tool.again(folder, Path(tmp_path / "once more")) == 0


def test_the_table_has_a_row_for_each_kind_and_one_for_all():
    tallies = {"pth": tool.Tally(), "lora": tool.Tally()}
    tallies["pth"].add(Outcome(loaded=True, seconds=1.5, bytes=2**20))
    tallies["lora"].add(Outcome(faults=["a"]))
    rows = [line.split() for line in tool.table(tallies).splitlines()]
    assert rows[1][1:] == ["1", "0", "1", "0", "1.50", "s", "1.0", "MiB"]
    assert rows[-1][1:5] == ["2", "0", "1", "1"]
