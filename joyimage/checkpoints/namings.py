"""What a set of tensor names is: which component of JoyImage, in whose naming, behind which prefix; or another model's.

Only the names decide. A further naming is one more row of `NAMINGS`, a further model to be recognised one of `FOREIGN`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ..errors import CheckpointError
from .vae_keys import diffusers_to_original

COMPONENTS = {"mmdit": "a JoyImage MMDiT", "vae": "a Wan 2.1 VAE", "encoder": "a Qwen3-VL encoder"}

HUB = "https://huggingface.co"
EDIT = f"{HUB}/Comfy-Org/JoyAI-Image-Edit"
EDIT_OR_PLUS = f"{EDIT} or {HUB}/jdopensource/JoyAI-Image-Edit-Plus-ComfyUI (several images)"
SOURCES = {"mmdit": EDIT_OR_PLUS, "vae": EDIT, "encoder": EDIT_OR_PLUS}  # where there is a file of each

Rename = Callable[[Collection[str]], Mapping[str, str]]  # names without prefix -> {name: our module's name}


@dataclass(frozen=True)
class Naming:
    """How somebody names a component's tensors. Each of `patterns` must match a name, all behind one prefix."""

    component: str
    name: str
    patterns: tuple[str, ...]
    rename: Rename


@dataclass(frozen=True)
class Match:
    """A component found in a file. `names` maps our module's names to the file's."""

    component: str
    naming: str
    prefix: str
    names: dict[str, str]


def _same(names: Collection[str]) -> dict[str, str]:
    return {name: name for name in names}


def _with_attn(names: Collection[str]) -> dict[str, str]:
    """The original keeps a block's attention layers in the block itself: `double_blocks.0.img_attn_qkv`."""
    layer = re.compile(r"(double_blocks\.\d+\.)((?:img|txt)_attn_)")
    return {name: layer.sub(r"\1attn.\2", name) for name in names}


def _by_prefix(table: Mapping[str, str]) -> Rename:
    def rename(names: Collection[str]) -> dict[str, str]:
        starts = {name: next((start for start in table if name.startswith(start)), "") for name in names}
        return {name: table.get(start, "") + name[len(start) :] for name, start in starts.items()}

    return rename


# Earlier rows win: the names of the encoder's later namings end the names of its first.
NAMINGS = (
    Naming(
        "mmdit",
        "diffusers",
        (r"double_blocks\.\d+\.(img|txt)_mod\.modulate_table", r"double_blocks\.\d+\.attn\."),
        _same,
    ),
    Naming("mmdit", "original", (r"double_blocks\.\d+\.(img|txt)_mod\.modulate_table",), _with_attn),
    Naming(
        "vae",
        "diffusers",
        (r"(en|de)coder\.mid_block\.resnets\.\d+\.norm\d\.gamma", r"encoder\.down_blocks\.\d+\.norm\d\.gamma"),
        diffusers_to_original,
    ),
    Naming(
        "vae",
        "original",
        (r"(en|de)coder\.middle\.\d+\.residual\.\d+\.gamma", r"encoder\.downsamples\.\d+\.residual\.\d+\.gamma"),
        _same,
    ),
    Naming(
        "encoder",
        "transformers",
        (r"model\.language_model\.layers\.\d+\.self_attn\.[qk]_norm\.", r"model\.visual\.merger\.linear_fc"),
        _by_prefix({"model.lm_head.": "lm_head."}),  # where somebody has put "model." before all names
    ),
    Naming(
        "encoder",
        "transformers, without head",
        (r"language_model\.layers\.\d+\.self_attn\.[qk]_norm\.", r"visual\.merger\.linear_fc"),
        _by_prefix({"visual.": "model.visual.", "language_model.": "model.language_model."}),
    ),
    Naming(
        "encoder",
        "comfy",
        (r"model\.layers\.\d+\.self_attn\.[qk]_norm\.", r"visual\.merger\.linear_fc"),
        _by_prefix(
            {
                "visual.": "model.visual.",
                "model.lm_head.": "lm_head.",
                "lm_head.": "lm_head.",
                "model.": "model.language_model.",
            }
        ),
    ),
)

