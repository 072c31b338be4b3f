"""The nodes for conditioning, spatial instructions and understanding, in a real server on the bundled model."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from comfy_client import TINY, Failed, Graph, Rejected, output
from PIL import Image
from safetensors.torch import load_file

from joyimage import JoyImage, spatial
from joyimage.config import WAN_LATENTS_MEAN, WAN_LATENTS_STD
from joyimage.images import load
from joyimage.settings import Answering, Sampling
from tools.photograph import photograph

QUESTION = "Is the red cube to the left or to the right of the blue cube?"
STEPS = 1  # conditioning is under test, not the sampler
PROMPT = "Remove the red cube."
BOX = {"x": 0.25, "y": 0.5, "w": 0.5, "h": 0.25}


@pytest.fixture(scope="module")
def library() -> JoyImage:
    return JoyImage.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def pictures(client) -> dict[str, Image.Image]:
    """Pictures of three sizes, by the names under which the server has them."""
    whole = photograph()
    made = {"wide.png": whole.resize((300, 200)), "tall.png": whole.rotate(90).resize((120, 330))}
    made["twin.png"] = whole.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((300, 200))
    for name, picture in made.items():
        picture.save(client.base / "input" / name)
    return made


def load_image(graph: Graph, name: str) -> list:
    return graph.add("LoadImage", image=name)


def encoder(graph: Graph) -> list:
    return graph.add("JoyImageLoadEncoder", encoder=TINY)


def encode(graph: Graph, images: tuple[list, ...] = (), **inputs) -> list:
    """Encode Prompt with loaders; `inputs` in place of its defaults, None for none."""
    slots = {f"images.image{i}": image for i, image in enumerate(images)}
    if images:
        slots["vae"] = graph.add("JoyImageLoadVAE", vae=TINY)
    defaults = {"prompt": PROMPT, "negative_prompt": "", "base_size": "256"}
    inputs = {"encoder": encoder(graph), **defaults, **slots, **inputs}
    return graph.add("JoyImageEncodePrompt", **{name: value for name, value in inputs.items() if value is not None})


def sampled(graph: Graph, encoded: list) -> list:
    latent = graph.add(
        "JoyImageSampler",
        model=graph.add("JoyImageLoadMMDiT", model=TINY, weight_dtype="default"),
        positive=encoded,
        negative=output(encoded, 1),
        latent=output(encoded, 2),
        seed=7,
        steps=STEPS,
        guidance=4.0,
    )
    return graph.add("SaveLatent", samples=latent, filename_prefix="nodes")


def latents(run, saved: list) -> list[torch.Tensor]:
    """What a SaveLatent node saved, one per item of a list, normalised as the library's are."""
    mean, std = (torch.tensor(values)[:, None, None, None] for values in (WAN_LATENTS_MEAN, WAN_LATENTS_STD))
    return [(load_file(file)["latent_tensor"] - mean) / std for file in run.files(saved, "latents")]


def edited(library: JoyImage, images, prompt, **options) -> torch.Tensor:
    options = {"base_size": 256, "steps": STEPS, "seed": 7, "output": "latent", **options}
    return library.edit(images, prompt, **options)


def shown_image(run, node: list) -> np.ndarray:
    return np.asarray(load(run.files(node)[0]))


def text_of(run, node: list) -> str:
    return run.outputs[node[0]]["text"][0]


# --- conditioning ---


@pytest.mark.parametrize(
    ("names", "inputs", "options"),
    [
        (["wide.png"], {}, {}),
        (["wide.png"], {"negative_prompt": "blurry"}, {"negative_prompt": "blurry"}),
        (["wide.png"], {"base_size": "auto"}, {"size": (64, 64)}),
        (["tall.png"], {"base_size": "exact"}, {"base_size": None}),
        (["wide.png"], {"width": 144, "height": 208}, {"size": (208, 144)}),
        (["wide.png", "tall.png"], {}, {}),
        (["wide.png", "tall.png"], {"width": 144, "height": 208}, {"size": (208, 144)}),
        (["wide.png"], {"batch_size": 2}, {"count": 2}),
    ],
)
def test_an_edit_equals_the_librarys(client, library, pictures, names, inputs, options):
    graph = Graph()
    saved = sampled(graph, encode(graph, tuple(load_image(graph, name) for name in names), **inputs))
    (latent,) = latents(client.run(graph), saved)
    expected = edited(library, [pictures[name] for name in names], PROMPT, **options)
    assert latent.shape == expected.shape
    assert (latent - expected).abs().max() < 1e-5 * expected.abs().max()
    # the bound means something: without the picture, or with another prompt, the difference is larger by far
    other = edited(library, [pictures[name] for name in names], "Turn everything blue.", **options)
    assert (other - expected).abs().max() > 1e-3


