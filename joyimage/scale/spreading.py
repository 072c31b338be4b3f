"""Scenes of data sets and pictures of benchmarks on Ray's workers, for `spatialdata.make` and `predicting.make_all`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import JoyImageError
from .engine import Crew, Stopped, Work, started
from .settings import Pool

if TYPE_CHECKING:
    from ..evaluation.predicting import Spread as PictureSpread
    from ..evaluation.predicting import Wanted
    from ..pipeline import JoyImage
    from ..spatialdata.making.spreading import Do, Paths
    from ..spatialdata.making.spreading import Spread as SceneSpread
    from ..spatialdata.making.work import Job

Value = TypeVar("Value")


def scenes(pool: Pool) -> SceneSpread:
    """Scenes over a pool; results come in the scenes' order. A scene at which workers were lost is one that failed."""

    def spread(do: Do, jobs: Iterable[Job]) -> Paths:
        def lost(job: Job, reason: str) -> tuple[int, Path]:
            return job.place, do(replace(job, scene=None, before=None, failed=((job.name, reason),)))

        with started(pool) as ray:
            crew = Crew(ray, partial(_scene_worker, do), pool, lost)
            yield from in_order(crew.results([job] for job in jobs))

    return spread


def _scene_worker(do: Do) -> Work:
    return lambda jobs: ((job.place, do(job)) for job in jobs)


def in_order(results: Iterable[tuple[int, Value]]) -> Iterator[Value]:
    """Values by their numbers, which count from 0, however they come."""
    early: dict[int, Value] = {}
    following = 0
    for number, value in results:
        early[number] = value
        while following in early:
            yield early.pop(following)
            following += 1


def pictures(pool: Pool, load: Callable[[], JoyImage]) -> PictureSpread:
    """Pictures over a pool whose workers hold a model each. Raises `JoyImageError` for one that cannot be made."""

    def spread(wanted: Sequence[Wanted]) -> Iterator[object]:
        with started(pool) as ray:
            crew = Crew(ray, partial(_picture_worker, load), pool, _lost)
            yield from crew.results([each] for each in wanted)

    return spread


def _picture_worker(load: Callable[[], JoyImage]) -> Work:
    model = load()

    def work(wanted: Sequence[Wanted]) -> Iterator[bool]:
        for each in wanted:
            try:
                if not each.path.exists():  # made by a worker that was lost before it could say so
                    each.write(model)
            except (JoyImageError, OSError) as error:
                raise Stopped(f"{each.path.name}: {error}") from error
            yield True

    return work


def _lost(wanted: Wanted, reason: str) -> bool:
    raise JoyImageError(f"{wanted.path.name}: {reason}")
