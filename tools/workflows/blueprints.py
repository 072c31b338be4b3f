"""Whole edits as one node: graphs that ComfyUI offers among its nodes, under Subgraph Blueprints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from .build import MARGIN, Group, Json, Node, Out, Workflow, build, height, node_inputs, widget_values
from .parts import BY_HAND, EDIT_FILES, by_hand, loader, models

LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
INSIDE, OUTSIDE = -10, -20  # the editor's numbers for the two ends of a subgraph
END_WIDTH, END_ROW, END_GAP = 120, 20, 80  # of either end, of its slots, and before the nodes
WIDTH = 380
NAMESPACE = uuid5(NAMESPACE_URL, "joyimage/blueprints")
SHOWN_OUTSIDE = "Shown outside"  # the property of a node inside by which its view is on the outside too


@dataclass(frozen=True)
class Blueprint:
    """A graph in one node: its name and what it does, the nodes inside, and what of theirs is on the outside."""

    name: str
    description: str
    aliases: Sequence[str]  # for the search
    groups: Sequence[Group]
    controls: Mapping[str, tuple[str, str]]  # name outside: node and input inside; sockets before widgets
    output: Out
    view: str | None = None  # the node whose view is on the outside too

    @property
    def nodes(self) -> dict[str, Node]:
        return {name: node for group in self.groups for name, node in group.nodes.items()}


def wrap(blueprint: Blueprint, object_info: Json) -> Json:
    """The file's content: a graph of one node, and the subgraph that it stands for."""
    made = build(Workflow(blueprint.name, "", blueprint.groups), object_info)
    inside = dict(zip(blueprint.nodes, made["nodes"][1:], strict=True))  # the first is the note
    if blueprint.view:
        inside[blueprint.view]["properties"][SHOWN_OUTSIDE] = True
    links = [dict(zip(LINK, link, strict=True)) for link in made["links"]]
    inputs = [enter(links, name, inside[node], to) for name, (node, to) in blueprint.controls.items()]
    output = leave(links, inside[blueprint.output.node], blueprint.output.output)
    subgraph = {
        "id": str(uuid5(NAMESPACE, blueprint.name)),
        "version": 1,
        "state": {
            "lastNodeId": made["last_node_id"],
            "lastLinkId": len(links),
            "lastGroupId": len(blueprint.groups),
            "lastRerouteId": 0,
        },
        "revision": 0,
        "config": {},
        "name": blueprint.name,
        "category": "JoyImage",
        "description": blueprint.description,
        **ends(inside.values(), len(inputs)),
        "inputs": inputs,
        "outputs": [output],
        "widgets": [],
        "nodes": list(inside.values()),
        "groups": [{"id": number, **group} for number, group in enumerate(made["groups"], 1)],
        "links": links,
        "extra": made["extra"],
    }
    return {
        "id": str(uuid5(NAMESPACE, f"graph of {blueprint.name}")),
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [host(blueprint, subgraph, object_info)],
        "links": [],
        "groups": [],
        "definitions": {"subgraphs": [subgraph]},
        "config": {},
        "extra": {"BlueprintDescription": blueprint.description, "BlueprintSearchAliases": list(blueprint.aliases)},
        "version": 0.4,
    }


def find(slots: Sequence[Json], name: str | None) -> tuple[int, Json]:
    """The place of a slot, and the slot. Raises `ValueError` if none has the name."""
    names = [slot["name"] for slot in slots]
    place = names.index(name)
    return place, slots[place]


def enter(links: list[Json], name: str, node: Json, to: str) -> Json:
    """The next input of the subgraph, its link into a node inside among `links`."""
    index, slot = find(node["inputs"], to)
    place = sum(link["origin_id"] == INSIDE for link in links)
    slot["link"] = number = len(links) + 1
    links.append(dict(zip(LINK, (number, INSIDE, place, node["id"], index, slot["type"]), strict=True)))
    return {"id": str(uuid5(NAMESPACE, f"input {name}")), "name": name, "type": slot["type"], "linkIds": [number]}


def leave(links: list[Json], node: Json, name: str | None) -> Json:
    """The output of the subgraph, its link out of a node inside among `links`."""
    index, slot = find(node["outputs"], name)
    number = len(links) + 1
    slot["links"].append(number)
    links.append(dict(zip(LINK, (number, node["id"], index, OUTSIDE, 0, slot["type"]), strict=True)))
    return {"id": str(uuid5(NAMESPACE, "output")), "name": name, "type": slot["type"], "linkIds": [number]}


