"""Graphs that open as apps: the few inputs that matter on one side, the result on the other, no graph to be seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .blueprints import editing
from .build import Group, Json, Node, Out, Workflow, build
from .graphs import BY_HAND, SMALL_PICTURE, models, picture, save


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


def spatial(name: str, note: str, node: str, own: Sequence[str]) -> App:
    """An edit by the instruction of a node that shows the picture and is set by hand."""
    instruction = Node(node, {"image": Out("image")}, room=BY_HAND[node])
    edit = editing(image1=Out("instruction", "image"), prompt=Out("instruction", "instruction"))
    groups = [
        models(),
        Group("Picture", {"image": picture(room=SMALL_PICTURE), "instruction": instruction}, 340),
        edit,
        Group("Result", {"save": save("edit", name.split(" (")[0].lower().replace(" ", "_"), SMALL_PICTURE)}, 360),
    ]
    inputs = [("image", "image"), *(("instruction", each) for each in own), ("edit", "steps"), ("edit", "seed")]
    return App(Workflow(name, note, groups), inputs, "save")


NOTE = "Choose a picture, {do}, and press Run. The model's files are chosen in the graph: **Graph** above shows it."
APPS = (
    spatial(
        "Move an object (app)",
        NOTE.format(do="say what is to be moved, draw a box where it is to go"),
        "JoyImageMoveObject",
        ("object", "box"),
    ),
    spatial(
        "Move the camera (app)",
        NOTE.format(do="turn the camera"),
        "JoyImageCamera",
        ("view",),
    ),
)
