"""The MMDiT as ComfyUI's MODEL: called, patched, hooked and saved as the host does with its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import comfy.conds
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.latent_formats import LatentFormat, Wan21
from comfy.ldm.modules.attention import attention_pytorch, optimized_attention
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from torch import Tensor, nn

from ...joyimage import checkpoints, tiny
from ...joyimage.attention import Attention, attention
from ...joyimage.caching import RunCaches, StepCache
from ...joyimage.checkpoints.folders import open_component
from ...joyimage.config import MMDiTConfig
from ...joyimage.errors import CheckpointError, JoyImageError
from ...joyimage.memory.budget import kept_references
from ...joyimage.mmdit import MMDiT
from ...joyimage.operations import Operations
from ...joyimage.rope import KitchenRotary, Rotary, rotary_for
from ...joyimage.settings import NATIVE_SHIFT
from .weights import State, keep_packed, packed_tensors, read_mmdit, unpacked_when_saved

# Transformer options that nodes set: the run's caches, the attention, and what runs a block in place of itself.
CACHES, ATTENTION, RUN_BLOCK = "joyimage_caches", "joyimage_attention", "joyimage_run_block"
KEPT = "joyimage_kept"  # an option of a prompt: how many samples keep the keys and values of its references
CUDNN_FIRST = (9, 10)  # major compute capabilities: H100, H200, B200

# What a user may ask the weights to be kept in: options of the host's own loader, with their meaning there.
WEIGHT_DTYPES: dict[str, dict[str, Any]] = {
    "default": {},
    "fp8_e4m3fn": {"dtype": torch.float8_e4m3fn},
    "fp8_e4m3fn_fast": {"dtype": torch.float8_e4m3fn, "fp8": True},
    "fp8_e5m2": {"dtype": torch.float8_e5m2},
}


class HostMMDiT(MMDiT):
    """The MMDiT called as the host calls its diffusion models, with the host's hooks around and inside it."""

    def __init__(
        self, image_model: str, dtype: torch.dtype, device: torch.device | None, operations: Operations, **sizes
    ):
        super().__init__(MMDiTConfig(**sizes), operations=operations, dtype=dtype, device=device)
        self.dtype = dtype

    def to(self, *args, memory_format: torch.memory_format | None = None, **kwargs) -> HostMMDiT:
        """Leaves out the `memory_format` of `--force-channels-last`: the one kernel has five axes, that layout four."""
        return super().to(*args, **kwargs) if args or kwargs else self

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] - the host names the inputs, ours call none by name
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor | None = None,
        ref_latents: Sequence[Tensor] | None = None,
        control=None,
        transformer_options: Mapping[str, Any] | None = None,
        **extra,
    ) -> Tensor:
        """x (B, 16, 1, h, w), timestep (B,) in [0, 1000], context (B, L, text_dim) -> velocity shaped like x.

        There is no control net for this model: `control` and other models' conditions are passed over.
        """
        options = dict(transformer_options or {})
        wrappers = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, options)
        executor = WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timestep, context, ref_latents, options)

    def _forward(self, x: Tensor, timestep: Tensor, context: Tensor, ref_latents, options: dict[str, Any]) -> Tensor:
        references = ref_latents or ()
        self._check(x, timestep, context, references)
        cache = cache_of(options, x)
        references = cache.references(references)
        # without the cache: the host may change the embedders' weights within a run
        img, txt, time, packing = self.embed(x, timestep, context, references, attention_of(options, x.device))
        packing.run_block = options.get(RUN_BLOCK)
        kept = cache.keeping(len(self.double_blocks), packing.targets, len(references), img.dtype)
        replacements = options.get("patches_replace", {}).get("dit", {})
        options |= {"total_blocks": len(self.double_blocks), "block_type": "double"}
        last = len(self.double_blocks) - 1

        def run(i: int, img: Tensor, txt: Tensor) -> tuple[Tensor, Tensor | None]:
            options["block_index"], block = i, self.double_blocks[i]
            replace = replacements.get(("double_block", i))
            if replace is not None:
                return replaced(
                    replace, partial(block, packing=packing, kept=kept[i]), img, txt, time, packing, options
                )
            return block(img, txt, time, packing, packing.targets if i == last else None, kept[i])

        return self.project(cache.through(last + 1, run, img, txt, packing.targets), x)

    def rotary_for(self, device: torch.device) -> Rotary:
        return rotary_for(device, HostRotary)


class HostRotary(KitchenRotary):
    """comfy-kitchen's kernel, with the norm's weight as the host keeps and patches it."""

    @contextmanager
    def scale(self, norm: nn.Module, x: Tensor) -> Iterator[Tensor]:
        scale, bias, stream = comfy.ops.cast_bias_weight(norm, x, offloadable=True)
        yield scale
        comfy.ops.uncast_bias_weight(norm, scale, bias, stream)


