"""What a model folder holds, found by content: Diffusers' layout, the original one, or single files side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import Shapes
from ..errors import CheckpointError, JoyImageError, MissingFileError
from ..quantisation.formats import Format, stays_quantised
from ..settings import BASE_SIZES, NATIVE_BASE_SIZE, NATIVE_SHIFT, NATIVE_STEPS, check_shift, check_steps
from .files import existing, open_weights, read_json, refusing, weight_units
from .namings import COMPONENTS, SOURCES, Match, describe, detect
from .weights import TensorInfo, Weights, parse_json

if TYPE_CHECKING:
    from torch import Tensor

    from ..quantisation.tensor import QuantizedTensor

# GGUF converters flatten what has five axes: of these kernels the last three, here after (out, in)
KERNELS = {"img_in.weight": (1, 2, 2), "model.visual.patch_embed.proj.weight": (2, 16, 16)}
# In a file's header: the base size of a model that was trained for another one than the published models.
BASE_SIZE_KEY = "joyimage.base_size"
# And the shift and steps of one with another schedule.
SHIFT_KEY, STEPS_KEY = "joyimage.shift", "joyimage.steps"
SCHEDULER = "scheduler_config.json"  # what says the shift in a folder of Diffusers
TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # one of these sets


@dataclass(frozen=True)
class Source:
    """A component of JoyImage in an opened file, and the configuration that came with it."""

    path: Path
    weights: Weights
    match: Match
    config: dict[str, Any]
    known: Shapes = field(default_factory=dict)  # shapes that the file has filled up to its format's multiples
    overrides: Mapping[str, Any] = field(default_factory=dict)  # of the network's sizes, before what the file says

    @property
    def component(self) -> str:
        """ "mmdit", "vae" or "encoder"."""
        return self.match.component

    @cached_property
    def info(self) -> dict[str, TensorInfo]:
        """Shapes and formats under our modules' names."""
        return {ours: self._info(ours, self.weights.info[theirs]) for ours, theirs in self.match.names.items()}

    def _info(self, ours: str, info: TensorInfo) -> TensorInfo:
        if info.format.multiple == 1:
            return _unflattened(ours, info)
        shape = self.known.get(ours)
        bias = self.match.names.get(f"{ours.removesuffix('weight')}bias")
        if shape is None and bias is not None:  # which is not filled up, and so tells the number of rows
            shape = (*self.weights.info[bias].shape[:1], *info.shape[1:])
        fits = shape and info.format.filled_up(shape) == info.shape and not shape[-1] % info.format.block
        return replace(info, shape=shape) if fits else info

    def read(self, name: str) -> Tensor | QuantizedTensor:
        """The tensor of this name of ours: a view of the mapped file where that can be."""
        from ..quantisation.tensor import QuantizedTensor  # here: it needs torch

        stored, shape = self.weights[self.match.names[name]], self.info[name].shape
        return stored.fit(shape) if isinstance(stored, QuantizedTensor) else stored.reshape(shape)

    @property
    def packed(self) -> dict[str, Format]:
        """The formats of the weights that stay quantised in memory, by their names."""
        return {
            info.format.name: info.format
            for name, info in self.info.items()
            if info.quantised and stays_quantised(self.component, name, info.shape, info.format)
        }

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: info.shape for name, info in self.info.items()}

    def fitted(self, expected: Shapes) -> Source:
        """The same for a network of these shapes, to which what the file has filled up is cut."""
        known = {
            name: expected[name] for name, info in self.info.items() if info.format.multiple > 1 and name in expected
        }
        return replace(self, known=known) if known else self


class Model(dict[str, Source]):
    """The components of a model by name; `tokenizer` is the folder with the encoder's, where there is one."""

    tokenizer: Path | None = None


