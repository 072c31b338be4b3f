"""Tasks over processes of Ray that fail, are killed and come back: each item has one result."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import running
from ray_here import ray_folder

from joyimage import JoyImageError
from joyimage.scale.engine import TRIES, Crew, Need, Stopped, started
from joyimage.scale.settings import Pool

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:a worker was lost")]
PATIENCE = 120.0  # seconds in which Ray has started a process, or brought a result, on any machine


@pytest.fixture(scope="module")
def ray():
    with ray_folder(), started(Pool()) as ray:
        yield ray


@dataclass(frozen=True)
class Squares:
    """Items are numbers. Each is noted in a folder when it is begun; what happens at some stands in `events`."""

    folder: Path
    events: tuple[tuple[int, str], ...] = ()
    together: int = 1  # processes that wait for each other before they begin

    def __call__(self):
        return self.work

    @property
    def at_work(self) -> Path:
        return self.folder.with_name(f"{self.folder.name} at work")

    @property
    def received(self) -> Path:
        """Where an item's result is noted once it has arrived."""
        return self.folder.with_name(f"{self.folder.name} received")

    def work(self, items):
        self.at_work.mkdir(exist_ok=True)
        (self.at_work / str(os.getpid())).touch()
        until(lambda: len(list(self.at_work.iterdir())) >= self.together)
        for place, item in enumerate(items):
            with (self.folder / f"{item}-{time.monotonic_ns()}").open("x"):
                begun = len(list(self.folder.glob(f"{item}-*")))
            event = dict(self.events).get(item)
            if event:  # what a process had on its way when it was killed is not its result
                until(lambda done=items[:place]: all((self.received / str(each)).exists() for each in done))
            if event == "always dies" or (event == "dies once" and begun == 1):
                os.kill(os.getpid(), signal.SIGKILL)
            if event == "breaks once" and begun == 1:
                raise RuntimeError("the device is gone")
            if event == "stops":
                raise Stopped("the disk is full")
            yield item, item**2, os.getpid()


def until(true) -> None:
    end = time.monotonic() + PATIENCE
    while not true() and time.monotonic() < end:
        time.sleep(0.01)


def results(ray, work, tasks, workers=2):
    crew = Crew(ray, work, Pool(workers=workers), lambda item, reason: (item, reason, 0))
    found = []
    for item, square, process in crew.results(tasks):
        if isinstance(work, Squares):
            work.received.mkdir(exist_ok=True)
            (work.received / str(item)).touch()
        found.append((item, square, process))
    return found


def begun(folder: Path, item: int) -> int:
    return len(list(folder.glob(f"{item}-*")))


def test_every_item_has_one_result_and_all_workers_work(ray, tmp_path):
    work = Squares(tmp_path, together=2)
    found = results(ray, work, ([i, i + 1, i + 2] for i in range(0, 120, 3)))
    assert sorted((item, square) for item, square, _ in found) == [(i, i**2) for i in range(120)]
    assert len(list(tmp_path.iterdir())) == 120
    assert len({pid for *_, pid in found}) == 2


@pytest.mark.parametrize("event", ["dies once", "breaks once"])
def test_a_lost_workers_items_go_to_others_but_for_those_with_results(ray, tmp_path, event):
    found = results(ray, Squares(tmp_path, ((2, event),)), [[0, 1, 2, 3], [4, 5]], workers=1)
    assert sorted((item, square) for item, square, _ in found) == [(i, i**2) for i in range(6)]
    assert [begun(tmp_path, i) for i in range(6)] == [1, 1, 2, 1, 1, 1]


def test_an_item_that_costs_three_workers_fails_and_the_others_do_not(ray, tmp_path):
    found = {
        item: square for item, square, _ in results(ray, Squares(tmp_path, ((1, "always dies"),)), [[0, 1, 2], [3]])
    }
    assert begun(tmp_path, 1) in (TRIES, TRIES + 1)  # the first time the item before it may be under suspicion
    assert "3 workers were lost at this row" in found.pop(1)
    assert found == {0: 0, 2: 4, 3: 9}


def test_two_items_that_cost_workers_do_not_end_the_run(ray, tmp_path):
    work = Squares(tmp_path, ((1, "always dies"), (2, "always dies")))
    found = {item: square for item, square, _ in results(ray, work, [[0, 1, 2, 3]], workers=1)}
    assert (found[0], found[3]) == (0, 9)
    assert all("workers were lost" in found[i] for i in (1, 2))


def test_a_worker_can_end_the_run(ray, tmp_path):
    with pytest.raises(Stopped, match="the disk is full"):
        results(ray, Squares(tmp_path, ((1, "stops"),)), [[0], [1], [2]], workers=1)


