"""The MMDiT's weights as the host reads them, and layers of our own for what it has no kernels for."""

from __future__ import annotations

from collections.abc import Mapping

import comfy.model_patcher
import comfy.ops
import comfy.quant_ops
import comfy.utils
import torch
from torch import Tensor, nn

from ...joyimage import tiny
from ...joyimage.checkpoints.configs import config_of
from ...joyimage.checkpoints.empty import empty_mmdit
from ...joyimage.checkpoints.folders import Source
from ...joyimage.checkpoints.load import check_fits, fill
from ...joyimage.checkpoints.namings import detect
from ...joyimage.checkpoints.weights import TensorInfo
from ...joyimage.config import MMDiTConfig
from ...joyimage.quantisation import layers, products
from ...joyimage.quantisation.formats import ROWS, WHOLE, Format, Scale
from ...joyimage.quantisation.tensor import QuantizedTensor, dense

State = dict[str, Tensor]
META = {"device": "meta"}
# Of the host's kernels for fp8, which know one scale alone. Its other formats say themselves what scales they have.
SCALES_OF_HOST: dict[str, tuple[tuple[Scale, ...], ...]] = {
    name: ((), (WHOLE,)) for name in ("float8_e4m3fn", "float8_e5m2")
}


def read_mmdit(source: Source | None) -> tuple[MMDiTConfig, State, dict[str, QuantizedTensor]]:
    """The MMDiT's sizes, its weights under our names with what the host keeps beside quantised ones, and apart from
    them the quantised ones that the host has no kernels for. Without a source those of the bundled network."""
    if source is None:
        network = tiny.mmdit()
        return network.config, network.state_dict(), {}
    source = check_fits(source)
    if any(info.quantised and not host_has(info) for info in source.info.values()):
        return load_packed(source)
    state = read_tensors(source)
    if not noted(source, state):
        return load_packed(source)
    names = next(match.names for match in detect(state) if match.component == "mmdit")
    return config_of(source), {ours: state[theirs] for ours, theirs in names.items()}, {}


def host_has(info: TensorInfo) -> bool:
    """Whether this version of the host has kernels for a quantised weight: for matrices alone, and with the kinds of
    scales that they read."""
    form = info.format
    kinds = SCALES_OF_HOST.get(form.name)
    known = form.comfy in comfy.quant_ops.QUANT_ALGOS and (kinds is None or form.scales in kinds)
    return known and (len(info.shape) == 2 or not form.scales)


def noted(source: Source, state: State) -> bool:
    """Whether the weights with scales, and they alone, have the note by which the host knows them.

    Others' files have the scales alone.
    """
    quantised = ((source.match.names[ours], info) for ours, info in source.info.items() if info.quantised)
    return all(
        (f"{name.removesuffix('weight')}comfy_quant" in state) == bool(info.format.scales) for name, info in quantised
    )


def load_packed(source: Source) -> tuple[MMDiTConfig, State, dict[str, QuantizedTensor]]:
    """As `read_mmdit`, of what the host has no kernels for: matrices as they are, the rest in float32."""
    network = fill(empty_mmdit(source, torch.float32, layers), source, None)
    packed = {
        f"{name}.weight": module.packed
        for name, module in network.named_modules()
        if isinstance(module, layers.Quantisable) and module.packed
    }
    return network.config, {k: v for k, v in network.state_dict().items() if k not in packed_tensors(packed)}, packed


def packed_tensors(packed: Mapping[str, QuantizedTensor]) -> State:
    """What these weights are in a state dict."""
    state = {name: weight.data for name, weight in packed.items()}
    for name, weight in packed.items():
        kinds = zip(("_scale", "_scale_2"), weight.scales, strict=False)
        state |= {f"{name}{suffix}": scale for suffix, scale in kinds}
    return state


