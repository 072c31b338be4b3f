"""Quantised weights in safetensors: what lies beside them is folded in, so that each weight is one tensor again.

The namings in the wild, for a layer X:

| who | beside `X.weight` |
| --- | --- |
| ComfyUI | `X.weight_scale` (and `_2`), `X.input_scale`, `X.comfy_quant` (JSON as bytes; or in the header, for all) |
| scaled fp8 before that | `X.scale_weight`, `X.scale_input`, and one `scaled_fp8` for the whole file |
| DeepSeek's and Qwen's own fp8 | `X.weight_scale_inv`, a scale for each square of 128 x 128 |
| fp8 without scales, or others' `weight_scale` alone | nothing, or the scale |
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from ..quantisation.formats import BY_COMFY, FORMATS, QUANTISED, ROWS, SQUARES, UNSUPPORTED, WHOLE, Format, Scale
from .limits import MAX_CONFIG_BYTES
from .weights import TensorInfo, Weights, parse_json

if TYPE_CHECKING:
    from torch import Tensor

    from ..quantisation.tensor import QuantizedTensor

SCALES = ("weight_scale", "scale_weight", "weight_scale_inv")
DROPPED = ("input_scale", "scale_input")  # for activations in fp8 or int8: here they stay floating point
CONFIG, MARKER, METADATA = "comfy_quant", "scaled_fp8", "_quantization_metadata"
# Others' ways to quantise, by the names of what they put beside or in place of a weight. Earlier rows win.
OTHERS = (
    ("bitsandbytes to 4 bits", re.compile(r"\.quant_state\.bitsandbytes__\w+$|\.weight\.quant_map$")),
    ("bitsandbytes to int8", re.compile(r"\.SCB$")),
    ("SVDQuant, for nunchaku", re.compile(r"\.(wscales|smooth_factor|smooth)$")),
    ("GPTQ", re.compile(r"\.g_idx$")),
    ("AWQ or GPTQ", re.compile(r"\.(qweight|qzeros)$")),
    ("optimum-quanto", re.compile(r"\.weight\._data$")),
)
DEFAULT_GROUP = 256  # of a rotation, where the file does not say

Config = dict[str, Any]


@dataclass(frozen=True)
class Folded:
    """A quantised weight with the names of its scales, in the order of its format's."""

    info: TensorInfo
    scales: tuple[str, ...]


def fold(weights: Weights) -> Weights:
    """The same weights with the quantised ones as `QuantizedTensor`, and without what lay beside them.

    Raises `CheckpointError` for a description of a layer that is no JSON, a rotation that does not exist, and what
    others' software has quantised.
    """
    _refuse_others(weights)
    configs = _configs(weights)
    found: dict[str, Folded] = {}
    gone = {name for name in weights if name.rpartition(".")[2] == MARKER}
    for name, stored in weights.info.items():
        layer, _, leaf = name.rpartition(".")
        if leaf != "weight" or stored.quantised or (stored.format.kind != QUANTISED and layer not in configs):
            continue
        if folded := _folded(weights, layer, stored, configs.get(layer, {})):
            found[name] = folded
            gone.update(folded.scales, (f"{layer}.{leaf}" for leaf in (*DROPPED, CONFIG)))
    if not gone and not found:
        return weights
    info = {name: found[name].info if name in found else stored for name, stored in weights.info.items()}

    def read(name: str) -> Tensor | QuantizedTensor:
        if name not in found:
            return weights[name]
        from ..quantisation.tensor import dense, stored_tensor  # here: they need torch

        folded = found[name]
        data, *scales = (dense(weights[each]) for each in (name, *folded.scales))  # none is quantised yet
        return stored_tensor(data, scales, folded.info.format, folded.info.shape)

    kept = {name: each for name, each in info.items() if name not in gone}
    return dataclasses.replace(weights, info=kept, read=read)


def _refuse_others(weights: Weights) -> None:
    for how, pattern in OTHERS:
        if telltale := next(filter(pattern.search, weights), None):
            raise CheckpointError(
                f"{weights.files[0]}: is quantised by {how} ({telltale}), which is not supported; get a file in fp8, "
                "int8, GGUF or bf16"
            )


