"""The library's networks as ComfyUI's own MODEL, VAE and managed encoder, and its sampling as a guider and a sampler.

Only this folder knows the host's model classes, and only here do nodes touch tensors.
"""

from .encoder import ENCODER, load_encoder
from .encoders import HostEncoders, conditioning
from .lora import add_lora
from .model import WEIGHT_DTYPES, load_mmdit, own_shift
from .products import DEFAULT, PRODUCT_CHOICES, use_products
from .sampling import guider, sample, schedule
from .shortcuts import with_shortcuts
from .speed import use_attention, use_compiled_blocks
from .training import at_work, training_memory, twin, with_twin
from .vae import load_vae

__all__ = [
    "DEFAULT",
    "ENCODER",
    "PRODUCT_CHOICES",
    "WEIGHT_DTYPES",
    "HostEncoders",
    "add_lora",
    "at_work",
    "conditioning",
    "guider",
    "load_encoder",
    "load_mmdit",
    "load_vae",
    "own_shift",
    "sample",
    "schedule",
    "training_memory",
    "twin",
    "use_attention",
    "use_compiled_blocks",
    "use_products",
    "with_shortcuts",
    "with_twin",
]
