"""A real ComfyUI server with the pack linked in, on a base directory of its own."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from comfy_client import RUN_SECONDS, Client
from PIL import Image
from unrun import NO_COMFYUI

from joyimage import JoyImage
from tools.photograph import photograph

REPOSITORY = Path(__file__).parents[2]
PACK = "ComfyUI-JoyImage"
NEEDED = "import torch, aiohttp, comfy_kitchen"
START_SECONDS = 180


@dataclass(frozen=True)
class Installation:
    path: Path
    python: str


def find_comfyui() -> Installation | None:
    """ComfyUI at $COMFYUI_PATH or ~/comfy/ComfyUI, and a Python that has what it needs."""
    path = Path(os.environ.get("COMFYUI_PATH") or "~/comfy/ComfyUI").expanduser()
    if not (path / "main.py").is_file():
        return None
    beside = (path.parent / "venv", path / "venv", path / ".venv")
    candidates = [os.environ.get("COMFYUI_PYTHON"), *(str(venv / "bin/python") for venv in beside), sys.executable]
    for python in filter(None, candidates):
        if Path(python).exists() and subprocess.run([python, "-c", NEEDED], capture_output=True).returncode == 0:
            return Installation(path, python)
    return None


@pytest.fixture(scope="session")
def comfyui() -> Installation:
    found = find_comfyui()
    if found is None:
        pytest.skip(NO_COMFYUI)
    return found


@pytest.fixture(scope="session")
def make_base(comfyui, tmp_path_factory):
    """Makes what a server uses for its models, inputs and outputs, with the pack linked in."""

    def make() -> Path:
        base = tmp_path_factory.mktemp("comfyui")
        for name in ("custom_nodes", "input", "output", "models"):
            (base / name).mkdir()
        (base / "custom_nodes" / PACK).symlink_to(REPOSITORY, target_is_directory=True)
        return base

    return make


@pytest.fixture(scope="session")
def base_directory(make_base) -> Path:
    return make_base()


@pytest.fixture(scope="session")
def serve(comfyui):
    """Starts a server on a base directory, on the CPU, and gives a client of it; it ends with the `with` statement."""

    @contextlib.contextmanager
    def start(base: Path, *more: str) -> Iterator[Client]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = base / "server.log"
        options = ["--cpu", "--port", str(port), "--base-directory", str(base), "--preview-method", "latent2rgb"]
        options += ["--disable-api-nodes", "--disable-all-custom-nodes", "--whitelist-custom-nodes", PACK, *more]
        with log.open("wb") as sink:
            command = [comfyui.python, "-s", "main.py", *options]
            one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # tiny networks: more threads only wait for each other
            server = subprocess.Popen(command, cwd=comfyui.path, env=one_thread, stdout=sink, stderr=subprocess.STDOUT)
        try:
            yield connect(server, port, base, log)
        finally:
            server.terminate()
            server.wait(30)

    return start


@pytest.fixture(scope="session")
def client(serve, base_directory):
    """A client of a server that runs until the tests end."""
    with serve(base_directory) as client:
        yield client


@pytest.fixture(scope="session")
def library() -> JoyImage:
    return JoyImage.load("tiny", device="cpu")


@pytest.fixture(scope="session")
def pictures(client) -> dict[str, Image.Image]:
    """Pictures of three sizes, by the names under which the server has them."""
    whole = photograph()
    made = {"wide.png": whole.resize((300, 200)), "tall.png": whole.rotate(90).resize((120, 330))}
    made["twin.png"] = whole.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((300, 200))
    for name, picture in made.items():
        picture.save(client.base / "input" / name)
    return made


def connect(server: subprocess.Popen, port: int, base: Path, log: Path) -> Client:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError):
            return Client(port, base, log)
        time.sleep(0.3)
    pytest.fail(f"ComfyUI did not start; the end of its log:\n{log.read_text(errors='replace')[-4000:]}")


@pytest.fixture(scope="session")
def probes(comfyui) -> dict[str, tuple[Any, str | None]]:
    """What `probes.py` found in ComfyUI's Python, with the pack imported as ComfyUI does."""
    command = [comfyui.python, str(Path(__file__).with_name("probes.py")), str(comfyui.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def probe(probes):
    """The result of one of the probes by name."""

    def result(name: str) -> Any:
        value, error = probes[name]
        assert error is None, error
        return value

    return result
