"""The loop: from samples to a trained LoRA, with checkpoints, a log and sheets of samples on the way."""

from __future__ import annotations

import hashlib
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from ..atomic import held
from ..checkpoints.write import check_room
from ..errors import CheckpointError, JoyImageError
from ..mmdit import MMDiT
from . import checkpoints, forward, teacher
from .adapter import Adapter, check_extra
from .batches import Batches, generators, shapes_of
from .checkpoints import Identity, State
from .engines import check_optimizer, engines, restore
from .files import LoraFile
from .fingerprints import fingerprint
from .logs import Log
from .objectives import OBJECTIVES, Batch, Drawn
from .planning import OPTIMISER
from .processes import Processes
from .samples import Sample
from .settings import Training
from .sheets import Preview, Sheets

RECENT = 20  # steps whose mean duration tells how long the rest will take


@dataclass(frozen=True)
class Progress:
    """How far a run has come. `loss` and `norm` (of the gradient, before clipping) are of the step just done."""

    step: int  # steps done
    steps: int
    loss: float = math.nan
    norm: float = math.nan
    rate: float = 0.0  # the learning rate
    seconds_left: float | None = None
    stage: str = "training"  # or "teacher", while the pictures are made on which guidance is learned, or `run`'s


Callback = Callable[[Progress], object]
Room = Callable[[], AbstractContextManager[object]]


def train(
    mmdit: MMDiT, samples: Sequence[Sample], settings: Training, folder: str | Path, *,
    device: torch.device | str | None = None, room: Room = nullcontext, preview: Preview | None = None,
    callback: Callback | None = None, notes: Mapping[str, str] | None = None,
) -> LoraFile:  # fmt: skip
    """Train a LoRA on a frozen MMDiT, which is as it was afterwards. Returns what `LoraFile.save` writes.

    `samples` have an attribute `key` that tells the data from others. `folder` gets checkpoints, log and sheets; a run
    that stopped there goes on, and gives what it would have given. `device` is where the network works, by default
    where it is. `room` brings it there for as long as steps are made, such as `partial(memory.at_work, "mmdit",
    activations)`: where its blocks stream, `checkpointing` is needed. `callback` hears of each step; what it raises
    ends the run once a checkpoint has been written, and so does Ctrl-C. `notes`, such as base and command, come into
    the file. Started by `accelerate launch` or `torchrun`, each process takes a batch of its own, and gradients are
    averaged.

    Raises `JoyImageError` where the extra is not installed, for a target that means no layer, an empty data set, a
    folder that holds another run or in which one is at work, and when the loss is no number any more.
    """
    check_extra("peft", "accelerate")
    check_optimizer(settings)
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    place = torch.device(device or mmdit.proj_out.weight.device)
    with held(home, "run") if Processes(place).first else nullcontext():
        run = Run(mmdit, samples, settings, home, place, room)
        try:
            run.start(preview, callback)
            run.loop(callback)
            return run.result(notes or {})
        finally:
            run.close()


