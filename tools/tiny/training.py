"""One training loop for all three networks: Muon, EMA, checkpoints that a killed run goes on from, loss curves."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from joyimage import precision

FAST_HALF = precision.native(torch.bfloat16, "cpu")
HALF = torch.bfloat16 if FAST_HALF else torch.float32  # what trains faster on this processor


def autocast() -> torch.autocast:
    """Products in bfloat16 where the processor has instructions for them: elsewhere they take 50 times as long."""
    return torch.autocast("cpu", torch.bfloat16, enabled=FAST_HALF)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Learning rates are constant to `hold` of the steps, then fall linearly to 5 %."""

    steps: int
    matrix_rate: float = 0.02  # of Muon, for hidden matrices and kernels
    other_rate: float = 2e-3  # of AdamW, for all others
    hold: float = 0.6
    warm_up: int = 50  # steps
    average: float = 0.998  # of the exponential moving average of the weights
    save_every: int = 500
    weight_decay: float = 0.0
    share: float = 1.0  # of the pictures in a batch; a trial takes fewer
    half: bool = False  # Muon's iteration in bf16: four times faster on a CPU, and exact enough

    def batch(self, pictures: int) -> int:
        return max(1, round(self.share * pictures))

    def rate(self, step: int) -> float:
        """The factor of both learning rates."""
        rising = min(1.0, (step + 1) / self.warm_up)
        falling = (self.steps - step) / (self.steps * (1 - self.hold))
        return rising * min(1.0, 0.05 + 0.95 * max(0.0, falling))


class Muon(torch.optim.Optimizer):
    """Momentum whose updates are made orthogonal (Jordan et al. 2024), kernels taken as matrices (out, in * h * w).

    torch.optim.Muon takes matrices only; and matrices of one shape are worked on together here, five times faster
    for networks as small as these.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        half: bool = False,
    ):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = HALF if half else torch.float32

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault((p.shape[0], p[0].numel()), []).append(p)
            for (rows, columns), parameters in shapes.items():
                self._update(parameters, rows, columns, group)

    def _update(self, parameters: list[nn.Parameter], rows: int, columns: int, group: dict) -> None:
        updates = []
        for p in parameters:
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            state["momentum"].lerp_(p.grad, 1 - group["momentum"])
            updates.append(p.grad.lerp(state["momentum"], group["momentum"]).reshape(rows, columns))
        orthogonal = newton_schulz(torch.stack(updates).to(self.dtype)) * max(1.0, rows / columns) ** 0.5
        for p, update in zip(parameters, orthogonal, strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(update.view(p.shape), alpha=-group["lr"])


def newton_schulz(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest matrices (B, n, m) with singular values of about 1, by Muon's quintic iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


def optimisers(network: nn.Module, recipe: Recipe, others: Callable[[str], bool]) -> list[torch.optim.Optimizer]:
    """Muon for hidden matrices and kernels; AdamW for vectors, and for what `others` says of a parameter's name."""
    hidden, rest = [], []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (rest if parameter.ndim < 2 or "table" in name or others(name) else hidden).append(parameter)
    return [
        Muon(hidden, recipe.matrix_rate, weight_decay=recipe.weight_decay, half=recipe.half),
        torch.optim.AdamW(rest, recipe.other_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(
    name: str,
    network: nn.Module,
    loss: Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]],
    recipe: Recipe,
    folder: Path,
    *,
    seed: int = 0,
    others: Callable[[str], bool] = lambda name: False,
    stop_at: int | None = None,
) -> dict[str, Tensor]:
    """Train `network` and return the averaged weights.

    `loss(step, generator)` gives the loss and what else to log; it may call `backward` itself. The generator depends
    on the seed and the step alone, so a run that was killed goes on from its last checkpoint as if it had not been.
    `stop_at` ends earlier, for tests.
    """
    folder.mkdir(parents=True, exist_ok=True)
    engines = optimisers(network, recipe, others)
    averaged = {key: value.clone() for key, value in network.state_dict().items()}
    checkpoint, log = folder / f"{name}.checkpoint.pt", folder / f"{name}.log.jsonl"
    start, lines = 0, []
    if checkpoint.exists():
        averaged, start, lines = resume(checkpoint, seed, network, engines)
        print(f"{name}: goes on from step {start}", flush=True)
    began = time.perf_counter()
    end = min(recipe.steps, stop_at or recipe.steps)
    for step in range(start, end):
        prepare(engines, recipe, step)
        value, details = loss(step, torch.Generator().manual_seed(seed * 1_000_003 + step))
        if value.requires_grad:  # else the loss has done so itself, piece by piece
            value.backward()
        for engine in engines:
            engine.step()
        decay = min(recipe.average, (step + 1) / (step + 10))
        for key, current in network.state_dict().items():
            averaged[key].lerp_(current, 1 - decay) if current.is_floating_point() else averaged[key].copy_(current)
        lines.append({"step": step, "loss": value.item(), **details})
        if (step + 1) % 100 == 0:
            seconds = time.perf_counter() - began
            print(f"{name} {step + 1}/{recipe.steps}  {summary(lines[-100:])}  {seconds:.0f} s", flush=True)
        if (step + 1) % recipe.save_every == 0 or step + 1 == end:
            save(checkpoint, seed, step + 1, network, averaged, engines, lines)
            log.write_text("".join(json.dumps(line) + "\n" for line in lines))
            curve([line["loss"] for line in lines], f"{name}: loss", folder / f"{name}.png")
    return averaged