def cache_of(options: Mapping[str, Any], x: Tensor) -> StepCache:
    """What the forwards of these prompts keep over a run; nothing where no node has asked for it, nor in windows.

    A prompt's uuid is not enough: the host makes a negative prompt for the area of a positive one under the same, and
    with several cards it may give a prompt to another one when fewer act.
    """
    caches: RunCaches | None = options.get(CACHES)
    if caches is None or "context_window" in options:
        return StepCache()
    prompts = zip(options.get("uuids", ()), options.get("cond_or_uncond", ()), strict=True)
    return caches.of((tuple(prompts), x.shape, x.device))


def attention_of(options: dict[str, Any], device: torch.device) -> Attention:
    """The attention that a node has chosen, or the host's with what nodes put in its place.

    On Hopper and Blackwell cards torch's own choice stands for the host's call of torch, which puts flash before the
    faster cuDNN.
    """
    chosen: Attention | None = options.get(ATTENTION)
    if chosen is not None:
        return chosen
    plain = optimized_attention is attention_pytorch and "optimized_attention_override" not in options
    if plain and device.type == "cuda" and torch.cuda.get_device_capability(device)[0] in CUDNN_FIRST:
        return attention
    return partial(host_attention, transformer_options=options)


def host_attention(q: Tensor, k: Tensor, v: Tensor, transformer_options: dict[str, Any]) -> Tensor:
    """The host's attention, and what nodes put in its place, of (B, heads, tokens, head_dim)."""
    return optimized_attention(q, k, v, q.shape[1], skip_reshape=True, transformer_options=transformer_options)


def replaced(replace, block, img: Tensor, txt: Tensor, time: Tensor, packing, options: dict[str, Any]):
    """A block with a node's patch in its place, in the host's convention. It sees all tokens, in the last block too."""

    def original(args: dict[str, Any]) -> dict[str, Tensor]:
        img, txt = block(args["img"], args["txt"], args["vec"])
        return {"img": img, "txt": txt}

    args = {"img": img, "txt": txt, "vec": time, "pe": packing.freqs, "transformer_options": options}
    out = replace(args, {"original_block": original})
    return out["img"], out["txt"]


class TinyLatent(Wan21):
    """The bundled model's latents: previews by factors of their own, since its VAE is another."""

    latent_rgb_factors_bias = None
    latent_rgb_factors = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))  # the preview is RGB already

    def __init__(self):
        super().__init__()
        self.taesd_decoder_name = None
        self.latent_rgb_factors_reshape = tiny.preview


class ModelConfig(comfy.supported_models_base.BASE):
    """What the host wants to know of the model."""

    sampling_settings = {"shift": NATIVE_SHIFT, "multiplier": 1000}
    latent_format: type[LatentFormat] | LatentFormat = Wan21  # the host makes one of it
    quant_config: dict[str, Any] | None = None
    # The tensors alive at once in the published size make 1.28: 882 MB for 1024x1024 pixels with one reference and 1100
    # tokens of text in bf16. A quarter more for workspaces and for weights cast while they run.
    memory_usage_factor = 1.6
    unet_extra_config = {}
    supported_inference_dtypes = [torch.bfloat16, torch.float32]


