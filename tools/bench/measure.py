"""Time and peak memory of a callable, on the CPU or a GPU.

On the CPU it is the processor's time, of all its threads: what else the machine does touches it least.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

Run = Callable[[], object]


def median_times(runs: dict[str, Run], repeats: int, gpu: bool = False, warm: bool = True) -> dict[str, float]:
    """Median seconds of each run, the first to warm up aside, taken in turn so that a slow minute hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(repeats + warm):
        for name, run in runs.items():
            seconds = timed(run, gpu)
            if i >= warm:
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def timed(run: Run, gpu: bool = False) -> float:
    if not gpu:
        start = time.process_time()
        run()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_gpu(run: Run) -> int:
    """Bytes allocated at the peak of a run, weights included."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated()


def peak_resident(run: Run) -> int:
    """Bytes by which the process's resident memory rises above what it was before the run (Linux)."""
    gc.collect()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to the present size
    run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}; peak memory is measured on Linux only")


def in_fresh_process(case: str, side: str) -> tuple[int, float]:
    """`peak_resident` and seconds of one side of a case in a process of its own, so that nothing freed is reused."""
    command = [sys.executable, "-m", "tools.bench", "--peak", case, side]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, seconds = result.stdout.split()[-2:]
    return int(peak), float(seconds)


def matrix_peak(device: str, dtype: torch.dtype, size: int) -> float:
    """Operations per second of the largest plain matrix product, the ceiling for any network."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / median_times({"product": lambda: a @ a}, 10, device == "cuda")["product"]