def open_model(
    path: str | Path | None = None, *, tokenizer: str | Path | None = None, **given: str | Path | None
) -> Model:
    """Open the three components of a model, each file once: in a folder, and those `given` by name where they are.

    `path` is a folder in any layout, searched one level deep, or a file. A `mmdit`, `vae` or `encoder` that is given
    replaces the folder's, and so does a `tokenizer`.
    Raises `JoyImageError` if a component is neither here nor there; else as `open_component` and `find_parts`.
    """
    opened: dict[Path, Weights] = {}
    found = {} if path is None else _search(existing(path), opened)
    missing = [name for name in COMPONENTS if name not in found and given.get(name) is None]
    if missing:
        where = "" if path is None else f", nor is any in {path}"
        raise JoyImageError(f"no {' and no '.join(missing)} given{where}; pass a model folder, or one path per part")
    model = Model()
    for name in COMPONENTS:
        value = given.get(name)
        model[name] = _source(found[name] if value is None else _find(value, name, opened))
    inside = None if path is None else find_tokenizer(found["encoder"].path if "encoder" in found else Path(path))
    model.tokenizer = Path(tokenizer) if tokenizer is not None else inside
    return model


def open_found(path: Path) -> tuple[dict[str, Source], Path | None]:
    """What there is of a model in a folder or a file, each file opened once, and the folder of its tokenizer.

    Raises as `find_parts` does, and for formats that are not supported.
    """
    found = _search(path, {})
    tokenizer = find_tokenizer(found["encoder"].path if "encoder" in found else path)
    return {name: _source(each) for name, each in found.items()}, tokenizer


def open_component(path: str | Path, component: str) -> Source:
    """Open "mmdit", "vae" or "encoder" in a file or folder; in a whole model's folder, wherever it lies in there.

    Raises `CheckpointError` that says what the file is instead, `MissingFileError` for a folder without the component.
    """
    return _source(_find(path, component, {}))


def opened(source: str | Path | Source, component: str) -> Source:
    """A source as it is, or the component in a file or folder. Raises `CheckpointError` for a source of another one."""
    if not isinstance(source, Source):
        return open_component(source, component)
    if source.component != component:
        raise CheckpointError(f"{source.path}: holds {COMPONENTS[source.component]}, not {COMPONENTS[component]}")
    return source


def base_size(source: str | Path | Source, component: str) -> int:
    """The base size that a component was trained for, from its file's header: 1024 where that says nothing.

    Raises `CheckpointError` for one that is not among `BASE_SIZES`; other errors as for `open_component`.
    """
    source = opened(source, component)
    found = source.weights.metadata.get(BASE_SIZE_KEY, str(NATIVE_BASE_SIZE))
    if found not in map(str, BASE_SIZES):
        sizes = ", ".join(map(str, BASE_SIZES))
        raise CheckpointError(f"{source.path}: {BASE_SIZE_KEY} in its header is {found!r}, which is not one of {sizes}")
    return int(found)


def own_shift(source: str | Path | Source) -> float:
    """The shift of an MMDiT's schedule: from its file's header, else from Diffusers' scheduler beside it, else 1.5.

    Raises `CheckpointError` for one that is not a positive number; other errors as for `open_component`.
    """
    return float(_of_schedule(source, SHIFT_KEY, "shift", float, NATIVE_SHIFT, check_shift))


def own_steps(source: str | Path | Source) -> int:
    """How many steps an MMDiT was made for: from its file's header, else from the `num_inference_steps` of Diffusers'
    scheduler beside it, else 40. Models distilled to few steps say it.

    Raises `CheckpointError` for what is no whole number of at least 1; other errors as for `open_component`.
    """
    return _of_schedule(source, STEPS_KEY, "num_inference_steps", int, NATIVE_STEPS, check_steps)


