"""`python -m tools.bench`: the table, and the same as JSON under tools/bench/results/."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import tempfile
from pathlib import Path

import diffusers
import torch
import transformers

from . import measure
from .cases import CASES, CPU, GPU, Case, Machine, step_operations
from .loading import BOUND as LOAD_BOUND
from .loading import peak_per_byte

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", help=f"cases to run: {', '.join(case.name for case in CASES)}, load")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs per side (5)")
    parser.add_argument("--cpu", action="store_true", help="measure the CPU's sizes even where there is a GPU")
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "SIDE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    machine = GPU if torch.cuda.is_available() and not options.cpu else CPU
    if options.peak:
        case = next(case for case in CASES if case.name == options.peak[0])
        print(measure.peak_resident(case.sides[options.peak[1]](machine)))
        return
    report = {"machine": describe(machine), "cases": []}
    columns = ("", "ours", "diffusers", "ratio", "bound", "our peak", "diffusers'")
    print("{:<14}{:>12}{:>12}{:>8}{:>8}{:>12}{:>12}".format(*columns))
    for case in CASES:
        if not options.only or case.name in options.only:
            report["cases"].append(run_case(case, machine, options.repeats))
    if not options.only or "load" in options.only:
        report["cases"].append(run_loading())
    if not options.only:
        print(f"\nwritten to {save(report, machine)}")


def describe(machine: Machine) -> dict:
    name = torch.cuda.get_device_name() if machine.device == "cuda" else f"{os.cpu_count()} CPU cores"
    return {
        "device": name,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "dtype": str(machine.dtype),
    }


def run_case(case: Case, machine: Machine, repeats: int) -> dict:
    if machine.device == "cuda":
        seconds, peaks = measure_gpu(case, machine, repeats)
    else:
        peaks = {side: measure.peak_in_fresh_process(case.name, side) for side in case.sides}
        runs = {side: make(machine) for side, make in case.sides.items()}
        seconds = measure.median_times(runs, repeats)
    result = {
        "case": case.name,
        "what": case.what,
        "seconds": seconds,
        "ratio": seconds["ours"] / seconds["diffusers"],
        "bound": case.bound,
        "peak_bytes": peaks,
        "peak_ratio": peaks["ours"] / peaks["diffusers"],
    }
    if case.name == "step":
        peak = measure.matrix_peak(machine.device, machine.dtype, 8192 if machine.device == "cuda" else 1024)
        result["share_of_matrix_peak"] = step_operations(machine) / seconds["ours"] / peak
    print(
        f"{case.name:<14}{seconds['ours']:>10.3f} s{seconds['diffusers']:>10.3f} s{result['ratio']:>8.3f}"
        f"{case.bound:>8.2f}{peaks['ours'] / 2**20:>8.0f} MiB{peaks['diffusers'] / 2**20:>8.0f} MiB"
    )
    return result


def measure_gpu(case: Case, machine: Machine, repeats: int) -> tuple[dict[str, float], dict[str, int]]:
    """One side after the other: two copies of a 16B network would not fit."""
    seconds, peaks = {}, {}
    for side, make in case.sides.items():
        run = make(machine)
        seconds |= measure.median_times({side: run}, repeats)
        peaks[side] = measure.peak_gpu(run)
        del run
        gc.collect()
        torch.cuda.empty_cache()
    return seconds, peaks


def run_loading() -> dict:
    with tempfile.TemporaryDirectory() as folder:
        share = peak_per_byte(Path(folder), gibibytes=2)
    print(f"{'load':<14}peak resident memory rises by {share:.3f} of a 2 GiB MMDiT file (bound {LOAD_BOUND})")
    return {"case": "load", "peak_per_file_byte": share, "bound": LOAD_BOUND}


def save(report: dict, machine: Machine) -> Path:
    RESULTS.mkdir(exist_ok=True)
    slug = "".join(c if c.isalnum() else "-" for c in report["machine"]["device"].lower())
    path = RESULTS / f"{slug}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(report, indent=2) + "\n")
    os.replace(temporary, path)
    return path


if __name__ == "__main__":
    main()
