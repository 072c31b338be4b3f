"""What a step of a guided edit costs with each option: formats, products, attention, compiled blocks, fewer forwards.

Every column runs through what an edit runs through, `rendering.Renderer`, on the same network with random weights: the
two prompts share a forward where that is the default. Options that save forwards need several steps to act, the others
are measured on one.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from joyimage import JoyImage, tiny
from joyimage.attention import attention_by_name
from joyimage.compiling import compile_blocks
from joyimage.conditioning import Conditioning
from joyimage.config import MMDiTConfig
from joyimage.errors import JoyImageError
from joyimage.mmdit import MMDiT
from joyimage.quantisation.layers import use_products
from joyimage.rendering import Renderer, Run
from joyimage.settings import ATTENTIONS, AUTO, EXACT, PRODUCTS, Sampling
from tools.quantise import QUANTISERS

from .budgets import TEXT_TOKENS
from .measure import median_times, peak_gpu
from .networks import random_mmdit


@dataclass(frozen=True)
class Column:
    """One choice of options. `form` is one of `tools.quantise.QUANTISERS`, None for the machine's own dtype."""

    name: str
    form: str | None = None
    products: str = EXACT
    attention: str = AUTO
    compile: bool = False
    settings: dict[str, Any] = field(default_factory=dict)  # of `settings.Sampling`, besides steps


@dataclass(frozen=True)
class Size:
    """What the columns run on; `latent` is the side of target and reference in latents."""

    device: str
    dtype: torch.dtype
    config: MMDiTConfig
    latent: int
    steps: int  # of columns that save forwards
    repeats: int


BASE = Column("eager")
# What is the same in all steps is done once: steps of a run take less than one alone, and are compared with these.
RUN = Column("eager, a run of steps", settings={"preset": "exact"})
EIGHT_BIT = next(name for name in PRODUCTS if name != EXACT)
COLUMNS = (
    BASE,
    Column("compiled", compile=True),
    *(Column(form, form) for form in QUANTISERS),
    *(Column(f"{form}, {EIGHT_BIT} products", form, EIGHT_BIT) for form in QUANTISERS),
    *(Column(f"attention {name}", attention=name) for name in ATTENTIONS if name != AUTO),
    RUN,
    Column("forecast 3", settings={"forecast": 3}),
    Column("guidance_every 2", settings={"guidance_every": 2}),
    Column("guidance_interval 0.2 to 1", settings={"guidance_interval": (0.2, 1.0)}),
    Column("reference_every 4", settings={"reference_every": 4}),
    Column("block_cache 0.1", settings={"block_cache": 0.1}),
    Column("preset fast", settings={"preset": "fast"}),
    Column(f"float8_e4m3fn, {EIGHT_BIT} products, compiled", "float8_e4m3fn", EIGHT_BIT, compile=True),
    Column(
        f"float8_e4m3fn, {EIGHT_BIT} products, compiled, preset fast",
        "float8_e4m3fn", EIGHT_BIT, compile=True, settings={"preset": "fast"},
    ),
)  # fmt: skip


def prepare(network: MMDiT, column: Column, device: torch.device) -> None:
    """Set a network's options. Raises `JoyImageError` where the device does not have what a column asks for."""
    network.attention = attention_by_name(column.attention, device)
    network.run_block = None
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # that products stay exact: then it is another column once more
        try:
            use_products((network,), column.products, device)
        except UserWarning as warning:
            raise JoyImageError(str(warning)) from None
    if column.compile:
        compile_blocks(network, device)


def conditioning(size: Size) -> Conditioning:
    """Random contexts as long as real ones, and one reference."""
    generator = torch.Generator().manual_seed(1)
    positive, negative = (
        torch.randn(length, size.config.text_dim, generator=generator).to(size.device, size.dtype)
        for length in TEXT_TOKENS
    )
    reference = torch.randn(1, size.config.in_channels, 1, size.latent, size.latent, generator=generator)
    pixels = (8 * size.latent, 8 * size.latent)
    return Conditioning(positive, negative, (reference.to(size.device),), pixels)


