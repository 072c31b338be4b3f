"""A server with the bundled model on a free port, in a thread of this process; its model is in a process of its own."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import io
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from joyimage import JoyImage
from joyimage.demo import asset
from joyimage.scale.loading import Loading
from joyimage.scale.serving.app import create_app
from joyimage.scale.serving.pool import Pool
from joyimage.scale.serving.server import Server, configured
from joyimage.scale.serving.settings import Serving

START_SECONDS = 300  # on a machine that is busy with all else
SECONDS = 30  # in which something that a test waits for comes
KEY = "test-key"


class Live:
    """One pool, and an application over it on each of two ports: one that is open, and one that wants `KEY`."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.serving = Serving(queue=40)
        self.pool = self.run(self._pool(), START_SECONDS)
        self.url = self.run(self._listen(None))
        self.locked = self.run(self._listen(KEY))

    def run(self, work: Any, seconds: float = SECONDS) -> Any:
        """Await something in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(seconds)

    async def _pool(self) -> Pool:
        pool = Pool([Loading()], self.serving)
        await pool.start()
        return pool

    def listen(self, **options: Any) -> str:
        """The address of another port, with settings of uvicorn and of `configured`."""
        return self.run(self._listen(None, **options))

    async def _listen(self, key: str | None, **options: Any) -> str:
        app = create_app(self.pool, "tiny", key=key, local=key is None)
        server = Server(configured(app, log_level="error", lifespan="off", **options))
        bound = socket.create_server(("127.0.0.1", 0))
        self.loop.create_task(server.serve([bound]))
        while not server.started:
            await asyncio.sleep(0.01)
        return f"http://127.0.0.1:{bound.getsockname()[1]}"

    def stop(self) -> None:
        with contextlib.suppress(Exception):
            self.run(self.pool.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)

    @contextlib.contextmanager
    def set(self, **settings: int) -> Iterator[None]:
        """Other settings for a while, at whose start and end no job is at work: nor one that is over for its client."""
        until(self.idle)
        self.pool.serving = Serving(**settings)
        try:
            yield
        finally:
            until(self.idle)
            self.pool.serving = self.serving

    def idle(self) -> bool:
        return not (self.pool.running or self.pool.waiting or self.busy)

    @property
    def busy(self) -> bool:
        return self.pool.members[0].busy

    def client(self, **options: Any) -> openai.OpenAI:
        given = {"api_key": "none", "max_retries": 0, "timeout": 60, **options}
        return openai.OpenAI(base_url=f"{self.url}/v1", **given)

    def http(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **options)


@contextlib.contextmanager
def halted(live: Live) -> Iterator[None]:
    """The process with the model goes no further, on however fast a machine; it may be killed meanwhile."""
    process = live.pool.members[0].process_id
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


@functools.cache
def live_server() -> Live:
    pytest.importorskip("fastapi")
    live = Live()
    atexit.register(live.stop)
    return live


@functools.cache
def model() -> JoyImage:
    """The same model, in this process, for what should come."""
    return JoyImage.load("tiny", device="cpu")


def until(condition: Callable[[], Any], seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def scene() -> Image.Image:
    return asset("move.png")
