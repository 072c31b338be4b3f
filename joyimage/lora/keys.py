"""What a key of a LoRA file names: a layer, and which tensor of its update.

| who | keys |
| --- | --- |
| PEFT | `base_model.model.X.lora_A.weight` |
| Diffusers | `transformer.X.lora_A.weight` |
| ComfyUI | `diffusion_model.X.lora_down.weight` |
| kohya | `lora_unet_X.lora_down.weight`, underscores for X's dots |
| LyCORIS, SimpleTuner | `lycoris_X.lokr_w1`, underscores for X's dots |

X is a layer of the MMDiT in either naming, with or without `attn.`, or of the encoder. What wraps a model while it
trains leaves its name as well: `_orig_mod.` of torch.compile, `module.`, `dit.`, the name of PEFT's adapter.
"""

from __future__ import annotations

import re

NAME = r"(?:\.(?!weight$|bias$)[^.]+)?"  # of an adapter, as PEFT has it while it trains
ROLES = tuple(  # ends of the keys: what the tensor is
    (re.compile(f"(?:{end})$"), role)
    for end, role in (
        (rf"\.lora_(?:A|down){NAME}(?:\.weight)?|[._]lora(?:_linear_layer)?\.down\.weight", "down"),
        (rf"\.lora_(?:B|up){NAME}(?:\.weight)?|[._]lora(?:_linear_layer)?\.up\.weight", "up"),
        (rf"\.lora_(?:B|up){NAME}\.bias", "up_bias"),
        (r"\.lora_mid\.weight", "mid"),
        (rf"\.dora_scale|\.lora_magnitude_vector{NAME}(?:\.weight)?", "magnitude"),
        (rf"\.hada_w1_a{NAME}", "left_up"),
        (rf"\.hada_w1_b{NAME}", "left_down"),
        (rf"\.hada_w2_a{NAME}", "right_up"),
        (rf"\.hada_w2_b{NAME}", "right_down"),
        (rf"\.hada_t1{NAME}", "left_core"),
        (rf"\.hada_t2{NAME}", "right_core"),
        (rf"\.lokr_w1{NAME}", "outer"),
        (rf"\.lokr_w1_a{NAME}", "outer_up"),
        (rf"\.lokr_w1_b{NAME}", "outer_down"),
        (rf"\.lokr_w2{NAME}", "inner"),
        (rf"\.lokr_w2_a{NAME}", "inner_up"),
        (rf"\.lokr_w2_b{NAME}", "inner_down"),
        (rf"\.lokr_t2{NAME}", "inner_core"),
        (r"\.oft_blocks", "blocks"),
        (r"\.rescale", "rescale"),
        (r"\.a1\.weight", "into_up"),
        (r"\.a2\.weight", "into_down"),
        (r"\.b1\.weight", "up"),
        (r"\.b2\.weight", "down"),
        (r"\.bm\.weight", "mid"),
        (r"\.(?:diff|w_norm)", "difference"),
        (r"\.(?:diff_b|b_norm)", "bias"),
        (r"\.set_weight", "value"),
        (r"\.reshape_weight", "reshape"),
        (r"\.alpha", "alpha"),
    )
)
UNSUPPORTED = {  # in a key: what it is of
    ".oft_R": "OFT as PEFT writes it",
    ".oft_r": "OFT as PEFT writes it",
    ".boft_": "BOFT as PEFT writes it",
    ".lokr_t1": "LoKr with two Tucker cores",
    ".ia3_l": "IA3",
    ".on_input": "IA3",
    ".lora_E": "AdaLoRA",
    ".vera_lambda": "VeRA",
    ".pvera_": "PVeRA",
    ".vblora_": "VB-LoRA",
    ".fourierft_": "FourierFT",
    ".waveft_": "WaveFT",
    ".hra_u": "HRA",
    ".bone_": "Bone",
    ".miss_": "MiSS",
    ".randlora_": "RandLoRA",
    ".c3a_": "C3A",
    ".delora_": "DeLoRA",
    ".road_": "RoAd",
    ".glora_": "GLoRA as PEFT writes it",
    ".lambda_layer": "T-LoRA",
    ".lora_embedding_": "LoRA of an embedding",
}
WRAPPERS = re.compile(r"_orig_mod_|_checkpoint_wrapped_module_|_fsdp_wrapped_module_")
PREFIXES = re.compile(
    r"(?:base_model_|model_|module_|pipe_|dit_|diffusion_model_|transformer_|unet_|text_encoders?_|language_model_"
    r"|qwen3vl_8b_|lora_unet__?|lora_transformer_|lora_te\d?_|lycoris_)*"
)
ATTENTION = re.compile(r"_attn_((?:img|txt)_attn_)")


def canonical(name: str) -> str:
    """One spelling of a layer for all namings: without prefixes, underscores for dots, no `attn` of its own."""
    name = WRAPPERS.sub("", name.replace(".", "_"))
    return ATTENTION.sub(r"_\1", PREFIXES.sub("", name, count=1))


def parse(key: str) -> tuple[str, str] | None:
    """The layer as the key spells it, and the tensor's role; None for a key that is no part of an update."""
    for end, role in ROLES:
        if found := end.search(key):
            return key[: found.start()], role
    return None
