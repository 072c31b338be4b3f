"""The scale that a LoRA is added with: alpha / rank, from wherever its trainer wrote alpha."""

from __future__ import annotations

import functools
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoints.files import read_json
from ..checkpoints.weights import Weights, parse_json
from ..errors import CheckpointError

MAX_ALPHA = 1e9
# PEFT's patterns come with a file, so what a match may cost is bounded: a name of 60 letters takes n repeats some
# 60 ** n steps, and a group that is repeated may take 2 ** 60. Runs of digits are short and cost nothing.
MAX_PATTERNS = 2048  # the published MMDiT has 485 layers
MAX_REPEATS = 3
DIGITS = re.compile(r"(\\d|\[0-9\])[+*?]")
REPEAT = re.compile(r"(?<!\\)[*+{]")
REPEATED_GROUP = re.compile(r"(?<!\\)\)[*+{]")
HEADER = "lora_adapter_metadata"  # where Diffusers puts PEFT's configuration
ALPHAS = ("lora_alpha", "network_alpha", "ss_network_alpha")  # where others put alpha, in the header as well


@dataclass(frozen=True)
class Scaling:
    """What says alpha where no key does: the file's own header, or PEFT's configuration beside PEFT's file.

    Without either, updates are added as they are.
    """

    path: Path
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)  # by the start of the keys that each is for

    @classmethod
    def of(cls, weights: Weights) -> Scaling:
        """Raises `CheckpointError` for a header or configuration that can't be read."""
        path = weights.files[0]
        if HEADER in weights.metadata:
            return cls(path, _by_start(path, weights.metadata[HEADER]))
        for name in ALPHAS:
            if name in weights.metadata:
                return cls(path, {"": {"lora_alpha": _number(path, name, weights.metadata[name])}})
        config = path.parent / "adapter_config.json"
        # PEFT writes the two together: beside another file it is of another adapter
        return cls(path, {"": read_json(config)} if path.stem == "adapter_model" and config.is_file() else {})

    def scale(self, layer: str, rank: int | None) -> float:
        """For a layer as the file's keys spell it, and the rank of its tensors, None where they are of none.

        Warns of a rank that contradicts the tensors; raises `CheckpointError` for an alpha that is no number.
        """
        start, config = next(
            ((start, each) for start, each in self.configs.items() if layer.startswith(start)), ("", {})
        )
        module = layer.removeprefix(start).removeprefix("base_model.model.")
        told = self._entry(config, "rank_pattern", module, config.get("r"))
        if told is not None and rank is not None and told != rank:
            warnings.warn(
                f"{self.path}: its configuration says rank {told!r:.40} where its tensors have another: that may be "
                "another adapter's, and so may the alpha in it",
                stacklevel=5,
            )
        alpha = self._entry(config, "alpha_pattern", module, config.get("lora_alpha", config.get("alpha")))
        if alpha is None:
            return 1.0
        rank = rank or told
        if rank is None:  # two whole factors of LoKr: LyCORIS passes over their alpha
            return 1.0
        if not _usable(alpha) or not _usable(rank) or rank < 1:
            raise CheckpointError(
                f"{self.path}: the lora_alpha of {layer} is {alpha!r:.40}, no number to use at rank {rank!r:.40}; "
                "download its file again"
            )
        return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)

    def _entry(self, config: Mapping[str, Any], name: str, module: str, default: Any) -> Any:
        """What PEFT takes for a module: of the first pattern that matches its name, or the last parts of it."""
        patterns = config.get(name)
        if not isinstance(patterns, dict):
            return default
        if len(patterns) > MAX_PATTERNS:
            raise CheckpointError(f"{self.path}: the {name} of its configuration has over {MAX_PATTERNS:,} patterns")
        try:
            return next((value for pattern, value in patterns.items() if _compiled(pattern).match(module)), default)
        except ValueError as error:
            raise CheckpointError(f"{self.path}: the {name} of its configuration: {error}") from None


@functools.lru_cache(maxsize=MAX_PATTERNS)
def _compiled(pattern: str) -> re.Pattern[str]:
    """PEFT's rule for a pattern. Raises `ValueError` for none, and for one that could run for hours on a name."""
    simple = DIGITS.sub("", pattern)
    if REPEATED_GROUP.search(simple) or len(REPEAT.findall(simple)) > MAX_REPEATS:
        raise ValueError(f"the pattern {pattern!r:.80} repeats too much to be run; name the layers more plainly")
    try:
        return re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, RecursionError, OverflowError):
        raise ValueError(f"{pattern!r:.80} is no pattern") from None


def _usable(number: Any) -> bool:
    return not isinstance(number, bool) and isinstance(number, int | float) and abs(number) < MAX_ALPHA


def _by_start(path: Path, text: str) -> dict[str, dict[str, Any]]:
    """Diffusers' header: "transformer.lora_alpha": 16, …"""
    configs: dict[str, dict[str, Any]] = {}
    try:
        for name, value in parse_json(text).items():
            component, _, entry = name.partition(".")
            configs.setdefault(f"{component}.", {})[entry] = value
    except ValueError as error:
        raise CheckpointError(f"{path}: its {HEADER} is no JSON object ({error})") from None
    return configs


def _number(path: Path, name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise CheckpointError(f"{path}: the {name} in its header is {text!r:.40}, which is no number") from None
