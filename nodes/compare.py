"""Before and after, one over the other."""

from __future__ import annotations

from comfy_api.latest import io, ui

from .node import Node


class Compare(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageCompare",
            display_name="Compare (JoyImage)",
            category="JoyImage",
            description="Shows two pictures one over the other, with a line between them that follows the mouse.",
            search_aliases=["before after", "image compare", "slider", "difference"],
            is_output_node=True,
            inputs=[
                io.Image.Input("before", tooltip="The picture as it was. A single one goes with each of a batch."),
                io.Image.Input("after", tooltip="The picture as it is now; of a batch, choose one below the pictures."),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, before, after) -> io.NodeOutput:
        saved = {"before": ui.PreviewImage(before).values, "after": ui.PreviewImage(after).values}
        return io.NodeOutput(ui=saved)
