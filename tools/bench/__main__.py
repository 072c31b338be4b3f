"""`python -m tools.bench`: everything that is measured, as tables, as JSON and a plot under tools/bench/results/.

On a GPU at the published size, else at a small one that takes the same way. Besides the cases, `columns` are the
options of a step, `host` ComfyUI's own model beside ours, `tf32` what it does to the VAE, `budgets` a step in 24 to 8
GB, `load` the memory that loading takes.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import diffusers
import torch
import transformers

from joyimage.config import MMDiTConfig
from joyimage.memory.budget import parse_size

from . import budgets, columns, core, measure, tf32
from .budgets import TEXT_TOKENS
from .cases import CASES, CPU, GPU, STEP, Case, Machine, step_operations
from .columns import Size
from .loading import BOUND as LOAD_BOUND
from .loading import peak_per_byte
from .plot import bars
from .predictions import PEAK, beside

RESULTS = Path(__file__).parent / "results"
SMALL = MMDiTConfig(hidden_size=512, num_heads=4, num_layers=2, text_dim=4096, mlp_size=2048)
SIZES = {  # of columns and host: on a CPU a picture of 256 x 256
    "cpu": Size("cpu", torch.float32, SMALL, latent=32, steps=6, repeats=3),
    "cuda": Size("cuda", torch.bfloat16, MMDiTConfig(), latent=128, steps=12, repeats=2),
}
BUDGETS = {"cpu": ("400MB", "160MB"), "cuda": budgets.BUDGETS}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=(*(case.name for case in CASES), *OTHERS), help="what to run")
    parser.add_argument("--repeats", type=int, help="timed runs of each, in turn (3; on a GPU 2)")
    parser.add_argument("--cpu", action="store_true", help="measure the CPU's sizes even where there is a GPU")
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "SIDE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    machine = GPU if torch.cuda.is_available() and not options.cpu else CPU
    if machine is CPU:
        torch.set_num_threads(1)  # seconds of one thread: what else runs beside it changes them least
    if options.peak:
        case = next(case for case in CASES if case.name == options.peak[0])
        run = case.sides[options.peak[1]](machine)
        started = time.process_time()
        print(measure.peak_resident(run), time.process_time() - started)
        return
    repeats = options.repeats or SIZES[machine.device].repeats
    report = {"machine": describe(machine), "cases": []}
    print(
        "{:<14}{:>12}{:>12}{:>8}{:>8}{:>12}{:>12}".format(
            "", "ours", "diffusers", "ratio", "bound", "our peak", "diffusers'"
        )
    )
    for case in CASES:
        if not options.only or case.name in options.only:
            report["cases"].append(run_case(case, machine, repeats))
    for name, run in OTHERS.items():
        if not options.only or name in options.only:
            report |= run(machine, repeats)
    if not options.only:
        print(f"\nwritten to {save(report)}")


INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")  # what speed hangs on


def describe(machine: Machine) -> dict:
    name, instructions = processor()
    return {
        "device": torch.cuda.get_device_name() if machine.device == "cuda" else f"{name}, one thread",
        "instructions": instructions,
        "load": os.getloadavg()[0],  # processes that ran or waited beside it, as it began
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "dtype": str(machine.dtype),
    }


def processor() -> tuple[str, list[str]]:
    """The processor's name, and which of the instructions it has (Linux)."""
    lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    fields = {name.strip(): value.strip() for name, _, value in lines}
    flags = fields.get("flags", "").split()
    return fields.get("model name", platform.machine()), [name for name in INSTRUCTIONS if name in flags]


def run_case(case: Case, machine: Machine, repeats: int) -> dict:
    if machine.device == "cuda":
        seconds, peaks = measure_gpu(case, machine, repeats)
    else:
        found = {side: measure.in_fresh_process(case.name, side) for side in case.sides}
        peaks, seconds = ({side: pair[i] for side, pair in found.items()} for i in (0, 1))
        if not case.once:
            seconds = measure.median_times({side: make(machine) for side, make in case.sides.items()}, repeats)
    result = {
        "case": case.name,
        "what": case.what,
        "seconds": seconds,
        "ratio": seconds["ours"] / seconds["diffusers"],
        "bound": case.bound,
        "peak_bytes": peaks,
        "peak_ratio": peaks["ours"] / peaks["diffusers"],
    }
    if case.name == STEP:
        speed = step_operations(machine, TEXT_TOKENS) / seconds["ours"]
        peak = measure.matrix_peak(machine.device, machine.dtype, 8192 if machine.device == "cuda" else 1024)
        result |= {"share_of_matrix_peak": speed / peak}
        if machine.device == "cuda":
            result |= {"share_of_790_tflops": speed / PEAK}
    print(
        f"{case.name:<14}{seconds['ours']:>10.3f} s{seconds['diffusers']:>10.3f} s{result['ratio']:>8.3f}"
        f"{case.bound:>8.2f}{peaks['ours'] / 2**20:>8.0f} MiB{peaks['diffusers'] / 2**20:>8.0f} MiB",
        flush=True,
    )
    return result


