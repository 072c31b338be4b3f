"""Clients that take their time: over the head of a request, over a further one, over a body, over an answer."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from live_server import Live, live_server, until

from joyimage.scale.serving import bodies

pytestmark = pytest.mark.slow  # as the server starts
HEAD = b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def live() -> Live:
    return live_server()


@pytest.fixture(scope="module", params=["httptools", "h11"])
def url(live, request) -> str:
    if request.param == "httptools":
        pytest.importorskip("httptools")
    return live.listen(http=request.param, head_seconds=2.0)


@contextlib.contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), 30) as raw:
        yield raw


@contextlib.contextmanager
def dribbling(raw: socket.socket, byte: bytes) -> Iterator[None]:
    """A client that sends a byte every now and then until it is left, or is hung up on."""
    left = threading.Event()

    def dribble() -> None:
        with contextlib.suppress(OSError):
            while not left.wait(0.05):
                raw.sendall(byte)

    thread = threading.Thread(target=dribble)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join(30)


def answered(raw: socket.socket) -> bytes:
    """An answer in JSON, after which the connection stays open."""
    received = b""
    while not received.endswith(b"}"):
        piece = raw.recv(2**16)
        assert piece, "the connection was closed"
        received += piece
    return received


def rest(raw: socket.socket) -> bytes:
    """What comes until the server closes the connection; fails where it stays open."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := raw.recv(2**16):
            received += piece
    return received


def test_a_connection_on_which_nothing_comes_is_closed(url):
    with connected(url) as raw:
        assert rest(raw) == b""


@pytest.mark.parametrize("start", [b"GET /he", HEAD + b"X-Slow: "])
def test_a_head_that_never_ends_is_not_waited_for(live, url, start):
    with connected(url) as raw:
        raw.sendall(start)
        with dribbling(raw, b"a"):
            assert rest(raw) == b""
    assert not live.pool.waiting and not live.pool.running


def test_nor_is_one_that_is_far_too_large(live, url):
    with connected(url) as raw, contextlib.suppress(ConnectionError):
        raw.sendall(HEAD + b"X-Large: ")
        for _ in range(64):
            raw.sendall(b"a" * 2**20)
        pytest.fail("64 MiB of a head were taken")


def test_a_large_body_is_no_head(live, url):
    """Of a request that is refused, and of the next one on the connection, whose head comes with its end."""
    body = json.dumps({"prompt": "x" * 200_000}).encode()
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    received = b""
    with connected(url) as raw:
        for part in (request, request + HEALTH):
            raw.sendall(part)
        while b"HTTP/1.1 200" not in received:
            piece = raw.recv(2**16)
            assert piece, "the connection was closed"
            received += piece
    assert received.count(b"HTTP/1.1 400") == 2


def test_nor_is_that_of_a_further_request(url):
    with connected(url) as raw:
        raw.sendall(HEALTH)
        assert answered(raw).startswith(b"HTTP/1.1 200")
        raw.sendall(b"GET /he")
        with dribbling(raw, b"a"):
            assert rest(raw) == b""


def test_a_request_at_work_has_its_own_time(live, url):
    body = json.dumps({"prompt": "a red cube", "steps": 60}).encode()
    with connected(url) as raw:
        raw.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        until(lambda: not live.pool.running)
        raw.sendall(body)
        assert rest(raw).startswith(b"HTTP/1.1 200")


def test_requests_on_one_connection_may_take_longer_together(url):
    with connected(url) as raw:
        for _ in range(3):
            for part in (HEALTH[:20], HEALTH[20:]):
                raw.sendall(part)
            assert answered(raw).startswith(b"HTTP/1.1 200")
            time.sleep(0.8)


def test_a_body_that_never_ends_is_answered_and_hung_up_on(live, url, monkeypatch):
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.5)
    with connected(url) as raw:
        raw.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
        with dribbling(raw, b" "):
            answer = rest(raw)
    assert answer.startswith(b"HTTP/1.1 408") and b"did not arrive within 0.5 seconds" in answer
    assert not live.pool.waiting and not live.pool.running


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_a_client_that_takes_nothing_of_its_answers_is_hung_up_on(live, http):
    url = live.listen(http=http, stall_seconds=0.5, head_seconds=3600)
    with connected(url) as raw:
        raw.sendall(HEALTH.replace(b"/health", b"/openapi.json") * 2000)

        def closed() -> bool:
            try:
                raw.send(b"\r\n")
            except ConnectionError:
                return True
            return False

        until(closed)