def test_without_an_image_it_is_text_to_image(client, library):
    graph = Graph()
    saved = sampled(graph, encode(graph, width=208, height=144))
    (latent,) = latents(client.run(graph), saved)
    expected = library.generate(PROMPT, size=(144, 208), steps=STEPS, seed=7, output="latent")
    assert (latent - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(("inputs", "size"), [({}, (64, 64)), ({"width": 48, "height": 80}, (80, 48))])
def test_the_automatic_base_size_is_the_models(client, library, inputs, size):
    graph = Graph()
    saved = sampled(graph, encode(graph, base_size="auto", **inputs))
    (latent,) = latents(client.run(graph), saved)
    expected = library.generate(PROMPT, size=size, steps=STEPS, seed=7, output="latent")
    assert (latent - expected).abs().max() < 1e-5 * expected.abs().max()


def test_the_base_sizes_begin_with_the_automatic_one(client):
    assert client.options("JoyImageEncodePrompt", "base_size") == ["auto", "64", "256", "512", "768", "1024", "exact"]


def test_images_of_a_batch_are_references_of_one_edit(client, library, pictures):
    graph = Graph()
    pair = graph.add("ImageBatch", image1=load_image(graph, "wide.png"), image2=load_image(graph, "twin.png"))
    saved = sampled(graph, encode(graph, (pair, load_image(graph, "tall.png"))))
    (latent,) = latents(client.run(graph), saved)
    expected = edited(library, [pictures[name] for name in ("wide.png", "twin.png", "tall.png")], PROMPT)
    assert (latent - expected).abs().max() < 1e-5 * expected.abs().max()


def test_images_of_a_list_are_edits_of_their_own(client, library, pictures):
    graph = Graph()
    pair = graph.add("ImageBatch", image1=load_image(graph, "wide.png"), image2=load_image(graph, "twin.png"))
    saved = sampled(graph, encode(graph, (graph.add("RebatchImages", images=pair, batch_size=1),)))
    results = latents(client.run(graph), saved)
    expected = [edited(library, pictures[name], PROMPT) for name in ("wide.png", "twin.png")]
    assert [(a - b).abs().max() < 1e-5 * b.abs().max() for a, b in zip(results, expected, strict=True)] == [True, True]


def test_an_orbit_is_encoded_in_one_run_and_sampled_view_by_view(client, library, pictures):
    graph = Graph()
    views = graph.add("JoyImageOrbit", yaw_start=0, yaw_end=90, views=3, pitch=10, zoom="in")
    encoded = encode(graph, (load_image(graph, "wide.png"),), prompt=views)
    saved = sampled(graph, encoded)
    run = client.run(graph)
    assert run.executed.count(encoded[0]) == 1
    expected = edited(library, pictures["wide.png"], spatial.orbit(0, 90, 3, 10, "in")).split(1)
    results = latents(run, saved)
    assert [(a - b).abs().max() < 1e-5 * b.abs().max() for a, b in zip(results, expected, strict=True)] == [True] * 3


def test_the_node_shows_the_size_and_how_much_of_the_prompt_was_cut(client):
    graph = Graph()
    encoded = encode(graph, prompt="word " * 4000)
    latent = graph.add("SaveLatent", samples=output(encoded, 2), filename_prefix="nodes")
    run = client.run(graph)
    assert run.latent(latent).shape == (1, 16, 1, 32, 32)
    size, cut = run.texts[encoded[0]].splitlines()
    assert size == "256 x 256 pixels, references: 0"
    assert re.fullmatch(r"the prompt is too long: its last \d+ tokens were cut", cut)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"vae": None}, "connect Load VAE (JoyImage)"),
        ({"prompt": "  "}, "the prompt is empty"),
        ({"width": 64}, "both width and height"),
        ({"width": 100, "height": 64}, "the nearest is 64 x 96"),
        ({"base_size": "300"}, "not in list"),
    ],
)
def test_bad_conditioning_is_refused_before_anything_runs(client, pictures, inputs, message):
    graph = Graph()
    sampled(graph, encode(graph, (load_image(graph, "wide.png"),), **inputs))
    with pytest.raises(Rejected) as refused:
        client.run(graph)
    assert message in refused.value.errors["JoyImageEncodePrompt"]


