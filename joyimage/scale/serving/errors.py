"""What a client is told when a request cannot be answered, in OpenAI's form."""

from __future__ import annotations

from typing import Any

from ...errors import shortened

KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """An answer with a status of 400 or more. `param` is the field that is wrong, `code` a word for programs.

    `retry_after` is in seconds.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None,
        retry_after: int | None = None,
    ):  # fmt: skip
        super().__init__(shortened(message))
        self.status, self.param, self.code, self.retry_after = status, param, code, retry_after

    @property
    def body(self) -> dict[str, Any]:
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.status in (500, 504):
            headers["x-should-retry"] = "false"  # or OpenAI's client asks twice more for what takes too long, or kills
        return headers


def refused(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """For a request that would never be answered as it is."""
    return ApiError(400, message, param=param, code=code)
