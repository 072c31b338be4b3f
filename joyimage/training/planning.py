"""What a training will take, before anything is loaded: buckets, tokens, memory and time of a step.

Memory is counted as the bytes of all tensors alive at once, and was measured so at the published width: with
checkpointing the plan is never below and at most a quarter above. Time is arithmetic: operations over what a card does,
see `UTILISATION`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..batching import as_tokens
from ..checkpoints.shapes import mmdit_shapes
from ..config import MMDiTConfig
from ..encoder.limits import MAX_PIXELS, MIN_PIXELS
from ..memory.budget import RESERVES, Needs, Placement, mmdit_activations, place, readable
from .checking import Checked
from .fitting import Sizes
from .targets import layers_meant

if TYPE_CHECKING:
    from .settings import Training

FLOAT32 = 4  # bytes: adapters, their gradients and what the optimiser keeps are float32 always
# Of the hidden size per token and block, what a block keeps for its backward pass apart from the adapters' inputs.
CORE_VECTORS = 14  # 14.0 in bf16, 13.0 in float32
# The same of what one block's backward pass takes while it runs, in bytes and in vectors: measured 5 to 15 bytes in
# bf16, 6 to 20 in float32.
TRANSIENT_BYTES, TRANSIENT_VECTORS = 12, 2
OPTIMISER = {"adamw": 2, "muon": 1}  # numbers kept of each trained one
BYTES_PER_TOKEN = 3  # of a caption: 4 to 5 of English, 3 of Chinese
TURN_TOKENS = 8  # of a context besides its text and pictures: what closes the user's turn and opens the answer
# Matrix products in bf16, per second, as the makers state them, without sparsity.
CARDS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 5090": 209e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
UTILISATION = 0.4  # assumed share of that
BUS = 20e9  # bytes per second, assumed, from pinned main memory to the card
# Forwards' worth of a step: products of frozen layers have one backward product, attention's two have two each
BACKWARD_LINEAR, BACKWARD_ATTENTION = 1, 2
TEACHER_FORWARDS = 2  # with and without the prompt


@dataclass(frozen=True)
class Bucket:
    """Examples of equal sizes: these can share a batch."""

    sizes: Sizes  # pixels: the target's, then each control's
    examples: int
    target: int  # image tokens
    references: int
    text: int  # tokens of the longest context, estimated from bytes, with the pictures that the encoder sees

    @property
    def tokens(self) -> int:
        """Of one sample."""
        return self.target + self.references + self.text


@dataclass(frozen=True)
class TrainingPlan:
    """All amounts of memory are bytes; those of the device are for the bucket with the most tokens."""

    examples: int
    unusable: int
    buckets: tuple[Bucket, ...]  # the most frequent first
    batch_size: int
    trained: int  # numbers of the adapter
    base: Placement  # of the frozen MMDiT
    adapter: int
    gradients: int
    optimiser: int
    ema: int
    activations: int
    without_checkpointing: int  # what the activations would be
    dense: int  # quantised weights that are floating point at one time; part of the activations
    reserve: int
    disk: int  # of the cached contexts and latents
    operations: float  # of one step, in the bucket with the most tokens
    card: str | None  # of `CARDS`, None where it is none of them

    @property
    def peak(self) -> int:
        """Expected bytes on the device, the reserve included."""
        return self.reserve + self.base.peak

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        own = {name: value for name, value in asdict(self).items() if name != "base"}
        base = {"weights": self.base.part.weights, "held": self.base.held, "streamed": self.base.streamed}
        seconds = {card: self.seconds_on(card) for card in (CARDS if self.card is None else (self.card,))}
        return {**own, "base": base, "peak": self.peak, "seconds": seconds}

    @property
    def seconds(self) -> float | None:
        """How long that step takes on `card`."""
        return None if self.card is None else self.seconds_on(self.card)

    def seconds_on(self, card: str) -> float:
        """How long that step takes on one of `CARDS`: by its products, or by the copies of blocks that stream."""
        return max(self.operations / (UTILISATION * CARDS[card]), 2 * self.base.streamed / BUS)

    def __str__(self) -> str:
        row = "{:<12}{:>10}  {}".format
        lines = [
            f"{self.examples} examples, {self.unusable} that cannot be used; {readable(self.disk)} of disk when cached"
        ]
        lines += [
            f"{bucket.examples} of {_sizes(bucket.sizes)}: {bucket.tokens} tokens "
            f"({bucket.target} target, {bucket.references} references, up to {bucket.text} text)"
            for bucket in self.buckets
        ]
        lines += [
            row("frozen base", readable(self.base.held), f"of {readable(self.base.part.weights)}" + self._streaming),
            row("adapter", readable(self.adapter), f"{self.trained:,} numbers in float32"),
            row("gradients", readable(self.gradients), ""),
            row("optimiser", readable(self.optimiser), ""),
            row("EMA", readable(self.ema), ""),
            row("activations", readable(self.activations), f"in batches of {self.batch_size}" + self._saved),
            row("reserve", readable(self.reserve), ""),
            f"expected peak {readable(self.peak)}",
            self._time,
        ]
        return "\n".join(line.rstrip() for line in lines)

    @property
    def summary(self) -> str:
        """In one line."""
        most = max(bucket.tokens for bucket in self.buckets)
        return f"{self.trained:,} numbers to train, up to {most} tokens, expected peak {readable(self.peak)}"

    @property
    def _streaming(self) -> str:
        return f", {readable(self.base.streamed)} stream twice in each step" if self.base.streamed else ""

    @property
    def _saved(self) -> str:
        if self.activations == self.without_checkpointing:
            return "; checkpointing is off"
        return f"; {readable(self.without_checkpointing)} without checkpointing"

    @property
    def _time(self) -> str:
        work = f"a step is {_counted(self.operations)} operations"
        cards = CARDS if self.card is None else (self.card,)
        each = ", ".join(f"{_duration(self.seconds_on(card))} on {card}" for card in cards)
        return f"{work}: {each}, if a card does {UTILISATION:.0%} of what its maker states"


def plan_training(
    needs: Needs,
    checked: Checked,
    settings: Training,
    *,
    budget: int | None = None,
    device: str = "cuda",
    card: str | None = None,
) -> TrainingPlan:
    """Plan the training of a checked set.

    `needs` are those of a loaded model, or of one in files, see `joyimage.planning.open_needs`. With a `budget` in
    bytes blocks that do not fit stream. `card` is the GPU's name, as torch has it.
    Raises `JoyImageError` when the budget is too small, naming the least that works, and for targets of no layer.
    """
    config, item = needs.configs.mmdit, needs.itemsize["mmdit"]
    buckets = _buckets(needs, checked)
    largest = max(buckets, key=lambda bucket: bucket.tokens)
    layers = trained_layers(config, settings.targets)
    trained = trained_numbers(layers, settings)
    batch = settings.batch_size
    streams = {"img": batch * (largest.target + largest.references), "txt": as_tokens(batch * largest.text, batch)}
    dense = {kept: _dense(needs, whole) for kept, whole in ((True, False), (False, True))}
    kept = {
        checkpointing: training_activations(config, streams, layers, item, checkpointing) + dense[checkpointing]
        for checkpointing in (True, False)
    }
    activations = max(kept[settings.checkpointing], _teacher(config, streams, item, settings))
    fixed = {"adapter": trained, "gradients": trained, "optimiser": OPTIMISER[settings.optimizer] * trained}
    fixed["ema"] = trained if settings.ema else 0
    fixed = {name: FLOAT32 * count for name, count in fixed.items()}
    part, reserve = needs.part("mmdit"), RESERVES.get(device, 0)
    taken = activations + sum(fixed.values())
    base = place(part, taken, reserve + part.weights + taken if budget is None else budget, reserve)
    work = batch * settings.accumulation * operations(config, largest, settings)
    known = next((name for name in CARDS if card and name in card), None)
    return TrainingPlan(
        len(checked.examples), len(checked.unusable), buckets, batch, trained, base,
        **fixed, activations=activations, without_checkpointing=kept[False], dense=dense[settings.checkpointing],
        reserve=reserve, disk=_disk(needs, buckets), operations=work, card=known,
    )  # fmt: skip


# -- data -------------------------------------------------------------------------------------------------------------


def _buckets(needs: Needs, checked: Checked) -> tuple[Bucket, ...]:
    longest: dict[Sizes, int] = {}
    for example, sizes in zip(checked.examples, checked.sizes, strict=True):
        text = math.ceil(len(example.caption.encode(errors="replace")) / BYTES_PER_TOKEN)
        longest[sizes] = max(longest.get(sizes, 0), text)
    return tuple(
        Bucket(sizes, count, *_tokens(needs, sizes), TURN_TOKENS + longest[sizes] + _seen(needs, sizes[1:]))
        for sizes, count in checked.buckets.items()
    )


def _tokens(needs: Needs, sizes: Sizes) -> tuple[int, int]:
    """Image tokens of the target, and of all references."""
    pixels = needs.configs.vae.spatial_factor**2 * math.prod(needs.configs.mmdit.patch_size)
    target, *references = (height * width // pixels for height, width in sizes)
    return target, sum(references)


def _seen(needs: Needs, sizes: Sizes) -> int:
    """Tokens of pictures in a context."""
    vision = needs.configs.encoder.vision_config
    per_token = (vision.patch_size * vision.spatial_merge_size) ** 2
    return sum(min(max(h * w, MIN_PIXELS), MAX_PIXELS) // per_token + 2 for h, w in sizes)  # 2 that enclose it


def _disk(needs: Needs, buckets: Sequence[Bucket]) -> int:
    """Two contexts of each example, and the latents, as if none were shared."""
    config, item = needs.configs.mmdit, needs.itemsize["mmdit"]
    latent = FLOAT32 * config.in_channels * math.prod(config.patch_size)
    return sum(b.examples * (2 * b.text * config.text_dim * item + (b.target + b.references) * latent) for b in buckets)


# -- memory -----------------------------------------------------------------------------------------------------------


def trained_layers(config: MMDiTConfig, targets: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of the linear layers that `targets` mean. Raises `JoyImageError` for one that means none."""
    shapes = {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in mmdit_shapes(config).items()
        if name.endswith(".weight") and len(shape) == 2
    }
    return {name: shapes[name] for name in layers_meant(shapes, targets, config.num_layers)}


