"""Results in the form in which clients get them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from ...settings import CANDIDATES
from .errors import ApiError
from .fields import Made
from .jobs import Result
from .pictures import as_base64, encode
from .pool import Ticket


def images(result: Result, fields: Made) -> dict[str, Any]:
    """As OpenAI gives pictures, and beside each its seed, or what it was chosen from; `note` has what was warned of."""
    chosen = result.told.get(CANDIDATES)
    data = []
    for i, picture in enumerate(result.pictures):
        told = {CANDIDATES: chosen[i]} if chosen else {"seed": fields.seed + i}
        encoded = encode(picture, fields.output_format, fields.output_compression)
        data.append({"b64_json": as_base64(encoded), **told})
    width, height = result.pictures[0].size
    box = {"box": result.told["box"]} if "box" in result.told else {}
    note = {"note": result.told["note"]} if result.told.get("note") else {}
    answer = {"created": int(time.time()), "output_format": fields.output_format, "size": f"{width}x{height}"}
    return answer | box | note | {"data": data}


def reasoned(result: Result) -> dict[str, Any]:
    """The answer, and the views with how the camera moved for each."""
    views = [
        {**camera, "b64_json": as_base64(encode(picture, "png", 100))}
        for camera, picture in zip(result.told["cameras"], result.pictures, strict=True)
    ]
    return {"answer": result.text, "views": views, "note": result.told["note"]}


def model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "joyimage"}


def completion(result: Result, name: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": result.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(result)}
    return _completion("chat.completion", name) | {"choices": [choice], "usage": _usage(result)}


async def events(
    ticket: Ticket, first: str | None, texts: AsyncIterator[str], name: str, with_usage: bool
) -> AsyncIterator[str]:
    """An answer word by word, as server-sent events. What goes wrong on the way is the last of them.

    `with_usage` adds one without words, which has the numbers of tokens; in those before they are null.
    """
    head = _completion("chat.completion.chunk", name) | ({"usage": None} if with_usage else {})

    def event(delta: dict[str, str], reason: str | None = None) -> str:
        return _event(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    try:
        yield event({"role": "assistant", "content": first or ""})
        async for text in texts:
            yield event({"content": text})
        result = await ticket.result()
        yield event({}, _reason(result))
        if with_usage:
            yield _event(head | {"choices": [], "usage": _usage(result)})
    except ApiError as error:
        yield _event(error.body)
    finally:
        ticket.cancel()
    yield "data: [DONE]\n\n"


def _reason(result: Result) -> str:
    return "stop" if result.told["reply"].whole else "length"


def _usage(result: Result) -> dict[str, int]:
    reply = result.told["reply"]
    whole = reply.prompt_tokens + reply.tokens
    return {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.tokens, "total_tokens": whole}


def _completion(kind: str, name: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": name}


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"