def ends(nodes: Iterable[Json], inputs: int) -> Json:
    """The two ends of the subgraph, left and right of its nodes."""
    right = max(node["pos"][0] + node["size"][0] for node in nodes) + MARGIN + END_GAP
    left = -END_GAP - END_WIDTH
    places = {"inputNode": (INSIDE, left, inputs), "outputNode": (OUTSIDE, right, 1)}
    return {
        name: {"id": number, "bounding": [x, 0, END_WIDTH, END_ROW * (rows + 2)]}
        for name, (number, x, rows) in places.items()
    }


def host(blueprint: Blueprint, subgraph: Json, object_info: Json) -> Json:
    """The node that stands for the subgraph. What is a widget inside is one here, with its value."""
    slots, values, shown = [], [], []
    for entry, (name, to) in zip(subgraph["inputs"], blueprint.controls.values(), strict=True):
        node = blueprint.nodes[name]
        [given] = [each for each in node_inputs(node, object_info[node.type]) if each.name == to]
        widget = {"widget": {"name": entry["name"]}} if given.is_widget else {}
        slots.append({"name": entry["name"], "type": entry["type"], **widget, "link": None})
        values += widget_values(node, [given])[:1]  # without what a run does to a seed
        shown.append(given)
    outputs = [{"name": each["name"], "type": each["type"], "links": []} for each in subgraph["outputs"]]
    room = BY_HAND.get(blueprint.nodes[blueprint.view].type, 120) if blueprint.view else 0
    size = [WIDTH, height(Node(subgraph["id"], room=room), shown, {"output": outputs})]
    return {
        "id": 1,
        "type": subgraph["id"],
        "title": blueprint.name,
        "pos": [0, 0],
        "size": size,
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": slots,
        "outputs": outputs,
        "properties": {},
        "widgets_values": values,
    }


FILES = {name: (name, name) for name in ("model", "encoder", "vae")}
SETTINGS = {"steps": ("edit", "steps"), "seed": ("edit", "seed"), **FILES}
PICTURE = Out("edit", "image")


def editing(**inputs: Any) -> Group:
    parts = {name: Out(name) for name in FILES}
    return Group("Edit", {"edit": Node("JoyImageEdit", {**parts, **inputs}, room=60)}, 360)


def spatial(name: str, description: str, aliases: Sequence[str], node: Node, own: Sequence[str]) -> Blueprint:
    """An edit by the instruction of a node that takes the picture and has controls of its own."""
    edit = editing(image1=Out("instruction", "image"), prompt=Out("instruction", "instruction"))
    return Blueprint(
        name,
        description,
        aliases,
        [models(EDIT_FILES), Group("Instruction", {"instruction": node}, 340), edit],
        {**{each: ("instruction", each) for each in ("image", *own)}, **SETTINGS},
        PICTURE,
        view="instruction",
    )


BLUEPRINTS = (
    Blueprint(
        "Edit Image (JoyImage)",
        "Changes a picture as told, or makes one from text alone where none is connected.",
        ("qwen edit", "instruction edit", "image edit", "text to image"),
        [models(EDIT_FILES), editing()],
        {"image": ("edit", "image1"), "prompt": ("edit", "prompt"), **SETTINGS},
        PICTURE,
    ),
    spatial(
        "Move Object (JoyImage)",
        "Moves an object to the red box that is drawn on the picture.",
        ("red box", "place object", "image edit"),
        by_hand("JoyImageMoveObject"),
        ("object",),
    ),
    spatial(
        "Rotate Object (JoyImage)",
        "Turns an object until the side that is chosen is seen.",
        ("turn object", "turnaround", "multi angle"),
        by_hand("JoyImageRotateObject"),
        ("object", "view"),
    ),
    spatial(
        "Move Camera (JoyImage)",
        "Shows the same scene from another side, nearer or farther away.",
        ("camera angle", "novel view", "multi angle"),
        by_hand("JoyImageCamera"),
        ("yaw", "pitch", "zoom"),
    ),
    Blueprint(
        "Ask (JoyImage)",
        "Answers a question about a picture.",
        ("caption", "describe image", "VQA"),
        [
            Group("Model", {"encoder": loader("encoder", EDIT_FILES["encoder"])}, 400),
            Group("Question", {"ask": Node("JoyImageAsk", {"encoder": Out("encoder")}, room=120)}, 400),
        ],
        {"image": ("ask", "images.image0"), "question": ("ask", "question"), "encoder": FILES["encoder"]},
        Out("ask", "text"),
        view="ask",
    ),
)
