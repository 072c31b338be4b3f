"""What a model folder holds, found by content: Diffusers' layout, the original one, or single files side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError, MissingFileError
from ..images import BASE_SIZES, NATIVE_BASE_SIZE
from ..quantised import Packed
from .files import existing, open_weights, read_json, weight_units
from .layouts import PARTS, Match, describe, detect
from .weights import TensorInfo, Weights, parse_json

# GGUF converters flatten what has five axes: of these kernels the last three, here after (out, in)
KERNELS = {"img_in.weight": (1, 2, 2), "model.visual.patch_embed.proj.weight": (2, 16, 16)}
# In a file's header: the base size of a model that was trained for another one than the published models.
BASE_SIZE_KEY = "joyimage.base_size"
TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # one of these sets


@dataclass(frozen=True)
class Source:
    """A part of JoyImage in a file, and the configuration that came with it."""

    path: Path
    weights: Weights
    match: Match
    config: dict[str, Any]

    @cached_property
    def info(self) -> dict[str, TensorInfo]:
        """Shapes and dtypes under our modules' names."""
        return {ours: _unflattened(ours, self.weights.info[theirs]) for ours, theirs in self.match.names.items()}

    def read(self, name: str) -> Tensor | Packed:
        """The tensor of this name of ours: a view of the mapped file where that can be."""
        return self.weights[self.match.names[name]].reshape(self.info[name].shape)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: info.shape for name, info in self.info.items()}


def open_part(path: str | Path, part: str) -> Source:
    """Open "mmdit", "vae" or "encoder" in a file or folder; in a whole model's folder, wherever it lies in there.

    Raises `CheckpointError` that says what the file is instead, `MissingFileError` for a folder without the part.
    """
    path = existing(path)
    if path.is_dir() and len(weight_units(path)) != 1:
        parts = find_parts(path)
        if part not in parts:
            raise MissingFileError(
                f"{path}: the folder holds no weights of {PARTS[part]} (found: {', '.join(parts) or 'nothing'}); "
                "expected a safetensors or PyTorch file, or shards with an index.json"
            )
        path = parts[part]
    weights = open_weights(path)
    found = next((source for source in sources(path, weights) if source.match.part == part), None)
    if found is None:
        raise CheckpointError(f"{path}: this looks like {describe(weights)}, not {PARTS[part]}; give another file")
    return found


def base_size(path: str | Path, part: str) -> int:
    """The base size that a part was trained for, from its file's header: 1024 where that says nothing.

    Raises `CheckpointError` for one that is not among `BASE_SIZES`; other errors as for `open_part`.
    """
    source = open_part(path, part)
    found = source.weights.metadata.get(BASE_SIZE_KEY, str(NATIVE_BASE_SIZE))
    if found not in map(str, BASE_SIZES):
        sizes = ", ".join(map(str, BASE_SIZES))
        raise CheckpointError(f"{source.path}: {BASE_SIZE_KEY} in its header is {found!r}, which is not one of {sizes}")
    return int(found)


def sources(path: Path, weights: Weights) -> list[Source]:
    """The parts in an opened file. Raises `CheckpointError` for one in a quantised format that is not supported."""
    found = [Source(path, weights, match, _config(weights)) for match in detect(weights)]
    for source in found:
        unknown = [name for name, info in source.info.items() if info.encoding and not info.encoding.unpack]
        if unknown:
            raise CheckpointError(
                f"{path}: {len(unknown)} weights are stored as {source.info[unknown[0]].format}, which is not "
                f"supported ({unknown[0]} is the first); get a file in fp8, int8, GGUF Q2_K to Q8_0, or bf16"
            )
    return found


def _unflattened(name: str, info: TensorInfo) -> TensorInfo:
    if name not in KERNELS or len(info.shape) == 5 or not info.shape:
        return info
    shape = (info.shape[0], math.prod(info.shape[1:]) // math.prod(KERNELS[name]), *KERNELS[name])
    return replace(info, shape=shape) if math.prod(shape) == math.prod(info.shape) else info


def find_parts(path: str | Path) -> dict[str, Path]:
    """Where the parts of a model lie: {"mmdit": …, "vae": …, "encoder": …, "tokenizer": …}, absent ones left out.

    `path` is a folder in any layout, searched one level deep, or a file. Other models' weights in it are passed over.
    Raises `CheckpointError` if a part is there twice, or its file is broken.
    """
    parts: dict[str, Path] = {}
    for unit in all_units(existing(path)):
        for match in detect(open_weights(unit)):
            if match.part in parts:
                raise CheckpointError(
                    f"{path}: holds {PARTS[match.part]} twice, in {parts[match.part]} and in {unit}; give one of them"
                )
            parts[match.part] = unit
    tokenizer = find_tokenizer(parts.get("encoder", Path(path)))
    return parts | ({"tokenizer": tokenizer} if tokenizer else {})


def all_units(path: Path) -> list[Path]:
    """What holds weights in a folder and its subfolders: a subfolder that is one set of weights, else its files."""
    if not path.is_dir():
        return [path]
    found = []
    for folder in (path, *sorted(child for child in path.iterdir() if child.is_dir())):
        units = weight_units(folder)
        found += [folder] if len(units) == 1 else units
    return found


def find_tokenizer(encoder: Path) -> Path | None:
    """The folder with the tokenizer of an encoder: its own, or `tokenizer` or `processor` in it or beside it."""
    folder = encoder if encoder.is_dir() else encoder.parent
    places = (base / name for base in (folder, folder.parent) for name in ("tokenizer", "processor"))
    return next(filter(is_tokenizer, (folder, *places)), None)


def is_tokenizer(folder: Path) -> bool:
    return any(all((folder / name).is_file() for name in names) for names in TOKENIZER_FILES)


def _config(weights: Weights) -> dict[str, Any]:
    """The configuration in the file's header, else that of the `config.json` beside it, else nothing."""
    if text := weights.metadata.get("config"):
        try:
            return parse_json(text)
        except ValueError as error:
            raise CheckpointError(f"{weights.files[0]}: the config in its header is no JSON object ({error})") from None
    file = weights.files[0].parent / "config.json"
    return read_json(file) if file.is_file() else {}
