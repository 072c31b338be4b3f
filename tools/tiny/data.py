"""Training examples on disk: shards of pairs, one file for each task and number, made by several processes."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from einops import rearrange
from torch import Tensor

from .tasks import TASKS, Pairs

SHARD = 2000
# Shards of each task: what is harder to learn gets more.
SHARDS = {
    "move": 14, "rotate": 24, "camera": 14, "recolour": 7, "remove": 5, "add": 5, "compose": 5, "generate": 24,
}  # fmt: skip


def make(folder: Path, seed: int, shards: dict[str, int] = SHARDS, size: int = SHARD, processes: int | None = None):
    """Write what is missing of the shards. Shard k of a task is the same whatever else is made."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(task, number) for number in range(max(shards.values())) for task in shards if number < shards[task]]
    jobs = [job for job in jobs if not path(folder, *job).exists()]
    if not jobs:
        return
    write = partial(_write, folder, seed, size)
    if processes == 1:
        list(map(write, jobs))
        return
    with ProcessPoolExecutor(processes or os.cpu_count()) as pool:
        for task, number in pool.map(write, jobs):
            print(f"{task} {number}", flush=True)


def path(folder: Path, task: str, number: int) -> Path:
    return folder / f"{task}-{number:03}.npz"


def _write(folder: Path, seed: int, size: int, job: tuple[str, int]) -> tuple[str, int]:
    task, number = job
    pairs = TASKS[task](size, np.random.default_rng([seed, list(TASKS).index(task), number]))
    target = path(folder, task, number)
    partial_file = target.with_suffix(".part")
    with partial_file.open("wb") as file:
        np.savez(file, **columns(pairs))
    os.replace(partial_file, target)
    return job


def columns(pairs: Pairs) -> dict[str, np.ndarray]:
    """What training needs of pairs; `changed` is the share of changed pixels in each latent pixel, (N, 8, 8)."""
    changed = pairs.changed().reshape(len(pairs.texts), 8, 8, 8, 8).mean(axis=(2, 4))
    found = {"texts": np.array(pairs.texts), "target": pairs.target, "changed": changed.astype(np.float16)}
    return {**found, **{f"reference{i}": reference for i, reference in enumerate(pairs.references)}}


def to_images(pixels: Tensor) -> Tensor:
    """Pictures (B, H, W, 3) uint8 as the VAE takes them: (B, 3, H, W) in [-1, 1], channels_last in memory."""
    return rearrange(pixels, "b h w c -> b c h w").float() / 127.5 - 1


def read(folder: Path, task: str, shards: int | None = None) -> dict[str, np.ndarray]:
    """The first shards of a task together, by default as many as `SHARDS` says."""
    files = [path(folder, task, number) for number in range(shards or SHARDS[task])]
    if missing := [file.name for file in files if not file.exists()]:
        raise SystemExit(f"{folder} lacks {', '.join(missing)}: run `python -m tools.tiny data` first")
    loaded = [np.load(file) for file in files]
    return {name: np.concatenate([shard[name] for shard in loaded]) for name in loaded[0].files}