def _of_schedule(source, header: str, name: str, read: Callable[[str], Any], usual: Any, check: Callable) -> Any:
    """What an MMDiT's file says of the schedule in its header, else the scheduler beside it by `name`, else `usual`."""
    source = opened(source, "mmdit")
    places = _places(source.weights.files[0].parent, "scheduler")
    file = next((found for place in places if (found := place / SCHEDULER).is_file()), None)
    where, value = source.path, source.weights.metadata.get(header)
    try:
        if value is not None:
            value = read(value)
        elif file is not None:
            where, value = file, read_json(file).get(name)
        value = usual if value is None else value
        check(value)
    except CheckpointError:
        raise
    except (JoyImageError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{where}: says of the schedule what cannot be used: {error}") from None
    return value


def sources(path: Path, weights: Weights) -> list[Source]:
    """The components in an opened file. Raises `CheckpointError` for one in a format that is not supported."""
    return [_source(Found(path, weights, match)) for match in _matches(path, weights)]


def _matches(path: Path, weights: Weights) -> list[Match]:
    try:
        return detect(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


class Found(NamedTuple):
    """A component among the weights of a file."""

    path: Path
    weights: Weights
    match: Match


def _source(found: Found) -> Source:
    source = Source(*found, _config(found.weights))
    unknown = [name for name, info in source.info.items() if not info.format.supported]
    if unknown:
        raise CheckpointError(
            f"{source.path}: {len(unknown)} weights are stored as {source.info[unknown[0]].format.name}, which is not "
            f"supported ({unknown[0]} is the first); get a file in fp8, mxfp8, nvfp4, int8, GGUF Q2_K to Q8_0, or bf16"
        )
    return source


def _find(path: str | Path, component: str, opened: dict[Path, Weights]) -> Found:
    path = existing(path)
    if path.is_dir() and len(weight_units(path)) != 1:
        parts = _search(path, opened)
        if component not in parts:
            raise MissingFileError(
                f"{path}: the folder holds no weights of {COMPONENTS[component]} "
                f"(found: {', '.join(parts) or 'nothing'}); expected a safetensors or "
                "PyTorch file, or shards with an index.json"
            )
        return parts[component]
    weights = _open_once(path, opened)
    match = next((match for match in _matches(path, weights) if match.component == component), None)
    if match is None:
        what = describe(weights)
        raise CheckpointError(
            f"{path}: this looks like {what}, not {COMPONENTS[component]}; get one from {SOURCES[component]}"
        )
    return Found(path, weights, match)


def _search(path: Path, opened: dict[Path, Weights]) -> dict[str, Found]:
    """The components in a folder, or in a file. Other models' weights in it are passed over."""
    parts: dict[str, Found] = {}
    for unit in all_units(path):
        weights = _open_once(unit, opened, unit=unit != path)
        for match in _matches(unit, weights):
            if match.component in parts:
                raise CheckpointError(
                    f"{path}: holds {COMPONENTS[match.component]} twice, in {parts[match.component].path} and in "
                    f"{unit}; give one of them"
                )
            parts[match.component] = Found(unit, weights, match)
    return parts


def _open_once(path: Path, opened: dict[Path, Weights], unit: bool = False) -> Weights:
    units = weight_units(path) if path.is_dir() else [path]
    key = (units[0] if len(units) == 1 else path).resolve()
    if key not in opened:
        opened[key] = open_weights(path, unit=unit)
    return opened[key]


def find_parts(path: str | Path) -> dict[str, Path]:
    """Where the parts of a model lie: {"mmdit": …, "vae": …, "encoder": …, "tokenizer": …}, absent ones left out.

    `path` is a folder in any layout, searched one level deep, or a file. Other models' weights in it are passed over.
    Raises `CheckpointError` if a part is there twice, or its file is broken.
    """
    parts = {name: found.path for name, found in _search(existing(path), {}).items()}
    tokenizer = find_tokenizer(parts.get("encoder", Path(path)))
    return parts | ({"tokenizer": tokenizer} if tokenizer else {})


def _unflattened(name: str, info: TensorInfo) -> TensorInfo:
    """A kernel that a converter has flattened, in its own shape."""
    if name not in KERNELS or len(info.shape) == 5 or not info.shape:
        return info
    shape = (info.shape[0], math.prod(info.shape[1:]) // math.prod(KERNELS[name]), *KERNELS[name])
    return replace(info, shape=shape) if math.prod(shape) == math.prod(info.shape) else info


@refusing
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
    return next(filter(is_tokenizer, (folder, *_places(folder, "tokenizer", "processor"))), None)


def _places(folder: Path, *names: str) -> Iterator[Path]:
    """Where a part's companions may lie: in its folder, or beside that."""
    return (base / name for base in (folder, folder.parent) for name in names)


@refusing
def is_tokenizer(folder: Path) -> bool:
    return any(all((folder / name).is_file() for name in names) for names in TOKENIZER_FILES)


@refusing
def _config(weights: Weights) -> dict[str, Any]:
    """The configuration in the file's header, else that of the `config.json` beside it, else nothing."""
    if text := weights.metadata.get("config"):
        try:
            return parse_json(text)
        except ValueError as error:
            raise CheckpointError(f"{weights.files[0]}: the config in its header is no JSON object ({error})") from None
    file = weights.files[0].parent / "config.json"
    return read_json(file) if file.is_file() else {}
