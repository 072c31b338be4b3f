"""The server as one command: processes with the model, a socket, and an end in which nothing accepted is lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from ssl import SSLContext
from typing import Any

import uvicorn
from fastapi import FastAPI

from ...errors import JoyImageError
from ..loading import Loading
from .app import create_app
from .patience import HEAD_SECONDS, STALL_SECONDS, impatient
from .pool import Pool
from .settings import Serving, check_binding, is_loopback

SIGNALS = (signal.SIGINT, signal.SIGTERM)
CLOSE_SECONDS = 5  # for answers that are on their way when all else is done


class Server(uvicorn.Server):
    """uvicorn's, but for its signals: it would close the socket at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def configured(
    app: FastAPI, head_seconds: float = HEAD_SECONDS, stall_seconds: float = STALL_SECONDS, **options: Any
) -> uvicorn.Config:
    """uvicorn's settings, with limits on how long clients may take."""
    quiet = {"log_level": "warning", "access_log": False, "server_header": False, "date_header": False}
    config = uvicorn.Config(app, timeout_graceful_shutdown=CLOSE_SECONDS, **{**quiet, **options})
    config.load()
    config.http_protocol_class = impatient(config.http_protocol_class, head_seconds, stall_seconds)
    return config


def serve(
    loadings: Sequence[Loading], serving: Serving, name: str, *, host: str, port: int, key: str | None,
    without_key: bool = False, tls: SSLContext | None = None, told: Callable[[str], None] = print,
) -> None:  # fmt: skip
    """Serve until SIGTERM or Ctrl-C; then accepted requests are finished within `serving.grace`, and new ones refused.

    A second signal ends it at once. `told` gets the address once requests are taken. Raises `JoyImageError` for an
    address that cannot be had, or that others reach without a key, and for a model that does not load.
    """
    check_binding(host, key, without_key)
    with _bound(host, port) as bound:
        asyncio.run(_serve(bound, loadings, serving, name, host, key, tls, told))


def _bound(host: str, port: int) -> socket.socket:
    """Taken before the model is loaded: that may be minutes."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise JoyImageError(f"{host}, port {port}: cannot be served on ({reason}); name another --port") from None


async def _serve(
    bound: socket.socket, loadings: Sequence[Loading], serving: Serving, name: str, host: str, key: str | None,
    tls: SSLContext | None, told: Callable[[str], None],
) -> None:  # fmt: skip
    pool = Pool(loadings, serving)
    app = create_app(pool, name, key=key, local=key is None and is_loopback(host))
    config = configured(app, lifespan="off")
    config.ssl = tls
    server = Server(config)
    # The socket is open while the model loads, so that /health can say so.
    served, loaded = asyncio.create_task(server.serve([bound])), asyncio.create_task(pool.start())
    ending: list[asyncio.Task[None]] = []

    def end() -> None:
        loaded.cancel()
        for task in ending:
            task.cancel()
        grace = 0 if ending else serving.grace
        ending.append(asyncio.create_task(_end(server, pool, grace)))

    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # Windows, where Ctrl-C ends it at once
        for number in SIGNALS:
            loop.add_signal_handler(number, end)
    address = f"[{host}]" if ":" in host else host
    scheme, port = "http" if tls is None else "https", bound.getsockname()[1]
    try:
        await asyncio.wait({loaded})
        if not loaded.cancelled():
            loaded.result()
            told(f"{scheme}://{address}:{port}")
        await served
    finally:
        server.should_exit = True
        loaded.cancel()
        await pool.stop()
        await asyncio.wait({served})


async def _end(server: Server, pool: Pool, grace: float) -> None:
    """Stop taking requests, finish what was accepted, then close the socket."""
    await pool.drain(grace)
    server.should_exit = True
