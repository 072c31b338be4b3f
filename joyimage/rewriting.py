"""Prompt rewriting: a plain wish is read without a model; others go to a server that speaks OpenAI's protocol, or to
the encoder itself.

The server is named in the environment and nowhere else, so that no workflow or saved picture can name one or
hold a key: `JOYIMAGE_REWRITE_URL` (such as http://localhost:8000/v1), `JOYIMAGE_REWRITE_KEY`,
`JOYIMAGE_REWRITE_MODEL`, or `OPENAI_BASE_URL`, `OPENAI_API_KEY`, `OPENAI_MODEL` where ours are not set. Without an
address nothing is sent, and OpenAI's key and model go to the address of `OPENAI_BASE_URL` alone. No message repeats
what they hold, nor what a library or the server says of them.
"""

from __future__ import annotations

import base64
import http
import io
import json
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from PIL import Image

from . import prompts
from .errors import JoyImageError
from .rewritten import FailedTry, Rewritten, checked, from_sentence, read_plainly
from .settings import check_text
from .wishes import Sentence

URL, KEY, MODEL = "JOYIMAGE_REWRITE_URL", "JOYIMAGE_REWRITE_KEY", "JOYIMAGE_REWRITE_MODEL"
OPENAI_URL, OPENAI_KEY, OPENAI_MODEL = "OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"
TRIES = 3  # as in the original
TIMEOUT = 60.0  # seconds, of all tries together
PAUSE = 0.5  # seconds before a server that could not answer is asked again
POLL = 0.1  # seconds between two looks at whether the user wants to stop
MAX_REPLY = 1 << 20  # bytes
TEMPORARY = (408, 409, 425, 429)  # statuses below 500 after which another try may help


class Answer(Protocol):
    """Asks the encoder, as `Encoder.answer_rewrite` does; the seed differs from try to try."""

    def __call__(self, prompt: str, images: Sequence[Image.Image], *, seed: int) -> str: ...


class Unavailable(FailedTry):
    """The server gave no answer."""


def rewrite(
    answer: Answer | None,
    prompt: str,
    images: Sequence[Image.Image] = (),
    while_waiting: Callable[[], object] = lambda: None,
) -> Rewritten:
    """`prompt` made clear and specific; on any failure a warning that says why, and the prompt unchanged.

    A plain wish for one of the sentences that the model was trained on becomes that sentence without anybody's help.
    All else, and an object that is not named in English, takes up to three tries at an answer that keeps the
    prompt's numbers and quoted texts and that is no near-miss of such a sentence.

    `answer` asks the encoder; it is not needed where `needs_encoder` says so.
    `while_waiting` is called several times a second while a server works, and ends the wait by raising.
    Raises `JoyImageError` for an empty prompt, for one that is no text, and where nobody is there to ask.
    """
    plain = _plain(prompt)
    if plain and _settled(prompt, plain):
        return from_sentence(prompt, plain)
    if answer is None and not has_server():
        raise JoyImageError(
            f"nobody is there to rewrite the prompt: give an encoder, or name a server in {URL} or {OPENAI_URL}"
        )
    try:
        if answer is None or has_server():
            ask = _server_asked(prompt, images, while_waiting)
        else:
            ask = _encoder_asked(answer, prompt, images)
        return _tried(ask, prompt, images, plain, while_waiting)
    except (JoyImageError, RuntimeError) as error:
        reason = str(error) if isinstance(error, JoyImageError) else f"{type(error).__name__}: {error}"
    if plain:
        return from_sentence(prompt, plain, f"the object is named as it was written: {reason}")
    warnings.warn(f"the prompt was not rewritten and is used unchanged: {reason}", stacklevel=2)
    return Rewritten(prompt, prompt)


def needs_encoder(prompt: str) -> bool:
    """Whether only the encoder can rewrite `prompt`: it is no plain wish, and the environment names no server.

    Raises `JoyImageError` for an empty prompt, and for one that is no text.
    """
    plain = _plain(prompt)
    return not (has_server() or (plain and _settled(prompt, plain)))