class Run:
    """A run at work: the adapter, its optimisers, the average of its weights, and where it writes."""

    def __init__(
        self,
        mmdit: MMDiT,
        samples: Sequence[Sample],
        settings: Training,
        folder: Path,
        device: torch.device,
        room: Room,
    ):
        self.mmdit, self.samples, self.settings = mmdit, samples, settings
        self.folder, self.device, self.room = folder, device, room
        self.processes = Processes(device)
        self.identity = Identity(settings, fingerprint(mmdit), str(getattr(samples, "key", "")), self.processes.count)
        self.batches = Batches(shapes_of(samples), settings.batch_size, settings.seed)
        self.adapter = Adapter(mmdit, settings, device)
        self.step = 0
        self.average: dict[str, Tensor] | None = None
        self._log: Log | None = None
        self._sheets: Sheets | None = None
        self._dtype = forward.compute_dtype(mmdit)
        self._training = mmdit.training
        mmdit.train()  # quantised layers then multiply exactly

    def start(self, preview: Preview | None, callback: Callback | None) -> None:
        """Everything up to the first step: the teacher's pictures, the sheet of before, the checkpoint's state."""
        self.engines = engines(self.adapter.parameters(), self.settings)
        if self.processes.first:  # room for a checkpoint, rather than in 250 steps
            kept = 1 + OPTIMISER[self.settings.optimizer] + (self.settings.ema > 0)
            check_room(self.folder / "checkpoint", kept * sum(p.nbytes for p in self.adapter.parameters()))
        found = checkpoints.newest(self.folder, self.identity, self.device)
        finished = found is not None and found.step == self.settings.steps
        if self.settings.objective == "guidance" and not finished:
            self._teach(callback)
        if preview is not None and self.settings.sample_every and self.processes.first and not finished:
            self._sheets = Sheets(self.folder, preview)
            with self.adapter.off():
                self._watched(self._sheets.start)
        if self.settings.ema:
            self.average = {name: p.detach().clone() for name, p in self.adapter.tensors().items()}
        if found is not None:
            self._restore(found)
        if self.processes.first:
            self._log = Log(self.folder, self.step)

    def _teach(self, callback: Callback | None) -> None:
        own = self.settings
        told = (own.guidance_scale, own.rescale, own.teacher_steps, own.shift, own.seed)
        key = hashlib.sha256(repr((self.identity.base, self.identity.data, told)).encode()).hexdigest()[:12]
        folder = self.folder / f"{teacher.FOLDER}-{key}"

        def tell(done: int, count: int) -> None:
            if callback is not None:
                callback(Progress(done, count, stage="teacher"))

        make = partial(teacher.taught, self._base, self.samples, own, folder, self.device, self._dtype, tell)
        with self.room():
            if not self.processes.first:
                self.processes.wait()
            self.samples = make()
            if self.processes.first:
                self.processes.wait()

    def _restore(self, state: State) -> None:
        self.step = state.step
        try:
            self.adapter.load(state.weights)
            restore(self.engines, state.engines)
        except JoyImageError as error:
            raise CheckpointError(checkpoints.unusable(self.folder, str(error))) from error
        if self.average is not None and state.average is not None:
            self.average = {name: value.clone() for name, value in state.average.items()}

    # -- steps --------------------------------------------------------------------------------------------------------

    def loop(self, callback: Callback | None) -> None:
        own = self.settings
        durations: list[float] = []
        with Interrupts() as interrupts:
            while self.step < own.steps:
                with self.room():
                    while True:
                        began = time.perf_counter()
                        loss, norm, rate = self._advance()
                        durations = [*durations[1 - RECENT :], time.perf_counter() - began]
                        left = (own.steps - self.step) * sum(durations) / len(durations)
                        self._tell(callback, Progress(self.step, own.steps, loss, norm, rate, left), interrupts)
                        if self.step == own.steps or self._due(own.sample_every) or self._due(own.save_every):
                            break
                if self._sheets is not None and (self.step == own.steps or self._due(own.sample_every)):
                    self._sample(self._sheets)
                if self.step == own.steps or self._due(own.save_every):
                    self._save()

    def _due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _tell(self, callback: Callback | None, progress: Progress, interrupts: Interrupts) -> None:
        try:
            if callback is not None:
                callback(progress)
            interrupts.check()
        except BaseException:
            self._save()
            raise

    def _advance(self) -> tuple[float, float, float]:
        """One step; returns the loss, the gradient's norm before clipping, and the learning rate."""
        settings, rate = self.settings, self.settings.rate(self.step)
        for engine in self.engines:
            engine.zero_grad(set_to_none=True)
            for group in engine.param_groups:
                group["lr"] = rate
        loss = self.gradients(self.step)
        parameters = self.adapter.parameters()
        limit = settings.clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_([p for p in parameters if p.grad is not None], limit).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise JoyImageError(
                f"training broke down in step {self.step + 1}: the loss is {loss:g} and its gradient {norm:g}; train "
                f"with a lower learning_rate (now {settings.learning_rate:g}), in another folder than {self.folder}"
            )
        for engine in self.engines:
            engine.step()
        if self.average is not None:
            decay = min(settings.ema, (self.step + 1) / (self.step + 10))
            for name, p in self.adapter.tensors().items():
                self.average[name].lerp_(p.detach(), 1 - decay)
        self.step += 1
        if self._log is not None:
            self._log.write(self.step, loss=loss, norm=norm, rate=rate)
        return loss, norm, rate

    def gradients(self, step: int) -> float:
        """Leave the gradients of a step, averaged over all of its samples, in the parameters; returns the loss."""
        settings, total = self.settings, torch.zeros((), device=self.device)
        objective = OBJECTIVES[settings.objective]
        for part in range(settings.accumulation):
            number = (step * settings.accumulation + part) * self.processes.count + self.processes.index
            batch = Batch.of([self.samples[i] for i in self.batches[number]], settings, self.device, self._dtype)
            drawn = Drawn.of(batch, settings, generators(settings.seed, number, len(batch.latent)))
            loss = objective(self._student, self._base, batch, drawn, settings) / settings.accumulation
            loss.backward()
            total += loss.detach()
        self.processes.average([p.grad for p in self.adapter.parameters() if p.grad is not None])
        self.processes.average([total])
        return total.item()

    def _student(self, x: Tensor, sigma: Tensor, contexts: Sequence[Tensor], references: Sequence[Tensor]) -> Tensor:
        half, again = self.settings.precision == "bf16", self.settings.checkpointing
        return forward.velocity(self.mmdit, x, sigma, contexts, references, checkpointing=again, half=half)

    def _base(self, x: Tensor, sigma: Tensor, contexts: Sequence[Tensor], references: Sequence[Tensor]) -> Tensor:
        with self.adapter.off(), torch.no_grad():
            return self._student(x, sigma, contexts, references)

    # -- what is written ----------------------------------------------------------------------------------------------

    def _save(self) -> None:
        if self.processes.first:
            weights = {name: p.detach() for name, p in self.adapter.tensors().items()}
            state = State(self.step, weights, self.average, [engine.state_dict() for engine in self.engines])
            checkpoints.save(self.folder, state, self.identity, self.settings.keep)

    def _sample(self, sheets: Sheets) -> None:
        """A sheet, made with the weights that would be saved now."""
        own = {name: p.detach().clone() for name, p in self.adapter.tensors().items()}
        self.adapter.load(self.average or own)
        try:
            path = self._watched(partial(sheets.make, self.step))
        except BaseException:
            self.adapter.load(own)
            self._save()
            raise
        self.adapter.load(own)
        if self._log is not None and path is not None:
            self._log.write(self.step, sample=path.relative_to(self.folder).as_posix())

    def _watched(self, make: Callable[[], Path | None]) -> Path | None:
        self.mmdit.eval()
        try:
            return make()
        finally:
            self.mmdit.train()

    def result(self, notes: Mapping[str, str]) -> LoraFile:
        return LoraFile(self.adapter.updates(self.average), self.settings, {"data": self.identity.data, **notes})

    def close(self) -> None:
        self.adapter.remove()
        self.mmdit.train(self._training)
        if self._log is not None:
            self._log.close()


class Interrupts:
    """Holds a first Ctrl-C back until `check`, after a step, and so a SIGTERM that the program handles.

    A second one acts at once. Does nothing beside threads.
    """

    def __init__(self):
        self._asked: tuple[int, FrameType | None] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            self._before = {number: handler for number, handler in handlers.items() if callable(handler)}
            for number in self._before:
                signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            self._before[number](number, frame)
        self._asked = number, frame

    def check(self) -> None:
        if self._asked:
            self._before[self._asked[0]](*self._asked)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
