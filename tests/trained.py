"""A network of four blocks and samples of its size, for tests of training; run by itself, it trains in a folder."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from joyimage.config import MMDiTConfig
from joyimage.mmdit import MMDiT
from joyimage.quantisation import layers
from joyimage.training.samples import Sample
from joyimage.training.settings import Training
from joyimage.training.trainer import train

CONFIG = MMDiTConfig(hidden_size=32, num_heads=2, num_layers=4, text_dim=24, mlp_size=64, rope_dims=(4, 6, 6))
# Long enough to be killed in, and all that has a state: an average, a rate that changes, a sheet's place, DoRA.
KILLED = Training(
    steps=60, batch_size=3, learning_rate=1e-2, warm_up=5, cool_down=20, ema=0.9, adapter="dora", rank=2, save_every=7
)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network() -> MMDiT:
    model = MMDiT(CONFIG, operations=layers)
    for i, parameter in enumerate(model.parameters()):
        parameter.data = 0.15 * draw(*parameter.shape, seed=i)
    return model.eval().requires_grad_(False)


def sample(i: int, size: tuple[int, int] = (4, 4), references: int = 1, mask: bool = False) -> Sample:
    return Sample(
        draw(16, 1, *size, seed=100 + i),
        tuple(draw(16, 1, *size, seed=200 + 10 * i + k) for k in range(references)),
        draw(3 + i % 3, CONFIG.text_dim, seed=300 + i),
        draw(2, CONFIG.text_dim, seed=400 + i),
        (draw(1, 1, *size, seed=500 + i) > 0).float() if mask else None,
    )


class Samples(list[Sample]):
    key = "drawn"


def samples(count: int = 5) -> Samples:
    """Of two shapes."""
    return Samples(sample(i, (4, 4) if i % 2 else (4, 6)) for i in range(count))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    train(network(), samples(), KILLED, folder).save(folder / "lora.safetensors")
