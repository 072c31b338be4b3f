"""Graphs saved for older packs: what takes the place of their nodes.

A node is replaced where one of ours has the same inputs and outputs. In the editor the host does it when asked, by its
table, which cannot name inputs that grow. In prompts posted to the server `replace` does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from comfy_api.latest import ComfyAPI, io
from server import PromptServer

import nodes


@dataclass(frozen=True)
class Replacement:
    """An old node, ours, and our input for each of its inputs; both have one output."""

    old: str
    new: str
    inputs: Mapping[str, str]
    widgets: Sequence[str] = ()  # of the old node, in the order in which graphs hold their values
    more: Mapping[str, Any] = field(default_factory=dict)  # inputs of ours that the old node had no word for


def loader(old: str, new: str, inputs: Mapping[str, str]) -> Replacement:
    return Replacement(old, new, inputs, widgets=tuple(inputs))


REPLACEMENTS = (
    # joyai_image_comfyui
    loader("JoyAIImageEditUNETLoader", "JoyImageLoadMMDiT", {"unet_name": "model"}),
    loader("JoyAIImageEditCLIPLoader", "JoyImageLoadEncoder", {"clip_name": "encoder"}),
    loader("JoyAIImageEditVAELoader", "JoyImageLoadVAE", {"vae_name": "vae"}),
    Replacement(
        "JoyAIImageEditPipeline",
        "JoyImageEdit",
        {
            "model": "model",
            "clip": "encoder",
            "vae": "vae",
            "image": "image1",
            "prompt": "prompt",
            "height": "height",
            "width": "width",
            "steps": "steps",
            "guidance_scale": "guidance",
            "num_images_per_prompt": "batch_size",
            "seed": "seed",
            "control_after_generate": "control_after_generate",
        },
        widgets=(
            "prompt",
            "height",
            "width",
            "steps",
            "guidance_scale",
            "num_images_per_prompt",
            "seed",
            "control_after_generate",
            "cpu_offload",
        ),
        more={"base_size": "auto"},
    ),
    # ComfyUI_JoyAI_Image: its files in models/gguf, another pack's folder, are not among our choices
    loader("JoyAI_Image_SM_Model", "JoyImageLoadMMDiT", {"dit": "model"}),
    loader("JoyAI_Image_SM_Clip", "JoyImageLoadEncoder", {"clip": "encoder"}),
    loader("JoyAI_Image_SM_VAE", "JoyImageLoadVAE", {"vae": "vae"}),
    Replacement(
        "JoyAI_Image_SM_KSampler",
        "JoyImageSampler",
        {
            "model": "model",
            "latents": "latent",
            "positive": "positive",
            "negative": "negative",
            "steps": "steps",
            "guidance_scale": "guidance",
        },
        widgets=("steps", "guidance_scale", "offload", "offload_block_num"),
        more={"seed": 0},
    ),
    Replacement("JoyAI_Vae_Decoder", "VAEDecode", {"vae": "vae", "latents": "samples"}),
)


async def register() -> None:
    """Tell the host, once it is up. Old nodes that are still installed are left alone."""
    PromptServer.instance.add_on_prompt_handler(replace)
    for each in REPLACEMENTS:
        replacement = io.NodeReplace(
            new_node_id=each.new,
            old_node_id=each.old,
            old_widget_ids=list(each.widgets),
            input_mapping=[
                *({"new_id": new, "old_id": old} for old, new in each.inputs.items()),
                *({"new_id": name, "set_value": value} for name, value in each.more.items()),
            ],
            output_mapping=[{"new_idx": 0, "old_idx": 0}],
        )
        await ComfyAPI().node_replacement.register(replacement)


def replace(request: dict[str, Any]) -> dict[str, Any]:
    """A request to run a prompt, with the old nodes in it replaced.

    The host would do it after this, but it expects every input, even an optional one, and a title on every node, which
    prompts made by programs do not have.
    """
    table = {each.old: each for each in REPLACEMENTS if each.old not in nodes.NODE_CLASS_MAPPINGS}
    for node in request.get("prompt", {}).values():
        if found := table.get(node.get("class_type")):
            given = node.get("inputs", {})
            node["class_type"] = found.new
            node["inputs"] = {**found.more, **{new: given[old] for old, new in found.inputs.items() if old in given}}
    return request
