"""What a worker does with rows: it makes their pictures, or answers, and writes them."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch

from .. import prompts, spatial
from ..errors import JoyImageError
from ..images import save_png
from ..parameters import made_by
from ..settings import Sampling
from .addresses import raw_picture, read_picture
from .columns import SAMPLING
from .engine import Stopped
from .jobs import ASK, GENERATE, Job
from .manifest import Record
from .noting import Noting
from .results import TAG, Making, names_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..conditioning import Conditioning
    from ..pipeline import JoyImage

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # of a write's failure: what every other row would meet too

Way = Callable[[list[Job]], Iterator[Record]]


@dataclass(frozen=True)
class Encoded:
    """A row ready to be sampled, with what its picture is to tell, its share of the seconds, and what was warned of."""

    job: Job
    conditioning: Conditioning
    told: dict[str, Any]
    seconds: float
    noted: Noting


@dataclass
class Maker:
    """A model at work on rows. Called with some, it gives a record for each, in their order.

    Whatever is wrong with a row becomes its record. What is raised is wrong with the worker, or with all rows.
    """

    making: Making
    model: JoyImage
    worker: str

    def __call__(self, jobs: Sequence[Job]) -> Iterator[Record]:
        there = [self._there(job) for job in jobs]
        missing = [job for job, record in zip(jobs, there, strict=True) if record is None]
        made = (record for way, run in groupby(missing, self._way) for record in self._attempted(way, list(run)))
        for record in there:
            yield record or next(made)

    def _there(self, job: Job) -> Record | None:
        """What another worker made before it was lost, or the command before it was stopped."""
        try:
            return self.making.found(job)
        except JoyImageError as error:
            return self.making.failed(job, str(error))

    def _way(self, job: Job) -> Way:
        if job.kind == ASK:
            return self._answered
        return self._chosen if job.options.get("candidates", 1) > 1 else self._rendered

    def _attempted(self, way: Way, jobs: list[Job]) -> Iterator[Record]:
        """Rows together, and each by itself where one of them has spoilt it for all."""
        done = 0
        try:
            for record in way(jobs):
                done += 1
                yield record
        except Stopped:
            raise
        except Exception as error:  # whatever it is, it is this row's, and 99,999 others want to be made
            self._check_device()
            if len(rest := jobs[done:]) > 1:
                yield from (record for job in rest for record in self._attempted(way, [job]))
            else:
                told = str(error) if isinstance(error, JoyImageError) else f"{type(error).__name__}: {error}"
                yield self.making.failed(rest[0], told)

    def _check_device(self) -> None:
        """Raise what torch raises where the device is of no use any more: then the worker is not, either."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
            torch.cuda.empty_cache()

    def _answered(self, jobs: list[Job]) -> Iterator[Record]:
        for job in jobs:
            with Noting() as noted:
                clock = Clock(self.model.device)
                pictures = [read_picture(place) for place in job.pictures]
                answer = self.model.ask(pictures, job.text, seed=job.seed, **job.options)
                seconds = {"sample_seconds": clock.lap()}
            record = self.making.record(job)
            yield replace(record, answer=answer, worker=self.worker, note=noted.text(job.text), **seconds)

    def _chosen(self, jobs: list[Job]) -> Iterator[Record]:
        for job in jobs:
            with Noting() as noted:
                clock = Clock(self.model.device)
                pictures, told = self._pictures(job)
                text = self._text(job, pictures)
                options = {**self._encoding(job), **job.options, "seed": job.seed}
                make = partial(self.model.edit, pictures) if pictures else self.model.generate
                (picture,) = make(text, **options)
                seconds = {"sample_seconds": clock.lap()}
            yield self._written(job, picture, {**told, "prompt": text}, seconds, noted)

    def _rendered(self, jobs: list[Job]) -> Iterator[Record]:
        sharing = (list(run) for _, run in groupby(jobs, lambda job: job.shared))
        parts = [part for run in sharing for part in self._conditioned(run)]
        for run in self._runs(parts):
            seconds, made = self._sampled([part.job for part in run], [part.conditioning for part in run])
            for part, picture in zip(run, made, strict=True):
                own = {**seconds, "encode_seconds": part.seconds}
                yield self._written(part.job, picture, part.told, own, part.noted)

    def _conditioned(self, jobs: list[Job]) -> Iterator[Encoded]:
        """Rows of the same pictures, which are encoded once."""
        with Noting(shared=len(jobs) > 1) as noted:
            clock = Clock(self.model.device)
            pictures, told = self._pictures(jobs[0])
            texts = [self._text(job, pictures) for job in jobs]
            # a list for each picture from text, as there is nothing that they could share
            images = pictures or [[]] * len(jobs)
            options = {**self._encoding(jobs[0]), "negative_prompt": [job.negative_prompt for job in jobs]}
            conditionings = self.model.condition(images, texts, **options)
            seconds = round(clock.lap() / len(jobs), 4)
        for job, text, conditioning in zip(jobs, texts, conditionings, strict=True):
            yield Encoded(job, conditioning, {**told, "prompt": text}, seconds, noted)

    def _runs(self, parts: list[Encoded]) -> Iterator[list[Encoded]]:
        """Neighbours that share a forward: of equal options and shapes, as many as a batch holds."""
        for _, equal in groupby(parts, lambda part: (part.job.options, part.conditioning.shapes)):
            run = list(equal)
            yield from (run[i : i + self.making.batch] for i in range(0, len(run), self.making.batch))

    def _sampled(self, jobs: list[Job], conditionings: list[Conditioning]) -> tuple[dict[str, float], list[Image]]:
        clock = Clock(self.model.device)
        options = {name: value for name, value in jobs[0].options.items() if name in SAMPLING}
        latents = self.model.sample(conditionings, [job.seed for job in jobs], batch_size=len(jobs), **options)
        seconds = {"sample_seconds": clock.lap() / len(jobs)}
        made = self.model.renderer.output(latents, conditionings, "pil")
        return {**seconds, "decode_seconds": clock.lap() / len(jobs)}, made

    def _pictures(self, job: Job) -> tuple[list[Image], dict[str, Any]]:
        """The pictures of a row, with the box of a move drawn, and where that is if the model has found it."""
        pictures = [read_picture(place) for place in job.pictures]
        self._check_sizes(job, pictures)
        if job.box is not None:
            return [spatial.draw_box(pictures[0], job.box)], {}
        if job.move is None or job.to is None:
            return pictures, {}
        box = self.model.place(pictures[0], job.move, job.to)
        return [spatial.draw_box(pictures[0], box)], {"box": list(box)}

    def _check_sizes(self, job: Job, pictures: list[Image]) -> None:
        """Raise `JoyImageError` where pictures keep sizes that are beyond the limit."""
        if job.base_size is not None or (job.size and len(pictures) == 1):
            return
        sizes = [(picture.height, picture.width) for picture in pictures]
        if job.outpaint is not None:
            left, top, right, bottom = job.outpaint
            sizes[-1] = sizes[-1][0] + top + bottom, sizes[-1][1] + left + right
        for height, width in sizes:
            what = f"pixels of a picture that keeps its size, {height} x {width} (height x width)"
            self.making.limits.check_most(what, height * width, "max_pixels")

    def _text(self, job: Job, pictures: list[Image]) -> str:
        """The instruction; where there is none, the model describes the picture whose part is made anew."""
        if job.text.strip():
            return job.text
        return (prompts.INPAINT if job.outpaint is None else prompts.OUTPAINT) + self.model.caption(pictures[-1])

    def _encoding(self, job: Job) -> dict[str, Any]:
        options = {"size": job.size, "base_size": job.base_size, "negative_prompt": job.negative_prompt}
        mask = None if job.mask_place is None else raw_picture(job.mask_place)
        return options if job.kind == GENERATE else {**options, "mask": mask, "outpaint": job.outpaint}

    def _written(
        self, job: Job, picture: Image, told: dict[str, Any], seconds: dict[str, float], noted: Noting
    ) -> Record:
        """Write a picture under its name, unless one of the same row is there by now, and give its record."""
        record = replace(self.making.record(job), worker=self.worker, note=noted.text(told["prompt"]), **seconds)
        kept = {"row": job.row, "fingerprint": record.fingerprint, "worker": self.worker, **seconds}
        path = self.making.folder / job.output
        details = {**self._details(job, picture, told), TAG: kept}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_png(picture, path, details, otherwise=None if self.making.redo else ())
        except (JoyImageError, OSError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if isinstance(cause, OSError) and cause.errno in FULL:
                raise Stopped(f"{error}: nothing more can be written") from None
            if (there := self.making.found(job)) is None:
                raise
            return there
        return replace(record, seed=details["seed"])

    def _details(self, job: Job, picture: Image, told: dict[str, Any]) -> dict[str, Any]:
        options = {name: value for name, value in job.options.items() if name in SAMPLING}
        settings = asdict(Sampling.of(options))
        own = {"steps": self.model.steps, "shift": self.model.shift}
        settings |= {name: value for name, value in own.items() if settings[name] is None}
        box = told.get("box") or job.box
        part = {"mask": job.mask and names_of([job.mask])[0], "outpaint": job.outpaint, "box": box}
        return made_by(
            picture,
            {"negative_prompt": job.negative_prompt or None, **settings, **{k: v for k, v in part.items() if v}},
            prompt=told["prompt"],
            images=names_of(job.images),
            seed=job.seed,
            model=self.making.model,
            networks=self.making.networks,
        )


class Clock:
    """Seconds of laps, each of which includes the device's work."""

    def __init__(self, device: torch.device):
        self.device = device
        self.began = time.perf_counter()

    def lap(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        before, self.began = self.began, time.perf_counter()
        return round(self.began - before, 4)
