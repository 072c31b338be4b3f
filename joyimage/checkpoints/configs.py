"""Sizes and precision of the network that a file is for, from names, shapes and configurations, without torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from ..config import MMDiTConfig, WanVAEConfig
from ..errors import CheckpointError, JoyImageError
from .folders import Source
from .qwen import HEAD, EncoderConfig, released_config

Result = TypeVar("Result")

QUANTISED_DTYPE = "bfloat16"  # what quantised weights compute in: the published weights' dtype
WIDEST = "float32"  # of what networks compute in: no one trains them in more
DIFFUSERS_THETA = 256.0  # Diffusers' class default, in force where its config.json does not say


def config_of(source: Source) -> Any:
    """The sizes of a source's network: an `MMDiTConfig`, `WanVAEConfig` or `EncoderConfig`.

    Raises `CheckpointError` where names, shapes and configuration do not tell them.
    """
    return checked(source, CONFIGS[source.component])


def mmdit_config(source: Source) -> MMDiTConfig:
    config = MMDiTConfig.from_shapes(source.shapes, **{**_rotary(source.config), **source.overrides})
    wanted = source.config.get("num_layers", config.num_layers)
    if wanted > config.num_layers:
        raise CheckpointError(f"it has {config.num_layers} blocks, its config.json says {wanted}; download it again")
    return config


def _rotary(config: dict[str, Any]) -> dict[str, Any]:
    """What Diffusers' configuration says of the rotary embedding."""
    if "_class_name" in config:
        if not str(config["_class_name"]).startswith("JoyImage"):
            return {}
        config = {"theta": DIFFUSERS_THETA} | config
    convert = {"theta": ("theta", float), "rope_dim_list": ("rope_dims", tuple)}
    return {ours: to(config[name]) for name, (ours, to) in convert.items() if config.get(name) is not None}


def vae_config(source: Source) -> WanVAEConfig:
    statistics = ("latents_mean", "latents_std")
    given = {name: source.config[name] for name in statistics if source.config.get(name)}
    return WanVAEConfig.from_shapes(source.shapes, **{k: tuple(map(float, v)) for k, v in given.items()})


def encoder_config(source: Source) -> EncoderConfig:
    config = EncoderConfig.of(encoder_config_of(source), head=HEAD in source.match.names)
    vision, most = config.vision_config, len(source.match.names)
    for what, count in (
        ("decoder layers", config.text_config.num_hidden_layers),
        ("vision blocks", vision.depth),
        ("vision features", len(vision.deepstack_visual_indexes)),
    ):
        if count > most:
            raise CheckpointError(f"its config.json says {count:,} {what} and it has {most:,} tensors; get both anew")
    return config


def encoder_config_of(source: Source) -> dict[str, Any]:
    """The whole configuration beside the weights, else a released one."""
    return source.config if "text_config" in source.config else released_config(source.shapes)


CONFIGS: dict[str, Callable[[Source], Any]] = {"mmdit": mmdit_config, "vae": vae_config, "encoder": encoder_config}


def checked(source: Source, read: Callable[[Source], Result]) -> Result:
    """Read sizes; what is wrong with them is wrong with this file."""
    try:
        largest = max(int(n) for name in source.match.names for n in re.findall(r"\.(\d+)\.", name))
        if largest > len(source.match.names):  # a network of that many blocks would be built
            raise CheckpointError(f"it numbers a block {largest} among {len(source.match.names)} tensors")
        if empty := next((name for name, shape in source.shapes.items() if 0 in shape), None):
            raise CheckpointError(f"{source.match.names[empty]} is empty; download it again")
        return read(source)
    except CheckpointError as error:
        raise CheckpointError(f"{source.path}: {error}") from None
    except JoyImageError:  # no fault of the file
        raise
    except (TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"{source.path}: its config.json has an entry that cannot be used ({error})") from None


def own_dtype(source: Source) -> str:
    """The dtype that most of a component's bytes have, bfloat16 where some are quantised, float32 in place of float64.

    Raises `CheckpointError` if nothing can compute in it.
    """
    if any(info.quantised for info in source.info.values()):
        return QUANTISED_DTYPE
    sizes: Counter[str] = Counter()
    computes = {}
    for info in source.info.values():
        sizes[info.format.name] += info.nbytes
        computes[info.format.name] = info.format.computes
    name = max(sizes, key=sizes.__getitem__)
    if not computes[name]:
        raise CheckpointError(
            f"{source.path}: its weights are {name} without scales, in which nothing can compute; "
            "get a bf16, fp8, int8 or GGUF file"
        )
    return WIDEST if name == "float64" else name
