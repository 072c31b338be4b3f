"""The queue before the processes with the model: who waits, who works, who is sent away, and for how long."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Sequence
from itertools import count
from typing import Any

from ...errors import JoyImageError
from ..loading import Loading
from . import jobs
from .errors import ApiError, refused
from .jobs import Job, Result
from .member import Member
from .metrics import Meters
from .settings import Serving

LATEST = 0.3  # what the latest request counts in the mean of a unit's time
MOST_LOSSES = 1  # of processes over one request, which may well be what ends them
FIRST_LOAD = 10  # seconds after which to come again, where no process has ever had the model
LEAVE_SECONDS = 600.0  # the least that a process has to leave a job for which nobody waits: within a step
PAUSES = (1, 5, 30, 60)  # seconds before a process that ended is started again, the last for all further times
log = logging.getLogger(__name__)


class Ticket:
    """A job that was accepted: a place in the queue, then at work, then with its result."""

    def __init__(self, number: int, job: Job, pool: Pool):
        self.number, self.job, self._pool = number, job, pool
        self.shown = False  # a piece of the answer
        self.losses = 0  # processes that ended over it
        self.held_up = False  # a process ended while it waited or was at work
        self._result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self._timer = asyncio.get_running_loop().call_later(pool.serving.seconds, self._expire)

    @property
    def done(self) -> bool:
        return self._result.done()

    async def result(self) -> Result:
        """Raises `ApiError` where there is none."""
        return await asyncio.shield(self._result)

    async def texts(self) -> AsyncIterator[str]:
        """The answer piece by piece. Raises as `result` does."""
        while (piece := await self._pieces.get()) is not None:
            yield piece
        await self.result()

    def say(self, piece: str) -> None:
        if piece:
            self.shown = True
            self._pieces.put_nowait(piece)

    def end(self, outcome: Result | ApiError) -> None:
        """The first outcome holds."""
        if self.done:
            return
        self._timer.cancel()
        if isinstance(outcome, Result):
            self._result.set_result(outcome)
        else:
            self._result.set_exception(outcome)
            self._result.exception()  # looked at, or asyncio warns where the client is gone
        self._pieces.put_nowait(None)

    def cancel(self) -> None:
        """The client is gone: its place is free at once in the queue, and within a step at work."""
        if not self.done:
            self._pool.leave(self, ApiError(499, "the client has gone"))

    def _expire(self) -> None:
        seconds = self._pool.serving.seconds
        if self.held_up:
            why = self._pool.lost(f"not answered within {seconds} seconds, as a process with the model ended")
        elif self in self._pool.waiting:
            message = f"not begun within {seconds} seconds, as others came before; try again"
            why = ApiError(503, message, code="busy", retry_after=self._pool.retry_after())
        else:
            why = ApiError(504, f"not answered within {seconds} seconds: ask for less", code="timeout")
        self._pool.leave(self, why)


class Pool:
    """Processes with the model and the queue before them; all in one event loop.

    Raises nothing by itself: `start` does for a model that does not load, `submit` where there is no place.
    """

    def __init__(self, loadings: Sequence[Loading], serving: Serving, meters: Meters | None = None):
        self.serving = serving
        self.meters = meters or Meters()
        self.waiting: deque[Ticket] = deque()
        self.members = [Member(f"joyimage-{i}", each, self._hear) for i, each in enumerate(loadings)]
        self.draining = False
        self.steps = 0  # of the model's own schedule, once it is loaded
        self._numbers = count()
        self._unit_seconds: dict[str, float] = {}
        self._losses: dict[Member, int] = {}
        self._loaded: dict[Member, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.meters.watch(self)

    async def start(self) -> None:
        """Load the model in all processes. Raises `JoyImageError` where one cannot, or not within its time."""
        loop = asyncio.get_running_loop()
        self._loaded = {member: loop.create_future() for member in self.members}
        for member in self.members:
            member.spawn()
        try:
            await asyncio.gather(*self._loaded.values())
        except (JoyImageError, asyncio.CancelledError):
            await self.stop()
            raise

    @property
    def loaded_once(self) -> bool:
        return self.started and all(each.done() for each in self._loaded.values())

    @property
    def started(self) -> bool:
        return bool(self._loaded)

    @property
    def running(self) -> int:
        """Jobs at work."""
        return sum(len(member.tickets) for member in self.members)

    @property
    def ready(self) -> int:
        """Processes that have the model."""
        return sum(member.ready for member in self.members)

    def check_place(self) -> None:
        """Raise `ApiError` where a job would not be accepted: 503 for a server that stops, 429 for a full queue."""
        if self.draining:
            raise ApiError(503, "the server is stopping; try again elsewhere or later", code="draining", retry_after=5)
        if not self.ready:
            seconds = self.reload_seconds()
            raise ApiError(
                503, "no process has the model at the moment; try again", code="not_ready", retry_after=seconds
            )
        free = any(member.ready and not member.busy for member in self.members)
        if not free and len(self.waiting) >= self.serving.queue:
            seconds = self.retry_after()
            message = f"{len(self.waiting)} requests wait already; a place will be free in about {seconds} seconds"
            raise ApiError(429, message, code="queue_full", retry_after=seconds)

    def submit(self, job: Job) -> Ticket:
        """Accept a job. Raises `ApiError` as `check_place` does."""
        self.check_place()
        ticket = Ticket(next(self._numbers), job, self)
        self.waiting.append(ticket)
        self._pump()
        return ticket

    def leave(self, ticket: Ticket, why: ApiError) -> None:
        """End a ticket that nobody waits for, or that has waited long enough."""
        if ticket in self.waiting:
            self.waiting.remove(ticket)
        for member in self.members:
            member.cancel(ticket.number, max(LEAVE_SECONDS, self.serving.seconds))
        self.meters.cancelled.inc()
        ticket.end(why)

    def lost(self, what: str) -> ApiError:
        """For who may come again, as a process ended: nothing is wrong with the request."""
        return ApiError(503, f"{what}; try again", code="worker_lost", retry_after=self.reload_seconds())

    def reload_seconds(self) -> int:
        """Whole seconds that a process took to load the model, which is what the next will take about."""
        return math.ceil(max(member.load_seconds for member in self.members)) or FIRST_LOAD

    def retry_after(self) -> int:
        """Whole seconds until the first of the jobs at work is expected to end, and with it a place in the queue."""
        left = [self._left(member) for member in self.members if member.ready and member.busy]
        return max(1, math.ceil(min(left, default=1)))

    def _left(self, member: Member) -> float:
        """By the pace of its own steps, or else of requests before it, or else as long again as it has taken."""
        if member.steps:
            return member.seconds / member.steps * max(0, member.units - member.steps)
        kinds = [ticket.job.kind for ticket in member.tickets.values()]
        if kinds and kinds[0] in self._unit_seconds:
            return max(0.0, self._unit_seconds[kinds[0]] * member.units - member.seconds)
        return member.seconds

    async def drain(self, seconds: float) -> None:
        """Accept nothing more, and wait until all that was accepted is done, or for so many seconds."""
        self.draining = True
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (self.waiting or self.running) and loop.time() < end:
            await asyncio.sleep(0.05)
        self._dismiss()

    def _dismiss(self) -> None:
        for ticket in [*self.waiting, *(t for member in self.members for t in member.tickets.values())]:
            self.leave(ticket, ApiError(503, "the server has stopped; try again", code="draining"))

    async def stop(self) -> None:
        """End all processes, and whatever is in them or waits."""
        self.draining = True
        self._dismiss()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(member.stop() for member in self.members))

    def _pump(self) -> None:
        for member in self.members:
            if not self.waiting:
                return
            if member.ready and not member.busy:
                member.start(self._next())

    def _next(self) -> list[Ticket]:
        """The first who waits, and those behind who may share its call; over whom a process ended, by themselves."""
        first = self.waiting.popleft()
        alike = None if first.losses else first.job.together
        others = [] if alike is None else [t for t in self.waiting if t.job.together == alike and not t.losses]
        chosen = others[: self.serving.batch - 1]
        for ticket in chosen:
            self.waiting.remove(ticket)
        return [first, *chosen]

    def _hear(self, member: Member, message: Any) -> None:
        if message is None:
            self._lost(member)
        elif isinstance(message, jobs.Unusable):
            self._unusable(member, message.why)
        else:
            HEARD[type(message)](self, member, message)

    def _ready(self, member: Member, message: jobs.Ready) -> None:
        self.steps = message.steps
        member.loaded()
        if not self._loaded[member].done():
            self._loaded[member].set_result(None)
        self._pump()

    def _stepped(self, member: Member, _message: jobs.Stepped) -> None:
        member.steps += len(member.tickets) or 1
        self.meters.steps.inc(len(member.tickets))

    def _said(self, member: Member, message: jobs.Said) -> None:
        if ticket := member.tickets.get(message.number):
            ticket.say(message.text)

    def _done(self, member: Member, message: jobs.Done) -> None:
        if ticket := member.tickets.pop(message.number, None):
            self._losses.pop(member, None)
            kind, latest = ticket.job.kind, member.seconds / max(1, member.units)
            before = self._unit_seconds.get(kind, latest)
            self._unit_seconds[kind] = before + LATEST * (latest - before)
            ticket.end(message.result)

    def _failed(self, member: Member, message: jobs.Failed) -> None:
        if ticket := member.tickets.pop(message.number, None):
            ticket.end(refused(message.why) if message.refused else ApiError(500, message.why, code=message.code))

    def _idle(self, member: Member, _message: jobs.Idle) -> None:
        member.idle()
        self._pump()

    def _unusable(self, member: Member, why: str) -> None:
        if not self._loaded[member].done():
            self._loaded[member].set_exception(JoyImageError(why))
        else:
            log.warning("joyimage: %s", why)

    def _lost(self, member: Member) -> None:
        """The process has ended: what was at work in it is run again, unless some of it was shown or it is the second
        to end over it. The process is started again, unless all end and nothing waits.
        """
        for ticket in reversed(member.ended()):
            ticket.losses += 1
            if ticket.losses > MOST_LOSSES:
                ticket.end(ApiError(500, "processes with the model ended over this request", code="worker_lost"))
            elif ticket.shown:
                ticket.end(self.lost("the process with the model ended over this answer"))
            else:
                self.waiting.appendleft(ticket)
        for ticket in self.waiting:
            ticket.held_up = True
        if not self._loaded[member].done():
            self._loaded[member].set_exception(JoyImageError("a process ended before the model was loaded"))
        elif self.waiting or not self.draining:
            self._keep(self._again(member))
        self._pump()

    async def _again(self, member: Member) -> None:
        losses = self._losses.get(member, 0)
        self._losses[member] = losses + 1
        self.meters.lost.inc()
        pause = PAUSES[min(losses, len(PAUSES) - 1)]
        log.warning("joyimage: a process with the model ended; another one starts in %s s", pause)
        await asyncio.sleep(pause)
        member.spawn()

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


HEARD: dict[type, Any] = {
    jobs.Ready: Pool._ready,
    jobs.Stepped: Pool._stepped,
    jobs.Said: Pool._said,
    jobs.Done: Pool._done,
    jobs.Failed: Pool._failed,
    jobs.Idle: Pool._idle,
}
