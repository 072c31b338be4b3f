"""What makes a MODEL faster, at a small loss or none."""

from __future__ import annotations

from comfy_api.latest import io

from ..joyimage.sampling import schedule
from ..joyimage.settings import ATTENTIONS, NATIVE_STEPS, SHORTCUTS, Shortcuts
from ..joyimage.shortcuts import passes
from . import host
from .feedback import told
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
    tooltip = (
        "exact saves nothing; fast takes a third of the passes through the network. Values below that are not off go "
        "before it."
    )
    return setting_input(Shortcuts, "preset", tooltip, **options)


def shortcut_inputs(**options) -> list[io.Input]:
    return [preset_input(**options), *(setting_input(Shortcuts, name, TOOLTIPS[name], **options) for name in SHORTCUTS)]


def kernel_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "products",
            options=list(host.PRODUCT_CHOICES),
            default=host.DEFAULT,
            optional=True,
            tooltip="How quantised weights multiply. 8bit also rounds what comes in, where the device is faster then; "
            "exact never does; default is what ComfyUI does with each format.",
        ),
        io.Combo.Input(
            "attention",
            options=[host.DEFAULT, *ATTENTIONS],
            default=host.DEFAULT,
            optional=True,
            tooltip="What computes attention. default is ComfyUI's choice, auto torch's own; flash3 and sage need "
            "their packages, and sage rounds to 8 bits.",
        ),
        io.Boolean.Input(
            "compile",
            default=False,
            optional=True,
            tooltip="Compile the network's blocks: the first step takes a minute, the others less time, at any size.",
        ),
    ]


class Speed(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageSpeed",
            display_name="Speed (JoyImage)",
            category="JoyImage/sampling",
            description="Makes a MODEL faster in all samplers that follow, by fewer passes through the network, at a "
            "small loss that is measured, and by faster ones.",
            search_aliases=["joyai", "fast", "cache", "teacache", "accelerate"],
            inputs=[
                io.Model.Input("model", tooltip="From Load MMDiT (JoyImage), or patched by other nodes."),
                *shortcut_inputs(optional=True),
                *kernel_inputs(),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[io.Model.Output(tooltip="For a sampler.")],
        )

    @classmethod
    def execute(cls, model, products=host.DEFAULT, attention=host.DEFAULT, compile=False, **values) -> io.NodeOutput:
        shortcuts = Shortcuts(**values)
        patched = host.with_shortcuts(model, shortcuts.shortcuts)
        host.use_attention(patched, attention)
        host.use_compiled_blocks(patched, compile)
        notes = [passes_note(shortcuts), host.use_products(patched, products)]
        return io.NodeOutput(patched, ui=told(cls.hidden.unique_id, "\n".join(filter(None, notes))))


def passes_note(shortcuts: Shortcuts) -> str:
    """A line on what is left of the passes of a run with the default settings."""
    count = passes(shortcuts, schedule(NATIVE_STEPS).tolist())
    fewer = ", less what block_cache finds" if shortcuts.block_cache else ""
    return f"{NATIVE_STEPS} guided steps take {count} passes of {2 * NATIVE_STEPS}{fewer}"