def trained_numbers(layers: Mapping[str, tuple[int, int]], settings: Training) -> int:
    """How many numbers the updates of these layers have."""
    magnitudes = settings.adapter == "dora"
    return sum(settings.rank * (rows + columns) + rows * magnitudes for rows, columns in layers.values())


def training_activations(
    config: MMDiTConfig,
    tokens: Mapping[str, int],
    layers: Mapping[str, tuple[int, int]],
    itemsize: int,
    checkpointing: bool,
) -> int:
    """Bytes that a step keeps, beyond weights, gradients and the optimiser's state.

    `tokens` are those of the streams "img" and "txt" of a whole batch, text as `batching.as_tokens` counts it; `layers`
    are the trained ones, each of which keeps its input in float32. With checkpointing a block keeps its own input, and
    one block all of it.
    """
    unit = config.hidden_size * sum(tokens.values())
    blocks = [CORE_VECTORS * unit * itemsize] * config.num_layers
    for name, (_, columns) in layers.items():
        kind, _, rest = name.partition(".")
        if kind == "double_blocks":
            blocks[int(rest.split(".")[0])] += FLOAT32 * columns * tokens["txt" if "txt_" in rest else "img"]
    held = config.num_layers * unit * itemsize + max(blocks) if checkpointing else sum(blocks)
    return held + (TRANSIENT_BYTES + TRANSIENT_VECTORS * itemsize) * unit


