"""Malformed requests of every kind on `joyimage serve`: `python -m tools.malformed --count 1000`.

Each must be answered by a status of 4xx with a reason in OpenAI's form, that tells nothing of the server. Every request
comes from its kind, the seed and its number. Ends with 1 if one was answered otherwise. The server is started here, on
the bundled model and a free port, and must have its process and its model after all of it.
"""

from __future__ import annotations

import argparse
import base64
import collections
import io
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from PIL import Image

from joyimage.demo import ASSETS, asset

KEY = "key-of-malformed-requests"
LEAKS = re.compile(
    rf'Traceback|File "|site-packages|\.py\b|{re.escape(str(ASSETS.parent))}|{re.escape(sys.prefix)}|{KEY}'
)
BOUNDARY = "boundary"
EDITS, GENERATIONS, CHAT, LOCATE, REASON = (
    f"/v1/{name}" for name in ("images/edits", "images/generations", "chat/completions", "locate", "reason")
)
POSTS = (EDITS, GENERATIONS, CHAT, LOCATE, REASON)
ADDRESSES = (
    "file:///etc/passwd", "/etc/passwd", "http://127.0.0.1:1/x.png", "https://example.invalid/x.png", "ftp://h/x",
    "..\\..\\secret.png", "//host/share/x.png", "data:text/html,<p>", "data:image/png,plain", "DATA:;base64,", "", " ",
    "data:image/png;base64,", "data:image/png;base64,!!!!", "data:image/png;base64,AAAA", "jar:file:/x!/y", "~/x.png",
)  # fmt: skip
NO_NUMBERS: tuple[Any, ...] = (
    None, "x", [], {}, True, 1.5, float("nan"), float("inf"), -1, 10**30, -(10**30), "1" * 5000, "NaN", [1],
)  # fmt: skip
FOREIGN = ("https://evil.example", "null", "http://localhost.evil.example")


@dataclass
class Sent:
    """A request, of which the content is JSON where it is no bytes."""

    path: str
    content: Any
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)

    def by(self, client: httpx.Client) -> httpx.Response:
        body, headers = self.content, {"Content-Type": "application/json", **self.headers}
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        raw = {name: value.encode("latin-1") for name, value in headers.items()}
        return client.request(self.method, self.path, content=body, headers=raw)


def png(picture: Image.Image | None = None) -> bytes:
    buffer = io.BytesIO()
    (picture or asset("move.png")).save(buffer, "PNG")
    return buffer.getvalue()


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def good(path: str) -> dict[str, Any]:
    """What each endpoint would answer with a result."""
    picture = data_url(png())
    part = {"type": "image_url", "image_url": {"url": picture}}
    return {
        EDITS: {"image": picture, "prompt": "Remove it.", "steps": 1},
        GENERATIONS: {"prompt": "a red cube", "steps": 1},
        CHAT: {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}]},
        LOCATE: {"image": picture, "object": "car"},
        REASON: {"image": picture, "question": "Is it red?", "steps": 1},
    }[path]


def form(fields: list[tuple[str, str | bytes]], end: str = "--") -> bytes:
    """A form; bytes are files."""
    parts = []
    for name, value in fields:
        file = '; filename="../../x.png"' if isinstance(value, bytes) else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        parts.append(head.encode() + (value if isinstance(value, bytes) else value.encode()) + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}{end}\r\n".encode()


FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def cut_json(draw: random.Random) -> Sent:
    path = draw.choice(POSTS)
    whole = json.dumps(good(path)).encode()
    return Sent(path, whole[: draw.randrange(len(whole))])


def no_json(draw: random.Random) -> Sent:
    deep = b"[" * 100_000, b'{"a":' * 50_000
    others = b"\xff\xfe{}", b"null", b"[]", b'"x"', b"1", b"{}", b'{"prompt": "\\ud800"}', b"\x00", b"{'prompt': 'x'}"
    return Sent(draw.choice(POSTS), draw.choice((*deep, *others, draw.randbytes(200))))


