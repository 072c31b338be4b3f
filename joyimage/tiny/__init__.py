"""The bundled model: JoyAI-Image's architecture at a size that runs anywhere, with nothing to download.

It was trained on drawn scenes of solids and edits pictures of 64 x 64 pixels. Its model card is README.md in this
folder.
"""

from __future__ import annotations

from pathlib import Path

import torch

from .. import checkpoints
from ..encoder import Encoder
from ..mmdit import MMDiT
from ..vae import WanVAE

BASE_SIZE = 64  # side in pixels of the squares that it makes
FOLDER = Path(__file__).parent
FILES = {part: FOLDER / f"{part}.safetensors" for part in ("mmdit", "vae", "encoder")}
TOKENIZER = FOLDER / "tokenizer"

Device = torch.device | str | None


def mmdit(device: Device = None) -> MMDiT:
    """In float32 and eval mode, as all of them; the files hold half precision."""
    return checkpoints.load_mmdit(FILES["mmdit"], device=device, dtype=torch.float32)


def vae(device: Device = None) -> WanVAE:
    return checkpoints.load_vae(FILES["vae"], device=device, dtype=torch.float32)


def encoder(device: Device = None) -> Encoder:
    return checkpoints.load_encoder(FILES["encoder"], TOKENIZER, device=device, dtype=torch.float32)


def build(device: Device = None) -> tuple[MMDiT, WanVAE, Encoder]:
    """All three."""
    return mmdit(device), vae(device), encoder(device)
