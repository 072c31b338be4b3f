"""What stands before every endpoint: the key, whose page may ask, how many at once; and headers of every answer."""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError
from .metrics import Meters
from .settings import is_loopback

OPEN = ("/health", "/", "/docs", "/openapi.json")  # without a key, as the files under /page/ are: they hold nothing
SPARE = 32  # requests that may be arriving, beside those that wait or are at work
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def error_response(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body, error.status, error.headers)


@dataclass(frozen=True)
class Rules:
    """Who may ask. `local` is for a server without a key that this machine alone reaches: others' names are refused,
    or a page of theirs could ask in the name of whoever looks at it. `most` requests are taken at once.
    """

    key: str | None
    local: bool
    most: int
    paths: frozenset[str] = frozenset()  # those that are counted under their own names

    def check(self, scope: Scope) -> None:
        """Raise `ApiError` for what may not be asked."""
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        host = headers.get("host", "")
        if self.local and not is_loopback(_hostname(host)):
            raise ApiError(403, "this server answers to names of this machine only", code="wrong_host")
        origin = headers.get("origin")
        if origin is not None and method not in ("GET", "HEAD") and urlsplit(origin).netloc.lower() != host.lower():
            raise ApiError(403, "pages of other sites may not use this server", code="wrong_origin")
        if self.key is not None and path not in OPEN and not path.startswith("/page/"):
            self._check_key(headers.get("authorization", ""))

    def _check_key(self, given: str) -> None:
        scheme, _, key = given.partition(" ")
        right = hmac.compare_digest(key.strip().encode(), (self.key or "").encode())
        if scheme.lower() != "bearer" or not right:
            raise ApiError(401, "the key is missing or wrong: send Authorization: Bearer KEY", code="invalid_api_key")


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # brackets that hold no address
        return ""


class Guard:
    """The rules as a middleware, which also counts answers and their time."""

    def __init__(self, app: ASGIApp, rules: Rules, meters: Meters):
        self.app, self.rules, self.meters = app, rules, meters
        self.present = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        self.present += 1
        try:
            self._check(scope)
            await self.app(scope, receive, dressed)
        except ApiError as error:
            await error_response(error)(scope, receive, dressed)
        finally:
            self.present -= 1
            path = scope["path"] if scope["path"] in self.rules.paths else "other"
            self.meters.requests.labels(path, status).inc()
            self.meters.seconds.labels(path).observe(time.monotonic() - began)

    def _check(self, scope: Scope) -> None:
        self.rules.check(scope)
        if self.present > self.rules.most and scope["method"] == "POST":
            raise ApiError(429, "too many requests are arriving", code="too_many_requests", retry_after=1)
