"""Counts what a forward of the published MMDiT costs, on any machine: `python -m tools.bench.count`.

Meta tensors have shapes and dtypes, and no numbers: the forward runs through torch's own operators, and each that a GPU
would launch is counted. Views launch nothing. Matrix products and attention count as arithmetic, all
others as the bytes of their inputs and outputs. What a kernel does inside is not seen, nor what a compiler would fuse.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from joyimage.config import MMDiTConfig
from joyimage.errors import JoyImageError
from joyimage.kitchen import has_operators
from joyimage.mmdit import MMDiT
from joyimage.rope import NORM_AND_ROTATION, KitchenRotary, Rotary, TorchRotary

from .budgets import TEXT_TOKENS

DEVICE, DTYPE = "meta", torch.bfloat16
LATENT = 128  # rows and columns of a picture of 1024 x 1024 pixels
ATTENTION = "attention"
NO_LAUNCH = {"empty", "new_empty", "empty_like", "detach", "_unsafe_view", "view_as_complex"}  # besides what are views


@dataclass
class Count:
    """`flops` of matrix products and attention, `moved` bytes of everything else, launches of all; by operator."""

    flops: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    moved: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    launches: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __str__(self) -> str:
        attention = self.flops[ATTENTION]
        lines = [
            f"{sum(self.flops.values()) / 1e12:.1f} TFLOP ({attention / 1e12:.1f} of them attention), "
            f"{sum(self.moved.values()) / 1e9:.1f} GB outside matrix products, {sum(self.launches.values())} launches"
        ]
        for name, moved in sorted(self.moved.items(), key=lambda item: -item[1])[:12]:
            lines.append(f"{moved / 1e9:10.1f} GB {self.launches[name]:6} launches  {name}")
        return "\n".join(lines)


class Counter(TorchDispatchMode):
    """Counts the operators that are called while it is active."""

    def __init__(self):
        super().__init__()
        self.count = Count()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function._overloadpacket._qualified_op_name.removeprefix("aten::")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if not made or function.is_view or name in NO_LAUNCH:
            return result
        self.count.launches[name] += 1
        if function._overloadpacket in flop_registry:
            self.count.flops[name] += flop_registry[function._overloadpacket](*args, **(kwargs or {}), out_val=result)
        else:
            self.count.moved[name] += sum(tensor.nbytes for tensor in {id(t): t for t in (*tensors, *made)}.values())
        return result

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """In the place of the network's: which kernel torch would choose can't be told without the card."""
        batch, heads, queries, size = q.shape
        self.count.launches[ATTENTION] += 1
        self.count.flops[ATTENTION] += 4 * batch * heads * queries * k.shape[2] * size
        return q.new_empty(batch, queries, heads * size)

    def operations(self) -> SimpleNamespace:
        """torch's layers, of which RMSNorm is one launch, as it is on a GPU."""
        count = self.count

        class RMSNorm(nn.RMSNorm):
            def forward(self, x: Tensor) -> Tensor:
                count.launches["rms_norm"] += 1
                count.moved["rms_norm"] += 2 * x.nbytes + self.weight.nbytes
                return torch.empty_like(x)

        return SimpleNamespace(**{name: getattr(nn, name) for name in ("Linear", "Conv3d")}, RMSNorm=RMSNorm)


def forward(
    references: int = 1,
    prompts: Sequence[int] = TEXT_TOKENS[:1],
    config: MMDiTConfig | None = None,
    rotary: Rotary | None = None,
) -> Count:
    """Count one forward with so many references of the target's size, for prompts of so many tokens each.

    `rotary` is what normalises and rotates queries and keys: by default comfy-kitchen's kernel, as inside ComfyUI and
    wherever it is installed beside a GPU. Raises `JoyImageError` where it is not installed here.
    """
    if rotary is None and not has_operators(NORM_AND_ROTATION):
        raise JoyImageError("comfy-kitchen is not installed: install it, or count torch's own rotation")
    batch, counter = len(prompts), Counter()
    with torch.no_grad():  # in inference mode an operator that is made of others comes whole
        options = {"dtype": DTYPE, "device": DEVICE, "operations": counter.operations()}
        network = MMDiT(config, attention=counter.attention, **options)
        network.rotary_for = lambda device: rotary or KitchenRotary()

        def latent() -> Tensor:
            return torch.empty(batch, network.config.in_channels, 1, LATENT, LATENT, device=DEVICE)

        context = [torch.empty(length, network.config.text_dim, dtype=DTYPE, device=DEVICE) for length in prompts]
        inputs = latent(), torch.empty(batch, device=DEVICE), context, [latent() for _ in range(references)]
        with counter:
            network(*inputs)
    return counter.count


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.count", description=__doc__)
    parser.add_argument("--references", type=int, nargs="+", default=[1], help="how many, each counted (1)")
    parser.add_argument("--text", type=int, nargs="+", default=TEXT_TOKENS, help="tokens of the prompts (%(default)s)")
    parser.add_argument("--torch", action="store_true", help="norm and rotation by torch, not by comfy-kitchen")
    options = parser.parse_args()
    rotary = TorchRotary() if options.torch else None
    for references in options.references:
        for name, prompts in (("one forward", options.text[:1]), ("all prompts, packed", options.text)):
            print(f"{name}, {references} references\n{forward(references, prompts, rotary=rotary)}\n")


if __name__ == "__main__":
    main()
