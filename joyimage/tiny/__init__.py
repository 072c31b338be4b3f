"""The bundled model: JoyAI-Image's architecture at a size that runs anywhere, with nothing to download.

It was trained on drawn scenes of solids and edits pictures of 64 x 64 pixels. Its model card is README.md in this
folder.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from .. import checkpoints

if TYPE_CHECKING:  # plans need the files' places, and no torch
    import torch
    from torch import Tensor

    from ..encoder import Encoder
    from ..mmdit import MMDiT
    from ..vae import WanVAE

    Device: TypeAlias = torch.device | str | None

BASE_SIZE = 64  # side in pixels of the squares that it makes
FOLDER = Path(__file__).parent
FILES = {part: FOLDER / f"{part}.safetensors" for part in ("mmdit", "vae", "encoder")}
TOKENIZER = FOLDER / "tokenizer"
PREVIEW = FOLDER / "preview.safetensors"


def mmdit(device: Device = None) -> MMDiT:
    """In float32 and eval mode, as all of them; the files hold half precision."""
    import torch

    return checkpoints.load_mmdit(FILES["mmdit"], device=device, dtype=torch.float32)


def vae(device: Device = None) -> WanVAE:
    import torch

    return checkpoints.load_vae(FILES["vae"], device=device, dtype=torch.float32)


def encoder(device: Device = None) -> Encoder:
    import torch

    return checkpoints.load_encoder(FILES["encoder"], TOKENIZER, device=device, dtype=torch.float32)


def build(device: Device = None) -> tuple[MMDiT, WanVAE, Encoder]:
    """All three."""
    return mmdit(device), vae(device), encoder(device)


@cache
def _preview() -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return {name: value.float() for name, value in load_file(PREVIEW).items()}


def preview(latent: Tensor) -> Tensor:
    """What a latent (B, 16, 1, h, w) will look like, at once: (B, 3, 8 h, 8 w), about in [-1, 1].

    Linear, and fitted to this model's VAE: true colours at the true size, without its details.
    """
    from torch.nn import functional

    weights = {name: value.to(latent.device) for name, value in _preview().items()}
    padded = functional.pad(latent.squeeze(2).float(), (1, 1, 1, 1), mode="replicate")  # (B, 16, h + 2, w + 2)
    patches = functional.conv2d(padded, weights["factors"], weights["bias"])  # (B, 192, h, w)
    return functional.pixel_shuffle(patches, 8)
