"""The bodies of requests, as JSON or as forms: read whole, within limits, into the fields of a model."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from .errors import ApiError, refused
from .settings import Serving

Fields = TypeVar("Fields", bound=BaseModel)

BODY_SECONDS = 60.0  # in which a request's body is to arrive
SPILL_SECONDS = 5.0  # in which one is let go by: a client that still sends would not hear what is wrong
MOST_FIELDS = 100  # of a form
BRACKETED = re.compile(r"(\w+)\[(\w*)\]")  # how clients write lists and their parts: box[], camera[yaw]
SHOWN = 3  # of the mistakes in a request
OTHER_KINDS = ("string_type", "bytes_type", "list_type")  # of the members of a union that a value does not mean
MEMBERS = ("str", "bytes", "int", "constrained-str")
TAGS = ("system", "developer", "user", "assistant", "text", "image_url")  # of messages and their parts, by number
TOLD = {"union_tag_not_found": "its role, or its type, is missing"}


async def parsed(request: Request, model: type[Fields], serving: Serving) -> Fields:
    """A request's fields. Raises `ApiError` for another type of content, too much of it, and wrong fields by name."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    readers = {"application/json": _json, "multipart/form-data": _form}
    if kind not in readers:
        raise ApiError(415, f"send {' or '.join(readers)}, with its Content-Type", code="unsupported_media_type")
    try:
        body = await asyncio.wait_for(_body(request, serving.max_bytes), BODY_SECONDS)
    except asyncio.TimeoutError:
        raise ApiError(408, f"the request did not arrive within {BODY_SECONDS:g} seconds") from None
    except ClientDisconnect:
        raise ApiError(499, "the client has gone") from None
    return await readers[kind](request, model, serving, body)


async def _body(request: Request, most: int) -> bytes:
    """Raises `ApiError` for more than `most` bytes, whether or not the client said so before."""
    too_much = ApiError(413, f"the request has more than {most:,} bytes", code="too_large")
    told = request.headers.get("content-length", "")
    if told.isdecimal() and (len(told) > 20 or int(told) > most):
        await spilt(request, most)
        raise too_much
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            await spilt(request, most)
            raise too_much
    return bytes(body)


async def spilt(request: Request, most: int) -> None:
    """Let a body go by, or the next `most` bytes of it."""

    async def read() -> None:
        passed = 0
        while (message := await request.receive()).get("more_body") and passed < most:
            passed += len(message.get("body", b""))

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(read(), SPILL_SECONDS)


async def _json(_request: Request, model: type[Fields], _serving: Serving, body: bytes) -> Fields:
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise mistaken(error, model) from None


async def _form(request: Request, model: type[Fields], serving: Serving, body: bytes) -> Fields:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        request.headers, stream(), max_files=serving.max_files, max_fields=MOST_FIELDS, max_part_size=len(body)
    )
    parser.spool_max_size = len(body) + 1  # in memory: else parts of a megabyte go through a file
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise refused(f"the form cannot be read: {error.message}", code="invalid_form") from None
    except (UnicodeError, ValueError, KeyError) as error:  # of names and boundaries in no encoding
        raise refused(f"the form cannot be read: {type(error).__name__}", code="invalid_form") from None
    values: dict[str, Any] = {}
    for name, value in form.multi_items():
        _add(values, name, await value.read() if isinstance(value, UploadFile) else value)
    try:
        return model.model_validate(values)  # texts become numbers; strict=False would take bytes for texts, too
    except ValidationError as error:
        raise mistaken(error, model) from None


def _add(values: dict[str, Any], name: str, value: str | bytes) -> None:
    """One part of a form: `box[]` makes a list, as a name that comes again does, `camera[yaw]` a part of an object."""
    match = BRACKETED.fullmatch(name)
    name, inner = (match[1], match[2]) if match else (name, None)
    before = values.get(name)
    if inner:
        if before is not None and not isinstance(before, dict):
            raise refused(f"{name} comes as a value and as an object", name)
        values.setdefault(name, {})[inner] = value
    elif before is None:
        values[name] = value if inner is None else [value]
    elif isinstance(before, dict):
        raise refused(f"{name} comes as a value and as an object", name)
    else:
        values[name] = [*(before if isinstance(before, list) else [before]), value]


def mistaken(error: ValidationError, model: type[BaseModel]) -> ApiError:
    """The first mistakes in words, without what was sent: that may be megabytes."""
    mistakes = error.errors(include_url=False, include_context=False, include_input=False)
    meant = {mistake["loc"][:1] for mistake in mistakes if mistake["type"] not in OTHER_KINDS}
    mistakes = [each for each in mistakes if each["type"] not in OTHER_KINDS or each["loc"][:1] not in meant]
    told = dict.fromkeys(_told(mistake["loc"], mistake["msg"], mistake["type"], model) for mistake in mistakes)
    shown = list(told)[:SHOWN] + ([f"and {len(told) - SHOWN} more"] if len(told) > SHOWN else [])
    first = next((str(part)[:100] for part in mistakes[0]["loc"] if isinstance(part, str)), None)
    return refused("; ".join(shown), first)


def _told(place: tuple[int | str, ...], message: str, kind: str, model: type[BaseModel]) -> str:
    name = ".".join(str(part)[:60] for before, part in zip((None, *place), place, strict=False) if _named(before, part))
    if kind == "extra_forbidden":
        known = f"; there are {', '.join(model.model_fields)}" if len(place) == 1 else ""  # of the request itself
        return f"there is no field {name!r}{known}"
    message = TOLD.get(kind, message.removeprefix("Value error, "))
    return f"{name}: {message}" if name else message


def _named(before: int | str | None, part: int | str) -> bool:
    """Whether a part of a place is a name or number, and not what pydantic adds for the members of a union."""
    if not isinstance(part, str):
        return True
    return not ("[" in part or part in MEMBERS or (isinstance(before, int) and part in TAGS))
