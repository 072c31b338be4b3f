"""The graphs that run at once, as they are shipped, judged by the scenes' truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pieces import NO_EXTRA
from PIL import Image

from joyimage.boxes import box_from_json
from tools.client import Client, Graph, Run
from tools.client import output as output_of
from tools.tiny import example_scenes, example_trials, examples, judge
from tools.tiny.render import render
from tools.tiny.scenes import SIZE, Scenes
from tools.workflows import load
from tools.workflows.try_it import WORKFLOWS

NAMES = [workflow.name for workflow in WORKFLOWS]
ENTRIES, SCENES = examples.load_scenes()
OTHERS = (5,)  # scenes that are tried besides the one that the templates open with


@pytest.fixture(params=[0, *OTHERS])
def chosen(request) -> tuple[dict, Scenes]:
    """What the node says of a scene, and the truth."""
    i = request.param
    return ENTRIES[i], SCENES[i : i + 1]


@pytest.fixture
def shipped(client, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))  # where comfy-cli makes a folder when it is imported
    from comfy_cli.workflow_to_api import convert_ui_to_api

    return lambda name: Graph(convert_ui_to_api(load(name), client.get("/object_info")))


def run_on(client: Client, graph: Graph, entry: dict) -> Run:
    for node in graph.values():
        if node["class_type"] == "JoyImageExampleScene" and node["inputs"]["scene"] != "all":
            node["inputs"]["scene"] = entry["name"]
    return client.run(graph)


def pixels(run: Run, graph: Graph, class_type: str, kind: str = "images") -> list[np.ndarray]:
    """The pictures (N, SIZE, SIZE, 3) that each node of a class has saved, in the graph's order."""
    nodes = [key for key, node in graph.items() if node["class_type"] == class_type]
    return [
        np.stack([np.asarray(Image.open(file).convert("RGB")) for file in run.files([key, 0], kind)]) for key in nodes
    ]


def move(run: Run, graph: Graph, entry: dict, scene: Scenes) -> None:
    [output] = pixels(run, graph, "SaveImage")
    assert example_trials.moved_well(scene, output, np.array([box_from_json(example_scenes.BOX, SIZE, SIZE)])).all()


def turn(run: Run, graph: Graph, entry: dict, scene: Scenes) -> None:
    turned, orbit = sorted(pixels(run, graph, "SaveImage"), key=len)
    assert example_trials.turned_well(scene, turned).all()
    for yaw, output in zip(example_scenes.YAWS, orbit, strict=True):
        assert example_trials.orbited_well(scene, output[None], yaw).all()


def locate(run: Run, graph: Graph, entry: dict, scene: Scenes) -> None:
    [said] = [run.outputs[key]["text"] for key, node in graph.items() if node["class_type"] == "JoyImageAsk"]
    assert said == [example_scenes.nearer(scene, 0)]
    [found] = [run.outputs[key]["text"] for key, node in graph.items() if node["class_type"] == "JoyImageLocate"]
    box = box_from_json(found[0].partition(": ")[2], SIZE, SIZE)
    assert example_trials.located_well(scene, [box]).all()
    [output] = pixels(run, graph, "SaveImage")
    assert example_trials.moved_well(
        scene.with_slot(example_scenes.VEHICLE, present=False), output, np.array([box])
    ).all()


def inpaint(run: Run, graph: Graph, entry: dict, scene: Scenes) -> None:
    [before], [after] = (pixels(run, graph, "JoyImageCompare", kind) for kind in ("before", "after"))
    assert example_trials.drawn_well(scene, before).all()
    [found] = [run.outputs[key]["text"] for key, node in graph.items() if node["class_type"] == "JoyImageLocate"]
    mask = judge.inside(np.array([box_from_json(found[0].partition(": ")[2], SIZE, SIZE)]))
    assert example_trials.recoloured_well(scene, before, after, mask).all()
    assert (before[~mask] == after[~mask]).all()


def train(run: Run, graph: Graph, entry: dict, scene: Scenes) -> None:
    [before], [after] = (pixels(run, graph, "JoyImageCompare", kind) for kind in ("before", "after"))
    wanted = render(scene.with_slot(example_scenes.VEHICLE, present=False)).pixels[0]
    apart = [np.abs(made.astype(float) - wanted).mean() for made in (before, after)]
    assert apart[1] < 4 < apart[0], apart  # levels; the VAE alone leaves 2 on checks


RIGHT: dict[str, Callable[[Run, Graph, dict, Scenes], None]] = dict(
    zip(NAMES, (move, turn, locate, inpaint, train), strict=True)
)


@pytest.mark.model
@pytest.mark.parametrize("name", NAMES)
def test_makes_what_it_says(client, shipped, chosen, name, trains):
    entry, scene = chosen
    if name == NAMES[-1] and not trains:
        pytest.skip(NO_EXTRA)
    graph = shipped(name)
    RIGHT[name](run_on(client, graph, entry), graph, entry, scene)


def test_the_node_offers_the_scenes_as_drawn(client):
    assert client.options("JoyImageExampleScene", "scene") == [*(entry["name"] for entry in ENTRIES), "all"]
    assert len(ENTRIES) == examples.COUNT
    drawn = render(SCENES).pixels
    for i, entry in enumerate(ENTRIES):
        assert (np.asarray(Image.open(examples.FOLDER / entry["file"])) == drawn[i]).all()
        assert {name: entry[name] for name in example_scenes.words(SCENES, i)} == example_scenes.words(SCENES, i)
    cleared = np.asarray(Image.open(examples.FOLDER / examples.CLEARED).convert("RGB")).astype(float)
    without = np.concatenate(list(render(SCENES.with_slot(example_scenes.VEHICLE, present=False)).pixels))
    assert np.abs(cleared - without).mean() < 0.5  # a palette's


def test_all_scenes_are_a_batch_with_a_line_of_words_for_each(client):
    graph = Graph()
    scenes = graph.add("JoyImageExampleScene", scene="all")
    saved = [graph.add("SaveImage", images=output_of(scenes, i), filename_prefix="all") for i in (0, 7)]
    removals = graph.add("PreviewAny", source=output_of(scenes, 5))
    run = client.run(graph)
    assert [len(run.files(node)) for node in saved] == [len(ENTRIES)] * 2
    assert run.outputs[removals[0]]["text"][0].splitlines() == [entry["removal"] for entry in ENTRIES]
