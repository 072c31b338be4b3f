"""Graphs saved for the older pack `joyai_image_comfyui`: what takes the place of its nodes.

ComfyUI replaces one node by one. So its three loaders map, and its pipeline does not: that is Encode Prompt, Sampler
and VAE Decode here.
"""

from __future__ import annotations

from comfy_api.latest import ComfyAPI, io

# Old node and input, new node and input; each has one input, the file's name, and one output.
LOADERS = (
    ("JoyAIImageEditUNETLoader", "unet_name", "JoyImageLoadMMDiT", "model"),
    ("JoyAIImageEditCLIPLoader", "clip_name", "JoyImageLoadEncoder", "encoder"),
    ("JoyAIImageEditVAELoader", "vae_name", "JoyImageLoadVAE", "vae"),
)


async def register() -> None:
    """Tell the host, once it is up. Old nodes that are installed stay what they are."""
    for old_node, old_input, new_node, new_input in LOADERS:
        replacement = io.NodeReplace(
            new_node_id=new_node,
            old_node_id=old_node,
            old_widget_ids=[old_input],
            input_mapping=[{"new_id": new_input, "old_id": old_input}],
            output_mapping=[{"new_idx": 0, "old_idx": 0}],
        )
        await ComfyAPI().node_replacement.register(replacement)