def other_type(draw: random.Random) -> Sent:
    """A field of a type that it never has."""
    path = draw.choice(POSTS)
    fields = good(path)
    name = draw.choice(list(fields))
    values = [value for value in NO_NUMBERS if not isinstance(value, str) and value is not None and value != 1.5]
    values = [value for value in values if not (name == "steps" and isinstance(value, int) and value is not True)]
    return Sent(path, fields | {name: draw.choice([value for value in values if value != []])})


def missing(draw: random.Random) -> Sent:
    path = draw.choice(POSTS)
    fields = good(path)
    del fields[draw.choice([name for name in fields if name != "steps"])]
    return Sent(path, fields)


def unknown(draw: random.Random) -> Sent:
    path = draw.choice(POSTS)
    names = ("step", "promt", "__class__", "callback", "output", "latent", "judge", "x" * 5000, "", "\x00")
    return Sent(path, good(path) | {draw.choice(names): draw.choice((1, "x", None, {}))})


def number(draw: random.Random) -> Sent:
    """A number that is none, or beyond what it may be."""
    path = draw.choice((EDITS, GENERATIONS))
    names = ("n", "steps", "seed", "guidance_scale", "candidates", "draft_steps", "rescale", "shift", "strength")
    name = draw.choice(names)
    bad = [value for value in NO_NUMBERS if value is not None or name in ("n", "seed", "candidates")]
    if name in ("guidance_scale", "rescale", "shift", "strength"):  # numbers with a fraction, of which one may be -1
        bad = [value for value in bad if not isinstance(value, int) or value is True]
        bad = [value for value in bad if value != 1.5] + [float("-inf")]
    return Sent(path, good(path) | {name: draw.choice(bad)})


def word(draw: random.Random) -> Sent:
    path = draw.choice((EDITS, GENERATIONS))
    fields = {
        "size": ("0x0", "63x64", "16x", "99999x99999", "-16x16", "1e3x16", "64X64", "16x16x16", "٦٤x٦٤", "64 x 64"),
        "output_format": ("gif", "exe", "../png", ""), "response_format": ("url", "json"), "solver": ("magic", ""),
        "schedule": ("linear",), "preset": ("turbo",), "background": ("transparent",), "stream": (True,),
        "model": ("gpt-image-1", "/etc/passwd", "../tiny", ""), "prompt": ("", " \n", "x" * 8001),
        "negative_prompt": ("x" * 8001,),
    }  # fmt: skip
    name = draw.choice(list(fields))
    return Sent(path, good(path) | {name: draw.choice(fields[name])})


def address(draw: random.Random) -> Sent:
    """Files and addresses in the place of pictures."""
    path, given = draw.choice((EDITS, CHAT, LOCATE, REASON)), draw.choice(ADDRESSES)
    fields = good(path)
    if path == CHAT:
        fields["messages"][0]["content"][1]["image_url"]["url"] = given
    elif path == EDITS and draw.random() < 0.5:
        fields |= draw.choice(({"mask": given}, {"image": [fields["image"], given]}))
    else:
        fields["image"] = given
    return Sent(path, fields)


