"""What every node of the pack is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io


class Node(io.ComfyNode):
    """A node whose methods name the inputs that they take: the host calls them with those of the schema, by name."""

    if TYPE_CHECKING:  # the host declares them with `**kwargs` alone, which no method that names its inputs agrees with

        @classmethod
        def execute(cls, *args: Any, **kwargs: Any) -> io.NodeOutput: ...

        @classmethod
        def validate_inputs(cls, *args: Any, **kwargs: Any) -> bool | str: ...

        @classmethod
        def fingerprint_inputs(cls, *args: Any, **kwargs: Any) -> Any: ...