class JoyImageModel(comfy.model_base.BaseModel):
    def __init__(self, config: ModelConfig):
        flow = comfy.model_base.ModelType.FLOW
        super().__init__(config, flow, unet_model=HostMMDiT)  # pyright: ignore[reportArgumentType] - typed by its default
        self.memory_usage_factor_conds = ("ref_latents", KEPT)

    def extra_conds(self, **kwargs) -> dict[str, Any]:
        """Prompts of one length run as one batch with guidance; of different lengths one by one, without padding."""
        conds = super().extra_conds(**kwargs)
        if kwargs.get("cross_attn") is not None:
            conds["c_crossattn"] = comfy.conds.CONDRegular(kwargs["cross_attn"])
        if references := self._references(kwargs):
            conds["ref_latents"] = comfy.conds.CONDList([self.process_latent_in(latent) for latent in references])
        return conds

    def extra_conds_shapes(self, **kwargs) -> dict[str, Any]:
        references, channels = self._references(kwargs), self.latent_format.latent_channels
        if not references:
            return {}
        pixels = sum(latent.numel() for latent in references) // channels
        return {
            "ref_latents": [1, channels, pixels],
            KEPT: [1, channels, self._kept_pixels(pixels * kwargs.get(KEPT, 0))],
        }

    def _kept_pixels(self, pixels: int) -> int:
        """Pixels that the host takes as much memory for as keys and values of so many of one prompt's references."""
        network: Any = self.diffusion_model
        patch = math.prod(network.config.patch_size)
        kept = kept_references(network.config, pixels, 1) / (2 * patch)  # the budget's is for two prompts
        return math.ceil(kept / (0.01 * self.memory_usage_factor * 2**20))

    def _references(self, kwargs: Mapping[str, Any]) -> list[Tensor]:
        latents = kwargs.get("reference_latents") or []
        for i, latent in enumerate(latents):
            check_latent(latent, f"reference {i + 1}", self.latent_format.latent_channels)
        return [latent.unsqueeze(2) if latent.ndim == 4 else latent for latent in latents]

    def load_model_weights(self, sd: State, unet_prefix: str = "", assign: bool = False) -> JoyImageModel:
        """Fill the network; raises `CheckpointError` by name, where the host would go on with a line in its log."""
        try:
            self.diffusion_model.load_state_dict(sd, strict=True, assign=assign)
        except RuntimeError as error:
            raise CheckpointError(f"the weights do not fit: {error}") from error
        return self

    def state_dict_for_saving(self, unet_state_dict: State, *others: State | None, **named: State | None) -> State:
        state = unpacked_when_saved(self.diffusion_model, unet_state_dict)
        return super().state_dict_for_saving(state, *others, **named)


def check_latent(latent: Tensor, name: str, channels: int) -> None:
    """Raise `JoyImageError` unless a latent is one of images with the model's number of channels."""
    if latent.shape[1] != channels or (latent.ndim == 5 and latent.shape[2] != 1):
        raise JoyImageError(
            f"the latent of {name} has shape {tuple(latent.shape)}; this model takes {channels} channels and single "
            "images: encode with the VAE of Load VAE (JoyImage), or start from an empty latent"
        )


def load_mmdit(
    path: Path | None, weight_dtype: str = "default", theta: float | None = None, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """A MODEL from the weights in a file or folder, or from the bundled tiny ones.

    Weights are read as the host reads them, so that quantised files (fp8 with scales, int8) run on its kernels; GGUF,
    which it has none for, stays quantised in layers of our own. `theta` is the base of the rotary embedding, where it
    is another than the file says.
    Raises `CheckpointError`, or `MissingFileError`, saying what the file is instead.
    """
    source = None if path is None else open_component(path, "mmdit")
    config, state, packed = read_mmdit(source)
    config = config if theta is None else replace(config, theta=theta)
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    settings = model_config(config, state, WEIGHT_DTYPES[weight_dtype], device)
    if source is None:
        settings.latent_format = TinyLatent()
    else:
        settings.sampling_settings = ModelConfig.sampling_settings | {"shift": checkpoints.own_shift(source)}
    model = JoyImageModel(settings)
    patchers = comfy.model_patcher
    patcher_class = patchers.ModelPatcher if disable_dynamic else patchers.CoreModelPatcher
    patcher = patcher_class(model, load_device=device, offload_device=offload)
    keep_packed(model.diffusion_model, packed)
    model.to(offload)
    kept = model.diffusion_model.state_dict()
    state = {name: tensor.to(kept[name].dtype) for name, tensor in state.items()} if packed else state
    model.load_model_weights(state | packed_tensors(packed), assign=patcher.is_dynamic())
    # How the host makes another of it: for torch.compile, LoRA hooks and further GPUs.
    patcher.cached_patcher_init = (load_mmdit, (path, weight_dtype, theta))
    return patcher


def own_shift(model: comfy.model_patcher.ModelPatcher) -> float:
    """The shift of a MODEL's schedule as its files say it, whatever nodes such as ModelSamplingSD3 have put on it."""
    return model.model.model_config.sampling_settings.get("shift", NATIVE_SHIFT)


def model_config(config: MMDiTConfig, state: State, options: Mapping[str, Any], device: torch.device) -> ModelConfig:
    """The dtypes to keep and compute in, chosen as the host chooses them for its own models."""
    management = comfy.model_management
    result = ModelConfig({"image_model": "joyimage", **asdict(config)})
    result.quant_config = comfy.utils.detect_layer_quantization(state, "")
    result.optimizations["fp8"] = options.get("fp8", False)
    supported = result.supported_inference_dtypes
    dtype = options.get("dtype") or management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(state),
        supported_dtypes=supported,
        weight_dtype=None if result.quant_config else comfy.utils.weight_dtype(state),
    )
    cast = management.unet_manual_cast(None if result.quant_config else dtype, device, supported)
    result.set_inference_dtype(dtype, cast)
    return result
