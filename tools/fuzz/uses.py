"""What an input goes through, and what counts as a fault of the library."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from joyimage import JoyImage, images, lora
from joyimage.checkpoints import inspect, load_encoder, load_mmdit, load_vae
from joyimage.cli import main
from joyimage.errors import MOST_CHARACTERS, JoyImageError
from joyimage.planning import plan_model

from . import scans
from .kinds import network

INSPECT_SECONDS = 5.0  # of a processor
INSPECT_BYTES = 64 * 2**20  # of memory, and
INSPECT_SHARE = 3  # times the size of the file
FORMATS = (None, "bf16", "fp32", "fp8", "int8", "gguf:Q8_0", "gguf:Q4_K")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")  # what moves a terminal's cursor


@dataclass(frozen=True)
class Case:
    """One input: the `path` to use, an empty folder `out`, a small whole `model` and a `picture`, and its number."""

    path: Path
    out: Path
    model: Path
    picture: Path
    number: int


@dataclass
class Outcome:
    """What became of an input; `seconds` and `bytes` are what `inspect` took, `faults` are texts."""

    loaded: bool = False
    seconds: float = 0.0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)


def edit_picture(case: Case) -> list[str]:
    return edit(case, case.path)


def edit_with_lora(case: Case) -> list[str]:
    return edit(case, case.picture, "--lora", str(case.path))


def edit(case: Case, picture: Path, *options: str) -> list[str]:
    quick = ("--steps", "1", "--guidance-scale", "1", "--quiet", "--threads", "1", "--model", str(case.model))
    return ["edit", str(picture), "-i", "Remove it.", *quick, "--output", str(case.out / "edited"), *options]


def convert(case: Case) -> list[str]:
    form = FORMATS[case.number // 4 % len(FORMATS)]
    layout = ("comfy", "diffusers")[case.number // 4 % 2]
    options = ("--format", form) if form else ()
    return [
        "convert",
        str(case.path),
        str(case.out / "converted"),
        "--layout",
        layout,
        "--quiet",
        "--threads",
        "1",
        *options,
    ]


def make_data(case: Case) -> list[str]:
    few = ("--tasks", "depth_order,counting,grounding_3d", "--quota", "1", "--quiet")
    return ["data", "make", str(case.path), str(case.out / "set"), *few, *(("--lift",) if case.number % 4 else ())]


def match_lora(case: Case) -> None:
    lora.match([network()], [(lora.read(case.path), 1.0)]).apply(network().img_in.weight.dtype).remove()


CALLS: dict[str, Callable[[Case], object]] = {
    "inspect": lambda case: inspect(case.path),
    "load mmdit": lambda case: load_mmdit(case.path),
    "load vae": lambda case: load_vae(case.path),
    "load encoder": lambda case: load_encoder(case.path),
    "load model": lambda case: JoyImage.load(case.path, device="cpu"),
    "plan": lambda case: plan_model(case.path, memory="1000GB"),
    "lora": match_lora,
    "picture": lambda case: images.load(case.path),
    "scene": lambda case: scans.read(case.path),
}
# The command's arguments, and at every how many inputs it is run
COMMANDS: dict[str, tuple[Callable[[Case], list[str]], int]] = {
    "inspect command": (lambda case: ["inspect", str(case.path)], 2),
    "convert command": (convert, 4),
    "edit picture command": (edit_picture, 8),
    "edit lora command": (edit_with_lora, 8),
    "data command": (make_data, 2),
}


def examine(case: Case, uses: tuple[str, ...]) -> Outcome:
    """Put an input through its uses and say what became of it."""
    outcome = Outcome()
    for use in uses:
        if use in COMMANDS:
            arguments, every = COMMANDS[use]
            if case.number % every == 0:
                _note(outcome, use, command_fault(arguments(case)))
            continue
        size = size_of(case.path)
        fault, refused, seconds, taken = measured(CALLS[use], case)
        _note(outcome, use, fault)
        if use == uses[0]:
            outcome.loaded = not (fault or refused)
        if use == "inspect":
            outcome.seconds, outcome.bytes = seconds, taken
            _note(outcome, use, beyond_bounds(seconds, taken, size))
    return outcome


def _note(outcome: Outcome, use: str, fault: str) -> None:
    if fault:
        outcome.faults.append(f"{use}: {fault}")


def beyond_bounds(seconds: float, taken: int, size: int) -> str:
    if seconds > INSPECT_SECONDS:
        return f"took {seconds:.1f} s of a processor, and {INSPECT_SECONDS:g} are allowed"
    allowed = INSPECT_SHARE * size + INSPECT_BYTES
    return f"took {taken:,} bytes for {size:,}, and {allowed:,} are allowed" if taken > allowed else ""


def size_of(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


# -- calls ------------------------------------------------------------------------------------------------------------


def measured(call: Callable[[Case], object], case: Case) -> tuple[str, bool, float, int]:
    """The fault, if any, whether the input was refused, seconds of a processor, and bytes of memory above the start."""
    reset_peak()
    before, start = status("VmRSS"), time.process_time()
    fault, refused = "", False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call(case)
    except JoyImageError as error:
        refused, fault = True, message_fault(str(error), case.path)
    except BaseException:  # a Rust library's panic is no Exception
        fault = traceback.format_exc()
    return fault, refused, time.process_time() - start, max(0, status("VmHWM") - before)


def message_fault(message: str, path: Path) -> str:
    """What is wrong with an error's message."""
    if str(path) not in message and str(path.parent) not in message:
        return f"a message without the path: {message:.500}"
    if len(message) > MOST_CHARACTERS:
        return f"a message of {len(message):,} characters: {message[:200]}"
    if CONTROL.search(message):
        return f"control characters in a message: {message!r:.500}"
    return ""


def reset_peak() -> None:
    """Let the process's peak of resident memory begin at what it has now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def status(field: str) -> int:
    """Bytes that /proc/self/status gives for a field."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


# -- commands ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def terminal() -> Iterator[tuple[io.BytesIO, io.BytesIO]]:
    """Standard output and error as a program has them, so that what cannot be encoded fails as it would there."""
    before = sys.stdout, sys.stderr, warnings.showwarning
    out, err = io.BytesIO(), io.BytesIO()
    sys.stdout = io.TextIOWrapper(out, encoding="utf-8", errors="surrogateescape", write_through=True)
    sys.stderr = io.TextIOWrapper(err, encoding="utf-8", errors="backslashreplace", write_through=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            yield out, err
    finally:
        sys.stdout, sys.stderr, warnings.showwarning = before


def command_fault(arguments: list[str]) -> str:
    """What is wrong with how a command ended: it may succeed, or end with 2 and say why in one line."""
    with terminal() as (out, err):
        try:
            code: object = main(arguments)
        except BaseException:
            return traceback.format_exc()
        printed, said = out.getvalue().decode(errors="replace"), err.getvalue().decode(errors="replace")
    lines = said.splitlines()
    errors = [line for line in lines if line.startswith("joyimage: error: ")]
    call = " ".join(arguments)
    if code not in (0, 2):
        return f"exit code {code} from {call}: {said[-2000:]}"
    if "Traceback" in said or len(errors) != (code == 2):
        return f"exit code {code} from {call} with {said[:2000]}"
    if long := [line for line in lines if len(line.partition(": ")[2]) > MOST_CHARACTERS]:
        return f"a line of {len(long[0]):,} characters from {call}: {long[0][:200]}"
    if found := CONTROL.search(said + printed):
        return f"the control character {found[0]!r} from {call}"
    return ""


def empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