def picture(draw: random.Random) -> Sent:
    """Bytes that are no picture, or one that is refused: cut, of another format, far too large."""
    whole = png()
    huge = bytearray(whole)
    huge[16:24] = (60_000).to_bytes(4, "big") * 2  # the sides, in the header
    other = io.BytesIO()
    asset("move.png").save(other, draw.choice(("GIF", "TIFF", "BMP", "ICO", "PPM", "TGA", "PDF")))
    cut = whole[: draw.randrange(1, len(whole) // 2)]
    drawings = b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    data = draw.choice((cut, bytes(huge), other.getvalue(), *drawings, b"", draw.randbytes(300)))
    name = draw.choice(("image", "image[]", "mask"))
    fields = [("image", whole)] if name == "mask" else []
    return Sent(EDITS, form([*fields, (name, data), ("prompt", "Remove it."), ("steps", "1")]), headers=FORM)


def spatial(draw: random.Random) -> Sent:
    fields = {"image": good(EDITS)["image"], "steps": 1}
    bad = (
        {"move": "car"}, {"move": "car", "box": [0, 0, 0, 0]}, {"move": "car", "box": [0, 0, 65, 64]},
        {"move": "car", "box": [1, 2, 3]}, {"move": "car", "box": "1,2,3,x"}, {"move": "car", "box": [10**30] * 4},
        {"move": "", "box": [1, 2, 30, 40]}, {"move": "a\nb", "box": [1, 2, 30, 40]}, {"move": "car", "to": ""},
        {"move": "car", "to": "x", "box": [1, 2, 30, 40]}, {"rotate": "car"}, {"rotate": "car", "view": "top"},
        {"view": "left"}, {"box": [1, 2, 30, 40]}, {"camera": {"yaw": float("nan")}}, {"camera": {"roll": 4}},
        {"camera": {"zoom": "far"}}, {"camera": [1, 2]}, {"camera": {}, "rotate": "car", "view": "left"},
        {"camera": {}, "prompt": "x"}, {}, {"camera": {"yaw": float("inf")}},
    )  # fmt: skip
    return Sent(EDITS, fields | draw.choice(bad))


def masks(draw: random.Random) -> Sent:
    size = draw.choice(((64, 64), (32, 64), (1, 1)))
    mask = Image.new("L", size, 0 if size == (64, 64) else 255)
    return Sent(EDITS, good(EDITS) | {"mask": data_url(png(mask))})


def forms(draw: random.Random) -> Sent:
    """Forms that are none."""
    fields: list[tuple[str, str | bytes]] = [("image", png()), ("prompt", "Remove it."), ("steps", "1")]
    whole = form(fields)
    kinds = {
        "cut": (whole[: draw.randrange(len(whole) // 3)], FORM),
        "no boundary": (whole, {"Content-Type": "multipart/form-data"}),
        "another": (whole, {"Content-Type": "multipart/form-data; boundary=other"}),
        "long": (whole, {"Content-Type": f"multipart/form-data; boundary={'x' * 5000}"}),
        "nameless": (whole.replace(b' name="image"', b""), FORM),
        "many files": (form([("image[]", png())] * 8 + fields[1:]), FORM),
        "many fields": (form([(f"a{i}", "x") for i in range(500)]), FORM),
        "object and value": (form([*fields, ("camera", "x"), ("camera[yaw]", "3")]), FORM),
        "charset": (whole, {"Content-Type": f"multipart/form-data; charset=utf-99; boundary={BOUNDARY}y"}),
        "bytes": (draw.randbytes(500), FORM),
        "empty": (b"", FORM),
    }
    body, headers = kinds[draw.choice(list(kinds))]
    return Sent(EDITS, body, headers=dict(headers))


def chat(draw: random.Random) -> Sent:
    user = {"role": "user", "content": "What is it?"}
    told, system = {"role": "assistant", "content": "A car."}, {"role": "system", "content": "Be brief."}
    bad = (
        {"messages": []}, {"messages": [user, told]}, {"messages": [{**user, "role": "wizard"}]}, {"messages": "x"},
        {"messages": [user, system, user]}, {"messages": [{**told, "tool_calls": [{}]}, user]},
        {"messages": [user] * 300}, {"messages": [{**told, "content": None}, user]},
        {"messages": [user], "store": True},
        {"messages": [user], "response_format": {"type": "json_object"}}, {"messages": [user], "logprobs": True},
        {"messages": [user], "stop": ["x"] * 5},
        {"messages": [{**user, "content": [{"type": "audio"}]}]}, {"messages": [{**user, "content": ""}]},
        {"messages": [{**user, "content": None}]}, {"messages": [user], "n": 2}, {"messages": [user], "stream": "yes"},
        {"messages": [user], "temperature": -1}, {"messages": [user], "temperature": float("nan")},
        {"messages": [user], "top_p": 0}, {"messages": [user], "max_tokens": 10**9}, {"messages": [user], "tools": []},
        {"messages": [{**user, "content": "x" * 9000}]}, {"messages": [user], "seed": -1},
        {"messages": [user], "stop": [""]}, {"messages": [user], "max_tokens": 0}, {"messages": [{"content": "x"}]},
    )  # fmt: skip
    return Sent(CHAT, draw.choice(bad))


def elsewhere(draw: random.Random) -> Sent:
    """Other endpoints, methods and types of content."""
    paths = ("/v1/../../etc/passwd", "/page/../app.py", "/page/%2e%2e/app.py", "/v1/files", "//etc/passwd", "/v1/%00")
    kinds = ("text/plain", "application/xml", "", "application/x-www-form-urlencoded", "application/jsonp")
    return draw.choice(
        (
            Sent(draw.choice(paths), b"", "GET"),
            Sent(draw.choice(POSTS), b"", draw.choice(("GET", "PUT", "DELETE", "PATCH", "OPTIONS"))),
            Sent(draw.choice(POSTS), b"{}", headers={"Content-Type": draw.choice(kinds)}),
        )
    )


def strangers(draw: random.Random) -> Sent:
    """Without the key or with another, and from pages of other sites."""
    path, keys = draw.choice(POSTS), ("", "Bearer", "Bearer x", f"Basic {KEY}", "Bearer \xe9", f"Bearer {KEY}x")
    headers = draw.choice(({"Authorization": draw.choice(keys)}, {"Origin": draw.choice(FOREIGN)}))
    return Sent(path, good(path), headers=headers)


def large(draw: random.Random) -> Sent:
    return Sent(draw.choice(POSTS), b" " * (2 * 2**20))  # the server here takes a megabyte


MAKERS = (
    cut_json, no_json, other_type, missing, unknown, number, word, address, picture, spatial, masks, forms, chat,
    elsewhere, strangers, large,
)  # fmt: skip
KINDS: dict[str, Callable[[random.Random], Sent]] = {maker.__name__: maker for maker in MAKERS}


def fault(answer: httpx.Response) -> str | None:
    """What is wrong with the answer to a malformed request."""
    if not 400 <= answer.status_code < 500:
        return f"status {answer.status_code}: {answer.text[:200]}"
    if answer.request.method == "HEAD":
        return None
    try:
        error = answer.json()["error"]
        if not error["message"].strip() or not {"type", "param", "code"} <= error.keys():
            return f"no reason: {answer.text[:200]}"
    except (ValueError, KeyError, TypeError):
        return f"not in OpenAI's form: {answer.text[:200]}"
    found = LEAKS.search(answer.text)
    return f"tells of the server: {found[0]}" if found else None


@contextmanager
def served(*options: str) -> Iterator[httpx.Client]:
    """A client, with its key, of a server that ends with the context."""
    environment = {**os.environ, "JOYIMAGE_API_KEY": KEY, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "joyimage", "serve", "--model", "tiny", "--port", "0", *options]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            with httpx.Client(base_url=address, timeout=60, headers={"Authorization": f"Bearer {KEY}"}) as client:
                yield client
        finally:
            server.terminate()
            server.wait(30)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    statuses: collections.Counter[int] = collections.Counter()
    faults = 0
    with served("--max-megabytes", "1") as client:
        before = client.get("/health").json()
        for i in range(options.count):
            kind = options.kinds[i % len(options.kinds)]
            answer = KINDS[kind](random.Random(f"{kind} {options.seed} {i}")).by(client)
            statuses[answer.status_code] += 1
            if wrong := fault(answer):
                faults += 1
                print(f"{kind} {i}: {wrong}", file=sys.stderr)
        after = client.get("/health").json()
        lost = "joyimage_workers_lost_total 0.0" not in client.get("/metrics").text
    told = ", ".join(f"{count} of {status}" for status, count in sorted(statuses.items()))
    print(
        f"{options.count} requests: {told}; {faults} faults; {'a process was lost' if lost else 'no process was lost'}"
    )
    return int(bool(faults) or lost or after != before)


if __name__ == "__main__":
    sys.exit(main())