def answer_tokens(prompt: str) -> int:
    """The most new tokens of a try: room for six sentences, and for as long a prompt as was given.

    Three tries are as long as one answer to a question may be.
    """
    return min(2048, 512 + len(prompt))


def _plain(prompt: str) -> Sentence | None:
    check_text("the prompt to rewrite", prompt)
    if not prompt.strip():
        raise JoyImageError("the prompt to rewrite is empty")
    return read_plainly(prompt)


def _settled(prompt: str, plain: Sentence) -> bool:
    """Whether a sentence needs no translation of its object. One that was exact is left as it is."""
    obj = getattr(plain.instruction, "object", "")
    return obj.isascii() or plain.text == prompt.strip()


def _tried(
    ask: Callable[[int], str],
    prompt: str,
    images: Sequence[Image.Image],
    plain: Sentence | None,
    while_waiting: Callable[[], object],
) -> Rewritten:
    """The first answer that can be taken. Raises `JoyImageError` with the reasons when there is none."""
    reasons: list[str] = []
    for number in range(1, TRIES + 1):
        while_waiting()
        try:
            found = checked(ask(number - 1), prompt, images, plain)
            return found if number == 1 else replace(found, notes=(*found.notes, f"at try {number} of {TRIES}"))
        except JoyImageError as error:
            reasons.append(str(error))
            if not isinstance(error, FailedTry):
                break
            if isinstance(error, Unavailable) and number < TRIES:
                _pause(while_waiting)
    told = "; ".join(dict.fromkeys(reasons))
    raise JoyImageError(told if len(reasons) == 1 else f"{told} ({len(reasons)} tries)")


def _pause(while_waiting: Callable[[], object]) -> None:
    end = time.monotonic() + PAUSE
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(POLL, left))
        while_waiting()


def _encoder_asked(answer: Answer, prompt: str, images: Sequence[Image.Image]) -> Callable[[int], str]:
    return lambda seed: answer(prompt, images, seed=seed)


def _server_asked(
    prompt: str, images: Sequence[Image.Image], while_waiting: Callable[[], object]
) -> Callable[[int], str]:
    """Asks the server anew at each call, within `TIMEOUT` in all. `JoyImageError` also where a reply holds the key."""
    server, end = Server.from_environment(), time.monotonic() + TIMEOUT
    request = server.request(prompt, images)

    def ask(_try: int) -> str:
        reply = server.answer(request, end, while_waiting)
        if server.key and any(server.key in said for said in (reply, prompts.parse_rewritten(reply) or "")):
            raise JoyImageError("the answer holds the key")
        return reply

    return ask


def _given(name: str) -> str:
    return os.environ.get(name, "").strip()


def has_server() -> bool:
    """Whether the environment names a server, so that rewriting needs no encoder. A key alone names none."""
    return bool(_given(URL) or _given(OPENAI_URL))


