"""The library's networks as ComfyUI's own MODEL, VAE and managed encoder, and its sampling as a guider and a sampler.

Only this folder knows the host's model classes, and only here do nodes touch tensors.
"""

from .encoder import ENCODER, load_encoder
from .kernels import use_attention, use_compiled_blocks
from .lora import add_lora
from .model import WEIGHT_DTYPES, load_mmdit, own_shift
from .products import CHOICES as PRODUCTS
from .products import DEFAULT, use_products
from .sampling import guider, sample, schedule
from .speed import with_shortcuts
from .vae import load_vae

__all__ = [
    "DEFAULT",
    "ENCODER",
    "PRODUCTS",
    "WEIGHT_DTYPES",
    "add_lora",
    "guider",
    "load_encoder",
    "load_mmdit",
    "load_vae",
    "own_shift",
    "sample",
    "schedule",
    "use_attention",
    "use_compiled_blocks",
    "use_products",
    "with_shortcuts",
]
