"""The nodes' inputs in a real server: the field that is wrong is marked, and settings are the library's."""

from __future__ import annotations

import json

import pytest
from pieces import BOX, encode, load_image

from joyimage.settings import NATIVE_SHIFT, NATIVE_STEPS, Answering, Sampling, Shortcuts
from joyimage.training.settings import Training
from tools.client import Graph, Rejected, output


@pytest.mark.parametrize(
    ("kind", "inputs", "field"),
    [
        ("JoyImageMoveObject", {"object": "cup", "box": ""}, "box"),
        ("JoyImageMoveObject", {"object": "cup"}, "object"),  # no box is there to be marked
        ("JoyImageMoveObject", {"object": " ", "box": json.dumps(BOX)}, "object"),
        ("JoyImageOrbit", {"yaw_start": 0, "yaw_end": 0, "views": 5, "pitch": 0, "zoom": "in"}, "yaw_end"),
        ("JoyImageEncodePrompt", {"prompt": " ", "width": 64, "height": 64}, "prompt"),
        ("JoyImageEncodePrompt", {"width": 0, "height": 64}, "width"),
        ("JoyImageEncodePrompt", {"height": 64}, "height"),
        ("JoyImageEncodePrompt", {"width": 64, "height": 20}, "height"),
    ],
)
def test_the_field_that_is_wrong_is_marked_alone(client, pictures, kind, inputs, field):
    graph = Graph()
    if kind == "JoyImageEncodePrompt":
        node = encode(graph, **inputs)
        graph.add("SaveLatent", samples=output(node, 2), filename_prefix="refused")
    else:
        image = {"image": load_image(graph, "wide.png")} if kind == "JoyImageMoveObject" else {}
        graph.add("PreviewAny", source=output(graph.add(kind, **image, **inputs), 0))
    with pytest.raises(Rejected) as refused:
        client.run(graph)
    reply = json.loads(str(refused.value))["node_errors"]
    assert [e["extra_info"]["input_name"] for node in reply.values() for e in node["errors"]] == [field]


# The nodes' inputs that are settings of the library: by node, their names there where these differ.
NATIVE = {"shift": NATIVE_SHIFT, "steps": NATIVE_STEPS}
SETTINGS = {
    "JoyImageSampler": (Sampling, {"guidance": "guidance_scale"}, {"guidance_interval", "sigmas", "timesteps"}),
    "JoyImageSchedule": (
        Sampling,
        {},
        {"guidance_scale", "rescale", "guidance_interval", "sigmas", "timesteps", "solver", *Shortcuts.names()},
    ),
    "JoyImageSpeed": (Shortcuts, {}, set()),
    "JoyImageAsk": (Answering, {}, set()),
    # a set has its loss, and the node makes no samples unless asked to
    "JoyImageTrainLora": (Training, {}, {"targets", "keep", "precision", "loss", "checkpointing", "sample_every"}),
}


@pytest.mark.parametrize("node", SETTINGS)
def test_inputs_are_the_librarys_settings(client, node):
    """Default, least and most, or choices, as `joyimage.settings` has them."""
    kind, names, absent = SETTINGS[node]
    definition = client.get(f"/object_info/{node}")[node]["input"]
    inputs = {names.get(name, name): spec[1] for part in definition.values() for name, spec in part.items() if spec[1:]}
    assert set(kind.names()) - absent <= set(inputs)
    for name in set(kind.names()) - absent:
        own = getattr(kind, name)
        assert inputs[name]["default"] == (NATIVE[name] if own is None else own)  # a widget has no "as the model"
        if isinstance(getattr(kind, name), str):
            assert tuple(inputs[name]["options"]) == kind.choices(name)
        else:
            limits = kind.range(name)
            assert (inputs[name]["min"], inputs[name]["max"]) == (limits.least, limits.most)
