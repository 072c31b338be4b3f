"""Rewriting by a server that fails in every way: the prompt stays, and a note says why without telling a secret."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import pytest
from forty_wishes import WISHES, Wish, answer
from PIL import Image

from joyimage import JoyImageError, judging, prompts, rewriting, spatial
from joyimage.candidates import Attempt, Verdict
from joyimage.cli import main

KEY = "sk-secret-0123"
PROMPT = "remove cup"
GOOD = '{"Rewritten": "Remove the teal cup."}'
Talk = Callable[[socket.socket, bytes], None]


def chat(content: object) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}}]}).encode()


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers)
    return "\r\n".join((*lines, "", "")).encode() + body


@contextlib.contextmanager
def server(reply: bytes | Talk) -> Iterator[tuple[int, list[bytes]]]:
    """One that reads a request and then says `reply`; gives its port and the requests."""
    requests: list[bytes] = []

    def talk() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                requests.append(request_of(connection))
                reply(connection, requests[-1]) if callable(reply) else connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=talk, daemon=True).start()
        yield listening.getsockname()[1], requests
        listening.shutdown(socket.SHUT_RDWR)


def request_of(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")).split()[1])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def environment(monkeypatch):
    def name(url: str, key: str = KEY) -> None:
        monkeypatch.setenv("JOYIMAGE_REWRITE_URL", url)
        monkeypatch.setenv("JOYIMAGE_REWRITE_KEY", key)

    return name


@pytest.fixture(autouse=True)
def only_what_a_test_names(monkeypatch):
    ours = (rewriting.URL, rewriting.KEY, judging.JUDGE)
    for name in (rewriting.OPENAI_URL, rewriting.OPENAI_KEY, rewriting.OPENAI_MODEL, *ours):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rewriting, "PAUSE", 0)


def said(capsys) -> tuple[str, str]:
    """What the command says, on both streams and with the tracebacks of `--debug`; the secret is nowhere in it."""
    assert main(["rewrite", PROMPT, "--debug"]) == 0
    output = capsys.readouterr()
    assert "secret" not in output.out + output.err and "Traceback" not in output.err
    return output.out.strip(), output.err


def drip(connection: socket.socket, _request: bytes) -> None:
    for byte in http(chat(GOOD)):
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def echo(connection: socket.socket, request: bytes) -> None:
    connection.sendall(http(request, f"401 no, not {KEY}", f"WWW-Authenticate: {KEY}"))


def parrot(connection: socket.socket, _request: bytes) -> None:
    connection.sendall(http(chat(f'{{"Rewritten": "the key is {KEY}"}}')))


# what a server says, the reason that is given for it, and how often the server is asked
FAILURES: dict[str, tuple[bytes | Talk, str, int]] = {
    "a key that is refused and repeated": (echo, "status 401 (Unauthorized)", 1),
    "no such model": (http(b"{}", "404 Not Found"), "status 404 (Not Found)", 1),
    "too many requests": (http(b"{}", "429 Too Many Requests"), "status 429 (Too Many Requests)", 3),
    "out of order": (http(b"{}", "503 Service Unavailable"), "status 503 (Service Unavailable) (3 tries)", 3),
    "a status of its own": (http(b"{}", "799 Odd"), "status 799", 3),
    "the key in the answer": (parrot, "holds the key", 1),
    "a body that is cut": (http(chat(GOOD))[:-9], "not a chat completion", 3),
    "chunks that are cut": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{", "IncompleteRead", 3),
    "no HTTP": (f"hello, {KEY}\r\n".encode(), "BadStatusLine", 3),
    "nothing": (b"", "RemoteDisconnected", 3),
    "no JSON": (http(b"<html>"), "not a chat completion", 3),
    "no object": (http(b"[1]"), "not a chat completion", 3),
    "no text": (http(chat(None)), "not a chat completion", 3),
    "parts without text": (http(chat([{"type": "text"}])), "not a chat completion", 3),
    "parts that are none": (http(chat([1])), "not a chat completion", 3),
    "nested without end": (http(b"[" * 100_000), "not a chat completion", 3),
    "no rewritten prompt": (http(chat("I would rather not.")), "holds no", 3),
    "what a terminal obeys": (http(chat('{"Rewritten": "A \\u001b[31mcup"}')), "control characters", 3),
    "a byte 0": (http(chat('{"Rewritten": "A \\u0000 cup"}')), "control characters", 3),
    "half a character": (http(chat('{"Rewritten": "A \\ud800 cup"}')), "halves of characters", 3),
    "no end": (http(chat(f'{{"Rewritten": "{"cup " * 5000}"}}')), "has 19,999 characters", 3),
    "more than is read": (http(b" " * (rewriting.MAX_REPLY + 9) + chat(GOOD)), "not a chat completion", 3),
}


@pytest.mark.parametrize(("reply", "reason", "tries"), FAILURES.values(), ids=FAILURES)
def test_any_failure_keeps_the_prompt_and_says_why(environment, capsys, reply, reason, tries):
    with server(reply) as (port, requests):
        environment(f"http://127.0.0.1:{port}/v1?api-key={KEY}")
        prompt, error = said(capsys)
    assert prompt == PROMPT and reason in error and len(requests) == tries


def test_a_redirect_is_not_followed_and_gets_no_key(environment, capsys):
    with server(http(chat(GOOD))) as (elsewhere, got):
        moved = http(b"", "302 Found", f"Location: http://127.0.0.1:{elsewhere}/{KEY}")
        with server(moved) as (port, _):
            environment(f"http://127.0.0.1:{port}/v1")
            prompt, error = said(capsys)
    assert prompt == PROMPT and "status 302 (Found); put the address" in error and not got


@pytest.mark.parametrize("name", [rewriting.URL, rewriting.OPENAI_URL])
def test_a_redirect_names_the_variable_that_was_read(monkeypatch, capsys, name):
    with server(http(b"", "301 Moved Permanently", "Location: /v1/")) as (port, _):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}/v1")
        _, error = said(capsys)
    assert f"leads to into {name}" in error


def test_the_whole_call_is_bounded(environment, capsys, monkeypatch):
    monkeypatch.setattr(rewriting, "TIMEOUT", 0.5)
    with server(drip) as (port, _):
        environment(f"http://127.0.0.1:{port}/v1")
        prompt, error = said(capsys)
    assert prompt == PROMPT and "took more than 0.5 seconds" in error


def test_a_wait_can_be_ended(environment):
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    with server(drip) as (port, _), pytest.raises(Stopped):
        environment(f"http://127.0.0.1:{port}/v1")
        rewriting.rewrite(None, PROMPT, (), stop)


@pytest.mark.parametrize(
    ("url", "key", "reason"),
    [
        ("localhost:8000/v1", KEY, "must be an address"),
        ("ftp://127.0.0.1/v1", KEY, "must be an address"),
        ("http:///v1", KEY, "must be an address"),
        ("http://127.0.0.1:port/v1", KEY, "must be an address"),
        ("http://[::1/v1", KEY, "must be an address"),
        ("http://secret\u2028ä/v1", KEY, "must be an address"),
        (f"http://{'ä' * 70}/v1", KEY, "must be an address"),
        ("http://127.0.0.1:9/\udce9", KEY, "must be an address"),
        (f"http://me:{KEY}@127.0.0.1/v1", KEY, "give a key in JOYIMAGE_REWRITE_KEY"),
        (f"http://127.0.0.1:9/{KEY}", KEY, "Connection refused"),
        (f"http://127.0.0.1:9/v1?key={KEY}", "", "Connection refused"),
        ("http://127.0.0.1:9/v1", "sk-\nsecret", "holds characters that no key has"),
        ("http://127.0.0.1:9/v1", "sk-sécret", "holds characters that no key has"),
        (f"http://{'secret' * 50}.invalid/v1", KEY, "could not be asked"),
    ],
)
def test_addresses_and_keys_that_cannot_be_used(environment, capsys, url, key, reason):
    environment(url, key)
    prompt, error = said(capsys)
    assert prompt == PROMPT and reason in error


@pytest.mark.parametrize(
    ("path", "key", "asked"),
    [
        ("/v1", f"{KEY}\n", "/v1/chat/completions"),
        ("/v1/ \n", f" {KEY}", "/v1/chat/completions"),
        ("/größe/v1", KEY, "/gr%C3%B6%C3%9Fe/v1/chat/completions"),
        ("/v1?api-version=2", KEY, "/v1/chat/completions?api-version=2"),
    ],
)
def test_spaces_around_and_other_letters_do_no_harm(environment, capsys, path, key, asked):
    with server(http(chat(GOOD))) as (port, requests):
        environment(f" http://127.0.0.1:{port}{path}", key)
        assert said(capsys)[0] == "Remove the teal cup."
    assert requests[0].startswith(f"POST {asked} HTTP/1.1\r\n".encode())
    assert f"\r\nAuthorization: Bearer {KEY}\r\n".encode() in requests[0]


def test_parts_of_text_are_joined(environment, capsys):
    parts = [{"type": "text", "text": GOOD[:9]}, {"type": "thinking", "thinking": "hm"}, {"text": GOOD[9:]}]
    with server(http(chat(parts))) as (port, _):
        environment(f"http://127.0.0.1:{port}/v1")
        assert said(capsys)[0] == "Remove the teal cup."


def test_a_server_shows_neither_its_address_nor_its_key(environment):
    environment("http://127.0.0.1:9/secret")
    assert "secret" not in repr(rewriting.Server.from_environment())


@pytest.mark.parametrize(
    ("reply", "prompt"),
    [
        ('<think>maybe {"Rewritten": "DRAFT"}</think>{"Rewritten": "GOOD"}', "GOOD"),
        ('maybe {"Rewritten": "DRAFT"}</think>{"Rewritten": "GOOD"}', "GOOD"),
        ('<think>a</think><think>{"Rewritten": "DRAFT"}</think>\n{"Rewritten": "GOOD"}', "GOOD"),
        ('<think>{"Rewritten": "DRAFT"}', None),
        ('{"Rewritten": "GOOD"}<think>{"Rewritten": "DRAFT"}', "GOOD"),
        ('The form is {"Rewritten": "…"}, so: {"Rewritten": "GOOD"}', "GOOD"),
        ('The form is {"Rewritten": "…"}, so: {"Rewritten": "a "GOOD" sign"}', 'a "GOOD" sign'),
        ('{"Rewritten": "a "BAD" sign"} no, {"Rewritten": "GOOD"}', "GOOD"),
        ('{"Thoughts": "{}", "Rewritten": "GOOD"} {"other": {"Rewritten": "DRAFT"}}', "GOOD"),
        ('{"Rewritten": "GOOD"} {"Rewritten": 3}', "GOOD"),
    ],
)
def test_thoughts_are_dropped_and_the_last_object_counts(reply, prompt):
    assert prompts.parse_rewritten(reply) == prompt


@pytest.mark.parametrize("prompt", ["half a pair \ud800", "a Latin-1 byte \udce9", 5, None])
def test_what_is_no_text_is_refused(prompt):
    with pytest.raises(JoyImageError, match=r"the prompt to rewrite (holds '.*' at place|must be text, not)"):
        rewriting.rewrite(None, prompt)


def test_nothing_is_warned_of_when_all_is_well(environment):
    with server(http(chat(GOOD))) as (port, _), warnings.catch_warnings():
        warnings.simplefilter("error")
        environment(f"http://127.0.0.1:{port}/v1")
        assert rewriting.rewrite(None, PROMPT).text == "Remove the teal cup."


def in_turn(*replies: bytes) -> Talk:
    """One reply after the other."""
    left = iter(replies)
    return lambda connection, _request: connection.sendall(next(left))


def test_a_server_that_comes_back_is_asked_again(environment, capsys):
    replies = http(b"{}", "503 Service Unavailable"), http(chat("Let me think.")), http(chat(GOOD))
    with server(in_turn(*replies)) as (port, requests):
        environment(f"http://127.0.0.1:{port}/v1")
        prompt, error = said(capsys)
    assert prompt == "Remove the teal cup." and "changed: at try 3 of 3" in error and len(requests) == 3
    assert len({request.partition(b"\r\n\r\n")[2] for request in requests}) == 1


def test_three_tries_share_one_time(environment, capsys, monkeypatch):
    monkeypatch.setattr(rewriting, "TIMEOUT", 0.5)
    first = http(b"{}", "503 Service Unavailable")
    left = iter([lambda connection, _: connection.sendall(first), drip])
    with server(lambda connection, request: next(left)(connection, request)) as (port, requests):
        environment(f"http://127.0.0.1:{port}/v1")
        prompt, error = said(capsys)
    assert prompt == PROMPT and len(requests) == 2
    assert "status 503 (Service Unavailable); the server took more than 0.5 seconds (2 tries)" in error


def test_a_pause_between_tries_can_be_ended(environment, monkeypatch):
    class Stopped(Exception):
        pass

    def stop() -> None:
        if requests:
            raise Stopped

    monkeypatch.setattr(rewriting, "PAUSE", 60)
    with server(http(b"{}", "503 Service Unavailable")) as (port, requests), pytest.raises(Stopped):
        environment(f"http://127.0.0.1:{port}/v1")
        rewriting.rewrite(None, PROMPT, (), stop)


THEIRS = "sk-secret-theirs"
OURS_AND_THEIRS = [
    # variables, with # for the port; the key that is sent, the model that is asked for
    ({"OPENAI_BASE_URL": "#", "OPENAI_API_KEY": THEIRS, "OPENAI_MODEL": "theirs"}, THEIRS, "theirs"),
    ({"OPENAI_BASE_URL": "#", "OPENAI_API_KEY": THEIRS}, THEIRS, "default"),
    ({"OPENAI_BASE_URL": "#"}, None, "default"),
    ({"OPENAI_BASE_URL": "#", "OPENAI_API_KEY": THEIRS, "JOYIMAGE_REWRITE_KEY": KEY}, KEY, "default"),
    ({"OPENAI_BASE_URL": "#", "OPENAI_MODEL": "theirs", "JOYIMAGE_REWRITE_MODEL": "ours"}, None, "ours"),
    ({"JOYIMAGE_REWRITE_URL": "#", "OPENAI_BASE_URL": "http://127.0.0.1:9", "OPENAI_API_KEY": THEIRS}, None, "default"),
    ({"JOYIMAGE_REWRITE_URL": "#", "OPENAI_API_KEY": THEIRS, "OPENAI_MODEL": "theirs"}, None, "default"),
    ({"JOYIMAGE_REWRITE_URL": " ", "OPENAI_BASE_URL": "#", "OPENAI_API_KEY": THEIRS}, THEIRS, "default"),
]


@pytest.mark.parametrize(("variables", "key", "model"), OURS_AND_THEIRS)
def test_openais_names_stand_in_for_ours(monkeypatch, capsys, variables, key, model):
    """OpenAI's key and model go to the server of their own address only."""
    with server(http(chat(GOOD))) as (port, (requests)):
        for name, value in variables.items():
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}/v1" if value == "#" else value)
        assert said(capsys)[0] == "Remove the teal cup."
    (request,) = requests
    head, _, body = request.partition(b"\r\n\r\n")
    authorization = re.search(rb"\r\nAuthorization: Bearer (.*?)\r\n", head)
    assert (authorization[1].decode() if authorization else None) == key
    assert json.loads(body)["model"] == model


