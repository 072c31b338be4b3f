"""Prompt rewriting: a clearer instruction from a server that speaks OpenAI's protocol, or from the encoder itself.

The server is named in the environment and nowhere else, so that no workflow or saved picture can name one or
hold a key: `JOYIMAGE_REWRITE_URL` (such as http://localhost:8000/v1), `JOYIMAGE_REWRITE_KEY`,
`JOYIMAGE_REWRITE_MODEL`. No message repeats what they hold, nor what a library or the server says of them.
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
from dataclasses import dataclass, field

from PIL import Image

from . import prompts
from .errors import JoyImageError
from .settings import check_text

URL, KEY, MODEL = "JOYIMAGE_REWRITE_URL", "JOYIMAGE_REWRITE_KEY", "JOYIMAGE_REWRITE_MODEL"
TIMEOUT = 60.0  # seconds, of the whole call
POLL = 0.1  # seconds between two looks at whether the user wants to stop
MAX_REPLY = 1 << 20  # bytes


Answer = Callable[[str, Sequence[Image.Image]], str]


def rewrite(
    answer: Answer | None,
    prompt: str,
    images: Sequence[Image.Image] = (),
    while_waiting: Callable[[], object] = lambda: None,
) -> str:
    """`prompt` made clear and specific; on any failure a warning that says why, and the prompt unchanged.

    `answer` asks the encoder, as `Encoder.answer_rewrite` does; it is not needed where the environment names a server.
    `while_waiting` is called several times a second while that works, and ends the wait by raising.
    Raises `JoyImageError` for an empty prompt, for one that is no text, and where nobody is there to ask.
    """
    check_text("the prompt to rewrite", prompt)
    if not prompt.strip():
        raise JoyImageError("the prompt to rewrite is empty")
    if answer is None and not has_server():
        raise JoyImageError(f"nobody is there to rewrite the prompt: give an encoder, or name a server in {URL}")
    try:
        if answer is None or has_server():
            rewritten = _ask_server(prompt, images, while_waiting)
        else:
            rewritten = prompts.parse_rewritten(answer(prompt, images))
        reason = 'the answer holds no {"Rewritten": "…"}'
    except (JoyImageError, RuntimeError) as error:
        rewritten, reason = None, str(error) if isinstance(error, JoyImageError) else f"{type(error).__name__}: {error}"
    if rewritten is None:
        warnings.warn(f"the prompt was not rewritten and is used unchanged: {reason}", stacklevel=2)
    return rewritten or prompt


def _ask_server(prompt: str, images: Sequence[Image.Image], while_waiting: Callable[[], object]) -> str | None:
    """What `parse_rewritten` finds in the server's answer. Raises `JoyImageError`, also if that holds the key."""
    server = Server.from_environment()
    rewritten = prompts.parse_rewritten(server.answer(prompt, images, while_waiting))
    if rewritten and server.key and server.key in rewritten:
        raise JoyImageError("the answer holds the key")
    return rewritten


def has_server() -> bool:
    """Whether the environment names a server, so that rewriting needs no encoder."""
    return bool(os.environ.get(URL, "").strip())


@dataclass(frozen=True)
class Server:
    """Where to ask. `address` is that of its chat completions; neither it nor the key is ever shown."""

    address: str = field(repr=False)
    model: str = "default"
    key: str = field(default="", repr=False)

    @classmethod
    def from_environment(cls) -> Server:
        """Raises `JoyImageError` for an address or a key that cannot be used."""
        wrong = JoyImageError(f"{URL} must be an address such as http://localhost:8000/v1")
        try:
            parts = urllib.parse.urlsplit(os.environ[URL].strip())
            host = parts.hostname
            _ = parts.port  # which is read, and found wrong, here only
        except ValueError:
            raise wrong from None
        if not host or parts.scheme not in ("http", "https"):
            raise wrong
        if parts.username or parts.password:
            raise JoyImageError(f"{URL} holds a user name or a password; give a key in {KEY} instead")
        key = os.environ.get(KEY, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise JoyImageError(f"{KEY} holds characters that no key has: line breaks, or other letters than ASCII")
        path = urllib.parse.quote(parts.path.rstrip("/") + "/chat/completions", safe="/%:@!$&'()*+,;=~")
        netloc = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
        address = urllib.parse.urlunsplit((parts.scheme, netloc, path, parts.query, ""))
        return cls(address, os.environ.get(MODEL, "").strip() or "default", key)

    def answer(self, prompt: str, images: Sequence[Image.Image], while_waiting: Callable[[], object]) -> str:
        """The text of the server's reply. Raises `JoyImageError` that says in our own words what went wrong."""
        body = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": prompts.rewriting_system(bool(images))},
                {"role": "user", "content": [*map(_image_part, images), {"type": "text", "text": prompt}]},
            ],
        }
        reply = self._post(json.dumps(body).encode(), while_waiting)
        try:
            return _text(json.loads(reply)["choices"][0]["message"]["content"])
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise JoyImageError("the server's reply is not a chat completion") from None

    def _post(self, body: bytes, while_waiting: Callable[[], object]) -> bytes:
        """The reply to one POST, within `TIMEOUT` in all.

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
        end = time.monotonic() + TIMEOUT
        thread.start()
        while thread.is_alive():
            thread.join(POLL)
            while_waiting()
            if time.monotonic() > end:
                raise JoyImageError(f"the server took more than {TIMEOUT:g} seconds")
        (reply,) = done
        if isinstance(reply, Exception):
            raise JoyImageError(_reason(reply)) from None
        return reply


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Another address would be sent the key."""

    def redirect_request(self, *_args, **_options) -> None:
        return None


def _reason(error: Exception) -> str:
    """What went wrong, without a word of the error's own text: libraries put headers and addresses into it."""
    if isinstance(error, urllib.error.HTTPError):
        known = error.code in http.HTTPStatus._value2member_map_
        phrase = f" ({http.HTTPStatus(error.code).phrase})" if known else ""
        hint = f"; put the address it leads to into {URL}" if 300 <= error.code < 400 else ""
        return f"the server answered with status {error.code}{phrase}{hint}"
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    number = cause.errno if isinstance(cause, OSError) else None
    system = f": {os.strerror(number)}" if number and number > 0 else ""
    kind = type(error).__name__ if cause is error else f"{type(error).__name__}, {type(cause).__name__}"
    return f"the server could not be asked ({kind}{system})"


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
