"""Graphs that open as apps: the few inputs that matter on one side, the result on the other, no graph to be seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .blueprints import editing
from .build import Group, Json, Out, Workflow, build
from .parts import EDIT, EDIT_FILES, by_hand, models, needs, photograph, save


@dataclass(frozen=True)
class App:
    """A graph, what of it the app shows from top to bottom (node and input), and the node that shows the result."""

    graph: Workflow
    inputs: Sequence[tuple[str, str]]
    output: str


def appear(app: App, object_info: Json) -> Json:
    """The file's content: the graph, marked to be opened as an app."""
    made = build(app.graph, object_info)
    names = [name for group in app.graph.groups for name in group.nodes]
    numbers = dict(zip(names, (node["id"] for node in made["nodes"][1:]), strict=True))  # the first is the note
    shown = [[numbers[node], name] for node, name in app.inputs]
    made["extra"] |= {"linearMode": True, "linearData": {"inputs": shown, "outputs": [numbers[app.output]]}}
    return made


def spatial(name: str, do: str, node: str, own: Sequence[str], **words: str) -> App:
    """An edit by the instruction of a node that shows the picture and is set by hand."""
    instruction = by_hand(node, {"image": Out("image"), **words})
    edit = editing(image1=Out("instruction", "image"), prompt=Out("instruction", "instruction"))
    groups = [
        models(EDIT_FILES),
        Group("Picture", {"image": photograph("coffee"), "instruction": instruction}, 420),
        edit,
        Group("Result", {"save": save("edit", name.split(" (")[0].lower().replace(" ", "_"))}, 360),
    ]
    inputs = [("image", "image"), *(("instruction", each) for each in own), ("edit", "steps"), ("edit", "seed")]
    return App(Workflow(name, f"{NOTE.format(do=do)}\n\n{needs(EDIT_FILES, EDIT)}", groups), inputs, "save")


NOTE = "Choose a picture, {do}, and press Run. The model's files are chosen in the graph: **Graph** above shows it."
APPS = (
    spatial(
        "Move an object (app)",
        "say what is to be moved, draw a box where it is to go",
        "JoyImageMoveObject",
        ("object", "box"),
        object="silver spoon",
        box='{"x": 0.74, "y": 0.5, "w": 0.2, "h": 0.42}',
    ),
    spatial("Move the camera (app)", "turn the camera", "JoyImageCamera", ("view",)),
)
