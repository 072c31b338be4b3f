"""The graphs for the published model, converted from the editor's format and run by a real server, with the bundled
model in its place, against the library."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pieces import difference
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from joyimage import JoyImage, spatial
from joyimage.boxes import box_from_json, box_to_json, locate_question, parse_boxes
from joyimage.config import WAN_LATENTS_MEAN, WAN_LATENTS_STD
from joyimage.demo import asset
from joyimage.images import load as load_picture
from joyimage.images import to_pil
from joyimage.inpainting import OVERLAP
from joyimage.understanding import CAPTION_TOKENS
from tools.client import TINY, Client, Graph, Run
from tools.workflows import FOLDER, SUBGRAPHS, apps, load
from tools.workflows.blueprints import BLUEPRINTS, wrap
from tools.workflows.build import build
from tools.workflows.loop import WORKFLOWS
from tools.workflows.parts import EDIT_FILES, LOADERS, PLUS_FILES
from tools.workflows.try_it import WORKFLOWS as TRY_IT

PACK = "ComfyUI-JoyImage"
NAMES = [workflow.name for workflow in WORKFLOWS]
TRIED = [workflow.name for workflow in TRY_IT]
APPS = [app.graph.name for app in apps.APPS]
REBUILD = "start ComfyUI with this pack and run python -m tools.workflows"
# What makes them fast; everything else stays as it is shipped.
SMALL = {"steps": 2, "draft_steps": 1, "max_new_tokens": 12, "megapixels": 0.01, "views": 3}
SHEET = {"width": 64, "height": 32}  # where a graph asks for a size of its own
BORDER = {"left": 16, "right": 32}
PHOTOGRAPHS = FOLDER.parent / "web" / "examples"


@pytest.fixture
def shipped(client, monkeypatch, tmp_path):
    """A shipped graph by its name, as comfy-cli makes a prompt of it, with the bundled model and small settings."""
    monkeypatch.setenv("HOME", str(tmp_path))  # where comfy-cli makes a folder when it is imported
    from comfy_cli.workflow_to_api import convert_ui_to_api

    def convert(name: str) -> Graph:
        graph = Graph(convert_ui_to_api(load(name), client.get("/object_info")))
        for node in graph.values():
            given = node["inputs"]
            given.update({key: value for key, value in SMALL.items() if key in given})
            given.update({part: TINY for part, kind in LOADERS.items() if node["class_type"] == kind})
            if given.get("width"):
                given.update(SHEET)
            if node["class_type"] == "ImagePadForOutpaint":
                given.update(BORDER)
        return graph

    return convert


def find(graph: Graph, class_type: str) -> str:
    """The last node of a class, by its key."""
    return [key for key, node in graph.items() if node["class_type"] == class_type][-1]


def value(graph: Graph, class_type: str, name: str):
    return graph[find(graph, class_type)]["inputs"][name]


def edit(library: JoyImage, graph: Graph, images, prompt, **options) -> list[Tensor]:
    """The library's latents with the settings of the graph."""
    options |= {"steps": SMALL["steps"], "seed": value(graph, "JoyImageSampler", "seed")}
    options |= {"guidance_scale": value(graph, "JoyImageSampler", "guidance"), "output": "latent"}
    latents = library.edit(images, prompt, **options) if images else library.generate(prompt, **options)
    return list(latents.split(1))


def photographs(graph: Graph) -> list[Image.Image]:
    """Those that a graph opens with, in its order."""
    names = [node["inputs"]["image"] for node in graph.values() if node["class_type"] == "JoyImageLoadImage"]
    return [load_picture(PHOTOGRAPHS / f"{name.removeprefix('example: ')}.jpg") for name in names]


def prompt_of(graph: Graph) -> str:
    return value(graph, "JoyImageEncodePrompt", "prompt")


def inputs_of(graph: Graph, class_type: str, *names: str) -> list:
    return [value(graph, class_type, name) for name in names]


def marked(graph: Graph, photo: Image.Image) -> Image.Image:
    box = value(graph, "JoyImageMoveObject", "box")
    return spatial.draw_box(photo, box_from_json(box, *photo.size))


