"""The command `joyimage serve` as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from live_server import KEY, START_SECONDS

from joyimage.scale.serving.settings import KEY_VARIABLE


@dataclass
class Served:
    """The command at work, its address, and what it said."""

    process: subprocess.Popen
    url: str
    log: Path

    def http(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, headers={"Authorization": f"Bearer {KEY}"}, **options)

    def end(self, number: int, seconds: float = 60) -> int:
        self.process.send_signal(number)
        return self.process.wait(seconds)


@contextlib.contextmanager
def served(folder: Path, *options: str, **environment: str) -> Iterator[Served]:
    log = folder / "server.log"
    given = {**os.environ, "OMP_NUM_THREADS": "1", KEY_VARIABLE: KEY, **environment}
    command = [sys.executable, "-m", "joyimage", "serve", "--model", "tiny", "--port", "0", "--json", *options]
    with log.open("wb") as errors:
        process = subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=errors, text=True)
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    try:
        line = process.stdout.readline()
        assert line, log.read_text()
        yield Served(process, json.loads(line)["address"], log)
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