def prepare(engines: list[torch.optim.Optimizer], recipe: Recipe, step: int) -> None:
    """Set the learning rates of a step, and drop the gradients of the one before."""
    for engine, rate in zip(engines, (recipe.matrix_rate, recipe.other_rate), strict=True):
        for group in engine.param_groups:
            group["lr"] = rate * recipe.rate(step)
        engine.zero_grad(set_to_none=True)


def summary(lines: list[dict[str, float]]) -> str:
    """The means of what the lines log."""
    means = {k: sum(line.get(k, 0) for line in lines) / len(lines) for k in lines[-1] if k != "step"}
    return "  ".join(f"{k} {v:.4f}" for k, v in means.items())


def resume(checkpoint: Path, seed: int, network: nn.Module, engines: list[torch.optim.Optimizer]):
    """Load what `save` wrote into network and optimisers; returns the averaged weights, the step, and the log."""
    saved = torch.load(checkpoint, weights_only=True)
    if saved["seed"] != seed:
        raise SystemExit(f"{checkpoint} is of seed {saved['seed']}, not {seed}: use another folder")
    network.load_state_dict(saved["network"])
    for engine, state in zip(engines, saved["engines"], strict=True):
        engine.load_state_dict(state)
    return saved["averaged"], saved["step"], saved["lines"]


def save(path: Path, seed: int, step: int, network: nn.Module, averaged, engines, lines) -> None:
    partial = path.with_suffix(".part")
    states = [engine.state_dict() for engine in engines]
    torch.save(
        {
            "seed": seed,
            "step": step,
            "network": network.state_dict(),
            "averaged": averaged,
            "engines": states,
            "lines": lines,
        },
        partial,
    )
    os.replace(partial, path)


def curve(values: list[float], title: str, path: Path, size: tuple[int, int] = (720, 400)) -> None:
    """A loss curve as a PNG: means over 1/200 of the steps, on a logarithmic scale."""
    chunk = max(1, len(values) // 200)
    means = [sum(values[i : i + chunk]) / len(values[i : i + chunk]) for i in range(0, len(values), chunk)]
    logs = torch.tensor(means, dtype=torch.float64).clamp_min(1e-9).log10()
    low, high = logs.min().item(), max(logs.max().item(), logs.min().item() + 1e-3)
    width, height = size
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = 70, 30, width - 20, height - 40
    draw.rectangle((left, top, right, bottom), outline="gray")
    draw.text((left, 8), title, fill="black")
    for i in range(5):
        level = low + (high - low) * i / 4
        y = bottom - (bottom - top) * i / 4
        draw.line((left, y, right, y), fill="lightgray")
        draw.text((6, y - 6), f"{10**level:.4g}", fill="black")
        draw.text((left + (right - left) * i / 4 - 10, bottom + 8), f"{len(values) * i // 4}", fill="black")
    points = [
        (left + (right - left) * i / max(1, len(logs) - 1), bottom - (bottom - top) * (v - low) / (high - low))
        for i, v in enumerate(logs.tolist())
    ]
    draw.line(points, fill="navy", width=2)
    partial = path.with_suffix(".part")
    image.save(partial, format="PNG")
    os.replace(partial, path)