def seven_of_a_batch(graph: Graph) -> tuple[list, ...]:
    return (graph.add("EmptyImage", width=32, height=32, batch_size=7, color=0),)


def seven_connected(graph: Graph) -> tuple[list, ...]:
    return (graph.add("EmptyImage", width=32, height=32, batch_size=1, color=0),) * 7


@pytest.mark.parametrize(
    ("images", "inputs", "message"),
    [
        (seven_of_a_batch, {}, "7 images for one edit; the model takes at most 6"),
        (seven_connected, {}, "images.image6"),
        (lambda graph: (), {"base_size": "exact"}, "give width and height"),
    ],
)
def test_bad_images_are_named(client, images, inputs, message):
    graph = Graph()
    sampled(graph, encode(graph, images(graph), **inputs))
    with pytest.raises(Failed, match=message):
        client.run(graph)


# --- spatial ---


def move(graph: Graph, **inputs) -> list:
    image = load_image(graph, "wide.png")
    inputs = {"image": image, "object": "cup", "box": json.dumps(BOX), **inputs}
    return graph.add("JoyImageMoveObject", **{name: value for name, value in inputs.items() if value is not None})


def place(graph: Graph, kind: str) -> list:
    """Another place than the box's, as a mask or a bounding box: x 150 to 300, y 0 to 100 of 300 x 200 pixels."""
    if kind == "bbox":
        return graph.add("PrimitiveBoundingBox", x=150, y=0, width=150, height=100)
    paint = {"value": 1.0, "width": 16, "height": 8}
    ground, area = graph.add("SolidMask", value=0.0, width=32, height=16), graph.add("SolidMask", **paint)
    return graph.add("MaskComposite", destination=ground, source=area, x=16, y=0, operation="add")


@pytest.mark.parametrize(
    ("kinds", "area"),
    [((), (75, 100, 225, 150)), (("mask",), (150, 0, 300, 100)), (("bbox",), (150, 0, 300, 100))],
)
def test_moving_draws_the_librarys_box_and_says_its_sentence(client, pictures, kinds, area):
    graph = Graph()
    moved = move(graph, **{kind: place(graph, kind) for kind in kinds})
    image = graph.add("PreviewImage", images=moved)
    text = graph.add("PreviewAny", source=output(moved, 1))
    run = client.run(graph)
    assert np.array_equal(shown_image(run, image), np.asarray(spatial.draw_box(pictures["wide.png"], area)))
    assert text_of(run, text) == spatial.move_object("cup")


def test_a_mask_comes_before_a_bounding_box(client, pictures):
    graph = Graph()
    mask = graph.add("SolidMask", value=1.0, width=32, height=16)
    image = graph.add("PreviewImage", images=move(graph, mask=mask, bbox=place(graph, "bbox")))
    expected = spatial.draw_box(pictures["wide.png"], (0, 0, 300, 200))
    assert np.array_equal(shown_image(client.run(graph), image), np.asarray(expected))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"box": ""}, "draw one"),
        ({"box": None}, "draw one"),
        ({"box": '{"x": 0, "y": 0, "w": 0, "h": 0}'}, "covers nothing"),
        ({"box": '{"x": 0.5, "y": 0, "w": 0.9, "h": 0.1}'}, "reaches outside"),
        ({"box": "here"}, "must read"),
        ({"object": " "}, "the object must be described"),
    ],
)
def test_a_move_without_object_or_place_is_refused_before_running(client, pictures, inputs, message):
    graph = Graph()
    graph.add("PreviewImage", images=move(graph, **inputs))
    with pytest.raises(Rejected) as refused:
        client.run(graph)
    assert message in refused.value.errors["JoyImageMoveObject"]


def test_a_mask_without_content_is_named(client, pictures):
    graph = Graph()
    mask = graph.add("SolidMask", value=0.0, width=64, height=64)
    graph.add("PreviewImage", images=move(graph, box="", mask=mask))
    with pytest.raises(Failed, match="the mask is empty"):
        client.run(graph)


TWO_BOXES = [BOX, {"x": 0.7, "y": 0.6, "w": 0.2, "h": 0.3}]  # which overlap