# Other models' telltale names. Earlier rows win: whole checkpoints before the text encoders and VAEs inside them.
FOREIGN = (
    (
        "a LoRA, which goes over a model's weights: give it as a LoRA",
        r"\.lora_(A|B|down|up)\b|\.(hada_w1_a|lokr_w[12]|oft_blocks|oft_R|diff)\b",
    ),
    ("a ControlNet", r"(^|\.)(controlnet_blocks|controlnet_cond_embedding|zero_convs|input_hint_block)\."),
    ("a network that scales pictures up", r"(^|\.)(conv_first\.|body\.\d+\.(rdb\d|\d+\.weight)|sub\.\d+\.RDB\d)"),
    ("HunyuanVideo or HunyuanImage", r"txt_in\.individual_token_refiner\."),
    ("Flux", r"double_blocks\.\d+\.img_attn\.qkv\.|single_transformer_blocks\.\d+\.proj_mlp\."),
    ("Z-Image or Lumina 2", r"(^|\.)noise_refiner\.\d+\."),
    ("Qwen-Image", r"transformer_blocks\.\d+\.img_mod\.1\."),
    ("Stable Diffusion 3", r"joint_blocks\.\d+\.|transformer_blocks\.\d+\.norm1_context\.linear\."),
    ("the Wan video transformer", r"(^|\.)blocks\.\d+\.(self_attn|attn1)\.norm_q\."),
    ("Stable Diffusion XL", r"label_emb\.0\.0\.|add_embedding\.linear_1\."),
    ("Stable Diffusion 1 or 2", r"input_blocks\.0\.0\.|down_blocks\.\d+\.attentions\.\d+\.transformer_blocks\."),
    (
        "the Wan 2.2 VAE",
        r"encoder\.downsamples\.\d+\.downsamples\.|encoder\.down_blocks\.\d+\.resnets\.\d+\.norm1\.gamma",
    ),
    ("the VAE of Stable Diffusion or Flux", r"decoder\.mid(_block)?\.(block_1|resnets\.0)\.norm1\.weight"),
    ("Qwen3.5", r"\.linear_attn\.A_log"),
    ("Qwen2.5-VL", r"visual\.merger\.(ln_q|mlp\.0)\."),
    ("CLIP", r"text_model\.encoder\.layers\.\d+\.|transformer\.resblocks\.\d+\."),
    ("Qwen3 without vision", r"(^|\.)layers\.\d+\.self_attn\.q_norm\."),
    (
        "a language model as llama.cpp names it: get one with transformers' names",
        r"^(blk\.\d+|v\.blk\.\d+)\.attn_",
    ),
    ("a language model", r"(^|\.)layers\.\d+\.self_attn\.q_proj\.weight"),
    ("T5", r"block\.\d+\.layer\.0\.SelfAttention\.q\."),
)


def detect(names: Collection[str]) -> list[Match]:
    """The components among these names. A name that no prefix of theirs covers counts for each of them, as unexpected.

    Raises `CheckpointError` if two names of a component are the same weight.
    """
    found: dict[str, tuple[Naming, str]] = {}
    for naming in NAMINGS:
        prefix = _prefix(naming, names)
        if prefix is not None:
            found.setdefault(naming.component, (naming, prefix))
    prefixes = {prefix for _, prefix in found.values()}
    owners = {name: max((p for p in prefixes if name.startswith(p)), key=len, default=None) for name in names}
    return [
        _match(naming, prefix, [name for name, owner in owners.items() if owner in (prefix, None)])
        for naming, prefix in found.values()
    ]


def _match(naming: Naming, prefix: str, names: Collection[str]) -> Match:
    bare = {name: name.removeprefix(prefix) for name in names}
    renamed = naming.rename(bare.values())
    ours: dict[str, str] = {}
    for name in names:
        target = renamed[bare[name]]
        if target in ours:
            raise CheckpointError(f"{ours[target]} and {name} are the same weight; the file mixes two namings")
        ours[target] = name
    return Match(naming.component, naming.name, prefix, ours)


def _prefix(naming: Naming, names: Collection[str]) -> str | None:
    first, *others = naming.patterns
    pattern = re.compile(rf"((?:.*\.)?){first}")
    prefixes = Counter(found[1] for name in names if (found := pattern.match(name)))
    for prefix, _ in prefixes.most_common():
        patterns = (re.compile(re.escape(prefix) + other) for other in others)
        if all(any(map(pattern.match, names)) for pattern in patterns):
            return prefix
    return None


def foreign(names: Collection[str]) -> tuple[str, str] | None:
    """The other model that these names belong to, and the name that tells."""
    for model, pattern in FOREIGN:
        if telltale := next(filter(re.compile(pattern).search, names), None):
            return model, telltale
    return None


def describe(names: Collection[str]) -> str:
    """What a file with these names is, as it stands in a message: "a Wan 2.1 VAE", "Flux (double_blocks.0…)"."""
    if found := detect(names):
        return " and ".join(COMPONENTS[match.component] for match in found)
    if other := foreign(names):
        return f"{other[0]} ({other[1]})"
    return f"no model known here (its first tensor is {next(iter(names), 'missing')})"
