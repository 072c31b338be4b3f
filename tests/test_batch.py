"""`joyimage batch` as it is typed: whole runs, and runs that lose workers, their driver, a machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from ray.autoscaler._private.util import prepare_config, validate_config
from ray_here import ray_folder

from joyimage import JoyImage
from joyimage.cli import main
from joyimage.demo import ASSETS
from joyimage.images import read_parameters
from joyimage.scale import batch, engine

ROWS, STEPS = 96, 4
MANY = 5 * ROWS  # so that one worker has not made all before another has started
PATIENCE = 400  # seconds for what takes 20 on a machine with nothing else to do
PICTURES = ("rotate.png", "move.png", "camera.png")
OPTIONS = ["--device", "cpu", "--steps", str(STEPS)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOYIMAGE_MODEL", raising=False)
    for name in PICTURES:
        shutil.copy(ASSETS / name, name)
    return tmp_path


@pytest.fixture
def rays(folder):
    with ray_folder():
        yield


def row(i: int) -> dict:
    return {"images": PICTURES[i % 3], "instruction": f"Make it {i}.", "seed": i, "name": f"n/{i}"}


def table(*rows: dict, name: str = "jobs.jsonl") -> str:
    Path(name).write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    return name


def start(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "joyimage", "batch", *arguments, *OPTIONS, "--json", "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(run: subprocess.Popen) -> tuple[int, dict, str]:
    """The exit code, what was printed as JSON, and what was said beside it."""
    out, errors = run.communicate(timeout=PATIENCE)
    return run.returncode, json.loads(out) if out else {}, errors


def until(condition: Callable[[], object], run: subprocess.Popen | None = None) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it took too long"
        assert run is None or run.poll() is None, run.communicate()
        time.sleep(0.05)


def journal() -> list[dict]:
    path = Path("out/.batch/journal.jsonl")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def workers() -> set[int]:
    return {int(record["worker"].rpartition(":")[2]) for record in journal() if record["worker"]}


def manifest() -> list[dict]:
    return pq.read_table("out/manifest.parquet").to_pylist()


def written() -> dict[str, int]:
    """The results, and when each got its name."""
    return {path.relative_to("out").as_posix(): path.stat().st_ctime_ns for path in Path("out").rglob("*.png")}


def check_all_once(rows: int = ROWS) -> None:
    """Every row has one record and one picture, and nothing else is left."""
    assert [(record["name"], record["status"]) for record in manifest()] == [(f"n/{i}", "done") for i in range(rows)]
    assert sorted(written()) == sorted(f"n/{i}.png" for i in range(rows))
    assert [path.name for path in Path("out").rglob(".joyimage-*")] == []
    for record in manifest()[:: rows // 7]:
        told = read_parameters(f"out/{record['output']}")
        assert (told["prompt"], told["seed"]) == (f"Make it {record['seed']}.", record["row"] - 1)


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(rays):
    run = start(table(*map(row, range(MANY))), "out", "--workers", "2")
    until(lambda: len(workers()) == 2 and len(journal()) >= 8, run)
    before, (killed, _) = written(), workers()
    os.kill(killed, signal.SIGKILL)
    code, told, errors = ended(run)
    assert (code, told["made"], told["failed"], told["rows"]) == (0, MANY, 0, MANY)
    assert "note: a worker was lost, and its rows go to another" in errors
    check_all_once(MANY)
    assert before.items() <= written().items()  # what was there is not made again
    model = JoyImage.load("tiny", device="cpu")
    for i in (0, 17, MANY - 1):
        (alone,) = model.edit(PICTURES[i % 3], f"Make it {i}.", seed=i, steps=STEPS)
        assert Image.open(f"out/n/{i}.png").tobytes() == alone.tobytes()


@pytest.mark.slow
def test_the_same_command_goes_on_where_its_driver_was_killed(rays):
    jobs = table(*map(row, range(ROWS)))
    run = start(jobs, "out")
    until(lambda: len(journal()) >= 8, run)
    (worker,) = workers()
    run.kill()
    run.communicate()
    until(lambda: not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE)
    before = written()
    assert len(before) >= len(journal()) >= 8
    run = start(jobs, "out")
    until(lambda: len(written()) >= len(before) + 4, run)
    run.send_signal(signal.SIGINT)
    code, _, errors = ended(run)
    assert code == 130
    done = int(re.search(rf"interrupted; (\d+) of {ROWS} rows are done, and the same command goes on", errors)[1])
    assert done >= len(before)  # what was written when it was stopped may have no record yet
    code, told, _ = ended(start(jobs, "out"))
    assert (code, told["failed"]) == (0, 0) and told["made"] + told["there"] == ROWS and told["there"] >= done
    check_all_once()
    assert before.items() <= written().items()


@pytest.mark.slow
def test_rows_that_fail_are_told_and_the_rest_is_made(rays):
    rows = [
        row(0),
        {**row(1), "images": "absent.png"},
        {"images": PICTURES[0], "question": "What is it?", "max_new_tokens": 4, "name": "q"},
        {"images": PICTURES[0], "move": "car", "box": [0, 0, 9999, 9], "name": "far"},
        {"prompt": "A cube.", "name": "t"},
    ]
    code, told, errors = ended(start(table(*rows), "out"))
    assert (code, told["made"], told["failed"]) == (1, 3, 2)
    assert "why rows failed is in the manifest" in errors
    found = {record["row"]: record for record in manifest()}
    assert [found[i]["status"] for i in range(1, 6)] == ["done", "failed", "done", "failed", "done"]
    assert "there is no picture" in found[2]["reason"] and "reaches outside" in found[4]["reason"]
    assert found[3]["answer"] and not found[3]["output"] and found[5]["output"] == "t.png"
    shutil.copy("rotate.png", "absent.png")
    code, told, _ = ended(start(table(*rows), "out"))
    assert (code, told["made"], told["there"], told["failed"]) == (1, 1, 3, 1)
    assert manifest()[1]["status"] == "done" and len(manifest()) == 5


class Cluster:
    """Nodes on this machine, with a token that nobody else has."""

    def __init__(self, folder: Path):
        self.folder, self.nodes = folder, []
        token = folder / "token"
        token.write_text("a" * 64)
        self.environment = {
            **os.environ, "RAY_AUTH_TOKEN_PATH": str(token), "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0",
        }  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1", "--num-gpus=0"]
        command += ["--object-store-memory=100000000", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        node = subprocess.Popen(command, env=self.environment, start_new_session=True, **pipes)
        self.nodes.append(node)
        self.told = ""
        for line in node.stdout:
            self.told += line
            if "Ray runtime started" in line:
                return node
        raise AssertionError(self.told)

    def head(self) -> str:
        """Start the first node, and return its address."""
        folder = f"--temp-dir={self.folder / 'r'}"
        self.start("--head", "--port=0", "--node-ip-address=127.0.0.1", "--include-dashboard=false", folder)
        for line in self.nodes[0].stdout:
            if found := re.search(r"--address='([\d.]+:\d+)'", line):
                return found[1]
        raise AssertionError(self.told)

    def stop(self, node: subprocess.Popen) -> None:
        """At once, as a machine without power."""
        processes = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        node.communicate()


@pytest.fixture
def cluster(rays, monkeypatch):
    with ray_folder() as folder:
        cluster = Cluster(folder)
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", cluster.environment["RAY_AUTH_TOKEN_PATH"])
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        yield cluster
        for node in reversed(cluster.nodes):
            if node.poll() is None:
                cluster.stop(node)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Ray's nodes on one machine are told apart on Linux")
def test_a_machine_that_stops_in_the_middle_loses_nothing(cluster):
    address = cluster.head()
    second = cluster.start(f"--address={address}", "--node-ip-address=127.0.0.2")
    run = start(
        table(*map(row, range(MANY))), "out", "--workers", "2", "--cpus-per-worker", "0.7", "--address", address
    )
    until(lambda: len(workers()) == 2 and len(journal()) >= 8, run)
    before = written()
    cluster.stop(second)
    code, told, errors = ended(run)
    assert (code, told["made"], told["failed"]) == (0, MANY, 0)
    assert "a worker was lost" in errors
    check_all_once(MANY)
    assert before.items() <= written().items()


@pytest.fixture
def unstarted(monkeypatch):
    """A Ray that must not be started."""

    def opened(*_):
        raise AssertionError("Ray was started")

    monkeypatch.setattr(batch, "started", opened)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.jsonl", "out"], "absent.jsonl does not exist"),
        (["empty.jsonl", "out"], "holds no rows"),
        ([".", "out", "--instruction", "x"], "out lies in the folder of the pictures"),
        ([".", ".", "--instruction", "x"], "lies in the folder of the pictures"),
        (["jobs.jsonl", "jobs.jsonl"], "is a file; name a folder"),
        (["jobs.jsonl", "x" * 300], "cannot be made: File name too long"),
        (["jobs.jsonl", "out", "--instruction", " "], "--instruction is empty"),
        (["jobs.jsonl", "out", "--steps", "0"], "steps is 0"),
        (["jobs.jsonl", "out", "--steps", "101"], "steps: 101 are more than the 100 of --max-steps"),
        (["jobs.jsonl", "out", "--max-steps", "0"], "max_steps is 0"),
        (["jobs.jsonl", "out", "--size", "4096x4096"], "more than the 4,194,304 of --max-pixels"),
        (["jobs.jsonl", "out", "--workers", "0"], "workers is 0"),
        (["jobs.jsonl", "out", "--device", "cuda:1"], "leave the number out"),
        (["jobs.jsonl", "out", "--prompt", "x", "--question", "y"], "give one of --instruction, --prompt, --question"),
        (["jobs.jsonl", "out", "--lora", "absent.safetensors"], "there is no LoRA file"),
        (["jobs.jsonl", "out", "--size", "100x100"], "multiples of 16"),
        (["jobs.jsonl", "out", "--seed", "-1"], "seed is -1"),
        (
            ["bad.csv", "out"],
            "none of the 2 rows can be run; the first: there is no column 'imges'; did you mean images",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_starts(folder, unstarted, capsys, arguments, message):
    table(row(0))
    Path("empty.jsonl").write_text("")
    Path("bad.csv").write_text("imges,instruction\nrotate.png,x\nmove.png,y\n")
    assert main(["batch", *arguments, "--quiet"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "address", ["nonsense", "127.0.0.1", "http://127.0.0.1:6379", "ray://127.0.0.1:10001", ":1", ""]
)
def test_what_is_no_address_of_a_cluster_is_refused(folder, unstarted, capsys, address):
    assert main(["batch", table(row(0)), "out", "--address", address, "--quiet"]) == 2
    assert "give HOST:PORT as `ray start --head` prints it" in capsys.readouterr().err


@pytest.mark.parametrize("port", [1, 99999])
def test_an_address_at_which_nobody_listens_is_told_at_once(folder, capsys, monkeypatch, port):
    monkeypatch.setattr(engine, "extra", lambda *_: pytest.fail("Ray was asked"))
    assert main(["batch", table(row(0)), "out", "--address", f"127.0.0.1:{port}", "--quiet"]) == 2
    assert f"no cluster can be reached at 127.0.0.1:{port}" in capsys.readouterr().err


def test_results_of_other_settings_are_refused_before_anything_starts(folder, unstarted, capsys):
    main(["edit", "rotate.png", "Make it 0.", "--steps", "1", "-o", "out/n/0.png", "--quiet"])
    kept = Path("out/n/0.png").read_bytes()
    assert main(["batch", table(row(0)), "out", "--steps", "2", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert "1 result in" in error and "was made with steps 1, not 2" in error and "--redo" in error
    assert Path("out/n/0.png").read_bytes() == kept


def test_two_runs_in_one_folder_are_one_too_many(folder, unstarted, capsys):
    from joyimage.atomic import held

    Path("out").mkdir()
    with held(Path("out"), "batch"):
        assert main(["batch", table(row(0)), "out", "--quiet"]) == 2
    assert "another batch is at work there" in capsys.readouterr().err


def test_the_documented_cluster_is_one_that_ray_takes():
    config = yaml.safe_load((Path(__file__).parents[1] / "docs/ray-cluster.yaml").read_text(encoding="utf-8"))
    validate_config(prepare_config(config))
    assert config["provider"]["type"] == "local"
