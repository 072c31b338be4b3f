"""What a network computes in: the dtype asked for, else its file's unless the processor has no instructions for it."""

from __future__ import annotations

import warnings

import torch

HALVES = (torch.bfloat16, torch.float16)
WHOLE = 2**25  # bytes of weights that are made float32 once and for all; larger ones layer by layer, as they run


def native(dtype: torch.dtype, device: torch.device | str | None) -> bool:
    """Whether a device multiplies in `dtype` by instructions of its own.

    A processor without them takes 50 times as long for a product in bfloat16 as in float32 (measured with AVX2).
    """
    if torch.device(device or "cpu").type != "cpu" or dtype not in HALVES:
        return True
    # float16 has AMX-FP16 in few processors and no kernels in torch for the rest; what older torch can't tell is no
    names = (
        ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        if dtype == torch.bfloat16
        else ("_is_amx_fp16_supported",)
    )
    return any(getattr(torch.cpu, name, bool)() for name in names)


def compute_dtype(asked: torch.dtype | None, stored: torch.dtype, device: torch.device | str | None) -> torch.dtype:
    """The dtype to compute in on a device. One that is asked for is obeyed, with a warning where it will be slow."""
    if asked is None:
        return stored if native(stored, device) else torch.float32
    if not native(asked, device):
        name = str(asked).removeprefix("torch.")
        warnings.warn(
            f"computing in {name} as asked, for which this processor has no instructions: float32, the default here, "
            "is up to 50 times as fast",
            stacklevel=3,
        )
    return asked
