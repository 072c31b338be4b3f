"""How long the server waits for a client, and for how much of a head, where uvicorn would without end."""

from __future__ import annotations

import asyncio
from typing import Any

HEAD_SECONDS = 10.0  # from a connection, or the first byte of a further request on it, to the end of its head
HEAD_BYTES = 2**16  # beyond the first piece of it: a parser may take gigabytes within those seconds
STALL_SECONDS = 30.0  # in which nothing of an answer is taken


def impatient(protocol: type[Any], head_seconds: float, stall_seconds: float) -> type[Any]:
    """One of uvicorn's protocols, which also closes connections of clients that take longer, or send heads without end.

    A request is counted from the end of its head, and its body has a time of its own: so none is cut short, and what
    has not become one never had a place anywhere.
    """

    class Impatient(bounded(protocol)):
        head: asyncio.TimerHandle | None = None  # runs while there is no request
        stall: asyncio.TimerHandle | None = None  # runs while there is more of an answer than the client takes

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self.head, self.stall = ended(self.head), ended(self.stall)
            super().connection_lost(exc)

        def watch(self) -> None:
            if self.cycle is not None and not self.cycle.response_complete:
                self.head = ended(self.head)
            elif self.head is None and not self.transport.is_closing():
                self.head = self.loop.call_later(head_seconds, self.transport.close)

        def pause_writing(self) -> None:
            super().pause_writing()
            self.await_taking(None)

        def resume_writing(self) -> None:
            self.stall = ended(self.stall)
            super().resume_writing()

        def await_taking(self, before: int | None) -> None:
            left = self.transport.get_write_buffer_size()
            if before is not None and left >= before:
                self.transport.abort()
            else:
                self.stall = self.loop.call_later(stall_seconds, self.await_taking, left)

    return Impatient


def bounded(protocol: type[Any]) -> type[Any]:
    """The same protocol, which takes no more than so much of a head. h11 has its own bound."""

    class Bounded(protocol):
        heads = 0  # that have begun
        head_bytes: int | None = None  # of the one that is on its way

        def data_received(self, data: bytes) -> None:
            before = self.heads
            super().data_received(data)
            if self.head_bytes is not None and self.heads == before:
                self.head_bytes += len(data)
                if self.head_bytes > HEAD_BYTES:
                    self.transport.abort()

        def on_message_begin(self) -> None:
            self.heads, self.head_bytes = self.heads + 1, 0
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self.head_bytes = None
            super().on_headers_complete()

    return Bounded


def ended(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
