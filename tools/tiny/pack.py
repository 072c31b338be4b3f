"""The trained networks as the files that the package ships: three safetensors, and the tokenizer's folder."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from joyimage import tiny

from .tokens import save

FOLDER = Path(tiny.__file__).parent
LIMIT = 16 * 2**20  # bytes of all weights
DTYPES = {"mmdit": torch.bfloat16, "vae": torch.float16, "encoder": torch.bfloat16}
METADATA = {"format": "pt", "joyimage.base_size": str(tiny.BASE_SIZE)}


def write(networks: dict[str, torch.nn.Module], tokenizer: PreTrainedTokenizerFast, folder: Path = FOLDER) -> None:
    """Write `mmdit`, `vae` and `encoder`, each complete or not at all. The time embedder stays in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    size = 0
    for part, dtype in DTYPES.items():
        state = {
            name: value.contiguous().to(torch.float32 if "time_embedder" in name else dtype)
            for name, value in networks[part].state_dict().items()
        }
        partial = folder / f"{part}.part"
        save_file(state, partial, metadata=METADATA)
        os.replace(partial, folder / f"{part}.safetensors")
        size += (folder / f"{part}.safetensors").stat().st_size
    save(tokenizer, folder / "tokenizer")
    print(f"{folder}: {size / 2**20:.1f} MiB of weights")
    if size > LIMIT:
        raise SystemExit(f"the weights take {size} bytes, more than the {LIMIT} that the package may have")