class PackedLinear(layers.Linear, comfy.ops.CastWeightBiasOp):
    """A quantised layer in the host's terms: it may stay in main memory until it runs, and take a LoRA's patches."""

    comfy_cast_weights = True

    @property
    def shape(self) -> tuple[int, int]:
        return self.out_features, self.in_features

    def forward(self, input: Tensor) -> Tensor:
        if self.packed is not None and not self.weight_function:
            return products.linear(input, self.packed.to(input.device), self._patched_bias(input), self.kernel)
        return nn.functional.linear(input, *self.floating(input))

    def floating(self, input: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias with their patches, where and in the dtype that `input` is."""
        packed = self.packed
        weight = self.weight.to(input) if packed is None else packed.to(input.device).dense(input.dtype)
        for patch in self.weight_function:
            weight = patch(weight)
        return weight, self._patched_bias(input)

    def _patched_bias(self, input: Tensor) -> Tensor | None:
        bias = None if self.bias is None else self.bias.to(input)
        for patch in self.bias_function if bias is not None else ():
            bias = patch(bias)
        return bias

    def convert_weight(self, weight: Tensor, **_) -> Tensor:
        """What the host patches instead of the bytes, which it may have cast to floating point already."""
        packed = self.packed_from(weight.to(torch.uint8))
        if packed is None or (weight.dtype != torch.uint8 and self.packed is None):  # patched, and so a plain weight
            return weight
        return packed.to(weight.device).dense(weight.dtype if weight.is_floating_point() else torch.bfloat16)

    def set_weight(self, weight: Tensor, return_weight: bool = False, **_) -> Tensor | None:
        if return_weight:
            return weight
        self.weight = nn.Parameter(weight, requires_grad=False)
        return None


def keep_packed(model: nn.Module, packed: Mapping[str, QuantizedTensor]) -> None:
    """Put layers for quantised weights into the places of the host's."""
    linears = {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    for name, weight in packed.items():
        path = name.removesuffix(".weight")
        old = linears[path]
        layer = PackedLinear(old.in_features, old.out_features, old.bias is not None, **META)
        layer.pack(weight)
        layer.bias = old.bias
        layers.put(model, path, layer.eval())


class SavedWeight(comfy.model_patcher.LazyCastingParam):
    """A packed weight as the host writes it into a file: in bf16, with its patches, made when its turn comes."""

    def __new__(cls, kept: Tensor, layer: PackedLinear):
        return super().__new__(cls, None, "", torch.empty(layer.shape, dtype=torch.bfloat16, device="meta"))

    def __init__(self, kept: Tensor, layer: PackedLinear):
        self.kept, self.layer = kept, layer

    def to(self, *args, **kwargs) -> Tensor:
        return self.layer.convert_weight(self.kept.to("cpu")).to("cpu", torch.bfloat16)


def unpacked_when_saved(model: nn.Module, state: State) -> State:
    """A state dict for a file, in which packed weights are plain ones: the host's files have no note for them."""
    state = dict(state)
    for path, layer in model.named_modules():
        if isinstance(layer, PackedLinear):
            for name in [name for name, _ in layer.named_buffers()]:
                del state[f"{path}.{name}"]
            state[f"{path}.weight"] = SavedWeight(state[f"{path}.weight"], layer)
    return state


def read_tensors(source: Source) -> State:
    """The tensors under the file's names; safetensors as the host reads them, which it can then load piece by piece.

    It knows no quantised weights in other files, so these become floating point.
    """
    if any(file.suffix not in (".safetensors", ".sft") for file in source.weights.files):
        return {name: dense(stored) for name, stored in source.weights.items()}
    state: State = {}
    for file in source.weights.files:
        tensors, metadata = comfy.utils.load_torch_file(str(file), return_metadata=True)
        state |= comfy.utils.convert_old_quants(tensors, source.match.prefix, metadata)[0]
    for ours, info in source.info.items():
        if info.quantised:
            state |= as_host_reads(source.match.names[ours], info.format, state)
    return state


def as_host_reads(name: str, form: Format, state: State) -> State:
    """A quantised weight in the dtype and its scales in the shape that the host takes them to have.

    It would turn bytes into as many numbers of its own, and multiply columns by a plain list of scales for rows.
    """
    dtype, scale = getattr(torch, form.stored or form.name), f"{name}_scale"
    result = {name: state[name].view(dtype)} if state[name].dtype == torch.uint8 else {}
    if form.scales == (ROWS,) and scale in state:
        result[scale] = state[scale].reshape(-1, 1)
    return result
