"""Memory taken by loading a large MMDiT file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from joyimage.config import MMDiTConfig
from joyimage.mmdit import MMDiT

BOUND = 1.15

_LOAD = """
import sys
from joyimage.checkpoints import load_mmdit
from tools.bench.measure import peak_resident

def run():
    model = load_mmdit(sys.argv[1])
    for parameter in model.parameters():  # a mapped page counts once it is read
        parameter.sum()

print(peak_resident(run))
"""


def peak_per_byte(folder: Path, gibibytes: float) -> float:
    """Rise of the peak resident memory of a fresh process that loads and reads a file, per byte of the file."""
    path = folder / "mmdit.safetensors"
    write_mmdit(path, gibibytes)
    result = subprocess.run([sys.executable, "-c", _LOAD, str(path)], capture_output=True, text=True, check=True)
    return int(result.stdout.split()[-1]) / path.stat().st_size


def write_mmdit(path: Path, gibibytes: float) -> None:
    """A bf16 MMDiT of about the given size: the published widths halved, as many blocks as it takes."""
    sizes = {"hidden_size": 2048, "num_heads": 16, "mlp_size": 8192, "text_dim": 2048}
    with torch.device("meta"):
        block = sum(p.numel() * 2 for p in MMDiT(MMDiTConfig(**sizes, num_layers=1)).double_blocks.parameters())
        model = MMDiT(MMDiTConfig(**sizes, num_layers=round(gibibytes * 2**30 / block)), dtype=torch.bfloat16)
    save_file(
        {name: torch.zeros(value.shape, dtype=torch.bfloat16) for name, value in model.state_dict().items()}, path
    )
