"""Edit, the one node, against the three whose work it does."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from joyimage.demo import asset
from tools.client import TINY, Client, Failed, Graph, Rejected, output

SCENE = "edit_scene.png"
SAVED = {"filename_prefix": "edit"}
SETTINGS = {"seed": 5, "steps": 2, "guidance": 4.0}
FINE = {"rescale": 0.5, "shift": 2.0, "schedule": "diffusers", "solver": "heun"}


@pytest.fixture(scope="module", autouse=True)
def scene(client):
    asset("move.png").save(client.base / "input" / SCENE)


def loaders(graph: Graph) -> dict[str, list]:
    return {
        "model": graph.add("JoyImageLoadMMDiT", model=TINY),
        "encoder": graph.add("JoyImageLoadEncoder", encoder=TINY),
        "vae": graph.add("JoyImageLoadVAE", vae=TINY),
    }


def pictures(graph: Graph, count: int) -> list[list]:
    other = {"width": 96, "height": 64, "batch_size": 1, "color": 0x3366CC}
    return [graph.add("LoadImage", image=SCENE), graph.add("EmptyImage", **other)][:count]


def by_one(prompt: dict, images: int, settings: dict) -> Graph:
    graph = Graph()
    names = ("image1", "images.image2")
    loaded, given = loaders(graph), dict(zip(names, pictures(graph, images), strict=False))
    graph.add("SaveImage", images=graph.add("JoyImageEdit", **loaded, **given, **prompt, **settings), **SAVED)
    return graph


def by_three(prompt: dict, images: int, settings: dict) -> Graph:
    graph = Graph()
    loaded = loaders(graph)
    given = {f"images.image{i}": image for i, image in enumerate(pictures(graph, images))}
    vae = {"vae": loaded["vae"]}
    encoded = graph.add("JoyImageEncodePrompt", encoder=loaded["encoder"], **vae, **given, **prompt)
    conditions = {name: output(encoded, slot) for slot, name in enumerate(("positive", "negative", "latent"))}
    sampled = graph.add("JoyImageSampler", model=loaded["model"], **conditions, **settings)
    graph.add("SaveImage", images=graph.add("VAEDecode", samples=sampled, **vae), **SAVED)
    return graph


def find(graph: Graph, kind: str) -> str:
    """The key of the one node of a class."""
    [key] = [key for key, node in graph.items() if node["class_type"] == kind]
    return key


def results(client: Client, graph: Graph) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in client.run(graph).files([find(graph, "SaveImage"), 0])]


@pytest.mark.parametrize("build", [by_one, by_three])
def test_the_node_says_what_a_spatial_instruction_lacks(client, build):
    graph = build(
        {"prompt": "Rotate the cube to show the rear view.", "negative_prompt": "", "base_size": "64"}, 1, SETTINGS
    )
    [text] = [text for text in client.run(graph).texts.values() if "word for word" in text]
    assert "side" in text


@pytest.mark.parametrize(
    ("prompt", "images", "settings"),
    [
        ({"prompt": "A red cube on plain slate ground."}, 0, SETTINGS),
        ({"prompt": "Make the ground green."}, 1, SETTINGS | {"guidance": 1.0}),
        (
            {"prompt": "Put both side by side.", "negative_prompt": "blur", "base_size": "exact", "batch_size": 2},
            2,
            SETTINGS | FINE,
        ),
        ({"prompt": "A blue cone.", "width": 96, "height": 64}, 0, SETTINGS),
    ],
    ids=["text alone", "one image", "two images and all options", "a size"],
)
def test_its_picture_is_that_of_the_three_nodes(client, prompt, images, settings):
    prompt = {"negative_prompt": "", "base_size": "auto"} | prompt
    one, three = results(client, by_one(prompt, images, settings)), results(client, by_three(prompt, images, settings))
    assert len(one) == len(three) == prompt.get("batch_size", 1)
    for ours, theirs in zip(one, three, strict=True):
        assert np.array_equal(ours, theirs)


def test_guidance_below_one_is_none(client):
    prompt = {"prompt": "A red cube on plain slate ground.", "base_size": "auto"}
    [least], [none] = (results(client, by_one(prompt, 0, SETTINGS | {"guidance": value})) for value in (0.0, 1.0))
    assert np.array_equal(least, none)


@pytest.mark.parametrize(
    ("wrong", "field", "reason"),
    [
        ({"prompt": " "}, "prompt", "the prompt is empty"),
        ({"width": 100, "height": 64}, "width", "multiples of 16"),
        ({"width": 64, "height": 100}, "height", "multiples of 16"),
        ({"width": 64}, "width", "give both width and height"),
    ],
)
def test_refusals_mark_the_field_that_is_wrong(client, wrong, field, reason):
    graph = by_one({"prompt": "a cube", "base_size": "auto"} | wrong, 0, SETTINGS)
    with pytest.raises(Rejected, match=reason) as refused:
        client.submit(graph)
    [node] = json.loads(str(refused.value))["node_errors"].values()
    assert [error["extra_info"]["input_name"] for error in node["errors"]] == [field]


def test_a_seventh_image_is_refused_by_name(client):
    graph = by_one({"prompt": "a cube", "base_size": "auto"}, 1, SETTINGS)
    edit = graph[find(graph, "JoyImageEdit")]
    edit["inputs"]["images.image7"] = edit["inputs"]["image1"]
    with pytest.raises(Failed, match=r"no such input: .*image7.*Images are image1 and images.image2 to images.image6"):
        client.run(graph)


def test_it_says_the_size_it_chose(client):
    graph = by_one({"prompt": "a cube", "base_size": "auto"}, 1, SETTINGS)
    assert client.run(graph).outputs[find(graph, "JoyImageEdit")]["text"] == ["64 x 64 pixels, references: 1"]
