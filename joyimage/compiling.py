"""The MMDiT's blocks through `torch.compile`, each in two parts around its attention.

Three graphs serve every block, size, prompt length and number of references, and every packing: tokens of all samples
lie in a row, each with the number of its sample, and how they attend is decided between the graphs, as without a
compiler. What is between two matrix products becomes one kernel: norm, modulation, rotation, GELU, gates.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from .caching import KeptReferences
from .errors import JoyImageError
from .mmdit import DoubleBlock, MMDiT, Packing, modulate
from .rope import rotate
from .versions import torch_version

INDUCTOR = "inductor"
COMPILERS = {"darwin": "clang++", "win32": "cl"}  # the only one that torch takes, g++ elsewhere, where CXX names none
LEAST_TORCH = (2, 6)  # before it, torch compiles each block anew
COMPILER_MODULES = ("torch._dynamo", "torch._inductor")  # where its errors are defined
T = TypeVar("T")


def before_attention(
    block: DoubleBlock, img: Tensor, txt: Tensor, time: Tensor,
    img_samples: Tensor, img_places: Tensor, txt_samples: Tensor, freqs: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Queries, keys and values (M + T, heads, head_dim) of image tokens (M, D), then text tokens (T, D).

    `time` (samples, 6, D) holds the modulation of each sample, `freqs` (N, head_dim / 2, 2) the rotation of each
    token of a sample.
    """
    attn = block.attn
    freqs = freqs[img_places]
    shift, factor = block.img_mod(time)[img_samples, :2].unbind(1)
    t_shift, t_factor = block.txt_mod(time)[txt_samples, :2].unbind(1)
    img_q, img_k, img_v = attn.heads_of(attn.img_attn_qkv(modulate(img, shift, factor)))
    txt_q, txt_k, txt_v = attn.heads_of(attn.txt_attn_qkv(modulate(txt, t_shift, t_factor)))
    q = torch.cat([rotate(attn.img_attn_q_norm(img_q), freqs).to(txt_q.dtype), attn.txt_attn_q_norm(txt_q)])
    k = torch.cat([rotate(attn.img_attn_k_norm(img_k), freqs).to(txt_k.dtype), attn.txt_attn_k_norm(txt_k)])
    return q, k, torch.cat([img_v, txt_v])


def after_attention(
    block: DoubleBlock, img: Tensor, txt: Tensor, out: Tensor, time: Tensor, img_samples: Tensor, txt_samples: Tensor
) -> tuple[Tensor, Tensor]:
    """Image (M, D) and text tokens (T, D) after projection, gates and MLPs; `out` (M + T, D) is the attention's."""
    img_out, txt_out = out[: len(img)], block.attn.txt_attn_proj(out[len(img) :])
    img = after_attention_of_image(block, img, img_out, time, img_samples)
    return img, _gated(txt, txt_out, block.txt_mlp, block.txt_mod(time)[txt_samples])


def after_attention_of_image(block: DoubleBlock, img: Tensor, out: Tensor, time: Tensor, samples: Tensor) -> Tensor:
    """The last block's image tokens (M, D); nothing comes of its text."""
    return _gated(img, block.attn.img_attn_proj(out), block.img_mlp, block.img_mod(time)[samples])


