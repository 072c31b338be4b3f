"""`inspect`: what a file or folder is, told from names, shapes and headers, without reading a tensor."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..quantisation.kernels import described
from ..settings import PRODUCTS
from .configs import config_of, own_dtype
from .files import Weights, existing, open_weights
from .folders import Source, all_units, find_tokenizer, is_tokenizer, own_shift, own_steps, sources
from .namings import COMPONENTS, describe
from .shapes import SHAPES, Difference, compare

SIZES = {  # what is worth showing of a network's configuration: label, attribute path
    "mmdit": {
        name: name
        for name in (
            "hidden_size",
            "num_heads",
            "num_layers",
            "text_dim",
            "mlp_size",
            "patch_size",
            "rope_dims",
            "theta",
        )
    },
    "vae": {name: name for name in ("base_dim", "dim_mult", "num_res_blocks", "z_dim")},
    "encoder": {
        "hidden_size": "text_config.hidden_size",
        "num_layers": "text_config.num_hidden_layers",
        "num_heads": "text_config.num_attention_heads",
        "vocab_size": "text_config.vocab_size",
        "vision_hidden_size": "vision_config.hidden_size",
        "vision_depth": "vision_config.depth",
        "deepstack": "vision_config.deepstack_visual_indexes",
    },
}


# Kinds of layers by our names, the first pattern that matches: what is worth knowing the format of.
KINDS = {
    "mmdit": {
        "modulation tables": r"modulate_table",
        "norms": r"_norm\.",
        "attention": r"attn_(qkv|proj)\.weight",
        "MLP": r"_mlp\..*weight",
        "time and text embedder": r"condition_embedder\..*weight",
        "first and last layer": r"(img_in|proj_out)\.weight",
    },
    "vae": {
        "norms": r"gamma",
        "encoder": r"^(encoder|conv1)\..*weight",
        "decoder": r"^(decoder|conv2)\..*weight",
    },
    "encoder": {
        "norms": r"norm",
        "embedding": r"embed_tokens",
        "language head": r"^lm_head",
        "vision": r"visual\..*weight",
        "attention": r"self_attn\..*weight",
        "MLP": r"mlp\..*weight",
    },
}
OTHER_KIND = "biases"


@dataclass(frozen=True)
class PartReport:
    """A part of JoyImage, or weights that are none ("unknown"); `problem` says why they would not load."""

    part: str
    what: str
    files: tuple[str, ...]
    tensors: int
    bytes: int
    dtypes: dict[str, int]  # tensors of each dtype or quantised format
    naming: str = ""
    prefix: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    kinds: dict[str, dict[str, int]] = field(default_factory=dict)  # the same for each kind of layer
    # of formats that stay quantised in memory: what multiplies them, by each of `settings.PRODUCTS`
    products: dict[str, dict[str, str]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()
    problem: str = ""

    def __str__(self) -> str:
        first, *others = self.files
        more = f" and {len(others)} more" if others else ""
        naming = f"{self.naming} naming{f' behind {self.prefix}' if self.prefix else ''}, " if self.naming else ""
        kinds = "; ".join(f"{kind}: {_counts(formats)}" for kind, formats in self.kinds.items())
        lines = (
            f"{self.part}: {self.what}",
            f"  {first}{more}",
            f"  {naming}{_size(self.bytes)}, {self.tensors} tensors ({_counts(self.dtypes)})",
            f"  {kinds}" if len(self.dtypes) > 1 else "",
            *(
                f"  products of {form}, {kind}: {how}"
                for form, kinds in self.products.items()
                for kind, how in kinds.items()
            ),
            "  " + ", ".join(f"{name} {value}" for name, value in self.config.items()),
            f"  problem: {self.problem}" if self.problem else "",
        )
        return "\n".join(line for line in lines if line.strip())


@dataclass(frozen=True)
class Report:
    """What a path holds. `layout` is "diffusers", "original", "folder" or "file"; `advice` says what to do with it."""

    path: str
    layout: str
    parts: tuple[PartReport, ...]
    tokenizer: str | None
    advice: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """One screen of text."""
        tokenizer = f"tokenizer: {self.tokenizer}" if self.tokenizer else ""
        blocks = (f"{self.path}: {self.layout} layout", *map(str, self.parts), tokenizer, self.advice)
        return "\n".join(filter(None, blocks))


def inspect(path: str | Path) -> Report:
    """Say what a weight file, a part's folder or a whole model's folder is, and whether it would load.

    Reads headers only. Raises `MissingFileError` for a path or shard that does not exist, `CheckpointError` for a file
    that cannot be opened. Another model's weights, and names that are missing or unexpected, are reported instead.
    """
    path = existing(path)
    parts = tuple(
        report for unit in all_units(path) for report in _reports(unit, open_weights(unit, unit=unit != path))
    )
    encoder = next((Path(part.files[0]) for part in parts if part.part == "encoder"), None)
    tokenizer = find_tokenizer(encoder) if encoder else path if is_tokenizer(path) else None
    return Report(str(path), _layout(path, parts), parts, tokenizer and str(tokenizer), _advice(path, parts, tokenizer))


def _reports(unit: Path, weights: Weights) -> list[PartReport]:
    found = [_part(source) for source in sources(unit, weights)]
    return found or [PartReport("unknown", describe(weights), **_totals(weights, weights))]


def _part(source: Source) -> PartReport:
    match, what, sizes, difference = source.match, COMPONENTS[source.component], {}, Difference()
    try:
        config = config_of(source)
        own_dtype(source)
        sizes = {label: _attribute(config, path) for label, path in SIZES[match.component].items()}
        if match.component == "mmdit":
            sizes |= {"shift": own_shift(source), "steps": own_steps(source)}
        difference = compare(SHAPES[match.component](config), source)
        problem = str(difference)
        if match.component == "encoder" and not (config.head or config.tied):
            what += " without language head: it conditions and cannot answer"
    except CheckpointError as error:
        problem = str(error)
    return PartReport(
        match.component,
        what,
        naming=match.naming,
        prefix=match.prefix,
        config=sizes,
        kinds=_kinds(source),
        products={
            name: {kind: described(form, kind) for kind in PRODUCTS} for name, form in sorted(source.packed.items())
        },
        problem=problem,
        **_totals(source.weights, match.names.values()),
        **dataclasses.asdict(difference),
    )


def _kinds(source: Source) -> dict[str, dict[str, int]]:
    kinds: dict[str, Counter[str]] = {}
    for name, info in source.info.items():
        patterns = KINDS[source.component]
        kind = next((kind for kind, pattern in patterns.items() if re.search(pattern, name)), OTHER_KIND)
        kinds.setdefault(kind, Counter())[info.format.name] += 1
    return {kind: dict(formats) for kind, formats in kinds.items()}


def _counts(formats: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in formats.items())


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _attribute(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = getattr(config, name)
    return config


def _totals(weights: Weights, names: Collection[str]) -> dict[str, Any]:
    infos = [weights.info[name] for name in names]
    return {
        "files": tuple(map(str, weights.files)),
        "tensors": len(infos),
        "bytes": sum(info.nbytes for info in infos),
        "dtypes": dict(Counter(info.format.name for info in infos)),
    }


def _layout(path: Path, parts: Collection[PartReport]) -> str:
    if not path.is_dir():
        return "file"
    if (path / "model_index.json").is_file():
        return "diffusers"
    return "original" if {"mmdit", "vae"} & {p.part for p in parts if p.naming == "original"} else "folder"


def _advice(path: Path, parts: Collection[PartReport], tokenizer: Path | None) -> str:
    """The next step, as a command where there is one."""
    names = [part.part for part in parts if part.part in COMPONENTS]
    if not names:
        return "No weights of JoyImage."
    if any(part.problem for part in parts):
        return "It would not load: download it again, or get a file that fits."
    if set(names) == set(COMPONENTS) and tokenizer:
        return f'Complete: joyimage edit --model "{path}" photo.jpg "Make it snow."'
    given = " ".join(f'--{name} "{path}"' for name in names)
    absent = [f"--{name}" for name in COMPONENTS if name not in names] + ([] if tokenizer else ["--tokenizer"])
    return f"Give it to joyimage as {given}, with {', '.join(absent)}."
