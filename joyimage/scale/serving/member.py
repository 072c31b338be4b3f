"""One process with the model, as the process that holds the queue sees it."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...waiting import not_loaded
from ..loading import Loading
from . import worker
from .jobs import Cancel, Start, Unusable

if TYPE_CHECKING:
    from .pool import Ticket

STOP_SECONDS = 5.0  # until a process that does not end is ended


class Member:
    """A process, its connection, and the tickets at work in it.

    Two threads carry messages, so that pictures of megabytes hold up nobody: `hear(member, message)` is called in the
    event loop for each that comes, and with None once when the process is gone.
    """

    def __init__(self, name: str, loading: Loading, hear: Callable[[Member, Any], None]):
        self.name, self.loading, self.hear = name, loading, hear
        self.ready = False  # once the process has the model
        self.loading_it = False  # until then
        self.tickets: dict[int, Ticket] = {}
        self.busy = False
        self.began, self.steps, self.units = 0.0, 0, 0
        self.load_seconds = 0.0
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._process: Any = None
        self._connection: Any = None
        self._clock: asyncio.TimerHandle | None = None  # until the process is given up, while there is reason to

    def spawn(self) -> None:
        """Start the process, anew where one has ended. Needs a running event loop."""
        context = multiprocessing.get_context("spawn")  # a fork would have half of this process's threads and locks
        self._connection, theirs = context.Pipe()
        self._outbox = queue.SimpleQueue()
        self._process = context.Process(target=worker.main, args=(theirs, self.loading), name=self.name, daemon=True)
        self.began = time.monotonic()
        self._process.start()
        theirs.close()  # or its end would not be noticed
        loop, carried = asyncio.get_running_loop(), (self._connection, self._outbox)
        self.loading_it = True
        late = not_loaded(f"a process with the model ({self.process_id})", self.loading.seconds)
        self._give_up_after(self.loading.seconds, late)
        threading.Thread(target=self._receive, args=(*carried, loop), daemon=True).start()
        threading.Thread(target=self._send, args=carried, daemon=True).start()

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def seconds(self) -> float:
        """Since the jobs at work began, or the process."""
        return time.monotonic() - self.began

    def loaded(self) -> None:
        """The process has the model."""
        self._keep()
        self.ready, self.loading_it, self.load_seconds = True, False, self.seconds

    def ended(self) -> list[Ticket]:
        """The process is gone: the tickets that were at work in it."""
        self._keep()
        held, self.tickets = list(self.tickets.values()), {}
        self.ready, self.loading_it, self.busy, self.steps = False, False, False, 0
        return held

    def _give_up_after(self, seconds: float, why: str) -> None:
        """End the process then, and say why, unless it is kept before: it ends as others do."""

        def give_up() -> None:
            self.hear(self, Unusable(why))
            self._process.kill()

        self._clock = asyncio.get_running_loop().call_later(seconds, give_up)

    def _keep(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def start(self, tickets: list[Ticket]) -> None:
        self.began, self.steps, self.units = time.monotonic(), 0, sum(ticket.job.units for ticket in tickets)
        self.busy, self.tickets = True, {ticket.number: ticket for ticket in tickets}
        self._outbox.put(Start({ticket.number: ticket.job for ticket in tickets}))

    def cancel(self, number: int, patience: float) -> None:
        """Nobody waits for this job. A process that has no other and does not leave it within so many seconds is ended:
        it hangs.
        """
        if self.tickets.pop(number, None):
            self._outbox.put(Cancel(number))
            if not self.tickets:
                hung = f"a process with the model ({self.process_id}) hangs: it was to stop {patience:g} seconds ago"
                self._give_up_after(patience, hung)

    def idle(self) -> None:
        """The call is over."""
        self._keep()
        self.busy, self.tickets = False, {}

    async def stop(self) -> None:
        """End the process, by force where it does not end by itself."""
        if self._process is None:
            return
        if self.loading_it:  # it hears nothing before it has the model
            self._process.kill()
        self._keep()
        self.ready = self.loading_it = False
        self._outbox.put(None)
        await asyncio.to_thread(self._process.join, STOP_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            await asyncio.to_thread(self._process.join)

    def _receive(self, connection: Any, outbox: queue.SimpleQueue[Any], loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed
            try:
                while True:
                    loop.call_soon_threadsafe(self.hear, self, connection.recv())
            except (EOFError, OSError):
                outbox.put(None)
                loop.call_soon_threadsafe(self.hear, self, None)

    @staticmethod
    def _send(connection: Any, outbox: queue.SimpleQueue[Any]) -> None:
        with contextlib.suppress(OSError):  # it is gone, which the other thread tells
            message = outbox
            while message is not None:
                message = outbox.get()
                connection.send(message)