def measure(size: Size, repeats: int, columns: Sequence[Column] = COLUMNS) -> list[dict]:
    """A result of each column: seconds of a step, forwards of a prompt in it, and the peak on a GPU; or why not.

    On a processor all are measured in turn. No two networks of the published size fit on a card: there one format
    comes after the other.
    """
    results: dict[str, dict] = {}
    used = list(dict.fromkeys(column.form for column in columns))
    for forms in [used] if size.device == "cpu" else [[form] for form in used]:
        results |= measure_forms(size, repeats, forms, [column for column in columns if column.form in forms])
        gc.collect()
        if size.device == "cuda":
            torch.cuda.empty_cache()
    base = {1: results[BASE.name]["seconds"], size.steps: results[RUN.name]["seconds"]}
    for result in results.values():
        if "seconds" in result:
            result["ratio"] = result["seconds"] / base[result["steps"]]
    return [results[column.name] for column in columns]


def measure_forms(size: Size, repeats: int, forms: Sequence[str | None], columns: list[Column]) -> dict[str, dict]:
    renderers = {form: renderer_of(random_mmdit(size.config, form, size.dtype, size.device)) for form in forms}
    condition, gpu = conditioning(size), size.device == "cuda"
    results: dict[str, dict] = {}
    runs: dict[str, Callable[[], object]] = {}
    for column in columns:
        steps = size.steps if column.settings else 1
        result = {
            "column": column.name,
            "format": column.form or str(size.dtype).removeprefix("torch."),
            "steps": steps,
        }
        results[column.name] = result
        renderer = renderers[column.form]
        settings = Sampling(steps=steps, **column.settings)
        try:
            prepare(renderer.mmdit, column, torch.device(size.device))
            result["forwards"] = forwards(renderer, condition, settings) / steps
            runs[column.name] = partial(prepared, renderer, column, condition, settings)
        except (JoyImageError, RuntimeError) as error:  # torch's own where a kernel does not take these sizes
            result["refused"] = str(error).splitlines()[0]
    for name, seconds in median_times(runs, repeats, gpu, warm=False).items():  # `forwards` has warmed them up
        results[name]["seconds"] = seconds / results[name]["steps"]
        if gpu:
            results[name]["peak_bytes"] = peak_gpu(runs[name])
    return results


def prepared(renderer: Renderer, column: Column, condition: Conditioning, settings: Sampling) -> None:
    """A run of a column on a network that others use too."""
    prepare(renderer.mmdit, column, condition.positive.device)
    renderer.sample([condition], [0], settings, Run())


def renderer_of(network: MMDiT) -> Renderer:
    """The way from a conditioning to a latent around a network; encoder and VAE of the bundled model stand beside."""
    model = JoyImage(network, tiny.vae(), tiny.encoder())
    return Renderer(network, model.vae, model.memory)


def forwards(renderer: Renderer, condition: Conditioning, settings: Sampling) -> float:
    """How many forwards of one sample a run takes, counted where all samples attend; a hook would recompile blocks."""
    network, found = renderer.mmdit, 0
    attention = network.attention

    def counted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        nonlocal found
        found += len(q)
        return attention(q, k, v)

    network.attention = counted
    try:
        renderer.sample([condition], [0], settings, Run())
    finally:
        network.attention = attention
    return found / len(network.double_blocks)


def rows(results: list[dict]) -> Iterator[str]:
    line = "{:<58}{:>12}{:>8}{:>10}{:>12}".format
    yield line("", "a step", "ratio", "forwards", "peak")
    for result in results:
        if "refused" in result:
            yield f"{result['column']:<58}  not here: {result['refused']:.110}"
            continue
        peak = f"{result['peak_bytes'] / 2**20:.0f} MiB" if "peak_bytes" in result else ""
        times = f"{result['seconds']:.3f} s", f"{result['ratio']:.2f}"
        yield line(result["column"], *times, f"{result['forwards']:.2f}", peak)