@dataclass(frozen=True)
class Unready:
    """What cannot be made, or kills who makes it."""

    deadly: bool = False

    def __call__(self):
        if self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        raise JoyImageError("there is no model here")


def test_a_model_that_cannot_be_loaded_ends_the_run_with_its_reason(ray):
    with pytest.raises(JoyImageError, match=r"^there is no model here$"):
        results(ray, Unready(), [[0]], workers=1)


def test_workers_that_die_while_they_load_end_the_run(ray):
    with pytest.raises(JoyImageError, match="3 workers were lost without a result"):
        results(ray, Unready(deadly=True), [[0]], workers=1)


@dataclass(frozen=True)
class Halting:
    """Workers that note who they are, and hang while they are made: all, or the first alone. Then the second begins
    nothing before there is a third.
    """

    folder: Path
    every: bool = False

    def __call__(self):
        (self.folder / str(os.getpid())).touch()
        try:
            (self.folder / "first").touch(exist_ok=self.every)
        except FileExistsError:
            return self.work
        os.kill(os.getpid(), signal.SIGSTOP)

    @property
    def begun(self) -> Path:
        return self.folder / "begun"

    def work(self, items):
        self.begun.touch()
        until(lambda: len(self.workers()) > 2)
        for item in items:
            yield item**2

    def workers(self) -> list[int]:
        return [int(path.name) for path in self.folder.iterdir() if path.name.isdecimal()]


def test_a_run_whose_workers_all_hang_as_they_load_ends(ray, tmp_path):
    work = Halting(tmp_path, every=True)
    crew = Crew(ray, work, Pool(workers=1, load_seconds=1), lambda item, reason: item)
    late = r", process (\d+), has not loaded the model within 1 seconds: .*--load-seconds"
    with pytest.raises(JoyImageError, match=late) as ended:
        list(crew.results([[1]]))
    assert str(ended.value).startswith(f"a worker on {socket.gethostname()}, ")
    process = int(re.search(late, str(ended.value))[1])
    assert work.workers() in ([process], [])  # it may have come to a halt before it was made
    until(lambda: not running(process))
    assert not running(process)


def test_a_worker_that_hangs_is_replaced_where_others_are_ready(ray, tmp_path):
    class Hasty(Crew):
        """Its time is over as soon as the other worker is at work; the one that comes then has all the time again."""

        def _check_loading(self):
            if work.begun.exists():
                self.load_seconds = 1
            super()._check_loading()

        def _lose(self, *lost):
            super()._lose(*lost)
            work.begun.unlink()
            self.load_seconds = 600

    work = Halting(tmp_path)
    crew = Hasty(ray, work, Pool(workers=2), lambda item, reason: item)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        # More than one worker has at hand: else no other would be started.
        assert sorted(crew.results([[1, 2], [3], [4], [5]])) == [1, 4, 9, 16, 25]
    (line,) = (str(each.message) for each in told if "a worker was lost" in str(each.message))
    assert "has not loaded the model within 1 seconds" in line
    assert len(work.workers()) == 3


@pytest.mark.parametrize(
    ("pool", "message"), [(Pool(gpus_per_worker=64), "64 GPUs"), (Pool(workers=1000), "1000 workers")]
)
def test_room_that_there_can_never_be_is_an_error_at_once(ray, pool, message):
    with pytest.raises(JoyImageError, match=f"{message}.* find no room"):
        Crew(ray, Unready(), pool, lambda item, reason: item)


def test_workers_by_what_a_machine_has():
    machine = {"CPU": 16.0, "GPU": 4.0}
    assert Need(0.5, 1).fits(machine) == 4
    assert Need(0.5, 0.5).fits(machine) == 8
    assert Need(8, 1).fits(machine) == 2
    assert Need(0.1, 0).fits(machine) == 160
    assert Need(0.5, 1).fits({"CPU": 16.0}) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"workers": 1.5}, "workers is 1.5"),
        ({"gpus_per_worker": -1}, "gpus_per_worker is -1"),
        ({"gpus_per_worker": 1.5}, "only whole GPUs"),
        ({"cpus_per_worker": 0}, "cpus_per_worker is 0"),
        ({"batch": 0}, "batch"),
    ],
)
def test_pools_that_cannot_be_are_refused(options, message):
    with pytest.raises(JoyImageError, match=message):
        Pool(**options)


def test_a_cluster_that_is_not_there_is_an_error():
    with (
        pytest.raises(JoyImageError, match=r"no cluster can be reached at 127\.0\.0\.1:1"),
        started(Pool(address="127.0.0.1:1")),
    ):
        pass
