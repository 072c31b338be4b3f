"""The leader's side: the processes of the further devices, what they are told, and what becomes of it."""

from __future__ import annotations

import pickle
import queue
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from ..caching import StepCache
from ..errors import JoyImageError
from ..mmdit import MMDiT
from ..waiting import not_loaded
from .devices import Devices
from .exchange import Exchange, Left, Place, backend_for
from .node import Failure, Node
from .shares import share_of_memory

if TYPE_CHECKING:
    from ..loading import Recipe
    from ..memory import Memory

# What `MMDiT.forward` takes
Forward: TypeAlias = tuple[Tensor, Tensor, list[Tensor], list[Tensor], StepCache]

LAST_WORDS = 5  # seconds that a worker has to say why, once a group has come apart
LOOK = 0.0005  # seconds between looks at a card that waits for others
# The library that the leader has, wherever that came from; nothing else is looked for there, nor in the current folder.
START = f"""import sys
sys.path = [{str(Path(__file__).parents[2])!r}, *filter(None, sys.path)]
import joyimage
del sys.path[0]
from joyimage.parallel.worker import main
main()"""


class Process:
    """A further device's process."""

    def __init__(self, device: str):
        self.device = device
        self.began = time.monotonic()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - open for as long as the process
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", START],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,  # Ctrl-C in a terminal is for the leader alone
            )
        except OSError as error:
            raise JoyImageError(f"no process can be started for {device}: {error.strerror or error}") from error
        self._answers: queue.Queue[object] = queue.Queue()
        self.failure: Failure | None = None
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            while True:
                message = pickle.load(self._process.stdout)
                if isinstance(message, Failure):
                    self.failure = message
                self._answers.put(message)
        except Exception:  # whatever it is, nothing more will be heard of it
            self.failure = self.failure or Failure(self._end())
            self._answers.put(self.failure)

    def _end(self) -> str:
        """How it came to its end, with the last line of what it has printed, where it did not say so itself."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        last = next((f": {line.strip()}" for line in reversed(lines) if line.strip()), "")
        return f"ended by signal {-code}{last}" if code < 0 else f"ended with exit code {code}{last}"

    def tell(self, *order: object) -> None:
        """Raises `JoyImageError` where it is gone."""
        assert self._process.stdin is not None
        try:
            pickle.dump(order, self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
        except OSError:
            self._listener.join(LAST_WORDS)
            raise self.error(self.failure or Failure("it takes no orders")) from None

    def loaded(self, seconds: int) -> None:
        """Wait until it has the MMDiT. Raises as `answer`, and `JoyImageError` so many seconds after its start."""
        try:
            self.answer(max(0.0, self.began + seconds - time.monotonic()))
        except queue.Empty:
            raise JoyImageError(not_loaded(f"the process for {self.device} ({self._process.pid})", seconds)) from None

    def answer(self, seconds: float | None = None) -> object:
        """Raises `JoyImageError` where it can not go on, `Left` where that is because of another one, and `queue.Empty`
        where there is none within so many seconds.
        """
        message = self._answers.get(timeout=seconds)
        if isinstance(message, Failure):
            raise self.error(message) if message.itself else Left(message.message)
        return message

    def error(self, failure: Failure) -> JoyImageError:
        return JoyImageError(
            f"the process for {self.device} failed: {failure.message}; run again, or leave that device out"
        )

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join()  # it hears the end of the answers
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            _close(stream)


def _close(stream: IO[bytes] | None) -> None:
    try:
        if stream is not None:
            stream.close()
    except OSError:  # an order that it did not read any more
        pass


class Team:
    """All devices of a model: the leader's own MMDiT and the processes that hold it as well.

    They start at once, load while the leader goes on, and are waited for when they are first needed. After an error or
    an interruption within a forward they are ended, and start anew when they are needed again.
    """

    def __init__(self, mmdit: MMDiT, devices: Devices, recipe: Recipe):
        self.devices = devices
        self._recipe = recipe
        self._node = Node(mmdit, torch.device(devices.names[0]))
        self._loras: tuple[object, ...] | None = None
        self._groups: list[list[Process]] = []  # without the leader, which is the first of the first group
        self._numbers: dict[int, tuple[int, weakref.ref[StepCache]]] = {}  # with the group that knows it
        self._ready = False
        self._start()

    @property
    def apart(self) -> bool:
        """Whether guidance's passes go to groups of their own."""
        return len(self.devices.groups) > 1

    @property
    def _processes(self) -> list[Process]:
        return [process for group in self._groups for process in group]

    # -- beginning and end

    def _start(self) -> None:
        self._open = ExitStack()
        self._finalizer = weakref.finalize(self, self._open.close)  # also where nobody ends what is started
        rows = [list(group) for group in self.devices.groups]
        del rows[0][0]
        for row in rows:
            self._groups.append([])
            for device in row:
                process = Process(device)
                self._open.callback(process.end)
                self._groups[-1].append(process)
                process.tell(self._recipe, device, len(self.devices.names), torch.get_num_threads())

    def _wait(self) -> None:
        """Until all are ready, and know each other."""
        if self._ready:
            return
        if not self._groups:
            self._start()
        for process in self._processes:
            process.loaded(self._recipe.load_seconds)
        folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="joyimage-")))
        for number, (names, group) in enumerate(zip(self.devices.groups, self._groups, strict=True)):
            places = [Place(i, len(names), folder / f"group-{number}", backend_for(names)) for i in range(len(names))]
            if len(names) == 1:
                continue
            for process, place in zip(group, places[-len(group) :], strict=True):
                process.tell("join", place)
            if number == 0:
                self._node.exchange = self._open.enter_context(Exchange(places[0], self._check))
        if self._loras is not None:
            self._tell_all("set_loras", *self._loras)
        self._ready = True

    def close(self) -> None:
        """End the processes."""
        self._node.exchange = None
        self._finalizer()
        self._node.forget([number for number, (group, _) in self._numbers.items() if group == 0])
        self._groups, self._numbers, self._ready = [], {}, False

    def _tell_all(self, *order: object) -> None:
        for process in self._processes:
            process.tell(*order)

    # -- orders

    def set_loras(self, *told: object) -> None:
        """As in `Worker.set_loras`; the leader's network has them already."""
        self._loras = told
        if self._ready:
            self._tell_all("set_loras", *told)

    @contextmanager
    def denoising(self, memory: Memory, tokens: int, kept: int) -> Iterator[None]:
        """Context in which forwards over so many image and text tokens run, in the leader's `memory` too."""
        longest = max(map(len, self.devices.groups))
        shared = tokens if longest == 1 else share_of_memory(tokens, longest), -(-kept // longest)
        with memory.denoising(*shared):
            with self._ended_by_errors():
                self._wait()
                self._tell_all("begin", *shared, torch.get_num_threads())
            try:
                yield
            finally:
                self._forget(list(self._numbers))

    def run(self, forwards: Sequence[Forward]) -> list[Tensor]:
        """The velocities of several forwards; with groups, one after the other in each, and all groups at once.

        Raises `JoyImageError` where a device can not go on, and then all are ended.
        """
        with self._ended_by_errors():
            return self._velocities(forwards)

    @contextmanager
    def _ended_by_errors(self) -> Iterator[None]:
        """Context whose errors end all processes, since nobody knows any more what they are at."""
        try:
            yield
        except BaseException as error:
            reason = self._reason() if isinstance(error, Left) else None
            self.close()
            if reason is not None:
                raise reason from error
            raise

    def _velocities(self, forwards: Sequence[Forward]) -> list[Tensor]:
        count = len(self.devices.groups)
        own: list[tuple[int, Tensor, Tensor]] = []
        for i, forward in enumerate(forwards):
            number, (x, t, *_) = self._number(i % count, forward), forward
            for process in self._groups[i % count]:
                process.tell("forward", number, x.cpu(), t.cpu())
            if i % count == 0:
                own.append((number, x, t))
        mine = iter([self._done(self._node.forward(*each)) for each in own])
        return [next(mine) if i % count == 0 else self._answer(i % count, f[0]) for i, f in enumerate(forwards)]

    def _answer(self, group: int, like: Tensor) -> Tensor:
        velocity = self._groups[group][0].answer()
        assert isinstance(velocity, Tensor)
        return velocity.to(like.device)

    def _done(self, velocity: Tensor | None) -> Tensor:
        """The leader's own, once it is there: a card would wait for ever for another whose process has ended."""
        assert velocity is not None
        if velocity.is_cuda and self._groups[0]:
            done = torch.cuda.Event()
            done.record(torch.cuda.current_stream(velocity.device))
            while not done.query():
                self._check()
                time.sleep(LOOK)
        return velocity

    def _check(self, itself: bool = True) -> None:
        """Raise `JoyImageError` where a process has failed, by `itself` or as another one had."""
        for process in self._processes:
            if process.failure is not None and process.failure.itself >= itself:
                raise process.error(process.failure)

    def _reason(self) -> JoyImageError | None:
        """Why a group came apart: that shows in the exchange before it is heard whose fault it was."""
        end = time.monotonic() + LAST_WORDS
        while True:
            late = time.monotonic() > end
            try:
                self._check(itself=not late)
            except JoyImageError as error:
                return error
            if late:
                return None
            time.sleep(0.05)

    def _number(self, group: int, forward: Forward) -> int:
        """Under which number the prompts and references of a forward are known; its cache stands for them."""
        _, _, texts, references, cache = forward
        for number, (_, known) in self._numbers.items():
            if known() is cache:
                return number
        self._forget([number for number, (_, known) in self._numbers.items() if known() is None])
        number = max(self._numbers, default=0) + 1
        self._numbers[number] = group, weakref.ref(cache)
        options = cache.reference_every, cache.block_cache
        if group == 0:
            self._node.learn(number, texts, references, *options)
        for process in self._groups[group]:
            process.tell("learn", number, [x.cpu() for x in texts], [x.cpu() for x in references], *options)
        return number

    def _forget(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            group, _ = self._numbers.pop(number)
            if group == 0:
                self._node.forget([number])
            for process in self._groups[group]:
                process.tell("forget", [number])
