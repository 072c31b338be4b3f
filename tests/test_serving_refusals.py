"""What the server refuses: malformed requests, strangers, too much."""

from __future__ import annotations

import io
import random
import socket
from urllib.parse import urlsplit

import httpx
import pytest
from live_server import KEY, Live, live_server, png, scene, until
from PIL import Image

from joyimage.cli import main
from tools import malformed

pytestmark = pytest.mark.slow  # as the server starts
INPUTS = 6
EDITS = "/v1/images/edits"
CHATS = "/v1/chat/completions"


@pytest.fixture(scope="module")
def live() -> Live:
    return live_server()


@pytest.fixture(scope="module")
def locked(live):
    with httpx.Client(base_url=live.locked, timeout=60, headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client


@pytest.fixture
def http(live):
    with live.http() as client:
        yield client


def edit(client: httpx.Client, picture: bytes, **fields) -> httpx.Response:
    given = {"prompt": "Remove it.", "steps": "1", **fields}
    return client.post(EDITS, files={"image": ("x.png", picture, "image/png")}, data=given)


@pytest.mark.parametrize("kind", malformed.KINDS)
def test_malformed_requests_get_a_reason(live, locked, kind):
    with live.set(max_megabytes=1):
        for number in range(INPUTS):
            answer = malformed.KINDS[kind](random.Random(f"{kind} {number}")).by(locked)
            assert malformed.fault(answer) is None, f"{kind} {number}"


ASK = {"role": "user", "content": "How many?"}
TOLD = {"role": "assistant", "content": "Two."}
SYSTEM = {"role": "system", "content": "Be brief."}


def chat(http: httpx.Client, *messages: dict, **fields) -> httpx.Response:
    return http.post(CHATS, json={"messages": messages, "max_tokens": 4, **fields})


def test_what_is_wrong_is_told(http):
    good = malformed.good(EDITS)
    whole = png(scene())
    cases = [
        (http.post(EDITS, json=good | {"stpes": 3}), 400, "stpes", "there is no field 'stpes'; there are model"),
        (http.post(EDITS, json=good | {"steps": "3"}), 400, "steps", "steps: Input should be a valid integer"),
        (http.post(EDITS, json=good | {"image": "/etc/passwd"}), 400, "image", "opens no addresses or files"),
        (http.post(EDITS, json=good | {"image": "http://127.0.0.1/x"}), 400, "image", "pictures come as data URLs"),
        (http.post(EDITS, json=good | {"solver": "magic"}), 400, "solver", "choose one of euler"),
        (http.post(EDITS, json=good | {"size": "63x64"}), 400, "size", "the nearest is 64 x 64"),
        (http.post(EDITS, json=good | {"size": "100000x100000"}), 400, "size", "more than this server's 4,194,304"),
        (http.post(EDITS, json=good | {"image": ["x"] * 7}), 400, "image", "image: List should have at most 6"),
        (http.post(EDITS, json=good | {"steps": 101}), 400, "steps", "steps: 101 are more than this server's 100"),
        (http.post(EDITS, json=good | {"model": "x"}), 404, "model", "there is no model 'x'; this server has tiny"),
        (edit(http, whole[:400]), 400, "image", "cannot read the picture: image file is truncated"),
        (edit(http, b"%!PS-Adobe-3.0 EPSF-3.0\n"), 400, "image", "this is not a picture in PNG, JPEG, WEBP"),
        (chat(http, SYSTEM), 400, "messages", "messages: the last message is the one that is answered"),
        (chat(http, ASK, TOLD), 400, "messages", "messages: the last message is the one that is answered"),
        (chat(http, ASK, SYSTEM, ASK), 400, "messages", "there may be one message of the system, as the first"),
        (chat(http, {"content": "x"}), 400, "messages", "messages.0: its role, or its type, is missing"),
        (chat(http, ASK | {"x": 1}), 400, "messages", "there is no field 'messages.0.x'"),
        (chat(http, ASK, TOLD | {"refusal": "no"}, ASK), 400, "messages", "messages.1.refusal: Input should be null"),
        (
            chat(http, *[ASK | {"content": "x" * 8000}] * 5),
            400,
            "messages",
            "40,000 are more than this server's 32,000",
        ),
        (chat(http, ASK, logprobs=True), 400, "logprobs", "logprobs: this server can do no other than false"),
        (chat(http, ASK, n=2), 400, "n", "n: this server can do no other than 1"),
        (chat(http, ASK, tools=[]), 400, "tools", "there is no field 'tools'; there are model"),
        (chat(http, ASK, stop=[""]), 400, "stop", "stop.0: String should have at least 1 character"),
        (edit(http, whole, guidance_scale="nan"), 400, "guidance_scale", "should be a finite number"),
        (edit(http, whole, move="car"), 400, "prompt", "move writes the prompt itself"),
    ]
    for answer, status, param, message in cases:
        error = answer.json()["error"]
        assert (answer.status_code, error["type"], error["param"]) == (status, "invalid_request_error", param)
        assert message in error["message"]


def test_a_refusal_names_the_field_that_it_begins_with(http):
    """And not one of which it speaks besides."""
    for name, value in {"shift": 0, "draft_steps": 1, "rescale": 5, "steps": 0}.items():
        answer = http.post("/v1/images/generations", json={"prompt": "x", name: value})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


def test_another_method_is_told_which_there_are(http):
    answer = http.delete("/v1/images/generations")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("side", [2049, 10_000, 20_000])  # Pillow itself would take the first two
def test_a_picture_that_unfolds_is_refused_before_it_is_decoded(http, monkeypatch, side):
    bomb, loads, load = io.BytesIO(), [], Image.Image.load
    Image.new("1", (side, side)).save(bomb, "PNG")
    monkeypatch.setattr(Image.Image, "load", lambda image: (loads.append(image.size), load(image))[1])
    answer = edit(http, bomb.getvalue())
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_pixels")
    assert (side, side) not in loads


def test_a_large_body_is_refused_whether_or_not_its_length_is_told(live, http):
    with live.set(max_megabytes=1):
        told = http.post(EDITS, content=b" " * (2 * 2**20), headers={"Content-Type": "application/json"})
        pieces = (b" " * 2**16 for _ in range(40))
        untold = http.post(EDITS, content=pieces, headers={"Content-Type": "application/json"})
    assert [told.status_code, untold.status_code] == [413, 413]
    assert "more than 1,048,576 bytes" in untold.json()["error"]["message"]


def test_the_key_is_wanted_of_all_that_does_something(live, locked):
    for path in ("/v1/models", "/metrics", "/v1/nothing"):
        assert httpx.get(live.locked + path).status_code == 401
    wrong = httpx.post(live.locked + EDITS, headers={"Authorization": "Bearer other"}, json={})
    assert wrong.json()["error"] == {
        "message": "the key is missing or wrong: send Authorization: Bearer KEY", "type": "authentication_error",
        "param": None, "code": "invalid_api_key",
    }  # fmt: skip
    assert wrong.headers["WWW-Authenticate"] == "Bearer"
    assert [httpx.get(live.locked + path).status_code for path in ("/health", "/", "/docs")] == [200, 200, 200]
    assert locked.get("/v1/models").status_code == 200 and KEY not in locked.get("/metrics").text


def test_pages_of_other_sites_and_other_names_are_refused(live, http):
    for origin in malformed.FOREIGN:
        answer = http.post("/v1/images/generations", json={"prompt": "x"}, headers={"Origin": origin})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_origin")
    for host in ("evil.example", "127.0.0.1.evil.example", "[::1", ""):
        assert http.get("/health", headers={"Host": host}).status_code in (400, 403)
    port = urlsplit(live.url).port
    for host in (f"localhost:{port}", f"[::1]:{port}"):
        headers = {"Host": host, "Origin": f"http://{host}"}
        fields = {"prompt": "a red cube", "steps": 1}
        assert http.post("/v1/images/generations", json=fields, headers=headers).status_code == 200


def test_no_page_may_be_framed_or_load_from_elsewhere(http):
    for path in ("/", "/health", "/nothing", "/v1/models"):
        policy = http.get(path).headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "://" not in policy


def test_what_is_no_http_is_refused_and_does_no_harm(live, http):
    draw, address = random.Random(0), urlsplit(live.url)
    lines = [draw.randbytes(300), b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/locate HTTP/1.1\r\nHost: localhost\r\n"]
    lines += [b"POST /v1/locate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]
    for line in lines:
        with socket.create_connection((address.hostname, address.port), 10) as raw:
            raw.sendall(line)
            raw.shutdown(socket.SHUT_WR)
            assert not raw.recv(1000).startswith(b"HTTP/1.1 5")
    until(lambda: http.get("/health").json()["status"] == "ok")


def test_a_port_that_is_taken_is_named(live, capsys):
    port = str(urlsplit(live.url).port)
    assert main(["serve", "--model", "tiny", "--port", port]) == 2
    assert f"port {port}: cannot be served on" in capsys.readouterr().err


def test_a_model_that_does_not_load_ends_the_command(tmp_path, capsys):
    assert main(["serve", "--model", str(tmp_path), "--port", "0"]) == 2
    assert str(tmp_path) in capsys.readouterr().err
