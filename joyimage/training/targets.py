"""Which linear layers of an MMDiT are trained: a rule of names, the same for a plan and for the network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import JoyImageError


def layers_meant(names: Iterable[str], targets: Sequence[str], blocks: int) -> list[str]:
    """Those of the layers' names that `targets` mean, each of them one or more whole parts of a name.

    "img_mlp" means that MLP's layers in all `blocks`, "double_blocks.3" all of one. The last block gives no text, so
    what only makes that is left out. Raises `JoyImageError` for a target that means no layer.
    """
    last = f"double_blocks.{blocks - 1}."
    idle = (f"{last}attn.txt_attn_proj.", f"{last}txt_mlp.")
    names = [name for name in names if not f"{name}.".startswith(idle)]
    for target in targets:
        if not any(_meant(name, target) for name in names):
            raise JoyImageError(
                f"there is no layer {target!r} to train; name whole parts, such as img_attn_qkv, txt_mlp or "
                "double_blocks.3"
            )
    return [name for name in names if any(_meant(name, target) for target in targets)]


def _meant(name: str, target: str) -> bool:
    return f".{target}." in f".{name}."
