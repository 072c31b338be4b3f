"""`python -m tools.kills`: kill `joyimage edit`, `convert` and two runs in one folder, and look at what is left.

Each is killed at a random moment, every third one when it has begun to write a file. Nothing that was there may be lost
or replaced, what a killed run has written must be whole, and the next run must leave no hidden file behind.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from joyimage.atomic import PREFIX, SUFFIX
from joyimage.checkpoints import load_mmdit
from joyimage.config import MMDiTConfig
from joyimage.demo import ASSETS
from joyimage.errors import CheckpointError
from joyimage.mmdit import MMDiT

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
SOURCE, CONVERTED = "source.safetensors", "converted.safetensors"
SIZES = MMDiTConfig(1024, 8, 4, text_dim=1024, mlp_size=4096)  # 100 MB, which takes a second to write
END_SECONDS = 60  # for a killed process to end, and for one that is not to be done
POLL_SECONDS = 0.002


def run_edit() -> list[str]:
    return ["edit", "--model", "tiny", str(ASSETS / "rotate.png"), "Remove the purple car.", "--output", "."]


def run_convert() -> list[str]:
    return ["convert", SOURCE, CONVERTED, "--format", "fp16"]


@dataclass(frozen=True)
class Case:
    """Runs that start together, the first of which is killed, and which of their files may take another's place."""

    commands: tuple[Callable[[], list[str]], ...]
    replaces: tuple[str, ...] = ()


CASES = {
    "edit": Case((run_edit,)),
    "convert": Case((run_convert,), (CONVERTED,)),
    "two edits in one folder": Case((run_edit, run_edit)),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    chance, counts, faults = random.Random(options.seed), Counter(), []
    with tempfile.TemporaryDirectory() as root:
        folders = {name: prepared(Path(root, name.replace(" ", "-"))) for name in CASES}
        seconds = {name: duration(CASES[name], folder) for name, folder in folders.items()}
        for i in range(options.kills):
            name, number = list(CASES)[i % len(CASES)], SIGNALS[i // len(CASES) % len(SIGNALS)]
            moment = None if i % 3 == i // 9 % 3 else chance.uniform(0, seconds[name])
            what, found = kill_one(CASES[name], folders[name], number, moment)
            counts.update((name, number.name, *what))
            faults += [f"{name}, {number.name}: {fault}" for fault in found]
            print(f"{i + 1:3} {name}, {number.name}: {', '.join((*what, *found))}", flush=True)
    print(json.dumps({"kills": options.kills, **counts, "faults": faults}, indent=2))
    return 1 if faults else 0


def prepared(folder: Path) -> Path:
    """A folder with weights to convert."""
    folder.mkdir()
    torch.manual_seed(0)
    state = MMDiT(SIZES, dtype=torch.bfloat16).state_dict()
    save_file({name: torch.randn_like(tensor) for name, tensor in state.items()}, folder / SOURCE)
    return folder


def start(command: list[str], folder: Path) -> subprocess.Popen:
    words = [sys.executable, "-m", "joyimage", *command, "--quiet"]
    return subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def duration(case: Case, folder: Path) -> float:
    """How long whole runs take, in seconds; what they write is there when the first is killed."""
    began = time.monotonic()
    for run in [start(command(), folder) for command in case.commands]:
        if run.wait(END_SECONDS):
            raise SystemExit(f"joyimage {' '.join(map(str, run.args[3:]))} failed")
    return time.monotonic() - began


def kill_one(case: Case, folder: Path, number: signal.Signals, moment: float | None) -> tuple[list[str], list[str]]:
    """Kill the first of a case's runs after so many seconds, or while it writes, then run it whole.

    Returns what happened and what is wrong.
    """
    before = contents(folder)
    runs = [start(command(), folder) for command in case.commands]
    wait(runs[0], folder, moment)
    happened = ["ended before" if runs[0].poll() is not None else "killed"]
    runs[0].send_signal(number)
    codes = [run.wait(END_SECONDS) for run in runs]
    faults = [f"a run that was not killed ended with {code}" for code in codes[1:] if code]
    if parts(folder):
        happened.append("left a hidden file")
    faults += compared(before, contents(folder), folder, case.replaces)
    after = contents(folder)
    if start(case.commands[0](), folder).wait(END_SECONDS):
        faults.append("the next run failed")
    faults += compared(after, contents(folder), folder, case.replaces)
    if not case.replaces and len(contents(folder)) != len(after) + 1:
        faults.append("the next run wrote no picture of its own")
    return happened, faults + [f"{path.name} is left after the next run" for path in parts(folder)]


def wait(run: subprocess.Popen, folder: Path, moment: float | None) -> None:
    """So many seconds, or until there is a hidden file, or the process has ended."""
    end = time.monotonic() + (END_SECONDS if moment is None else moment)
    while run.poll() is None and time.monotonic() < end and not (moment is None and parts(folder)):
        time.sleep(POLL_SECONDS)


def parts(folder: Path) -> list[Path]:
    return list(folder.glob(f"{PREFIX}*{SUFFIX}"))


def contents(folder: Path) -> dict[str, str]:
    """The digest of each file but the hidden ones."""
    files = (path for path in folder.iterdir() if path not in parts(folder))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def compared(before: dict[str, str], after: dict[str, str], folder: Path, replaces: tuple[str, ...]) -> list[str]:
    """What is wrong with a folder's files after a run; files that it may replace must be whole."""
    faults = [f"{name} is lost" for name in before.keys() - after.keys()]
    changed = [name for name in after if after[name] != before.get(name)]
    faults += [f"{name} is replaced" for name in changed if name in before and name not in replaces]
    return faults + [f"{name} is damaged" for name in changed if not whole(folder / name)]


def whole(file: Path) -> bool:
    if file.suffix == ".png":
        with suppress(OSError, SyntaxError), Image.open(file) as picture:
            picture.load()
            return "joyimage" in picture.info
        return False
    with suppress(CheckpointError):
        return load_mmdit(file).config == SIZES
    return False


if __name__ == "__main__":
    sys.exit(main())
