"""Networks without weights: on the meta device, of the sizes that a file tells."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..errors import CheckpointError, JoyImageError
from ..mmdit import MMDiT
from ..quantisation import layers
from ..vae import WanVAE
from .configs import checked, encoder_config_of, mmdit_config, vae_config
from .folders import Source
from .qwen import CONTROL_TOKENS, HEAD

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen3VLConfig, Qwen3VLForConditionalGeneration


LABELS = ("num_labels", "id2label", "label2id")  # of classifiers: a name for each would be made, however many


def empty_mmdit(source: Source, dtype: torch.dtype, operations: Any = nn) -> MMDiT:
    return MMDiT(checked(source, mmdit_config), operations=operations, dtype=dtype, device="meta")


def empty_vae(source: Source, dtype: torch.dtype, operations: Any = nn) -> WanVAE:
    return WanVAE(checked(source, vae_config), operations=operations, dtype=dtype, device="meta")


def empty_encoder(source: Source, dtype: torch.dtype) -> Qwen3VLForConditionalGeneration:
    """After the configuration beside the weights, else a released one. A head among the weights is not tied."""
    head = HEAD in source.match.names
    config = checked(source, encoder_config_of)
    tied = bool(config.get("tie_word_embeddings")) and not head
    config = config | {"tie_word_embeddings": tied}
    model = checked(source, lambda _: empty_qwen(config, dtype, head=tied or head))
    layers.replace_layers(model, layers, kept=("visual.pos_embed",))  # transformers asks that one for its dtype
    return model


def empty_qwen(config: dict[str, Any], dtype: torch.dtype, head: bool) -> Qwen3VLForConditionalGeneration:
    """Qwen3-VL without weights: its parameters are on the meta device, its rotary frequencies are real.

    Without `head` the language head is taken out: its `model` is whole, but it cannot answer.
    Raises `CheckpointError` for a configuration that transformers refuses, `JoyImageError` for a torch that it refuses
    and where it cannot be imported.
    """
    import transformers  # takes seconds, and only encoders need it

    if config.get("model_type") != "qwen3_vl":
        raise CheckpointError(f"config.json: its model_type is {config.get('model_type')!r}, expected 'qwen3_vl'")
    try:
        config_class, model_class = transformers.Qwen3VLConfig, transformers.Qwen3VLForConditionalGeneration
    except Exception as error:  # such as a cache folder that torch's compiler, which they import, cannot make
        raise JoyImageError(
            f"transformers {transformers.__version__} gives no Qwen3-VL ({type(error).__name__}: {error})"
        ) from error
    try:
        parsed = config_class(**_portable(config))
        with _ParametersOnMeta():
            model = model_class(parsed)
    except ImportError:  # what transformers' classes raise when made, where it does without torch
        raise JoyImageError(
            f"transformers {transformers.__version__} does not work with torch {torch.__version__}: install a newer "
            "torch, or transformers 4.57"
        ) from None
    except Exception as error:  # each transformers version has error types of its own for a bad configuration
        raise CheckpointError(f"config.json: transformers refuses it ({type(error).__name__}: {error})") from error
    for parameter in model.parameters():  # not `model.to(dtype)`: the rotary frequencies must stay float32
        parameter.data = parameter.data.to(dtype)
    if not head:
        del model.lm_head
    return model


def fit_control_ids(config: Qwen3VLConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Take the control tokens' ids from the tokenizer if the configured ones lie outside a small model's embedding."""
    if max(getattr(config, entry) for entry in CONTROL_TOKENS) < config.get_text_config().vocab_size:
        return
    vocabulary = tokenizer.get_vocab()
    config.update({entry: vocabulary[token] for entry, (token, _) in CONTROL_TOKENS.items() if token in vocabulary})


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration in the terms that both transformers versions read.

    Version 5 writes `rope_parameters`, which 4.57 ignores; 4.57 looks for the tied head in the text's part, 5 outside.
    """
    config = copy.deepcopy(config)  # transformers writes into it
    text = config["text_config"]
    for part in (config, text, config.get("vision_config") or {}):
        for name in LABELS:
            part.pop(name, None)
    text["tie_word_embeddings"] = config.get("tie_word_embeddings", False)
    if rope := text.pop("rope_parameters", None):
        text["rope_theta"] = rope.pop("rope_theta")
        text["rope_scaling"] = rope
    return config


class _ParametersOnMeta(TorchFunctionMode):
    """Puts what layers allocate to be filled later (`torch.empty`) on the meta device.

    `torch.device("meta")` would take the rotary frequencies along, which are computed and in no checkpoint. Nothing is
    drawn for them: torch takes 2 ms to find out that a tensor on the meta device has no values.
    """

    DRAWS = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_, torch.Tensor.normal_, torch.Tensor.uniform_)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        if func in self.DRAWS and (tensor := args[0] if args else kwargs["tensor"]).is_meta:
            return tensor
        return func(*args, **kwargs)
