"""`python -m tools.soak`: mixed prompts through a real ComfyUI, some interrupted, and what became of its memory."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import psutil

from ..client import Client, Failed, Graph, Rejected, Run
from ..server import find_comfyui, make_base, serve
from .graphs import KINDS, LONG, WRONG, drafted, write_inputs

QUEUED = 5  # prompts that wait in the server's queue
WARM_UP = 50  # prompts after which all is loaded and every kind has run
WINDOW = 50  # prompts whose memory makes one figure: each kind among them
MIB = 2**20
FLAT = 0.03  # of memory, from the first figure to the last

Record = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.soak", description=__doc__)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--interrupts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("build/soak.jsonl"), help="one line of JSON for each prompt")
    parser.add_argument("flags", nargs="*", help="options of ComfyUI, after --")
    options = parser.parse_args(arguments)
    comfyui = find_comfyui()
    if comfyui is None:
        sys.exit("there is no ComfyUI: `make comfyui` installs one, or set COMFYUI_PATH and COMFYUI_PYTHON")
    planned = plan(options.prompts, options.interrupts, random.Random(options.seed))
    options.log.parent.mkdir(parents=True, exist_ok=True)
    records = []
    with tempfile.TemporaryDirectory() as folder, options.log.open("w", encoding="utf-8") as log:
        base = make_base(Path(folder))
        write_inputs(base)
        with serve(comfyui, base, *options.flags) as client:
            for record in soak(client, planned, random.Random(options.seed)):
                note(record, log)
                records.append(record)
    summary = summarise(records)
    print(json.dumps(summary, indent=2))
    return 0 if summary["flat"] is not False and not summary["outcomes"].get("failed") else 1


def plan(prompts: int, interrupts: int, chance: random.Random) -> list[tuple[str, bool]]:
    """The kind of each prompt, every kind as often as the others, and whether it is to be interrupted."""
    kinds = []
    while len(kinds) < prompts:
        kinds += chance.sample(list(KINDS), len(KINDS))
    kinds = kinds[:prompts]
    long = [i for i, kind in enumerate(kinds) if kind in LONG]
    chosen = set(chance.sample(long, min(interrupts, len(long))))
    return [(kind, i in chosen) for i, kind in enumerate(kinds)]


def soak(client: Client, planned: list[tuple[str, bool]], chance: random.Random) -> Iterator[Record]:
    """Queue the prompts a few at a time and yield what became of each."""
    server = psutil.Process(client.process)
    for start in range(0, len(planned), QUEUED):
        queued = [(kind, stop, submitted(client, drafted(kind, chance))) for kind, stop in planned[start:][:QUEUED]]
        for i, (kind, stop, run) in enumerate(queued):
            began = time.monotonic()
            outcome, message = run if isinstance(run, tuple) else waited(client, run, kind, stop)
            if (outcome in ("refused", "failed")) != (kind in WRONG):
                outcome = "failed"
            seconds, resident = round(time.monotonic() - began, 2), server.memory_info().rss
            record = {"prompt": start + i, "kind": kind, "outcome": outcome, "seconds": seconds, "resident": resident}
            yield record | ({"message": message} if message else {})


def submitted(client: Client, graph: Graph) -> Run | tuple[str, str]:
    """A queued prompt, or the outcome of one that the server does not take."""
    try:
        return client.submit(graph)
    except Rejected as rejected:
        return "refused", "; ".join(rejected.errors.values())


def waited(client: Client, run: Run, kind: str, stop: bool) -> tuple[str, str]:
    """The outcome of a queued prompt, interrupted at its first step if asked."""
    asked = False

    def on_progress(*_):
        nonlocal asked
        if stop and not asked:
            asked = True
            client.post("/interrupt", {"prompt_id": run.prompt_id})

    try:
        client.wait(run, on_progress)
    except Failed as failed:
        return "refused" if kind in WRONG else "failed", str(failed)
    return ("interrupted" if run.interrupted else "answered"), ""


def note(record: Record, log: TextIO) -> None:
    print(json.dumps(record), file=log, flush=True)
    if record["outcome"] == "failed" or record["prompt"] % WARM_UP == 0:
        print(
            f"{record['prompt']:5} {record['kind']}: {record['outcome']}, {record['resident'] / 2**20:.0f} MiB",
            flush=True,
        )


def summarise(records: list[Record]) -> Record:
    """Outcomes, seconds, and resident memory (MiB) after the warm-up against the end; `flat` is None if too few ran."""
    outcomes = dict(Counter(record["outcome"] for record in records))
    summary: Record = {
        "prompts": len(records),
        "kinds": len({record["kind"] for record in records}),
        "outcomes": outcomes,
    }
    summary["seconds"] = round(sum(record["seconds"] for record in records))
    memory = [record["resident"] / 2**20 for record in records[WARM_UP:]]
    if len(memory) < 2 * WINDOW:
        return summary | {"flat": None}
    first, last = statistics.median(memory[:WINDOW]), statistics.median(memory[-WINDOW:])
    slope = statistics.linear_regression(range(len(memory)), memory).slope
    return summary | {
        "memory after the warm-up": round(first),
        "memory at the end": round(last),
        "growth": round(last / first - 1, 4),
        "slope per 100 prompts": round(100 * slope, 2),
        "highest": round(max(memory)),
        "flat": abs(last / first - 1) <= FLAT,
    }


if __name__ == "__main__":
    sys.exit(main())
