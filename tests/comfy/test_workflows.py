"""The graphs in `workflows/`, converted from the editor's format and run by a real server, against the library."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from comfy_client import Client, Graph, Run
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from joyimage import JoyImage, spatial
from joyimage.config import WAN_LATENTS_MEAN, WAN_LATENTS_STD
from joyimage.demo import asset
from joyimage.grounding import box_from_json, box_to_json, locate_question, parse_boxes
from joyimage.images import to_pil
from tools.workflows import FOLDER, SUBGRAPHS, apps, load
from tools.workflows.blueprints import BLUEPRINTS, wrap
from tools.workflows.build import build
from tools.workflows.graphs import EXAMPLE, WORKFLOWS

PACK = "ComfyUI-JoyImage"
NAMES = [workflow.name for workflow in WORKFLOWS]
APPS = [app.graph.name for app in apps.APPS]
REBUILD = "start ComfyUI with this pack and run python -m tools.workflows"
# What makes them fast; everything else stays as it is shipped.
SMALL = {"steps": 2, "max_new_tokens": 12}


@pytest.fixture(scope="module")
def library():
    return JoyImage.load("tiny")


@pytest.fixture(scope="module")
def photo(base_directory):
    """A picture under the name of the one that ComfyUI brings."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    picture = Image.fromarray(pixels).resize((320, 240), Image.Resampling.BICUBIC)
    picture.save(base_directory / "input" / EXAMPLE)
    return picture


@pytest.fixture
def shipped(client, photo, monkeypatch, tmp_path):
    """A shipped graph by its name, as comfy-cli makes a prompt of it, with small settings."""
    monkeypatch.setenv("HOME", str(tmp_path))  # where comfy-cli makes a folder when it is imported
    from comfy_cli.workflow_to_api import convert_ui_to_api

    def convert(name: str) -> Graph:
        graph = Graph(convert_ui_to_api(load(name), client.get("/object_info")))
        for node in graph.values():
            node["inputs"].update({key: value for key, value in SMALL.items() if key in node["inputs"]})
        return graph

    return convert


def find(graph: Graph, class_type: str) -> str:
    """The last node of a class, by its key."""
    return [key for key, node in graph.items() if node["class_type"] == class_type][-1]


def value(graph: Graph, class_type: str, name: str):
    return graph[find(graph, class_type)]["inputs"][name]


def edit(library: JoyImage, graph: Graph, images, prompt) -> list[Tensor]:
    """The library's latents with the settings of the graph."""
    options = {"steps": SMALL["steps"], "seed": value(graph, "JoyImageSampler", "seed")}
    options |= {"guidance_scale": value(graph, "JoyImageSampler", "guidance"), "output": "latent"}
    latents = library.edit(images, prompt, **options) if images else library.generate(prompt, **options)
    return list(latents.split(1))


def prompt_of(graph: Graph) -> str:
    return value(graph, "JoyImageEncodePrompt", "prompt")


def inputs_of(graph: Graph, class_type: str, *names: str) -> list:
    return [value(graph, class_type, name) for name in names]


def marked(graph: Graph, photo: Image.Image) -> Image.Image:
    box = value(graph, "JoyImageMoveObject", "box")
    return spatial.draw_box(photo, box_from_json(box, *photo.size))


def try_me(library: JoyImage, graph: Graph, photo: Image.Image) -> list[Tensor]:
    prompts = [n["inputs"]["prompt"] for n in graph.values() if n["class_type"] == "JoyImageEncodePrompt"]
    (text,) = [prompt for prompt in prompts if isinstance(prompt, str)]
    (picture,) = pictures(library, edit(library, graph, None, text))
    instruction = spatial.move_object(value(graph, "JoyImageMoveObject", "object"))
    return edit(library, graph, marked(graph, picture), instruction)


# What the library makes of the same: (library, graph, photo) -> latents.
EXPECTED: dict[str, Callable[[JoyImage, Graph, Image.Image], list[Tensor]]] = {
    "Tiny - try me": try_me,
    "Edit an image": lambda library, graph, photo: edit(library, graph, photo, prompt_of(graph)),
    "Edit with three images": lambda library, graph, photo: edit(library, graph, [photo] * 3, prompt_of(graph)),
    "Text to image": lambda library, graph, photo: edit(library, graph, None, prompt_of(graph)),
    "Move an object": lambda library, graph, photo: edit(
        library, graph, marked(graph, photo), spatial.move_object(value(graph, "JoyImageMoveObject", "object"))
    ),
    "Rotate an object": lambda library, graph, photo: edit(
        library, graph, photo, spatial.rotate_object(*inputs_of(graph, "JoyImageRotateObject", "object", "view"))
    ),
    "Move the camera": lambda library, graph, photo: edit(
        library, graph, photo, spatial.camera(*inputs_of(graph, "JoyImageCamera", "yaw", "pitch", "zoom"))
    ),
    "Orbit in eight views": lambda library, graph, photo: edit(
        library,
        graph,
        photo,
        spatial.orbit(*inputs_of(graph, "JoyImageOrbit", "yaw_start", "yaw_end", "views", "pitch", "zoom")),
    ),
}


