"""Processes that hang while they load the model: each has a time, and the error says which it was and what to do."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from live_server import Live, live_server, until
from PIL import Image
from processes import running

from joyimage import JoyImage, JoyImageError
from joyimage.cli import main
from joyimage.parallel import team
from joyimage.scale.loading import Loading
from joyimage.scale.serving import pool
from joyimage.scale.settings import Pool
from joyimage.waiting import LOAD_SECONDS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no such signal"),
]
HALT = "import os, signal, sys\n"
HALT += "if any('spawn_main' in word for word in sys.orig_argv): os.kill(os.getpid(), signal.SIGSTOP)\n"
HEALTHY = {"loading": 0, "loading_seconds": 0, "ready": 1, "workers": 1, "status": "ok", "waiting": 0, "running": 0}


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_a_server_says_what_it_waits_for_and_gives_it_up(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HALT)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "joyimage", "serve", "-m", "tiny", "--port", str(port), "--load-seconds", "20"]
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            health = until_answered(http, "/health")
            refused = http.post("/v1/images/generations", json={"prompt": "a red cube"})
        assert health.status_code == 503
        assert health.json()["loading_seconds"] <= 20
        assert {**health.json(), "loading_seconds": 0} == {**HEALTHY, "status": "loading", "loading": 1, "ready": 0}
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert int(refused.headers["Retry-After"]) > 1
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        output, errors = process.communicate(timeout=100)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 2 and output == ""
    assert "error: a process with the model (" in errors and "has not loaded the model within 20 seconds" in errors
    assert "--load-seconds" in errors and "Traceback" not in errors
    assert children
    until(lambda: not any(running(int(child)) for child in children))


def until_answered(http: httpx.Client, path: str) -> httpx.Response:
    end = time.monotonic() + 100
    while True:
        try:
            return http.get(path)
        except httpx.TransportError:
            assert time.monotonic() < end, "nothing answers"
            time.sleep(0.1)


@contextlib.contextmanager
def halted_server(folder: Path) -> Iterator[tuple[subprocess.Popen, list[int]]]:
    """A server whose process with the model is halted as it starts, and the processes that it has started."""
    (folder / "sitecustomize.py").write_text(HALT)
    command = [sys.executable, "-m", "joyimage", "serve", "-m", "tiny", "--port", "0"]
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        until(lambda: any(state(int(child)) == "T" for child in found.read_text().split()), 100)
        yield process, list(map(int, found.read_text().split()))
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_still_loads_ends_when_it_is_told_to(tmp_path, how):
    with halted_server(tmp_path) as (process, children):
        process.send_signal(how)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and output == "" and "Traceback" not in errors
    until(lambda: not any(map(running, children)))


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_what_still_loads_ends_without_a_word_where_its_server_was_killed(tmp_path):
    with halted_server(tmp_path) as (process, children):
        process.kill()
        (loading,) = (child for child in children if state(child) == "T")
        os.kill(loading, signal.SIGCONT)
        output, errors = process.communicate(timeout=300)  # until all that write there have ended
    assert output == "" and "Traceback" not in errors
    until(lambda: not running(loading))


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture
def live() -> Live:
    return live_server()


def test_a_process_that_hangs_as_it_starts_again_is_replaced(live, monkeypatch, caplog):
    monkeypatch.setattr(pool, "PAUSES", (0.1,))
    (member,) = live.pool.members
    spawn, halted = member.spawn, []

    def spawned() -> None:
        monkeypatch.setattr(member, "loading", Loading({"path": "tiny", **({} if halted else {"load_seconds": 3})}))
        spawn()
        if not halted:
            halted.append(member.process_id)
            os.kill(member.process_id, signal.SIGSTOP)

    monkeypatch.setattr(member, "spawn", spawned)
    with live.set(), live.http() as http:
        os.kill(member.process_id, signal.SIGKILL)
        until(lambda: halted)
        health = http.get("/health")
        assert b"joyimage_loading 1.0" in live.pool.meters.text()
        until(lambda: live.pool.ready, 100)
        assert http.get("/health").json() == HEALTHY
    assert health.status_code == 503
    assert {**health.json(), "loading_seconds": 0} == {**HEALTHY, "status": "degraded", "loading": 1, "ready": 0}
    assert not running(halted[0]) and member.process_id != halted[0]
    told = [record.getMessage() for record in caplog.records]
    assert any(
        f"a process with the model ({halted[0]}) has not loaded the model within 3 seconds" in line for line in told
    )
    assert sum("a process with the model ended; another one starts in 0.1 s" in line for line in told) == 2


def test_a_further_devices_process_that_hangs_is_named(monkeypatch):
    monkeypatch.setattr(team, "START", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)")
    model = JoyImage.load("tiny", guidance_devices=["cpu", "cpu"], load_seconds=1)
    (process,) = (each._process.pid for each in model._team._processes)
    with pytest.raises(
        JoyImageError, match=rf"the process for cpu \({process}\) has not loaded the model within 1 sec"
    ):
        model.edit(Image.new("RGB", (64, 64)), "Make it blue.", steps=1)
    gc.collect()
    assert not running(process)


@pytest.mark.parametrize("seconds", ["0", "86401", "-3"])
def test_times_that_cannot_be_are_refused_before_anything_loads(capsys, seconds):
    assert main(["serve", "--model", "absent", "--load-seconds", seconds]) == 2
    assert f"load_seconds is {seconds}; give the seconds" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [0, 1.5, None, "60", float("nan")])
def test_and_so_are_they_in_the_library(seconds):
    with pytest.raises(JoyImageError, match="load_seconds is"):
        JoyImage.load("absent", load_seconds=seconds)
    with pytest.raises(JoyImageError, match="load_seconds is"):
        Pool(load_seconds=seconds)


def test_the_time_is_generous_unless_given():
    assert Loading().seconds == Pool().load_seconds == LOAD_SECONDS == 1800
