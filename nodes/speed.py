"""What makes a MODEL faster, at a small loss or none."""

from __future__ import annotations

from comfy_api.latest import io

from ..joyimage.settings import SHORTCUTS, Shortcuts
from . import host
from .inputs import setting_input
from .node import Node

TOOLTIPS = {
    "forecast": "n: the network runs at every n-th step, and in between its velocity is forecast. 1 is off.",
    "guidance_every": "n: the negative prompt runs at every n-th step that is computed, and in between what it changed "
    "is reused. 1 is off.",
    "reference_every": "n: the images given run along at every n-th step, and in between their keys and values are "
    "kept, which takes memory. 1 is off.",
    "block_cache": "While the first block's output changes by less than this share, what the other blocks add is "
    "reused. 0 is off.",
}


def preset_input(**options) -> io.Input:
    tooltip = "exact saves nothing; fast takes a third of the passes through the network. Values below that are not "
    tooltip += "off go before it."
    return setting_input(Shortcuts, "preset", tooltip, **options)


def shortcut_inputs(**options) -> list[io.Input]:
    return [preset_input(**options), *(setting_input(Shortcuts, name, TOOLTIPS[name], **options) for name in SHORTCUTS)]


class Speed(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageSpeed",
            display_name="Speed (JoyImage)",
            category="JoyImage/sampling",
            description="Saves passes through the network in all samplers that follow, at a small loss that is "
            "measured.",
            search_aliases=["joyai", "fast", "cache", "teacache", "accelerate"],
            inputs=[
                io.Model.Input("model", tooltip="From Load MMDiT (JoyImage), or patched by other nodes."),
                *shortcut_inputs(optional=True),
            ],
            outputs=[io.Model.Output(tooltip="For a sampler.")],
        )

    @classmethod
    def execute(cls, model, **values) -> io.NodeOutput:
        return io.NodeOutput(host.with_shortcuts(model, Shortcuts(**values).shortcuts))