def pictures(library: JoyImage, latents: list[Tensor]) -> list[Image.Image]:
    return [picture for decoded in library.decode(latents) for picture in to_pil(decoded)]


def normalised(latent: Tensor) -> Tensor:
    """A saved LATENT as the library has it: ComfyUI keeps what the VAE gives."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (WAN_LATENTS_MEAN, WAN_LATENTS_STD))
    return (latent - mean) / std


def assert_makes(client: Client, graph: Graph, library: JoyImage, latents: list[Tensor]) -> Run:
    """Run a graph and compare its pictures, and the latents before them, with the library's.

    Levels of 255 hide small mistakes; the latents do not.
    """
    sampler = graph[find(graph, "VAEDecode")]["inputs"]["samples"]
    graph["latent"] = {"class_type": "SaveLatent", "inputs": {"samples": sampler, "filename_prefix": "workflow"}}
    run = client.run(graph)
    files = run.files([find(graph, "SaveImage"), 0])
    expected = pictures(library, latents)
    for file, picture in zip(files, expected, strict=True):
        assert np.abs(np.asarray(Image.open(file), np.int16) - np.asarray(picture, np.int16)).max() <= 1
    for file, latent in zip(run.files(["latent", 0], "latents"), latents, strict=True):
        found = normalised(load_file(file)["latent_tensor"])
        torch.testing.assert_close(found, latent, atol=1e-5 * latent.abs().max().item(), rtol=0)
    return run


def test_files_are_what_the_descriptions_make(client):
    object_info = client.get("/object_info")
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(NAMES + APPS), REBUILD
    for workflow in WORKFLOWS:
        assert load(workflow.name) == build(workflow, object_info), f"{workflow.name}: {REBUILD}"
    for app in apps.APPS:
        assert load(app.graph.name) == apps.appear(app, object_info), f"{app.graph.name}: {REBUILD}"
    assert {path.stem for path in SUBGRAPHS.glob("*.json")} == {blueprint.name for blueprint in BLUEPRINTS}, REBUILD
    for blueprint in BLUEPRINTS:
        assert load(blueprint.name, SUBGRAPHS) == wrap(blueprint, object_info), f"{blueprint.name}: {REBUILD}"


def test_comfyui_lists_them_as_templates(client):
    assert sorted(client.get("/workflow_templates")[PACK]) == sorted(NAMES + APPS)
    for name in NAMES + APPS:
        assert client.get(f"/api/workflow_templates/{PACK}/{name.replace(' ', '%20')}.json") == load(name)


def test_comfyui_lists_the_blueprints(client):
    served = [entry for entry in client.get("/global_subgraphs").values() if entry["info"]["node_pack"].endswith(PACK)]
    assert sorted(entry["name"] for entry in served) == sorted(blueprint.name for blueprint in BLUEPRINTS)


@pytest.mark.parametrize("name", NAMES + APPS)
def test_has_a_small_thumbnail(name):
    file = FOLDER / f"{name}.jpg"
    assert Image.open(file).size == (800, 600)
    assert file.stat().st_size < 60_000


@pytest.mark.parametrize("name", EXPECTED)
def test_makes_the_librarys_pictures(client, library, photo, shipped, name):
    graph = shipped(name)
    assert_makes(client, graph, library, EXPECTED[name](library, graph, photo))


def test_ask_answers_as_the_library(client, library, photo, shipped):
    graph = shipped("Ask about an image")
    node = find(graph, "JoyImageAsk")
    question, seed = inputs_of(graph, "JoyImageAsk", "question", "seed")
    expected = library.ask(photo, question, seed=seed, max_new_tokens=SMALL["max_new_tokens"])
    assert client.run(graph).outputs[node]["text"] == [expected]


def test_locate_and_move(client, library, base_directory, shipped):
    """On a picture that the bundled model knows: it is asked where the cube is, and the box is drawn there."""
    graph = shipped("Locate and move an object")
    asset("move.png").save(base_directory / "input" / "scene.png")
    graph[find(graph, "LoadImage")]["inputs"]["image"] = "scene.png"
    for node in ("JoyImageLocate", "JoyImageMoveObject"):
        graph[find(graph, node)]["inputs"]["object"] = "red cube"
    scene = asset("move.png")
    answer = library.ask(scene, locate_question("red cube"), temperature=0)
    box = parse_boxes(answer, *scene.size)[0]
    run = assert_makes(
        client, graph, library, edit(library, graph, spatial.draw_box(scene, box), spatial.move_object("red cube"))
    )
    assert run.texts[find(graph, "JoyImageLocate")] == f"red cube: {box_to_json(box, *scene.size)}"


def test_rewrite_and_edit(client, library, photo, shipped):
    """The bundled model's answer is no prompt: the node says so, and the prompt is carried out as it is."""
    graph = shipped("Rewrite the prompt and edit")
    wish = "Remove the red cube."  # words that the model knows: in others rounding shows
    graph[find(graph, "JoyImageRewritePrompt")]["inputs"]["prompt"] = wish
    run = assert_makes(client, graph, library, edit(library, graph, photo, wish))
    assert "not rewritten" in run.texts[find(graph, "JoyImageRewritePrompt")]