def _gated(x: Tensor, out: Tensor, mlp: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
    _, _, gate1, shift2, factor2, gate2 = vectors.unbind(1)
    x = torch.addcmul(x, out, gate1)
    return torch.addcmul(x, mlp(modulate(x, shift2, factor2)), gate2)


@functools.lru_cache(maxsize=8)
def places_of(samples: int, tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of image tokens in a row: which sample's each is, and where in it."""
    with torch.inference_mode(False):  # made in inference mode they could be used nowhere else
        row = torch.arange(samples * tokens, device=device)
        return row // tokens, row % tokens


@dataclass(frozen=True)
class CompiledBlocks:
    """The compiled parts of a block, and what is between them; see `mmdit.RunBlock`."""

    before: Callable[..., tuple[Tensor, Tensor, Tensor]]
    after: Callable[..., tuple[Tensor, Tensor]]
    after_image: Callable[..., Tensor]

    def __call__(
        self,
        block: DoubleBlock,
        img: Tensor,
        txt: Tensor,
        time: Tensor,
        packing: Packing,
        queries: int | None,
        kept: KeptReferences | None,
    ) -> tuple[Tensor, Tensor | None]:
        places = places_of(*img.shape[:2], img.device)
        time = torch.cat([time, time[-1:]])  # never of one sample alone: that would be a graph of its own
        rows, words = img.flatten(0, 1), txt.flatten(0, 1)
        joint = compiled(self.before, block, rows, words, time, *places, packing.samples, packing.freqs)
        q, k, v = self.sequences(joint, img, txt, packing, queries, kept)
        attended = packing.attend(q, k, v)
        img_out, txt_out = packing.split(attended, queries or img.shape[1])
        if queries is not None:
            samples, _ = places_of(len(img), queries, img.device)
            inputs = img[:, :queries].flatten(0, 1), img_out.flatten(0, 1), time, samples
            return compiled(self.after_image, block, *inputs).unflatten(0, (len(img), -1)), None
        out = attended[0][0] if len(img) == 1 else torch.cat([img_out.flatten(0, 1), txt_out.flatten(0, 1)])
        rows, words = compiled(self.after, block, rows, words, out, time, places[0], packing.samples)
        return rows.view(img.shape), words.view(txt.shape)

    @staticmethod
    def sequences(
        joint: Sequence[Tensor],
        img: Tensor,
        txt: Tensor,
        packing: Packing,
        queries: int | None,
        kept: KeptReferences | None,
    ) -> list[list[Tensor]]:
        """Queries, keys and values as `Packing.attend` takes them, of all tokens in a row."""
        count = len(img) * img.shape[1]
        (img_q, txt_q), (img_k, txt_k), (img_v, txt_v) = (
            (x[:count].unflatten(0, img.shape[:2]), x[count:].unflatten(0, txt.shape[:2])) for x in joint
        )
        if queries is not None:
            img_q, txt_q = img_q[:, :queries], txt_q[:, :0]
        all_k, all_v = (img_k, img_v) if kept is None else (kept.keys(img_k), kept.values(img_v))
        if len(img) == 1 and all_k is img_k:  # they lie as attention wants them
            q, k, v = joint
            return [[q[None]] if queries is None else [img_q], [k[None]], [v[None]]]
        return [packing.sequences(*pair) for pair in ((img_q, txt_q), (all_k, txt_k), (all_v, txt_v))]


def compiled(part: Callable[..., T], block: DoubleBlock, *inputs: Tensor) -> T:
    """Run a compiled part, for any number of tokens or samples.

    Raises `JoyImageError` where the compiler fails, which it does when it first runs.
    """
    if torch.compiler.is_compiling():  # the whole network, of which this becomes a part
        return part(block, *inputs)
    for tensor in inputs:
        # by name and not by dynamic=True, which takes two sizes that are equal at first to be so always
        torch._dynamo.maybe_mark_dynamic(tensor, 0)
    try:
        # else a layer that had no hook when it was compiled is taken to have none always, and a LoRA to do nothing
        with torch._dynamo.config.patch(skip_nnmodule_hook_guards=False):
            return part(block, *inputs)
    except RuntimeError as error:
        if not type(error).__module__.startswith(COMPILER_MODULES):
            raise
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise JoyImageError(f"torch.compile failed: {first:.300}; leave compile off") from error


@functools.cache
def compiled_blocks(backend: str | Callable = INDUCTOR) -> CompiledBlocks:
    """The parts, compiled by a backend of torch: one set for all networks, which share its graphs."""
    compile = functools.partial(torch.compile, backend=backend)
    return CompiledBlocks(compile(before_attention), compile(after_attention), compile(after_attention_of_image))


def compile_blocks(network: MMDiT, device: torch.device, backend: bool | str | Callable = True) -> None:
    """Let a network run its blocks compiled on a device, when they run next; by torch's own backend or another one.

    Raises `JoyImageError` as `check_compiler` does.
    """
    check_compiler(device, backend)
    network.run_block = compiled_blocks(INDUCTOR if backend is True else backend)


def check_compiler(device: torch.device, backend: bool | str | Callable = True) -> None:
    """Raise `JoyImageError` where blocks cannot be compiled for a device, saying what is missing.

    That is a torch of 2.6 or newer, a backend of this name, and the compiler that torch's own backend needs. False asks
    for none.
    """
    if backend is False:
        return
    backend = INDUCTOR if backend is True else backend
    if torch_version() < LEAST_TORCH:
        raise JoyImageError(f"compile needs torch 2.6 or newer, and this is {torch.__version__}: leave it off")
    if backend != INDUCTOR:
        _check_backend(backend)
        return
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise JoyImageError(
            "compile needs triton on a CUDA device: install it (on Windows triton-windows), or leave it off"
        )
    if device.type == "cpu" and shutil.which(compiler()) is None:
        raise JoyImageError(
            f"compile needs a C++ compiler on a CPU, and {compiler()} is not in PATH: install it, name another in the "
            "environment variable CXX, or leave compile off"
        )


def _check_backend(backend: str | Callable) -> None:
    try:
        torch.compile(_gated, backend=backend)
    except RuntimeError as error:
        listed = ", ".join(torch.compiler.list_backends())
        raise JoyImageError(
            f"compile is {backend!r}, which torch has no backend for: give True, or one of {listed}"
        ) from error


def compiler() -> str:
    """The C++ compiler that torch takes."""
    return os.environ.get("CXX", COMPILERS.get(sys.platform, "g++"))
