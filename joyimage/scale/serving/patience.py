"""How long the server waits for a client: uvicorn would wait for the head of a request without end."""

from __future__ import annotations

import asyncio
from typing import Any

HEAD_SECONDS = 10.0  # from a connection, or the first byte of a further request on it, to the end of its head


def impatient(protocol: type[Any], seconds: float) -> type[Any]:
    """One of uvicorn's protocols, which also closes a connection where the head of a request takes longer.

    A request is counted from the end of its head, and its body has a time of its own: so none is cut short, and what
    has not become one never had a place anywhere.
    """

    class Impatient(protocol):
        head: asyncio.TimerHandle | None = None  # runs while there is no request

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self.unwatch()
            super().connection_lost(exc)

        def watch(self) -> None:
            if self.cycle is not None and not self.cycle.response_complete:
                self.unwatch()
            elif self.head is None and not self.transport.is_closing():
                self.head = self.loop.call_later(seconds, self.transport.close)

        def unwatch(self) -> None:
            if self.head is not None:
                self.head.cancel()
                self.head = None

    return Impatient
