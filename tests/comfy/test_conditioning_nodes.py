"""Encode Prompt in a real server on the bundled model: of pictures and sizes it makes what the library does."""

from __future__ import annotations

import re

import pytest
from pieces import PROMPT, STEPS, difference, edited, encode, latents, load_image, sampled

from joyimage import spatial
from tools.client import Failed, Graph, Rejected, output


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
    assert difference(latent, expected) < 1e-5
    # the bound means something: without the picture, or with another prompt, the difference is larger by far
    other = edited(library, [pictures[name] for name in names], "Turn everything blue.", **options)
    assert difference(other, expected) > 1e-3


def test_without_an_image_it_is_text_to_image(client, library):
    graph = Graph()
    saved = sampled(graph, encode(graph, width=208, height=144))
    (latent,) = latents(client.run(graph), saved)
    expected = library.generate(PROMPT, size=(144, 208), steps=STEPS, seed=7, output="latent")
    assert difference(latent, expected) < 1e-5


@pytest.mark.parametrize(("inputs", "size"), [({}, (64, 64)), ({"width": 48, "height": 80}, (80, 48))])
def test_the_automatic_base_size_is_the_models(client, library, inputs, size):
    graph = Graph()
    saved = sampled(graph, encode(graph, base_size="auto", **inputs))
    (latent,) = latents(client.run(graph), saved)
    expected = library.generate(PROMPT, size=size, steps=STEPS, seed=7, output="latent")
    assert difference(latent, expected) < 1e-5


def test_the_base_sizes_begin_with_the_automatic_one(client):
    assert client.options("JoyImageEncodePrompt", "base_size") == ["auto", "64", "256", "512", "768", "1024", "exact"]


def test_images_of_a_batch_are_references_of_one_edit(client, library, pictures):
    graph = Graph()
    pair = graph.add("ImageBatch", image1=load_image(graph, "wide.png"), image2=load_image(graph, "twin.png"))
    saved = sampled(graph, encode(graph, (pair, load_image(graph, "tall.png"))))
    (latent,) = latents(client.run(graph), saved)
    expected = edited(library, [pictures[name] for name in ("wide.png", "twin.png", "tall.png")], PROMPT)
    assert difference(latent, expected) < 1e-5


def test_images_of_a_list_are_edits_of_their_own(client, library, pictures):
    graph = Graph()
    pair = graph.add("ImageBatch", image1=load_image(graph, "wide.png"), image2=load_image(graph, "twin.png"))
    saved = sampled(graph, encode(graph, (graph.add("RebatchImages", images=pair, batch_size=1),)))
    results = latents(client.run(graph), saved)
    expected = [edited(library, pictures[name], PROMPT) for name in ("wide.png", "twin.png")]
    assert [difference(a, b) < 1e-5 for a, b in zip(results, expected, strict=True)] == [True, True]


def test_the_node_shows_the_size_and_how_much_of_the_prompt_was_cut(client):
    graph = Graph()
    encoded = encode(graph, prompt="word " * 4000)
    latent = graph.add("SaveLatent", samples=output(encoded, 2), filename_prefix="nodes")
    run = client.run(graph)
    assert run.latent(latent).shape == (1, 16, 1, 32, 32)
    size, cut = run.texts[encoded[0]].splitlines()
    assert size == "256 x 256 pixels, references: 0"
    assert re.fullmatch(r"the prompt is too long: its last \d+ tokens were cut", cut)


def test_the_node_offers_the_sentence_that_is_nearly_said(client):
    graph = Graph()
    encoded = encode(graph, prompt="rotate the car to show the left side", width=64, height=64)
    graph.add("SaveLatent", samples=output(encoded, 2), filename_prefix="nodes")
    _, _, *lines = client.run(graph).texts[encoded[0]].splitlines()
    assert lines[0] == spatial.rotate_object("car", "left") and lines[1].startswith("The spatial nodes")


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
