"""How a memory budget is spent: what a part of the model takes while it works, and which of its blocks stay.

A part is on the device only while it works. What it takes there are its weights outside blocks, the blocks that stay
for as long as it works, two slots through which the other blocks stream, and its activations. `place` fills a budget
with as many blocks as it holds; `streaming` carries that out. Nothing here touches a weight: shapes are enough.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from ..config import MMDiTConfig, WanVAEConfig
from ..errors import JoyImageError
from ..quantisation.formats import UNPACKED_AT_ONCE

if TYPE_CHECKING:
    from torch import nn
    from transformers import Qwen3VLForConditionalGeneration, Qwen3VLModel

    from ..checkpoints.outlines import Outline
    from ..mmdit import MMDiT
    from ..vae import WanVAE

    Network: TypeAlias = nn.Module | Outline

Module = TypeVar("Module", bound="Network")

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
ALIGNMENT = 512  # bytes, of a tensor in a slot; what CUDA's allocator rounds to as well
ROTARY = "inv_freq"  # how names of rotary frequencies end
SLOTS = 2  # one for the block that runs, one for the block that is on its way
# Taken by CUDA itself in every process (its context, the libraries' workspaces), and gaps between allocations.
RESERVES = {"cuda": 512 * 2**20}

# Measured as the bytes of all tensors alive at once, at the published widths (MMDiT, VAE) or in their proportions.
MMDIT_VECTORS = 12.9  # of the hidden size per token: 10.4 to 12.3 with one prompt, and what another one keeps
DECODER_VECTORS = 16  # of the decoder's hidden size per token: 14.1 without pictures
VISION_VECTORS = 42  # of the vision tower's hidden size per patch: 40.3 with the pixels that come in
VAE_VECTORS = 6  # of the VAE's first width per pixel: 4.1 to encode, 3.6 to decode; the rest is for the convolutions
VAE_COARSE_VECTORS = 0.75  # of the layers that never run in tiles: 0.53
VAE_KEPT_VECTORS = 0.1  # of what comes out of them and of the whole picture, beside a tile: 0.094
UNPACKING_COPIES = 4  # of the float32 chunk in which a quantised weight becomes floating point
KEPT_COPIES = 3  # of the references' keys and values: for two prompts, and for one while it gets new ones
VAE_HALO = 56  # pixels that a tile reads beyond its own on each side, when decoding
TILES = (None, 1024, 512, 256)  # pixels; from the fastest to the smallest


def parse_size(size: str | int) -> int:
    """Bytes in "12GB" (10^9 each, as cards are sold), "8 GiB" (2^30 each) or "500MB"; a number is bytes already.

    Raises `JoyImageError` for anything else.
    """
    if isinstance(size, int) and size > 0:
        return size
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B)", str(size).strip(), flags=re.IGNORECASE)
    if not match or isinstance(size, int) or float(match[1]) == 0:
        raise JoyImageError(f"{size!r} is no amount of memory; give a number and a unit, such as 12GB, 8GiB or 500MB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def padded(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT


def readable(count: int, up: bool = False) -> str:
    """In GB or MB with two decimals; rounded `up` it is enough when it is given back as a budget."""
    if count == 0:
        return "-"
    unit = next((name for name in ("GB", "MB") if count >= 0.1 * UNITS[name]), "KB")
    amount = 100 * count / UNITS[unit]
    return f"{(math.ceil(amount) if up else round(amount)) / 100:.2f} {unit}"


# -- what a part takes ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Blocks of one kind, which run one after the other and can stream; `blocks` are the bytes of each."""

    name: str
    blocks: tuple[int, ...]

    def held(self, resident: Sequence[int]) -> int:
        """Bytes on the device when the blocks with these indices stay and the others stream."""
        streamed = [size for i, size in enumerate(self.blocks) if i not in resident]
        return sum(self.blocks[i] for i in resident) + SLOTS * max(streamed, default=0)

    @property
    def least(self) -> int:
        return min(self.held(()), self.held(range(len(self.blocks))))

    def fill(self, room: int) -> tuple[int, ...]:
        """The blocks to keep in `room` bytes: as many as go in, spread evenly, so that each copy has time."""
        count = len(self.blocks)
        choices = (tuple(i * count // kept for i in range(kept)) for kept in range(count, -1, -1))
        return next(resident for resident in choices if self.held(resident) <= room)


@dataclass(frozen=True)
class Part:
    """The bytes of a network: of its groups of blocks, and of all the rest, which must be there while it works."""

    name: str
    rest: int
    groups: tuple[Group, ...] = ()

    @property
    def weights(self) -> int:
        return self.rest + sum(sum(group.blocks) for group in self.groups)

    @property
    def least(self) -> int:
        """Bytes of weights on the device when as much streams as can."""
        return self.rest + sum(group.least for group in self.groups)


@dataclass(frozen=True)
class Placement:
    """Which blocks of each group stay on the device while a part works."""

    part: Part
    activations: int
    resident: tuple[tuple[int, ...], ...]

    @property
    def held(self) -> int:
        """Bytes of weights on the device."""
        groups = zip(self.part.groups, self.resident, strict=True)
        return self.part.rest + sum(group.held(resident) for group, resident in groups)

    @property
    def streamed(self) -> int:
        """Bytes that are copied for each run through the blocks."""
        groups = zip(self.part.groups, self.resident, strict=True)
        return sum(size for group, stay in groups for i, size in enumerate(group.blocks) if i not in stay)

    @property
    def peak(self) -> int:
        return self.held + self.activations


def place(part: Part, activations: int, budget: int, reserve: int = 0) -> Placement:
    """Fill the budget, less the reserve: the groups in their order, each with as many blocks as still go in.

    Raises `JoyImageError` that names the least budget that works.
    """
    left = budget - reserve - part.least - activations
    if left < 0:
        raise JoyImageError(
            f"a memory of {readable(budget)} is too small: the {part.name} needs at least "
            f"{readable(budget - left, up=True)}, of which {readable(activations)} are activations; give that much, "
            "or a smaller size, fewer references or quantised weights"
        )
    resident = []
    for group in part.groups:
        resident.append(group.fill(left + group.least))
        left += group.least - group.held(resident[-1])
    return Placement(part, activations, tuple(resident))


def measure(name: str, network: Network, groups: Mapping[str, Iterable[Network]], idle=()) -> Part:
    """The sizes of a network, or of an outline of one; `idle` modules are left out."""
    blocks = {label: list(modules) for label, modules in groups.items()}
    apart = [*idle, *(block for modules in blocks.values() for block in modules)]
    return Part(
        name,
        size_of(owners(network.modules(), apart)),
        tuple(Group(label, tuple(size_of(b.modules()) for b in modules)) for label, modules in blocks.items()),
    )


def owners(modules: Iterable[Module], apart: Iterable[Network]) -> Iterator[Module]:
    """Of the modules of a network those outside the modules `apart`."""
    passed = {id(inner) for module in apart for inner in module.modules()}
    return (module for module in modules if id(module) not in passed)


def size_of(modules: Iterable[Network]) -> int:
    """Bytes of the parameters and buffers that modules have of their own; what is shared counts once.

    Rotary frequencies, which are computed and in no file, do not count: versions of transformers hold them once or
    twice, in at most 512 bytes each.
    """
    named = (
        pair
        for module in modules
        for pair in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    )
    tensors = {id(tensor): tensor for name, tensor in named if not name.endswith(ROTARY)}
    return sum(padded(tensor.nbytes) for tensor in tensors.values())


# -- activations ------------------------------------------------------------------------------------------------------


def mmdit_activations(config: MMDiTConfig, tokens: int, itemsize: int) -> int:
    """Bytes of one forward over so many image and text tokens in a dtype of `itemsize` bytes."""
    return int(MMDIT_VECTORS * config.hidden_size * tokens * itemsize)


def kept_references(config: MMDiTConfig, tokens: int, itemsize: int) -> int:
    """Bytes of the keys and values of so many tokens of references that a run keeps from step to step."""
    return KEPT_COPIES * 2 * config.hidden_size * config.num_layers * tokens * itemsize


def encoder_activations(config: Any, pixels: int, text_tokens: int, itemsize: int) -> int:
    """Bytes to condition or answer; `config` is transformers', `pixels` those of all pictures together.

    The KV cache, and the mask that keeps prompts apart, are included.
    """
    text, vision = config.text_config, config.vision_config
    patches = -(-pixels // vision.patch_size**2)
    tokens = patches // vision.spatial_merge_size**2 + text_tokens
    cache = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
    per_token = DECODER_VECTORS * text.hidden_size + cache + text_tokens
    return itemsize * (VISION_VECTORS * vision.hidden_size * patches + per_token * tokens)


def vae_activations(config: WanVAEConfig, pixels: int, itemsize: int, tile: int | None = None) -> int:
    """Bytes to encode or decode a picture, whole or in tiles of `tile` x `tile` pixels."""
    vectors = VAE_VECTORS * pixels
    if tile is not None:
        in_tiles = VAE_VECTORS * (tile + 2 * VAE_HALO) ** 2 + VAE_KEPT_VECTORS * pixels
        vectors = min(vectors, max(in_tiles, VAE_COARSE_VECTORS * pixels))
    return int(vectors * config.base_dim * itemsize)


def unpacking(network: Network, itemsize: int) -> int:
    """Bytes for the one quantised layer that is floating point at a time: the largest, and float32 on the way."""
    packed = (getattr(module, "packed", None) for module in network.modules())
    largest = max((math.prod(weight.shape) for weight in packed if weight is not None), default=0)
    return largest * itemsize + UNPACKING_COPIES * 4 * min(largest, UNPACKED_AT_ONCE)


def itemsize(network: Network) -> int:
    """Bytes of a number in a network's activations: those of most biases and norms, which are never kept otherwise."""
    return Counter(p.element_size() for _, p in network.named_parameters() if p.ndim == 1).most_common(1)[0][0]


class Configs(NamedTuple):
    """The networks' sizes; the encoder's are transformers', or an `EncoderConfig`."""

    encoder: Any
    mmdit: MMDiTConfig
    vae: WanVAEConfig


class Needs:
    """What the networks take while they work, in bytes. Outlines of them do as well.

    `networks` are the "encoder" (transformers'), the "mmdit" and the "vae", the order in which they work.
    """

    def __init__(
        self,
        encoder: Qwen3VLForConditionalGeneration | Qwen3VLModel | Outline,
        mmdit: MMDiT | Outline,
        vae: WanVAE | Outline,
    ):
        self.networks: dict[str, Network] = {"encoder": encoder, "mmdit": mmdit, "vae": vae}
        self.configs = Configs(encoder.config, mmdit.config, vae.config)
        backbone: Any = getattr(encoder, "model", encoder)
        # The decoder first, so that it gets the room: an answer runs it for each token, the vision tower once.
        self.groups: dict[str, dict[str, Any]] = {
            "encoder": {"decoder layers": backbone.language_model.layers, "vision blocks": backbone.visual.blocks},
            "mmdit": {"blocks": mmdit.double_blocks},
            "vae": {},
        }
        head = getattr(encoder, "lm_head", None)
        self.idle = {"encoder": [] if head is None else [head]}  # what only answers need
        self.itemsize = {name: itemsize(network) for name, network in self.networks.items()}

    @property
    def weights(self) -> int:
        """Of all parts together."""
        return sum(self.part(name).weights for name in self.networks)

    def part(self, name: str, idle: Iterable[Network] = ()) -> Part:
        return measure(name, self.networks[name], self.groups[name], idle)

    def encoder(self, pixels: int, text_tokens: int) -> int:
        network, item = self.networks["encoder"], self.itemsize["encoder"]
        return encoder_activations(self.configs.encoder, pixels, text_tokens, item) + unpacking(network, item)

    def mmdit(self, tokens: int, kept: int = 0) -> int:
        """Of a forward over so many image and text tokens, and of so many tokens of references that are `kept`."""
        network, item, config = self.networks["mmdit"], self.itemsize["mmdit"], self.configs.mmdit
        return mmdit_activations(config, tokens, item) + kept_references(config, kept, item) + unpacking(network, item)

    def vae(self, pixels: int, tile: int | None) -> int:
        return vae_activations(self.configs.vae, pixels, self.itemsize["vae"], tile)

    def tile(self, pixels: int, room: int) -> int | None:
        """The fastest tile with which the VAE works in `room` bytes: None for whole, the smallest where none does."""
        left = room - self.part("vae").weights
        return next((tile for tile in TILES if self.vae(pixels, tile) <= left), TILES[-1])


def place_all(needs: Needs, activations: Mapping[str, int], budget: int, reserve: int) -> dict[str, Placement]:
    """The parts' placements when they condition, denoise and decode; the largest first, for an error to name."""
    parts = {name: needs.part(name, needs.idle.get(name, ())) for name in activations}
    largest_first = sorted(parts, key=lambda name: parts[name].least + activations[name], reverse=True)
    return {name: place(parts[name], activations[name], budget, reserve) for name in largest_first}
