"""A real ComfyUI with the pack linked in, on a base directory of its own: for the tests of nodes and the soak."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .client import Client
from .comfyui import PACK, place

PACK_NAME = "ComfyUI-JoyImage"
NEEDED = "import torch, aiohttp, comfy_kitchen"
START_SECONDS = 180
STOP_SECONDS = 30
# Beginnings of what a server takes of the environment: what torch and others leave in that of tests is not for it.
KEPT = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_",
    "TMP",
    "TEMP",
    "SYSTEMROOT",
    "LD_LIBRARY_PATH",
    "SSL_",
    "JOYIMAGE_",
    "OPENAI_",
)
LOG_SHOWN = 4000  # characters of its end, where a server did not start


class NotStartedError(RuntimeError):
    """ComfyUI ended before it answered, or did not answer in time; the message has the end of its log."""


@dataclass(frozen=True)
class Installation:
    """A ComfyUI and a Python that has what it needs."""

    path: Path
    python: str


def find_comfyui() -> Installation | None:
    """The ComfyUI at $COMFYUI_PATH or ~/comfy/ComfyUI, with $COMFYUI_PYTHON, an environment beside it or this one."""
    path = place()
    if not (path / "main.py").is_file():
        return None
    beside = (path.parent / "venv", path / "venv", path / ".venv")
    candidates = [os.environ.get("COMFYUI_PYTHON"), *(str(venv / "bin/python") for venv in beside), sys.executable]
    for python in filter(None, candidates):
        if Path(python).exists() and subprocess.run([python, "-c", NEEDED], capture_output=True).returncode == 0:
            return Installation(path, python)
    return None


def make_base(base: Path) -> Path:
    """Put into a folder what a server uses for its models, inputs and outputs, with the pack linked in."""
    for name in ("custom_nodes", "input", "output", "models"):
        (base / name).mkdir()
    (base / "custom_nodes" / PACK_NAME).symlink_to(PACK, target_is_directory=True)
    return base


@contextlib.contextmanager
def serve(comfyui: Installation, base: Path, *more: str) -> Iterator[Client]:
    """Start a server on a base directory, on the CPU and a free port, and give a client of it; it ends with the
    `with` statement. `more` are options of ComfyUI. Raises `NotStartedError`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = base / "server.log"
    options = ["--cpu", "--port", str(port), "--base-directory", str(base), "--preview-method", "latent2rgb"]
    options += ["--disable-api-nodes", "--disable-all-custom-nodes", "--whitelist-custom-nodes", PACK_NAME, *more]
    with log.open("wb") as sink:
        command = [comfyui.python, "-s", "main.py", *options]
        own = {
            "OMP_NUM_THREADS": "1",  # tiny networks: more threads only wait for each other
            # a server that was killed while it linked leaves half a library, which no other shall find
            "TORCHINDUCTOR_CACHE_DIR": str(base / "inductor"),
        }
        environment = {name: value for name, value in os.environ.items() if name.startswith(KEPT)} | own
        server = subprocess.Popen(command, cwd=comfyui.path, env=environment, stdout=sink, stderr=subprocess.STDOUT)
    try:
        yield _connect(server, port, base, log)
    finally:
        server.terminate()
        server.wait(STOP_SECONDS)


def _connect(server: subprocess.Popen, port: int, base: Path, log: Path) -> Client:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError):
            return Client(port, base, log, server.pid)
        time.sleep(0.3)
    raise NotStartedError(f"ComfyUI did not start; the end of its log:\n{log.read_text(errors='replace')[-LOG_SHOWN:]}")
