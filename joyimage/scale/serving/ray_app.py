"""The server on a Ray cluster: `serve run joyimage.scale.serving.ray_app:app model=/models/edit max=8`.

A replica is the application of one card, with its queue and the process that holds the model; Ray starts and ends
replicas by how many requests each of them has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...errors import JoyImageError
from ...waiting import LOAD_SECONDS, check_load_seconds
from ..loading import Loading
from .settings import KEY_VARIABLE, Serving, key_from

try:
    from ray import serve
except ImportError as error:
    raise JoyImageError(f'ray is not installed ({error}); run `pip install "joyimage[scale]"`') from error

BUSY = 2.0  # requests of a replica, at work and waiting, that Ray keeps it at: one waits while one is at work


@dataclass(frozen=True)
class Cluster:
    """What a deployment is told, word for word as after `serve run`: `name=value`."""

    model: str = "tiny"
    name: str = ""
    memory: str = ""
    device: str = ""
    gpus: float = 1.0  # of a replica; 0 for processors
    cpus: float = 1.0
    min: int = 1
    max: int = 1
    upscale_delay_s: float = 30.0  # for which there is more to do before a replica is added
    downscale_delay_s: float = 600.0  # and less before one is ended
    without_key: bool = False
    load_seconds: int = LOAD_SECONDS  # in which a replica must have loaded the model

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> tuple[Cluster, Serving]:
        """Raises `JoyImageError` for a name that there is not, and for a value that is none of its kind."""
        kinds = {each.name: type(each.default) for each in fields(cls)} | {
            name: type(getattr(Serving, name)) for name in Serving.names()
        }
        given: dict[str, Any] = {}
        for name, value in arguments.items():
            if name not in kinds:
                raise JoyImageError(f"there is no {name!r:.40}; there are {', '.join(kinds)}")
            given[name] = _read(name, value, kinds[name])
        own = {each.name: given.pop(each.name) for each in fields(cls) if each.name in given}
        cluster = cls(**own)
        if not 1 <= cluster.min <= cluster.max:
            raise JoyImageError(f"min={cluster.min} and max={cluster.max}: replicas are 1 <= min <= max")
        for name in ("gpus", "cpus", "upscale_delay_s", "downscale_delay_s"):
            if not 0 <= getattr(cluster, name) < math.inf:
                raise JoyImageError(f"{name} is {getattr(cluster, name)}; give 0 or more")
        check_load_seconds(cluster.load_seconds)
        return cluster, Serving(**given)

    @property
    def loading(self) -> Loading:
        options = {"path": self.model, "memory": self.memory or None, "device": self.device or None}
        options["load_seconds"] = self.load_seconds
        return Loading(options, threads=None if self.gpus else 1)


def _read(name: str, value: Any, kind: type) -> Any:
    if kind is tuple:
        return tuple(value) if isinstance(value, list | tuple) else tuple(filter(None, str(value).split(",")))
    if kind is bool:
        words = {"true": True, "1": True, "false": False, "0": False}
        if str(value).lower() in words:
            return words[str(value).lower()]
    else:
        try:
            return kind(value)
        except (TypeError, ValueError):
            pass
    raise JoyImageError(f"{name} is {value!r:.40}; give a value like {kind().__class__.__name__}")


def app(arguments: dict[str, Any]) -> serve.Application:
    """The deployment. Raises `JoyImageError` as `Cluster.of` does, and on each replica as `replica` does."""
    cluster, serving = Cluster.of(arguments)
    build = serve.ingress(lambda: replica(cluster, serving))  # on the replica: a queue cannot be sent there
    deployment: Any = serve.deployment(
        build(),
        name="joyimage",
        max_ongoing_requests=serving.queue + serving.batch,
        autoscaling_config={
            "min_replicas": cluster.min,
            "max_replicas": cluster.max,
            "target_ongoing_requests": BUSY * serving.batch,
            "upscale_delay_s": cluster.upscale_delay_s,
            "downscale_delay_s": cluster.downscale_delay_s,
        },
        ray_actor_options={"num_gpus": cluster.gpus, "num_cpus": cluster.cpus},
        graceful_shutdown_timeout_s=float(serving.grace),
    )
    return deployment.bind()


def replica(cluster: Cluster, serving: Serving) -> Any:
    """The application of one replica, whose process gets the card that Ray gave this one.

    Raises `JoyImageError` where the node has no key for clients, unless that is asked for, and where it has one all
    the same.
    """
    from .app import create_app
    from .pool import Pool

    key = key_from()
    if key is not None and cluster.without_key:
        raise JoyImageError(
            f"without_key=true lets everybody in, and {KEY_VARIABLE} is set on this node: leave out one"
        )
    if key is None and not cluster.without_key:
        raise JoyImageError(
            f"{KEY_VARIABLE} is not set on this node: set it there before `ray start`, or say without_key=true"
        )
    name = cluster.name or Path(cluster.model).name
    return create_app(Pool([cluster.loading], serving), name, key=key)
