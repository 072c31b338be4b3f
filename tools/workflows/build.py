"""A described graph as a file that ComfyUI opens: positions, sizes, sockets and links in the editor's format."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import ceil
from typing import Any

Json = dict[str, Any]

PREFIX = "JoyImage"  # of the pack's nodes
PACK, CORE = "joyimage", "comfy-core"  # names in the registry, by which a manager finds what a graph is missing

# Sizes in the editor's pixels, those of its classic renderer.
TITLE = 30
SLOT, SLOTS_END = 20, 6
WIDGET, WIDGETS_END = 24, 8
TEXT = 54  # a text of several lines, before `room` is added
BADGE = 34  # the line with the pack's name that the new renderer puts into its nodes
SHOWN = 250  # the pictures that a node shows below that, by which it grows in each of the renderers
SAID = 120  # the text that a node shows below its widgets
SAYING = (
    "JoyImageAsk", "JoyImageBestOf", "JoyImageEdit", "JoyImageEncodePrompt", "JoyImageLocate", "JoyImageReason",
    "JoyImageRewritePrompt", "JoyImageTrainLora", "JoyImageTrainingSet",
)  # fmt: skip
NODE_GAP, GROUP_GAP = 30, 40
GROUP_TITLE, MARGIN = 50, 20
NOTE_LETTERS, NOTE_LINE, NOTE_ENDS = 70, 18, 40  # of the note in a column 400 wide

WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
GROWING = "COMFY_AUTOGROW_V3"
OPTIONAL, LIST = {"shape": 7}, {"shape": 6}  # how the editor draws an input that may stay empty, an output of lists


@dataclass(frozen=True)
class Out:
    """An output of a node of the graph, by name; the first one if none is given."""

    node: str
    output: str | None = None


@dataclass(frozen=True)
class File:
    """A file that a loader names: where under models/ it belongs, and from where the page may fetch it."""

    name: str
    directory: str
    url: str | None = None


@dataclass(frozen=True)
class Node:
    """A node: its class and its inputs, each a value or an `Out`. Item i of a growing input is `images.image0`."""

    type: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    title: str | None = None
    room: int = 0  # height added for a picture or a long text
    files: Sequence[File] = ()
    after_run: str | None = None  # what becomes of a seed, if not what the node's own default says


@dataclass(frozen=True)
class Group:
    """A titled column of nodes, from top to bottom, under the names by which `Out` finds them."""

    title: str
    nodes: Mapping[str, Node]
    width: int = 320
    below: int = 0  # height for the pictures by which its last node grows when it has run


@dataclass(frozen=True)
class Workflow:
    """A graph: its name, a text in Markdown that stands to its left, and its columns from left to right."""

    name: str
    note: str
    groups: Sequence[Group]


@dataclass(frozen=True)
class Input:
    """An input as the editor has it: a socket, or a widget with its value, to which a link may lead instead."""

    name: str
    type: str
    options: Json
    required: bool
    label: str | None = None

    @property
    def is_widget(self) -> bool:
        return self.type in WIDGET_TYPES and not self.options.get("forceInput")

    def slot(self) -> Json:
        widget = {"widget": {"name": self.name}} if self.is_widget else {}
        shape, label = {} if self.required else OPTIONAL, {"label": self.label} if self.label else {}
        return {"name": self.name, "type": self.type, **label, **shape, **widget, "link": None}


def build(workflow: Workflow, object_info: Json) -> Json:
    """The file's content. `object_info` is what a server with this pack says of its nodes.

    Raises `KeyError` or `ValueError` for a node, an input or an output that does not exist.
    """
    nodes = {name: node for group in workflow.groups for name, node in group.nodes.items()}
    schemas = {name: object_info[node.type] for name, node in nodes.items()}
    inputs = {name: list(node_inputs(node, schemas[name])) for name, node in nodes.items()}
    heights = {name: height(node, inputs[name], schemas[name]) for name, node in nodes.items()}
    places, groups = layout(workflow, heights)
    made = {
        name: {"id": number, **places[name]} | editor_node(node, inputs[name], schemas[name]) | {"order": number - 1}
        for number, (name, node) in enumerate(nodes.items(), 2)  # the note is 1
    }
    links = list(connect(nodes, made))
    return {
        "last_node_id": len(made) + 1,
        "last_link_id": len(links),
        "nodes": [note(workflow), *made.values()],
        "links": links,
        "groups": groups,
        "config": {},
        "extra": {"workflowRendererVersion": "LG"},
        "version": 0.4,
    }


def node_inputs(node: Node, schema: Json) -> list[Input]:
    """The inputs of a node in the editor's order: sockets first, with growing inputs spread out, then widgets."""
    found: list[Input] = []
    for section in ("required", "optional"):
        for name, (kind, *rest) in schema["input"].get(section, {}).items():
            options = rest[0] if rest else {}
            if kind == GROWING:
                found += grown(name, options["template"], node)
            elif isinstance(kind, list):
                found.append(Input(name, "COMBO", {"options": kind, **options}, section == "required"))
            else:
                found.append(Input(name, kind, options, section == "required"))
    if unknown := node.inputs.keys() - {each.name for each in found}:
        raise ValueError(f"{node.type} has no input {', '.join(sorted(unknown))}")
    return sorted(found, key=lambda each: each.is_widget)