# What the library makes of the same: (library, graph, photographs) -> latents.
EXPECTED: dict[str, Callable[[JoyImage, Graph, list[Image.Image]], list[Tensor]]] = {
    "Edit an image": lambda library, graph, photos: edit(library, graph, photos, prompt_of(graph)),
    "Edit with three images": lambda library, graph, photos: edit(library, graph, photos, prompt_of(graph)),
    "Character turnaround": lambda library, graph, photos: edit(
        library, graph, photos, prompt_of(graph), size=(SHEET["height"], SHEET["width"])
    ),
    "Text to image": lambda library, graph, photos: edit(library, graph, None, prompt_of(graph)),
    "Move an object": lambda library, graph, photos: edit(
        library, graph, marked(graph, *photos), spatial.move_object(value(graph, "JoyImageMoveObject", "object"))
    ),
    "Rotate an object": lambda library, graph, photos: edit(
        library, graph, photos, spatial.rotate_object(*inputs_of(graph, "JoyImageRotateObject", "object", "view"))
    ),
    "Move the camera": lambda library, graph, photos: edit(
        library, graph, photos, spatial.camera(*inputs_of(graph, "JoyImageCamera", "yaw", "pitch", "zoom"))
    ),
    "Orbit in eight views": lambda library, graph, photos: edit(
        library,
        graph,
        photos[0],
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
        assert difference(found, latent) < 1e-5
    return run


def test_files_are_what_the_descriptions_make(client):
    object_info = client.get("/object_info")
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(TRIED + NAMES + APPS), REBUILD
    for workflow in (*TRY_IT, *WORKFLOWS):
        assert load(workflow.name) == build(workflow, object_info), f"{workflow.name}: {REBUILD}"
    for app in apps.APPS:
        assert load(app.graph.name) == apps.appear(app, object_info), f"{app.graph.name}: {REBUILD}"
    assert {path.stem for path in SUBGRAPHS.glob("*.json")} == {blueprint.name for blueprint in BLUEPRINTS}, REBUILD
    for blueprint in BLUEPRINTS:
        assert load(blueprint.name, SUBGRAPHS) == wrap(blueprint, object_info), f"{blueprint.name}: {REBUILD}"


def test_comfyui_lists_them_as_templates(client):
    assert sorted(client.get("/workflow_templates")[PACK])[: len(TRIED)] == TRIED
    assert sorted(client.get("/workflow_templates")[PACK]) == sorted(TRIED + NAMES + APPS)
    for name in TRIED + NAMES + APPS:
        assert client.get(f"/api/workflow_templates/{PACK}/{name.replace(' ', '%20')}.json") == load(name)


def test_comfyui_lists_the_blueprints(client):
    served = [entry for entry in client.get("/global_subgraphs").values() if entry["info"]["node_pack"].endswith(PACK)]
    assert sorted(entry["name"] for entry in served) == sorted(blueprint.name for blueprint in BLUEPRINTS)


@pytest.mark.parametrize("name", TRIED + NAMES + APPS)
def test_has_a_small_thumbnail(name):
    file = FOLDER / f"{name}.jpg"
    assert Image.open(file).size == (800, 600)
    assert file.stat().st_size < 60_000


def test_every_graph_for_the_published_model_is_tested():
    rest = {"Ask about an image", "Inpaint by mask", "Locate and move an object", "Outpaint"}
    assert set(NAMES) == set(EXPECTED) | rest | {"Rewrite the prompt and edit", "Best of four", "Reason with views"}


@pytest.mark.parametrize("name", NAMES + APPS)
def test_loaders_name_the_published_files(name):
    """With addresses at which the page offers them, but for the Plus model's, which are not known for certain."""
    files = PLUS_FILES if name in ("Character turnaround", "Edit with three images") else EDIT_FILES
    kinds = {kind: part for part, kind in LOADERS.items()}
    loaders = [node for node in load(name)["nodes"] if node["type"] in kinds]
    assert len(loaders) == (1 if name == "Ask about an image" else 3)
    for node in loaders:
        file = files[kinds[node["type"]]]
        assert node["widgets_values"][0] == file.name
        offered = [{"name": file.name, "url": file.url, "directory": file.directory}] if file.url else None
        assert node["properties"].get("models") == offered
    assert not any(node["type"] == "LoadImage" for node in load(name)["nodes"])


@pytest.mark.parametrize("name", EXPECTED)
def test_makes_the_librarys_pictures(client, library, shipped, name):
    graph = shipped(name)
    run = assert_makes(client, graph, library, EXPECTED[name](library, graph, photographs(graph)))
    if name == "Orbit in eight views":
        [film] = run.files([find(graph, "SaveWEBM"), 0])
        assert film.stat().st_size > 0


def test_ask_answers_as_the_library(client, library, shipped):
    graph = shipped("Ask about an image")
    node = find(graph, "JoyImageAsk")
    question, seed = inputs_of(graph, "JoyImageAsk", "question", "seed")
    expected = library.ask(photographs(graph), question, seed=seed, max_new_tokens=SMALL["max_new_tokens"])
    assert client.run(graph).outputs[node]["text"] == [expected]


def on_a_scene(graph: Graph, base_directory, obj: str) -> Image.Image:
    """Have the graph work on a picture that the bundled model knows, in which it finds what it is asked for."""
    scene = asset("move.png")
    scene.save(base_directory / "input" / "scene.png")
    graph[find(graph, "JoyImageLoadImage")]["inputs"]["image"] = "scene.png"
    for node in graph.values():
        if node["class_type"] in ("JoyImageLocate", "JoyImageMoveObject"):
            node["inputs"]["object"] = obj
    return scene


def test_locate_and_move(client, library, base_directory, shipped):
    """On a picture that the bundled model knows: it is asked where the cube is, and the box is drawn there."""
    graph = shipped("Locate and move an object")
    scene = on_a_scene(graph, base_directory, "red cube")
    answer = library.ask(scene, locate_question("red cube"), temperature=0)
    box = parse_boxes(answer, *scene.size)[0]
    run = assert_makes(
        client, graph, library, edit(library, graph, spatial.draw_box(scene, box), spatial.move_object("red cube"))
    )
    assert run.outputs[find(graph, "JoyImageLocate")]["text"] == [f"red cube: {box_to_json(box, *scene.size)}"]


def test_best_of_chooses_as_the_library(client, library, base_directory, shipped):
    graph = shipped("Best of four")
    scene = on_a_scene(graph, base_directory, "red cube")
    seed = value(graph, "JoyImageBestOf", "seed")
    options = {"candidates": 4, "draft_steps": SMALL["draft_steps"], "steps": SMALL["steps"], "seed": seed}
    [expected] = library.edit(marked(graph, scene), spatial.move_object("red cube"), **options)
    run = client.run(graph)
    [file] = run.files([find(graph, "SaveImage"), 0])
    assert np.abs(np.asarray(Image.open(file), np.int16) - np.asarray(expected, np.int16)).max() <= 1
    [text] = run.outputs[find(graph, "JoyImageBestOf")]["text"]
    assert f"* seed {expected.info['candidates']['chosen']}: " in text


def test_reasons_as_the_library(client, library, base_directory, shipped):
    graph = shipped("Reason with views")
    scene = on_a_scene(graph, base_directory, "red cube")
    question, seed = inputs_of(graph, "JoyImageReason", "question", "seed")
    expected = library.reason(
        scene, question, views=SMALL["views"], steps=SMALL["steps"], seed=seed, temperature=0,
        max_new_tokens=SMALL["max_new_tokens"],
    )  # fmt: skip
    [text] = client.run(graph).outputs[find(graph, "JoyImageReason")]["text"]
    assert text.splitlines()[-1] == expected.text.splitlines()[-1]


def test_rewrite_and_edit(client, library, shipped):
    """The bundled model's answer is no prompt: the node says so, and the prompt is carried out as it is."""
    graph = shipped("Rewrite the prompt and edit")
    wish = "Remove the red cube."  # words that the model knows: in others rounding shows
    graph[find(graph, "JoyImageRewritePrompt")]["inputs"]["prompt"] = wish
    run = assert_makes(client, graph, library, edit(library, graph, photographs(graph), wish))
    assert "not rewritten" in run.texts[find(graph, "JoyImageRewritePrompt")]


def masked_run(client: Client, graph: Graph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Before, after, and the mask from 0 to 255, of a graph that changes only what lies in it."""
    masked = graph[find(graph, "SetLatentNoiseMask")]["inputs"]["mask"]
    graph["mask"] = {"class_type": "MaskToImage", "inputs": {"mask": masked}}
    graph["seen"] = {"class_type": "PreviewImage", "inputs": {"images": ["mask", 0]}}
    run = client.run(graph)
    [before], [after] = (run.files([find(graph, "JoyImageCompare"), 0], kind) for kind in ("before", "after"))
    [mask] = run.files(["seen", 0])
    return (
        *(np.asarray(Image.open(file).convert("RGB"), np.int16) for file in (before, after)),
        *[np.asarray(Image.open(mask).convert("L"))],
    )


def assert_is(picture: np.ndarray, library: JoyImage, graph: Graph, before, prompt: str | None, **change) -> None:
    """Within a level, what the library makes with the graph's settings."""
    options = {"steps": SMALL["steps"], "seed": value(graph, "JoyImageSampler", "seed"), "base_size": None}
    [made] = library.edit(Image.fromarray(before.astype(np.uint8)), prompt, **options, **change)
    assert np.abs(picture - np.asarray(made, np.int16)).max() <= 1


def test_inpaint_changes_the_mask_alone(client, library, base_directory, shipped):
    graph = shipped("Inpaint by mask")
    on_a_scene(graph, base_directory, "red cube")
    before, after, mask = masked_run(client, graph)
    inside = mask > 0
    assert inside.any() and not inside.all()
    assert (before[~inside] == after[~inside]).all()
    assert (before[inside] != after[inside]).any()
    assert_is(after, library, graph, before, prompt_of(graph), mask=mask)


def test_outpaint_fills_the_border_alone(client, library, base_directory, shipped):
    """And a few pixels of the picture next to it, which are blended."""
    graph = shipped("Outpaint")
    on_a_scene(graph, base_directory, "red cube")
    graph[find(graph, "JoyImageAsk")]["inputs"]["max_new_tokens"] = CAPTION_TOKENS
    before, after, mask = masked_run(client, graph)
    left, right = BORDER["left"], mask.shape[1] - BORDER["right"]
    assert (mask[:, :left] == 255).all() and (mask[:, right:] == 255).all()
    assert not mask[:, left + OVERLAP : right - OVERLAP].any()
    inside = mask > 0
    assert (before[~inside] == after[~inside]).all()
    assert (before[inside] != after[inside]).any()
    sides = BORDER["left"], 0, BORDER["right"], 0
    assert_is(after, library, graph, before[:, left:right], None, outpaint=sides)
