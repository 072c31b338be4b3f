"""What the server counts, in Prometheus's form. Each server has counters of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from .pool import Pool

SECONDS = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600)  # bounds of the histogram


class Meters:
    """Counters, gauges and a histogram."""

    def __init__(self):
        self.registry = CollectorRegistry()
        own: Any = {"registry": self.registry}  # what ** gives has one type for all its names
        self.requests = Counter("joyimage_requests", "Answers, by endpoint and status", ["endpoint", "status"], **own)
        self.seconds = Histogram(
            "joyimage_request_seconds", "From a request to the end of its answer", ["endpoint"], buckets=SECONDS, **own
        )
        self.steps = Counter("joyimage_steps", "Denoising steps, of every picture", **own)
        self.cancelled = Counter("joyimage_cancelled", "Requests that ended early: clients gone, time over", **own)
        self.lost = Counter("joyimage_workers_lost", "Processes that ended and were started again", **own)
        self._gauges = {
            name: Gauge(f"joyimage_{name}", help, **own)
            for name, help in {
                "waiting": "Requests in the queue",
                "running": "Requests at work",
                "ready": "Processes with the model",
                "loading": "Processes that load the model",
            }.items()
        }

    def watch(self, pool: Pool) -> None:
        """Let the gauges show what a pool has."""
        self._gauges["waiting"].set_function(lambda: len(pool.waiting))
        self._gauges["running"].set_function(lambda: pool.running)
        self._gauges["ready"].set_function(lambda: pool.ready)
        self._gauges["loading"].set_function(lambda: sum(member.loading_it for member in pool.members))

    def text(self) -> bytes:
        """The text format, version 0.0.4."""
        return generate_latest(self.registry)