def test_drawn_boxes_are_given_in_pixels_and_as_a_mask(client, pictures):
    graph = Graph()
    drawn = graph.add("JoyImageDrawBoxes", image=load_image(graph, "wide.png"), boxes=json.dumps(TWO_BOXES))
    boxes, first = (graph.add("PreviewAny", source=output(drawn, slot)) for slot in (0, 1))
    mask = graph.add("PreviewImage", images=graph.add("MaskToImage", mask=output(drawn, 2)))
    image = graph.add("PreviewImage", images=output(drawn, 3))
    run = client.run(graph)
    expected = [
        {"x": 75, "y": 100, "width": 150, "height": 50},
        {"x": 210, "y": 120, "width": 60, "height": 60},
    ]
    assert json.loads(text_of(run, boxes)) == expected
    assert json.loads(text_of(run, first)) == expected[0]
    white = np.zeros((200, 300), bool)
    white[100:150, 75:225] = white[120:180, 210:270] = True
    assert np.array_equal(shown_image(run, mask)[..., 0] == 255, white)
    assert np.array_equal(shown_image(run, mask).any(axis=-1), white)
    assert np.array_equal(shown_image(run, image), np.asarray(pictures["wide.png"]))


def test_the_first_drawn_box_is_a_place_to_move_to(client, pictures):
    graph = Graph()
    drawn = graph.add("JoyImageDrawBoxes", image=load_image(graph, "wide.png"), boxes=json.dumps(TWO_BOXES))
    image = graph.add("PreviewImage", images=move(graph, box="", bbox=output(drawn, 1)))
    expected = spatial.draw_box(pictures["wide.png"], (75, 100, 225, 150))
    assert np.array_equal(shown_image(client.run(graph), image), np.asarray(expected))


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ("", "there are no boxes"),
        ("[]", "there are no boxes"),
        ("here", "the boxes must read"),
        (json.dumps(BOX), "the boxes must read"),
        (json.dumps([BOX, {**BOX, "w": 0.9}]), "box 2: the box"),
        (json.dumps([{**BOX, "h": 0}]), "covers nothing"),
    ],
)
def test_boxes_that_cannot_be_used_are_refused_before_running(client, pictures, boxes, message):
    graph = Graph()
    drawn = graph.add("JoyImageDrawBoxes", image=load_image(graph, "wide.png"), boxes=boxes)
    graph.add("PreviewAny", source=drawn)
    with pytest.raises(Rejected) as refused:
        client.run(graph)
    assert message in refused.value.errors["JoyImageDrawBoxes"]
    reply = json.loads(str(refused.value))["node_errors"]
    assert [e["extra_info"]["input_name"] for e in reply[drawn[0]]["errors"]] == ["boxes"]


@pytest.mark.parametrize(
    ("node", "inputs", "expected"),
    [
        ("RotateObject", {"object": "car", "view": "rear left"}, spatial.rotate_object("car", "rear left")),
        ("Camera", {"yaw": 270, "pitch": 12.5, "zoom": "in"}, spatial.camera(-90, 12.5, "in")),
    ],
)
def test_instructions_are_the_librarys(client, node, inputs, expected):
    graph = Graph()
    text = graph.add("PreviewAny", source=graph.add(f"JoyImage{node}", **inputs))
    assert text_of(client.run(graph), text) == expected


@pytest.mark.parametrize(
    ("node", "inputs", "message"),
    [
        ("RotateObject", {"object": "", "view": "rear"}, "the object must be described"),
        ("RotateObject", {"object": "car", "view": "behind"}, "not in list"),
        ("Camera", {"yaw": 0, "pitch": 91, "zoom": "in"}, "bigger than max of 90"),
        ("Camera", {"yaw": 0, "pitch": 0, "zoom": "near"}, "not in list"),
        ("Orbit", {"yaw_start": 0, "yaw_end": 0, "views": 2, "pitch": 0, "zoom": "in"}, "turns by 0 degrees"),
    ],
)
def test_bad_instructions_are_refused_before_running(client, node, inputs, message):
    graph = Graph()
    graph.add("PreviewAny", source=graph.add(f"JoyImage{node}", **inputs))
    with pytest.raises(Rejected) as refused:
        client.run(graph)
    assert message in refused.value.errors[f"JoyImage{node}"]


# --- understanding ---


def ask(graph: Graph, **inputs) -> list:
    image = load_image(graph, "wide.png")
    defaults = {"encoder": encoder(graph), "images.image0": image, "question": "What is it?", "max_new_tokens": 12}
    return graph.add("JoyImageAsk", **{**defaults, **inputs})