def _folded(weights: Weights, layer: str, stored: TensorInfo, config: Config) -> Folded | None:
    """How a layer's weight is stored; None for integers that nothing says the meaning of, or plain floats."""
    form = _format(weights, layer, stored, config)
    if form is None or not form.supported:
        return form and Folded(TensorInfo(stored.shape, form, quantised=True), ())
    shape = (*stored.shape[:-1], stored.shape[-1] * form.block) if stored.shape else ()
    if form.scales:
        names = tuple(f"{layer}.weight{kind.suffix}" for kind in form.scales)
        return _with_scales(weights, form, shape, names)
    names = next(((name,) for name in (f"{layer}.{scale}" for scale in SCALES) if name in weights), ())
    if not names:
        return Folded(TensorInfo(shape, form, quantised=True), ()) if form.floating else None
    scale, rows = weights.info[names[0]].shape, shape[:1] or (1,)
    kind = WHOLE if scale in ((), (1,), (1, 1)) else ROWS
    if len(shape) == 2 and names[0].endswith("_inv") and scale == SQUARES.shape(shape):
        kind = SQUARES
    if kind is ROWS and scale not in (rows, (*rows, 1)):
        form = _refused(form, f"with scales {scale}")
    else:
        form = dataclasses.replace(form, scales=(kind,))
    return Folded(TensorInfo(shape, form, quantised=True), names)


def _with_scales(weights: Weights, form: Format, shape: tuple[int, ...], names: Sequence[str]) -> Folded:
    """A weight whose format says what scales it has; refused, later, if they are others."""
    absent = [name for name in names if name not in weights]
    scales = [weights.info[name] for name in names if name in weights]
    if absent:
        form = _refused(form, f"without {absent[0].rpartition('.')[2]}")
    elif len(shape) != 2 or shape[1] % form.multiple:
        form = _refused(form, f"of shape {shape}")
    elif not all(_fits(scale, kind, shape) for scale, kind in zip(scales, form.scales, strict=True)):
        form = _refused(form, f"with scales {', '.join(f'{scale.shape} {scale.format.name}' for scale in scales)}")
    return Folded(TensorInfo(shape, form, quantised=True), tuple(names))


def _fits(scale: TensorInfo, kind: Scale, weight: tuple[int, ...]) -> bool:
    wanted = kind.stored_shape(weight)
    stored = (kind.dtype, "uint8") if kind.dtype != "float32" else ("float32", "bfloat16", "float16")  # or its bytes
    return (scale.shape == wanted or (scale.shape, wanted) == ((1,), ())) and scale.format.name in stored


def _refused(form: Format, why: str) -> Format:
    return Format(f"{form.name} {why}", kind=UNSUPPORTED)


def _format(weights: Weights, layer: str, stored: TensorInfo, config: Config) -> Format | None:
    """The format that a layer's weight is in, by its description or else by its dtype."""
    if stored.format.kind != QUANTISED and stored.format.name != "uint8":
        return None
    name = config.get("format")
    if name is None:
        return stored.format if stored.format.kind == QUANTISED else None
    form = BY_COMFY.get(str(name))
    if form is None:
        return Format(str(name), kind=UNSUPPORTED)
    if stored.format.name not in ("uint8", form.stored or form.name):
        return _refused(form, f"in {stored.format.name}")
    where = f"{weights.files[0]}: {layer} of shape {stored.shape}"
    try:
        group = _group(config) if form.name == "int8" else 0
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where} is described in a way that cannot be used: {error}") from None
    if group and (len(stored.shape) != 2 or stored.shape[1] % group):
        raise CheckpointError(f"{where} cannot be rotated in groups of {group} columns")
    return dataclasses.replace(FORMATS["int8_convrot"], rotation=group) if group else form


def is_rotation(size: object) -> bool:
    """Whether there is a matrix of this size that rotates: see `tensor.hadamard`."""
    return type(size) is int and 4 <= size <= 4**8 and size.bit_count() == 1 and size.bit_length() % 2 == 1


def _group(config: Config) -> int:
    """Columns that are rotated together, 0 for none. Older files have this one level down."""
    below = config.get("params")
    options = below | config if isinstance(below, dict) else config
    if not options.get("convrot", False):
        return 0
    size = options.get("convrot_groupsize", DEFAULT_GROUP)
    if not is_rotation(size):
        raise ValueError(f"its rotation has groups of {size!r}, which must be a power of 4")
    return size


def _configs(weights: Weights) -> dict[str, Config]:
    """What the file says of its quantised layers, by their names."""
    configs: dict[str, Config] = {}
    try:
        if text := weights.metadata.get(METADATA):
            layers = parse_json(text).get("layers")
            configs.update({name: _config(value) for name, value in _config(layers).items()})
        for name, info in weights.info.items():
            layer, _, leaf = name.rpartition(".")
            if leaf != CONFIG or info.format.name != "uint8":
                continue
            if info.nbytes > MAX_CONFIG_BYTES:
                raise ValueError(f"{name} has {info.nbytes:,} bytes")
            configs[layer] = parse_json(weights.read_bytes(name))
    except ValueError as error:
        raise CheckpointError(
            f"{weights.files[0]}: its description of quantised layers cannot be read ({error}); download it again"
        ) from None
    return configs


def _config(value: Any) -> Config:
    if not isinstance(value, dict):
        raise ValueError(f"a layer is described by {value!r:.40}")
    return value
