"""Which attention a MODEL computes with, and whether its blocks are compiled: for one branch of a graph.

Both lie in the MODEL's options, where a clone has its own, since branches share the network.
"""

from __future__ import annotations

from typing import Any

from comfy.model_patcher import ModelPatcher

from ...joyimage.attention import attention_by_name
from ...joyimage.compiling import check_compiler, compiled_blocks
from ...joyimage.errors import JoyImageError
from .model import ATTENTION, RUN_BLOCK, HostMMDiT
from .products import DEFAULT


def use_attention(model: ModelPatcher, name: str) -> None:
    """Compute attention by one of `settings.ATTENTIONS`, or as the host does.

    Raises `JoyImageError` for a MODEL that is another network, and for what does not run on its device.
    """
    if name != DEFAULT:
        _check_network(model, f"attention {name}")
    _set(model, ATTENTION, None if name == DEFAULT else attention_by_name(name, model.load_device))


def use_compiled_blocks(model: ModelPatcher, compile: bool) -> None:
    """Compile the blocks when they run next, or run them as they are.

    Raises `JoyImageError` for a MODEL that is another network, and where the device's compiler is missing.
    """
    if compile:
        _check_network(model, "compile")
        check_compiler(model.load_device)
    _set(model, RUN_BLOCK, compiled_blocks() if compile else None)


def _check_network(model: ModelPatcher, what: str) -> None:
    if not isinstance(model.model.diffusion_model, HostMMDiT):
        raise JoyImageError(
            f"{what} is for the network of JoyAI-Image, and this MODEL is another: connect Load MMDiT (JoyImage), or "
            "leave it off"
        )


def _set(model: ModelPatcher, name: str, value: Any) -> None:
    options = model.model_options.setdefault("transformer_options", {})
    if value is None:
        options.pop(name, None)
    else:
        options[name] = value