def measure_gpu(case: Case, machine: Machine, repeats: int) -> tuple[dict[str, float], dict[str, int]]:
    """One side after the other: two copies of a 16B network would not fit."""
    seconds, peaks = {}, {}
    for side, make in case.sides.items():
        run = make(machine)
        seconds |= measure.median_times({side: run}, repeats, gpu=True)
        peaks[side] = measure.peak_gpu(run)
        del run
        gc.collect()
        torch.cuda.empty_cache()
    return seconds, peaks


def run_columns(machine: Machine, repeats: int) -> dict:
    results = columns.measure(SIZES[machine.device], repeats)
    print("\n" + "\n".join(columns.rows(results)), flush=True)
    predicted = beside(results, describe(machine)["device"])
    for row in predicted:
        measured = f"{row['measured']:.3f} s" if row["measured"] else "not measured"
        print(f"{row['column']:<58}predicted {row['predicted']:.3f} s, {measured}")
    return {"columns": results, "predictions": predicted}


def run_host(machine: Machine, repeats: int) -> dict:
    found = core.compare(SIZES[machine.device], repeats)
    if "refused" in found:
        print(f"\nComfyUI: {found['refused']}")
    else:
        print(
            f"\nA forward of a MODEL in ComfyUI: ours {found['ours']:.3f} s, core's {found['core']:.3f} s, ratio "
            f"{found['ratio']:.3f}, results differ by {found['difference']:.1e}",
            flush=True,
        )
    return {"host": found}


def run_tf32(machine: Machine, repeats: int) -> dict:
    small = machine if machine.device == "cuda" else replace(machine, image=128)  # a processor has no TF32 to measure
    found = tf32.compare(small, repeats)
    print(
        f"VAE in float32: with TF32 {found['seconds']['tf32']:.3f} s, without {found['seconds']['float32']:.3f} s; "
        f"latents differ by {found['latent']:.1e}, pictures by {found['levels']:.2f} levels",
        flush=True,
    )
    return {"tf32": found}


def run_budgets(machine: Machine, repeats: int) -> dict:
    size, rows = SIZES[machine.device], []
    device, limits = torch.device(machine.device), [parse_size(budget) for budget in BUDGETS[machine.device]]
    # of two blocks none would stream: two are on the device in any case
    config = size.config if machine.device == "cuda" else replace(size.config, num_layers=6)
    for form in budgets.FORMATS:
        rows += budgets.run(config, form, limits, device, dtype=size.dtype, latent=size.latent, repeats=repeats)
        gc.collect()
    print("\n" + budgets.table(rows, config.num_layers), flush=True)
    return {"budgets": [asdict(row) for row in rows]}


def run_loading(_machine: Machine, _repeats: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        share = peak_per_byte(Path(folder), gibibytes=2)
    print(f"{'load':<14}peak resident memory rises by {share:.3f} of a 2 GiB MMDiT file (bound {LOAD_BOUND})")
    return {"load": {"peak_per_file_byte": share, "bound": LOAD_BOUND}}


OTHERS: dict[str, Callable[[Machine, int], dict]] = {
    "columns": run_columns, "host": run_host, "tf32": run_tf32, "budgets": run_budgets, "load": run_loading,
}  # fmt: skip


def save(report: dict) -> Path:
    RESULTS.mkdir(exist_ok=True)
    slug = "-".join("".join(c if c.isalnum() else " " for c in report["machine"]["device"].lower()).split())
    path = RESULTS / f"{slug}.json"
    shown = [r for r in report["columns"] if "seconds" in r]
    plot = bars(
        "A step of a guided edit, by its options", [(r["column"], r["seconds"], f"{r['ratio']:.2f}") for r in shown]
    )
    for target, text in ((path, json.dumps(report, indent=2) + "\n"), (path.with_suffix(".svg"), plot)):
        temporary = target.with_suffix(".tmp")
        temporary.write_text(text)
        os.replace(temporary, target)
    return path


if __name__ == "__main__":
    main()