def _teacher(config: MMDiTConfig, tokens: Mapping[str, int], itemsize: int, settings: Training) -> int:
    return mmdit_activations(config, sum(tokens.values()), itemsize) if settings.objective == "guidance" else 0


def _dense(needs: Needs, whole: bool) -> int:
    """Bytes of quantised weights made floating point, which autograd keeps: of one block at a time, or of all."""
    blocks: Any = needs.groups["mmdit"]["blocks"]
    sizes = []
    for block in blocks:
        packed = (getattr(module, "packed", None) for module in block.modules())
        sizes.append(sum(math.prod(weight.shape) for weight in packed if weight is not None))
    return needs.itemsize["mmdit"] * (sum(sizes) if whole else max(sizes, default=0))


# -- time -------------------------------------------------------------------------------------------------------------


def operations(config: MMDiTConfig, bucket: Bucket, settings: Training) -> float:
    """Multiplications and additions of a step with one sample; without the 1 or 2 % of the adapters."""
    size, mlp = config.hidden_size, config.mlp_size
    linear = 2.0 * config.num_layers * bucket.tokens * (4 * size**2 + 2 * size * mlp)
    attention = 4.0 * config.num_layers * bucket.tokens**2 * size
    forwards = 1 + settings.checkpointing + TEACHER_FORWARDS * (settings.objective == "guidance")
    return linear * (forwards + BACKWARD_LINEAR) + attention * (forwards + BACKWARD_ATTENTION)


def _counted(number: float) -> str:
    scale, word = (1e12, "trillion") if number >= 1e11 else (1e9, "billion")
    return f"{number / scale:,.1f} {word}"


def _duration(seconds: float) -> str:
    if seconds < 0.1:
        return "less than 1 ms" if seconds < 0.001 else f"{1000 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _sizes(sizes: Sizes) -> str:
    return " from ".join(filter(None, (f"{sizes[0][0]}x{sizes[0][1]}", ", ".join(f"{h}x{w}" for h, w in sizes[1:]))))