def test_a_key_alone_names_no_server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", THEIRS)
    monkeypatch.setenv("OPENAI_MODEL", "theirs")
    assert not rewriting.has_server()
    with pytest.raises(JoyImageError, match="name a server in JOYIMAGE_REWRITE_URL or OPENAI_BASE_URL"):
        rewriting.rewrite(None, PROMPT)


def test_what_is_wrong_is_named_by_the_variable_that_has_it(monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost")
    assert "OPENAI_BASE_URL must be an address" in said(capsys)[1]
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-\nsecret")
    assert "OPENAI_API_KEY holds characters that no key has" in said(capsys)[1]


PHOTO = Image.new("RGB", (8, 8), (70, 90, 110))


def test_there_are_five_wishes_of_each_of_eight_kinds():
    tasks = [wish.task for wish in WISHES]
    assert len(set(tasks)) == 8 and all(tasks.count(task) == 5 for task in tasks)
    assert all(any(ord(sign) > 0x3400 for wish in WISHES if wish.task == task for sign in wish.wish) for task in tasks)


def is_in_form(found: rewriting.Rewritten, wish: Wish) -> bool:
    parsed = spatial.parse(found.text)
    spatial_kind = parsed.instruction.kind if parsed.instruction else "free"
    expected = wish.kind if wish.kind in ("move", "rotate", "camera") else "free"
    return (found.text, found.kind, spatial_kind) == (wish.rewritten, wish.kind, expected) and not parsed.problems


@pytest.mark.parametrize("wish", WISHES, ids=lambda wish: f"{wish.task}: {wish.wish}"[:40])
def test_a_wish_through_a_server(environment, wish):
    """The right answer is taken, at the try at which it comes; plain wishes ask nobody."""
    with server(in_turn(*(http(chat(text)) for text in wish.answers))) as (port, requests), warnings.catch_warnings():
        warnings.simplefilter("error")
        environment(f"http://127.0.0.1:{port}/v1")
        found = rewriting.rewrite(None, wish.wish, [PHOTO])
    assert is_in_form(found, wish) and len(requests) == len(wish.answers)
    assert (f"at try {len(requests)} of 3" in found.notes) == (len(requests) > 1)


@pytest.mark.parametrize("wish", WISHES, ids=lambda wish: f"{wish.task}: {wish.wish}"[:40])
def test_a_wish_through_an_encoder(wish):
    asked = []

    def encoder(prompt: str, images, seed: int) -> str:
        asked.append((prompt, len(images), seed))
        return wish.answers[seed]

    assert is_in_form(rewriting.rewrite(encoder, wish.wish, [PHOTO]), wish)
    assert asked == [(wish.wish, 1, seed) for seed in range(len(wish.answers))]
    assert rewriting.needs_encoder(wish.wish) == bool(asked)


@pytest.mark.parametrize("wish", [wish for wish in WISHES if len(wish.answers) > 1], ids=lambda wish: wish.wish[:40])
def test_what_is_wrong_three_times_changes_nothing(wish):
    """But for an object that could not be named in English: its sentence is plain without any help."""
    seeds = []

    def encoder(prompt: str, images, seed: int) -> str:
        seeds.append(seed)
        return wish.answers[0]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = rewriting.rewrite(encoder, wish.wish, [PHOTO])
    assert seeds == [0, 1, 2]
    if wish.wish == "把汽车转到左侧面":
        assert found.text == spatial.rotate_object("汽车", "left") and not caught
        assert "the object is named as it was written" in found.notes[0]
    else:
        assert found.text == wish.wish and found.kind == "free"
        assert "used unchanged: " in str(caught[0].message) and "(3 tries)" in str(caught[0].message)


@pytest.mark.parametrize(
    ("prompt", "reply", "reason"),
    [
        ("add 3 lamps", answer("Add lamps."), "loses the number 3"),
        ("turn a bit, say 37 degrees", answer(spatial.camera(35)), "loses the number 37"),
        ('write "SALE 5"', answer('Write "Sale".'), "loses the text 'SALE 5'"),
        ("show the car's other side", answer("Rotate the car to show the other side view."), "which one is unclear"),
        ("move the cup", answer(spatial.move_object("cup")), "the pictures have none"),
        ("outpaint it", answer("Make it wider."), "'Extend the image beyond its boundaries using outpainting'"),
        ("把车转到左侧面", answer(spatial.rotate_object("car", "right")), "another side than left"),
    ],
)
def test_a_refused_answer_has_a_reason(prompt, reply, reason):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = rewriting.rewrite(lambda *_, seed: reply, prompt, [PHOTO])
    assert reason in "".join([*(str(warning.message) for warning in caught), *found.notes])


def test_a_red_box_in_the_picture_is_enough():
    boxed = spatial.draw_box(Image.new("RGB", (64, 64), (200, 180, 160)), (8, 8, 40, 40))
    found = rewriting.rewrite(lambda *_, seed: answer(spatial.move_object("cup")), "the cup goes there", [boxed])
    assert found.text == spatial.move_object("cup")


def test_a_failure_of_the_encoder_itself_is_no_reason_to_try_again():
    seeds = []

    def encoder(prompt: str, images, seed: int) -> str:
        seeds.append(seed)
        raise RuntimeError("out of memory")

    with pytest.warns(UserWarning, match="used unchanged: RuntimeError: out of memory"):
        assert rewriting.rewrite(encoder, PROMPT).text == PROMPT
    assert seeds == [0]


def test_without_a_picture_filling_is_no_edit():
    found = rewriting.rewrite(lambda *_, seed: answer("An extended photo."), "outpaint: a photo", ())
    assert found.text == "An extended photo."


@pytest.mark.parametrize("text", [spatial.camera(45), spatial.rotate_object("汽车", "rear"), prompts.COLOURISE])
def test_an_exact_sentence_stays_and_needs_nobody(text):
    found = rewriting.rewrite(None, text)
    assert found.text == text and not rewriting.needs_encoder(text)
    assert found.changes == []


@pytest.mark.parametrize(
    ("prompt", "reply", "changes"),
    [
        ("remove cup", "Remove the teal cup.", ["Remove {+the teal +}cup{+.+}"]),
        ("make it bright", "Make it bright and warm", ["Make it bright{+ and warm+}"]),
        ("把天空变红", "把天空变成红色", ["把天空变{+成+}红{+色+}"]),
        ("nicer sky", "Replace the grey clouds with a clear blue evening.", ["written anew"]),
        ("a cat", "a cat", []),
    ],
)
def test_changes_are_told_word_by_word(prompt, reply, changes):
    assert rewriting.rewrite(lambda *_, seed: answer(reply), prompt).changes == changes


def test_the_system_text_holds_the_sentences_word_for_word():
    text = prompts.rewriting_system(True)
    sentences = (
        prompts.COLOURISE, prompts.INPAINT.strip(), prompts.OUTPAINT.strip(),
        spatial.move_object("<object>"), "Rotate the <object> to show the <view> side view.",
        "Move the camera.\n- Camera rotation: Yaw <yaw>°, Pitch <pitch>°.\n- Camera zoom: <zoom>.\n"
        "- Keep the 3D scene static; only change the viewpoint.",
    )  # fmt: skip
    assert all(sentence in text for sentence in sentences)
    assert all(view in text for view in spatial.VIEWS)


def test_the_command_shows_what_was_changed(capsys):
    """And loads no model where none is needed: the bundled one says so when it is."""
    assert main(["rewrite", "look from above"]) == 0
    output = capsys.readouterr()
    assert output.out == spatial.camera(0, 30) + "\n"
    assert output.err.splitlines() == [
        "joyimage: changed: camera: brought into the sentence that the model knows",
        "joyimage: changed: 'look from above' was read as 30 degrees",
    ]
    assert main(["rewrite", "turn the car to face us", "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out) == {
        "prompt": "turn the car to face us",
        "rewritten": spatial.rotate_object("car", "front"),
        "kind": "rotate",
        "changes": ["rotate: brought into the sentence that the model knows"],
    }
    assert output.err == ""


def judged_by(reply: bytes | Talk, environment) -> tuple[Verdict, list[bytes]]:
    attempt = Attempt((Image.new("RGB", (8, 8)),), "Remove the cup.", Image.new("RGB", (8, 8)))
    with server(reply) as (port, requests):
        environment(f"http://127.0.0.1:{port}/v1")
        return judging.server_judge()(attempt), requests


def test_a_server_can_judge_edits(environment):
    verdict, requests = judged_by(http(chat('{"score": 95, "reason": "the cup is gone"}')), environment)
    assert verdict == Verdict(0.95, "the cup is gone", sure=True)
    body = json.loads(requests[0].partition(b"\r\n\r\n")[2])
    system, user = body["messages"]
    assert system["content"] == prompts.JUDGING_SYSTEM
    assert [part["type"] for part in user["content"]] == ["image_url", "image_url", "text"]
    assert user["content"][-1]["text"] == prompts.edit_question("Remove the cup.")


@pytest.mark.parametrize(
    "reply",
    [
        http(b"{}", "404 Not Found"),
        http(chat("It is fine.")),
        http(chat('{"score": 50, "reason": "half \\ud800"}')),
        b"",
        echo,
    ],
)
def test_a_server_that_gives_no_score_changes_nothing(environment, reply):
    with pytest.warns(UserWarning, match="the server did not judge") as told:
        verdict, _ = judged_by(reply, environment)
    assert verdict.score is None and not any("secret" in str(each.message) for each in told)


def test_a_servers_reason_never_holds_the_key(environment):
    verdict, _ = judged_by(http(chat(json.dumps({"score": 50, "reason": f"the key is {KEY}"}))), environment)
    assert verdict == Verdict(0.5)


def test_the_judge_is_named_by_the_environment(environment, monkeypatch):
    assert not judging.by_server()
    monkeypatch.setenv(judging.JUDGE, "server")
    with pytest.raises(JoyImageError, match="no server is named"):
        judging.by_server()
    environment("http://127.0.0.1:1/v1")
    assert judging.by_server()
    monkeypatch.setenv(judging.JUDGE, "own")
    assert not judging.by_server()
    monkeypatch.setenv(judging.JUDGE, "somebody")
    with pytest.raises(JoyImageError, match='must be "own"'):
        judging.by_server()