@dataclass(frozen=True)
class Server:
    """Where to ask. `address` is that of its chat completions; neither it nor the key is ever shown."""

    address: str = field(repr=False)
    model: str = "default"
    key: str = field(default="", repr=False)
    named_by: str = URL  # in the environment

    @classmethod
    def from_environment(cls) -> Server:
        """Raises `JoyImageError` for an address or a key that cannot be used.

        Each of our names goes before OpenAI's. OpenAI's key and model belong to the server that `OPENAI_BASE_URL`
        names, and are not sent to another.
        """
        theirs = not _given(URL)
        url_name = OPENAI_URL if theirs else URL
        key_name = OPENAI_KEY if theirs and not _given(KEY) else KEY
        wrong = JoyImageError(f"{url_name} must be an address such as http://localhost:8000/v1")
        try:
            parts = urllib.parse.urlsplit(_given(url_name))
            host = parts.hostname
            _ = parts.port  # which is read, and found wrong, here only
            netloc = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
            path = urllib.parse.quote(parts.path.rstrip("/") + "/chat/completions", safe="/%:@!$&'()*+,;=~")
        except ValueError:
            raise wrong from None
        if not host or parts.scheme not in ("http", "https"):
            raise wrong
        if parts.username or parts.password:
            raise JoyImageError(f"{url_name} holds a user name or a password; give a key in {key_name} instead")
        key = _given(key_name)
        if not (key.isascii() and key.isprintable()):
            raise JoyImageError(
                f"{key_name} holds characters that no key has: line breaks, or other letters than ASCII"
            )
        address = urllib.parse.urlunsplit((parts.scheme, netloc, path, parts.query, ""))
        model = _given(MODEL) or (_given(OPENAI_MODEL) if theirs else "") or "default"
        return cls(address, model, key, url_name)

    def request(self, prompt: str, images: Sequence[Image.Image], system: str | None = None) -> bytes:
        """What is posted, the same at each try; the system text is the rewriter's unless given."""
        body = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": system or prompts.rewriting_system(bool(images))},
                {"role": "user", "content": [*map(_image_part, images), {"type": "text", "text": prompt}]},
            ],
        }
        return json.dumps(body).encode()

    def answer(self, request: bytes, end: float, while_waiting: Callable[[], object]) -> str:
        """The text of the server's reply, until the time `end`.

        Raises `JoyImageError` that says in our own words what went wrong: a `FailedTry` where another may help.
        """
        reply = self._post(request, end, while_waiting)
        try:
            return _text(json.loads(reply)["choices"][0]["message"]["content"])
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise Unavailable("the server's reply is not a chat completion") from None

    def _post(self, body: bytes, end: float, while_waiting: Callable[[], object]) -> bytes:
        """The reply to one POST, until the time `end`.

        It runs in a thread, which is left behind when the time is over or the user stops: a server that sends a byte
        now and then keeps every wait of a socket short, and the whole without end.
        """
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        done: list[bytes | Exception] = []

        def post() -> None:
            try:
                request = urllib.request.Request(self.address, body, headers)
                with urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT) as response:
                    done.append(response.read(MAX_REPLY))
            except Exception as error:  # whatever it is, the prompt stays as it was
                done.append(error)

        thread = threading.Thread(target=post, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(POLL)
            while_waiting()
            if time.monotonic() > end:
                raise JoyImageError(f"the server took more than {TIMEOUT:g} seconds")
        (reply,) = done
        if isinstance(reply, Exception):
            raise _failure(reply, self.named_by) from None
        return reply


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Another address would be sent the key."""

    def redirect_request(self, *_args, **_options) -> None:
        return None


def _failure(error: Exception, named_by: str) -> JoyImageError:
    """What went wrong, without a word of the error's own text: libraries put headers and addresses into it."""
    if isinstance(error, urllib.error.HTTPError):
        known = error.code in http.HTTPStatus._value2member_map_
        phrase = f" ({http.HTTPStatus(error.code).phrase})" if known else ""
        hint = f"; put the address it leads to into {named_by}" if 300 <= error.code < 400 else ""
        again = error.code >= 500 or error.code in TEMPORARY
        return (Unavailable if again else JoyImageError)(f"the server answered with status {error.code}{phrase}{hint}")
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    number = cause.errno if isinstance(cause, OSError) else None
    system = f": {os.strerror(number)}" if number and number > 0 else ""
    kind = type(error).__name__ if cause is error else f"{type(error).__name__}, {type(cause).__name__}"
    return Unavailable(f"the server could not be asked ({kind}{system})")


def _text(content: object) -> str:
    """A reply's content, which some servers give as a list of parts."""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type", "text") in ("text", "output_text"))
    if not isinstance(content, str):
        raise TypeError
    return content


def _image_part(image: Image.Image) -> dict:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
