"""The server's queue: many clients at once, a bound, clients that go away, time that is over, a process that ends."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from live_server import Live, halted, live_server, model, png, until
from PIL import Image, ImageDraw

from joyimage.demo import asset
from joyimage.scale.serving import pool
from joyimage.scale.serving.settings import Serving

pytestmark = pytest.mark.slow  # as the server starts
LONG = {"steps": 400}  # of which one takes some ten seconds
NUMBERS = count()


@pytest.fixture(scope="module")
def live() -> Live:
    return live_server()


def opened(answer) -> bytes:
    return Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json))).tobytes()


def marked(number: int) -> Image.Image:
    """A scene that is told from others by a square."""
    picture = asset("camera.png").copy()
    ImageDraw.Draw(picture).rectangle((2 * number, 4, 2 * number + 8, 20), fill=(10 * number, 255 - 10 * number, 90))
    return picture


def edit(client: openai.OpenAI, number: int, **fields):
    return client.images.edit(
        image=("picture.png", png(marked(number)), "image/png"), prompt=f"Remove square {number}.",
        extra_body={"seed": number, "steps": 1, **fields},
    )  # fmt: skip


class Occupied:
    """A long request at work, whose client goes when the context is left."""

    def __init__(self, live: Live, path: str = "/v1/images/generations", **fields):
        self.live, self.path = live, path
        self.prompt = f"a red cube and {next(NUMBERS)} balls"  # by which it is told from what others ask for
        self.fields = {"prompt": self.prompt, **LONG, **fields}

    def __enter__(self) -> Occupied:
        address = urlsplit(self.live.url)
        self.socket = socket.create_connection((address.hostname, address.port))
        body = httpx.Request("POST", self.live.url, json=self.fields).read()
        head = f"POST {self.path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
        self.socket.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: self._among(self.live.pool.waiting) or self._at_work())
        return self

    def _at_work(self) -> bool:
        member = self.live.pool.members[0]
        return self._among(member.tickets.values()) and member.steps > 1

    def _among(self, tickets: Iterable[Any]) -> bool:
        return any(ticket.job.arguments.get("prompt") == self.prompt for ticket in list(tickets))

    def leave(self) -> None:
        self.socket.close()

    def __exit__(self, *_error) -> None:
        self.leave()
        until(lambda: not self.live.busy and not self.live.pool.waiting)


def test_twenty_clients_at_once_get_each_their_own(live):
    clients = [live.client() for _ in range(20)]
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(edit, clients, range(20)))
    for number, answer in enumerate(answers):
        (made,) = model().edit(marked(number), f"Remove square {number}.", seed=number, steps=1)
        assert opened(answer) == made.tobytes(), number
    assert len(set(map(opened, answers))) == 20


def test_a_full_queue_says_when_to_come_again(live):
    client, results = live.client(), []
    with live.set(queue=2, max_steps=1000), Occupied(live) as occupied:
        threads = [threading.Thread(target=lambda n=n: results.append(edit(client, n))) for n in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: len(live.pool.waiting) == 2)
        member = live.pool.members[0]
        left = member.seconds / member.steps * (member.units - member.steps)
        with pytest.raises(openai.RateLimitError) as refused:
            edit(client, 3)
        assert refused.value.code == "queue_full"
        assert abs(int(refused.value.response.headers["Retry-After"]) - left) < 0.5 * left + 2
        occupied.leave()
        for thread in threads:
            thread.join(30)
    assert len(results) == 2


def test_a_refused_client_that_comes_again_is_served(live):
    """As the official client does by itself, by the header."""
    with live.set(queue=0, max_steps=1000), ThreadPoolExecutor(2) as threads:
        with Occupied(live):
            before = refused_edits(live)
            later = threads.submit(edit, live.client(max_retries=5), 4)
            until(lambda: refused_edits(live) > before)
        assert later.result(60).data


def refused_edits(live: Live) -> float:
    return (
        live.pool.meters.registry.get_sample_value(
            "joyimage_requests_total", {"endpoint": "/v1/images/edits", "status": "429"}
        )
        or 0.0
    )


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/images/generations", {}),
        ("/v1/images/generations", {"n": 4}),
        ("/v1/images/generations", {"candidates": 4}),
    ],
    ids=["one", "several", "candidates"],
)
def test_a_client_that_hangs_up_frees_its_place_within_a_step(live, path, fields):
    with live.set(max_steps=1000), Occupied(live, path, **fields) as occupied:
        member = live.pool.members[0]
        before = member.steps
        occupied.leave()
        until(lambda: not member.tickets)
        noticed = member.steps
        until(lambda: not member.busy)
        assert before <= noticed and member.steps - noticed <= 1 + len(member.tickets)


def test_a_client_that_hangs_up_while_waiting_is_dropped_at_once(live):
    with live.set(max_steps=1000), Occupied(live) as first:
        second = Occupied(live, steps=1).__enter__()
        until(lambda: len(live.pool.waiting) == 1)
        second.leave()
        until(lambda: not live.pool.waiting)
        assert live.pool.members[0].tickets, "the first is still at work"
        first.leave()


def test_a_stream_that_nobody_reads_ends(live):
    with live.http() as http:
        fields = {"messages": [{"role": "user", "content": "Say all that you know."}], "stream": True, "temperature": 2}
        with http.stream("POST", "/v1/chat/completions", json={**fields, "top_k": 0, "top_p": 1}) as answer:
            next(answer.iter_lines())
    until(lambda: not live.busy and not live.pool.running)


def test_time_that_is_over_is_told_and_the_place_is_free(live):
    with live.set(seconds=1, max_steps=1000):
        with pytest.raises(openai.APIStatusError) as late:
            live.client().images.generate(prompt="a red cube", extra_body=LONG)
        assert (late.value.status_code, late.value.code) == (504, "timeout")
        assert late.value.response.headers["x-should-retry"] == "false"
        until(lambda: not live.busy)


def test_requests_are_refused_while_the_server_drains_and_accepted_ones_are_finished(live):
    with live.set(max_steps=1000), ThreadPoolExecutor(1) as threads:
        running = threads.submit(live.client().images.generate, prompt="a red cube", extra_body={"steps": 60})
        until(lambda: live.pool.running)
        drained = asyncio.run_coroutine_threadsafe(live.pool.drain(30), live.loop)
        try:
            until(lambda: live.pool.draining)
            with pytest.raises(openai.APIStatusError) as refused:
                edit(live.client(), 1)
            health = live.http().get("/health")
            assert running.result(30).data
            drained.result(30)
        finally:
            live.pool.draining = False
    assert (refused.value.status_code, refused.value.code) == (503, "draining")
    assert (health.status_code, health.json()["status"]) == (503, "draining")


killed = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no such signal")


def kill(live: Live) -> None:
    os.kill(live.pool.members[0].process_id, signal.SIGKILL)
    until(lambda: not live.pool.ready)


@contextmanager
def halted_after_a_step(live: Live) -> Iterator[threading.Event]:
    """The same after the first step of the job that comes next; the event says when."""
    member, there = live.pool.members[0], threading.Event()
    process, hear = member.process_id, member.hear

    def heard(*message: Any) -> None:
        hear(*message)
        if member.steps and not there.is_set():
            os.kill(process, signal.SIGSTOP)
            there.set()

    member.hear = heard
    try:
        yield there
    finally:
        member.hear = hear
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


@killed
def test_a_request_whose_process_ends_is_run_again_and_so_is_what_waited_behind(live):
    with live.set(max_steps=1000), ThreadPoolExecutor(2) as threads:
        with halted_after_a_step(live) as there:
            running = threads.submit(edit, live.client(), 1, steps=60)
            assert there.wait(30)
            behind = threads.submit(edit, live.client(), 2)
            until(lambda: live.pool.waiting)
            kill(live)
        assert [ticket.job.arguments["seed"] for ticket in live.pool.waiting] == [1, 2]
        assert live.http().get("/health").status_code == 503
        with pytest.raises(openai.InternalServerError, match="no process has the model") as refused:
            edit(live.client(), 3)
        assert int(refused.value.response.headers["Retry-After"]) >= 1
        answers = running.result(60), behind.result(60)
    for number, steps, answer in ((1, 60, answers[0]), (2, 1, answers[1])):
        (made,) = model().edit(marked(number), f"Remove square {number}.", seed=number, steps=steps)
        assert opened(answer) == made.tobytes()
    assert live.http().get("/health").json()["status"] == "ok"


@killed
def test_those_over_whom_a_process_ended_are_run_by_themselves(live, monkeypatch):
    """Or one that ends processes would take its neighbours with it."""
    member, calls, start = live.pool.members[0], [], live.pool.members[0].start

    def noted(tickets: list[Any]) -> None:
        calls.append(len(tickets))
        if calls == [1, 2]:  # so that they are not done before the process is killed
            os.kill(member.process_id, signal.SIGSTOP)
        start(tickets)

    monkeypatch.setattr(member, "start", noted)
    with live.set(queue=40, batch=4, max_steps=1000), ThreadPoolExecutor(3) as threads:
        with halted(live):
            first = threads.submit(edit, live.client(), 0, steps=2)
            until(lambda: live.pool.running)
            others = [threads.submit(edit, live.client(), number, steps=2) for number in (1, 2)]
            until(lambda: len(live.pool.waiting) == 2)
        assert first.result(60).data
        until(lambda: calls == [1, 2])
        kill(live)
        assert all(other.result(60).data for other in others)
    assert calls == [1, 2, 1, 1]


@killed
def test_a_process_that_hangs_at_work_is_replaced(live, monkeypatch, caplog):
    monkeypatch.setattr(pool, "LEAVE_SECONDS", 0.5)
    monkeypatch.setattr(pool, "PAUSES", (0.1,))
    process = live.pool.members[0].process_id
    with live.set(seconds=1), halted(live):
        with pytest.raises(openai.APIStatusError) as late:
            live.client().images.generate(prompt="a red cube", extra_body={"steps": 1})
        assert (late.value.status_code, late.value.code) == (504, "timeout")
        until(lambda: not live.pool.ready)
        until(lambda: live.pool.ready, 100)
    assert live.pool.members[0].process_id != process
    told = f"a process with the model ({process}) hangs: it was to stop 1 seconds ago"
    assert any(told in record.getMessage() for record in caplog.records)


@killed
def test_a_request_over_which_two_processes_end_is_not_run_a_third_time(live):
    with live.set(max_steps=1000), ThreadPoolExecutor(1) as threads:
        running = threads.submit(live.client().images.generate, prompt="a red cube", extra_body=LONG)
        for _ in range(2):
            until(lambda: live.pool.running, 60)
            kill(live)
        with pytest.raises(openai.InternalServerError, match="processes with the model ended over this") as failed:
            running.result(30)
        assert (failed.value.status_code, failed.value.code) == (500, "worker_lost")
        assert failed.value.response.headers["x-should-retry"] == "false"
        until(lambda: live.pool.ready, 60)
        assert edit(live.client(), 2).data


@killed
def test_an_answer_of_which_some_was_shown_ends_with_the_truth(live):
    messages = [{"role": "user", "content": "Say all that you know."}]
    with halted(live), ThreadPoolExecutor(1) as threads:
        asked = threads.submit(live.client().chat.completions.create, model="tiny", messages=messages, stream=True)
        until(lambda: live.pool.running)
        (ticket,) = live.pool.members[0].tickets.values()
        live.loop.call_soon_threadsafe(ticket.say, "All")
        with asked.result(30) as chunks:
            assert next(chunk for chunk in chunks if chunk.choices[0].delta.content).choices[0].delta.content == "All"
            kill(live)
            with pytest.raises(openai.APIError, match="ended over this answer; try again") as failed:
                list(chunks)
    assert failed.value.code == "worker_lost" and not live.pool.waiting
    until(lambda: live.pool.ready, 60)


@killed
def test_who_waits_too_long_as_a_process_ended_may_come_again(live, monkeypatch):
    monkeypatch.setattr(pool, "PAUSES", (12,))
    with live.set(max_steps=1000, seconds=8), halted(live), ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(live.client().images.generate, prompt="a red cube", extra_body=LONG) for _ in range(2)]
        until(lambda: live.pool.waiting and live.pool.running)
        kill(live)
        for each in asked:
            with pytest.raises(
                openai.InternalServerError, match="as a process with the model ended; try again"
            ) as late:
                each.result(30)
            assert (late.value.status_code, late.value.code) == (503, "worker_lost")
            assert int(late.value.response.headers["Retry-After"]) >= 1
            assert "x-should-retry" not in late.value.response.headers
        until(lambda: live.pool.ready, 60)


@killed
def test_who_waits_too_long_behind_others_may_come_again(live):
    with live.set(max_steps=1000), Occupied(live), halted(live):
        live.pool.serving = Serving(seconds=1)  # from here on, as what is at work has its own time
        with pytest.raises(openai.InternalServerError, match="not begun within 1 seconds") as late:
            live.client().images.generate(prompt="a red cube", extra_body={"steps": 1})
    assert (late.value.status_code, late.value.code) == (503, "busy")
    assert int(late.value.response.headers["Retry-After"]) >= 1