def test_an_answer_is_the_librarys_and_is_shown(client, library, pictures):
    graph = Graph()
    asked = ask(graph, seed=5)
    run = client.run(graph)
    expected = library.ask(pictures["wide.png"], "What is it?", max_new_tokens=12, seed=5)
    assert text_of(run, asked) == run.texts[asked[0]] == expected
    assert [step for step in run.progress if step[0] == asked[0]]
    again = client.run(graph)
    assert asked[0] not in again.executed  # the seed decides, so there is nothing to run again


def test_an_answer_stops_at_the_next_token(client, pictures):
    graph = Graph()
    asked = ask(graph, max_new_tokens=30_000, temperature=0.0)
    stopped_at = []

    def stop(node: str, value: int) -> None:
        if node == asked[0] and not stopped_at:
            client.post("/interrupt", {})
            stopped_at.append(time.monotonic())

    run = client.run(graph, stop)
    assert run.interrupted and time.monotonic() - stopped_at[0] < 5
    graph = Graph()
    asked = ask(graph)
    assert asked[0] in client.run(graph).executed


def test_a_rewrite_that_fails_leaves_the_prompt_and_says_why(client, pictures):
    graph = Graph()
    rewritten = graph.add("JoyImageRewritePrompt", encoder=encoder(graph), prompt="a red cat")
    text = graph.add("PreviewAny", source=rewritten)
    run = client.run(graph)
    assert text_of(run, text) == "a red cat"
    assert run.texts[rewritten[0]].startswith("a red cat\n\nthe prompt was not rewritten and is used unchanged: ")


FINGERPRINTS = """
import importlib, os, sys
sys.path.insert(0, sys.argv[2])
import probes
probes.import_host(sys.argv[1])
node = importlib.import_module(".nodes.understanding", probes.PACK).RewritePrompt
for url in ("", "http://127.0.0.1:9/v1"):
    os.environ["JOYIMAGE_REWRITE_URL"] = url
    print(node.fingerprint_inputs(prompt="a cat") == node.fingerprint_inputs(prompt="a cat"))
"""


def test_only_a_server_is_asked_again_for_the_same_prompt(comfyui):
    command = [comfyui.python, "-c", FINGERPRINTS, str(comfyui.path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.split()[-2:] == ["True", "False"], done.stderr[-2000:]


def test_an_object_that_is_not_found_is_an_error_with_the_answer(client, pictures):
    """The bundled model finds something whatever it is asked for, but gives no box for an answer of another kind."""
    graph = Graph()
    graph.add("JoyImageLocate", encoder=encoder(graph), image=load_image(graph, "wide.png"), object=QUESTION)
    with pytest.raises(Failed, match="the model named no box; it answered: '"):
        client.run(graph)


@pytest.mark.parametrize(("node", "name"), [("JoyImageLocate", "object"), ("JoyImageRewritePrompt", "prompt")])
def test_empty_requests_are_refused_before_running(client, pictures, node, name):
    graph = Graph()
    image = {"image": load_image(graph, "wide.png")} if node == "JoyImageLocate" else {}
    graph.add(node, encoder=encoder(graph), **{name: "\n"}, **image)
    with pytest.raises(Rejected) as refused:
        client.run(graph)
    assert "is empty" in refused.value.errors[node]


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
SETTINGS = {
    "JoyImageSampler": (Sampling, {"guidance": "guidance_scale"}, {"guidance_interval", "sigmas", "timesteps"}),
    "JoyImageSchedule": (
        Sampling,
        {},
        {"guidance_scale", "rescale", "guidance_interval", "sigmas", "timesteps", "solver"},
    ),
    "JoyImageAsk": (Answering, {}, set()),
}


@pytest.mark.parametrize("node", SETTINGS)
def test_inputs_are_the_librarys_settings(client, node):
    """Default, least and most, or choices, as `joyimage.settings` has them."""
    kind, names, absent = SETTINGS[node]
    definition = client.get(f"/object_info/{node}")[node]["input"]
    inputs = {names.get(name, name): spec[1] for part in definition.values() for name, spec in part.items() if spec[1:]}
    assert set(kind.names()) - absent <= set(inputs)
    for name in set(kind.names()) - absent:
        assert inputs[name]["default"] == getattr(kind, name)
        if isinstance(getattr(kind, name), str):
            assert tuple(inputs[name]["options"]) == kind.choices(name)
        else:
            limits = kind.range(name)
            assert (inputs[name]["min"], inputs[name]["max"]) == (limits.least, limits.most)