def grown(name: str, template: Json, node: Node) -> Iterator[Input]:
    """The sockets of a growing input: those in use, and a free one while there may be more."""
    ((kind, *_),) = template["input"]["required"].values()
    names = template.get("names") or [f"{template['prefix']}{i}" for i in range(template["max"])]
    used = sum(key.startswith(f"{name}.") for key in node.inputs)
    for i, item in enumerate(names[: used + 1]):
        yield Input(f"{name}.{item}", kind, {}, i < template["min"], label=item)


def height(node: Node, inputs: Sequence[Input], schema: Json) -> int:
    widgets = [each for each in inputs if each.is_widget]
    slots = max(len(inputs) - len(widgets), len(schema["output"]))
    values = len(widget_values(node, widgets)) - len(widgets)  # the editor's buttons
    lines = sum(TEXT if each.options.get("multiline") else WIDGET for each in widgets) + WIDGET * values
    badge = BADGE if node.type.startswith(PREFIX) else 0
    said = SAID if node.type in SAYING else 0
    return SLOT * slots + SLOTS_END + (lines + WIDGETS_END if widgets else 0) + badge + said + node.room


def note_height(text: str) -> int:
    """Room for a text in Markdown in either renderer."""
    shown = re.sub(r"\]\([^)]*\)", "]", text)  # links without their addresses
    lines = sum(ceil(len(line) / NOTE_LETTERS) or 0.6 for line in shown.splitlines())
    return NOTE_ENDS + round(NOTE_LINE * lines)


def widget_values(node: Node, inputs: Sequence[Input]) -> list[Any]:
    """Values in the editor's order, with those of the buttons it adds: what a run does to a seed, and the upload."""
    values = []
    for each in inputs:
        if not each.is_widget:
            continue
        given = node.inputs.get(each.name)
        choices = each.options.get("options") or [""]
        values.append(each.options.get("default", choices[0]) if given is None or isinstance(given, Out) else given)
        if control := each.options.get("control_after_generate"):
            values.append(node.after_run or (control if isinstance(control, str) else "randomize"))
        if each.options.get("image_upload"):
            values.append("image")
    return values


def layout(workflow: Workflow, heights: Mapping[str, int]) -> tuple[dict[str, Json], list[Json]]:
    """Position and size of every node, and the groups around them: columns, the first one under the note."""
    places, groups = {}, []
    x, top = 0, TITLE + note_height(workflow.note) + GROUP_GAP
    for group in workflow.groups:
        y = top + GROUP_TITLE
        for name in group.nodes:
            y += TITLE
            places[name] = {"pos": [x + MARGIN, y], "size": [group.width, heights[name]]}
            y += heights[name] + NODE_GAP
        bounding = [x, top, group.width + 2 * MARGIN, y - NODE_GAP + group.below + MARGIN - top]
        groups.append({"title": group.title, "bounding": bounding, "color": "#3f789e", "font_size": 24, "flags": {}})
        x, top = x + group.width + 2 * MARGIN + GROUP_GAP, 0
    return places, groups


def editor_node(node: Node, inputs: Sequence[Input], schema: Json) -> Json:
    outputs = zip(schema["output_name"], schema["output"], schema["output_is_list"], strict=True)
    return {
        "type": node.type,
        **({"title": node.title} if node.title else {}),
        "flags": {},
        "mode": 0,
        "inputs": [each.slot() for each in inputs if not each.options.get("socketless")],
        "outputs": [{"name": n, "type": t, **(LIST if is_list else {}), "links": []} for n, t, is_list in outputs],
        "properties": properties(node),
        "widgets_values": widget_values(node, inputs),
    }


def properties(node: Node) -> Json:
    """Among them what the page offers to download where it is missing."""
    files = [{"name": f.name, "url": f.url, "directory": f.directory} for f in node.files if f.url]
    pack = PACK if node.type.startswith(PREFIX) else CORE
    return {"Node name for S&R": node.type, "cnr_id": pack, **({"models": files} if files else {})}


def note(workflow: Workflow) -> Json:
    return {
        "id": 1,
        "type": "MarkdownNote",
        "pos": [0, TITLE],
        "size": [workflow.groups[0].width + 2 * MARGIN, note_height(workflow.note)],
        "title": workflow.name,
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": [workflow.note],
        "color": "#432",
        "bgcolor": "#653",
    }


def connect(nodes: Mapping[str, Node], made: Mapping[str, Json]) -> Iterator[list]:
    """The links, noted at both of their ends: [id, from, output, to, input, type]."""
    numbers = count(1)
    for name, node in nodes.items():
        for slot, target in enumerate(made[name]["inputs"]):
            out = node.inputs.get(target["name"])
            if not isinstance(out, Out):
                continue
            outputs = made[out.node]["outputs"]
            index = [each["name"] for each in outputs].index(out.output) if out.output else 0
            target["link"] = next(numbers)
            outputs[index]["links"].append(target["link"])
            yield [target["link"], made[out.node]["id"], index, made[name]["id"], slot, outputs[index]["type"]]
