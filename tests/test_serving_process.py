"""The command `joyimage serve` as a process of its own: what it opens, and how it ends."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import random
import signal
import sys
import threading
from pathlib import Path

import httpx
import pytest
from live_server import KEY, model, png, scene, until
from picture_host import host
from PIL import Image
from served import Served, served

from tools import malformed

pytest.importorskip("fastapi")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="signals and open files are those of Linux"),
]
# Written where Python looks first in every process, that of the model too. A line for each that opens, connects, runs.
SPY = """
import os, sys
log = os.open(os.environ["SPY"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
WATCHED = {"open", "os.listdir", "os.scandir", "os.rename", "os.remove", "shutil.copyfile", "glob.glob", "import",
    "urllib.Request", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "os.exec",
    "subprocess.Popen", "os.posix_spawn", "os.system", "os.fork", "tempfile.mkstemp"}
def hear(event, given):
    if event in WATCHED:
        os.write(log, f"{os.getpid()} {event} {given!r:.300}\\n".replace("\\n", " ").encode() + b"\\n")
sys.addaudithook(hear)
"""


def opened(spied: Path, since: int) -> list[str]:
    return spied.read_text().splitlines()[since:]


def test_nothing_is_opened_or_connected_to_because_a_request_says_so(tmp_path):
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(SPY)
    spied, secret = tmp_path / "spied", tmp_path / "secret.png"
    Image.new("RGB", (64, 64), "red").save(secret)
    paths = os.pathsep.join([str(tmp_path / "python"), *filter(None, [os.environ.get("PYTHONPATH")])])
    with served(tmp_path, PYTHONPATH=paths, SPY=str(spied)) as server, server.http() as http:
        given = [str(secret), secret.as_uri(), f"{server.url}/health", *malformed.ADDRESSES]
        hostile(http, server, given)  # once, as the first of each kind of request imports what it needs
        assert {int(line.split()[0]) for line in opened(spied, 0)} > {server.process.pid}, "the model's process too"
        assert any(str(server.process.pid) in line and " open " in line for line in opened(spied, 0))
        before = len(opened(spied, 0))
        hostile(http, server, given)
        assert opened(spied, before) == []


def test_an_allowed_host_is_all_that_is_connected_to(tmp_path):
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(SPY)
    spied = tmp_path / "spied"
    paths = os.pathsep.join([str(tmp_path / "python"), *filter(None, [os.environ.get("PYTHONPATH")])])
    with host({"/a.png": (200, {}, png(scene()))}) as pictures, host({}) as other:
        options = ("--allow-host", pictures.url, "--allow-host", "images.example.com,second.example.com")
        with served(tmp_path, *options, PYTHONPATH=paths, SPY=str(spied)) as server, server.http() as http:
            fields = {**malformed.good(malformed.EDITS), "image": f"{pictures.url}/a.png"}
            given = [f"{other.url}/a.png", f"http://localhost:{pictures.port}/a.png", *malformed.ADDRESSES]
            for _ in range(2):  # once, as the first of each kind of request imports what it needs
                before = len(opened(spied, 0))
                assert http.post(malformed.EDITS, json=fields).status_code == 200
                hostile(http, server, given)
            lines = [line.split(" ", 1)[1] for line in opened(spied, before)]
    assert [line for line in lines if not line.startswith("socket.getaddrinfo")] == [lines[-1]]
    assert lines[-1].startswith("socket.connect") and f"('127.0.0.1', {pictures.port})" in lines[-1]
    assert len(pictures.asked) == 2 and other.asked == []


def hostile(http: httpx.Client, server: Served, given: list[str]) -> None:
    """Requests with paths and addresses wherever a client can write, and large ones, which others keep in files."""
    noise = Image.frombytes("RGB", (900, 900), random.Random(0).randbytes(900 * 900 * 3))
    for address in given:
        text = {"prompt": address, "steps": "1", "negative_prompt": address, "user": address}
        files = {"image": (address[:200] or "x", png(scene()), "image/png")}
        assert http.post(malformed.EDITS, data=text, files=files).status_code in (200, 400)
        for path in (malformed.EDITS, malformed.LOCATE, malformed.REASON, malformed.CHAT):
            fields = malformed.good(path)
            if path == malformed.CHAT:
                fields["messages"][0]["content"] = [{"type": "image_url", "image_url": {"url": address}}]
            assert (
                400
                <= http.post(
                    path, json={**fields, **({} if path == malformed.CHAT else {"image": address})}
                ).status_code
                < 500
            )
        assert http.get(f"/page/{address}").status_code in (307, 400, 401, 404)
    large = http.post(malformed.EDITS, data={"prompt": "x", "steps": "1"}, files={"image": ("x", png(noise))})
    assert large.status_code == 200
    question = [{"role": "user", "content": f"What is in {given[0]}?"}]
    assert http.post(malformed.CHAT, json={"messages": question, "max_tokens": 8}).status_code == 200
    assert http.post(malformed.CHAT, json={"messages": question, "max_tokens": 8, "stream": True}).status_code == 200


def test_it_ends_when_what_it_accepted_is_done(tmp_path):
    with served(tmp_path) as server, server.http() as http:
        answers: list[httpx.Response] = []
        fields = {"prompt": "a red cube", "seed": 5, "steps": 100}
        threads = [
            threading.Thread(target=lambda: answers.append(http.post(malformed.GENERATIONS, json=fields)))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        until(lambda: http.get("/health").json()["waiting"] == 1)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: http.get("/health").status_code == 503)
        refused = http.post(malformed.GENERATIONS, json=fields)
        for thread in threads:
            thread.join(60)
        assert server.process.wait(60) == 0
    assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
    (made,) = model().generate("a red cube", seed=5, steps=100)
    pictures = [base64.b64decode(answer.json()["data"][0]["b64_json"]) for answer in answers]
    assert [Image.open(io.BytesIO(each)).tobytes() for each in pictures] == [made.tobytes()] * 2
    assert "Traceback" not in server.log.read_text() and KEY not in server.log.read_text()


@pytest.mark.parametrize("way", ["told twice", "its time is over"])
def test_it_ends_at_once(tmp_path, way):
    grace = "60" if way == "told twice" else "0"
    with served(tmp_path, "--grace", grace, "--max-steps", "1000") as server:
        failed: list[int] = []

        def ask() -> None:
            with contextlib.suppress(httpx.HTTPError), server.http() as http:
                fields = {"prompt": "a red cube", "steps": 1000}
                failed.append(http.post(malformed.GENERATIONS, json=fields).status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        with server.http() as http:
            until(lambda: http.get("/health").json()["running"] == 1)
            if way == "told twice":
                server.process.send_signal(signal.SIGINT)
                until(lambda: http.get("/health").status_code == 503)
        server.end(signal.SIGINT if way == "told twice" else signal.SIGTERM, 15)
        asking.join(15)
        assert failed in ([], [503])
        assert "Traceback" not in server.log.read_text()


def test_the_model_ends_with_the_server_that_was_killed(tmp_path):
    with served(tmp_path) as server:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        assert children
        server.end(signal.SIGKILL)
        until(lambda: not any(Path(f"/proc/{child}/stat").exists() for child in children))
