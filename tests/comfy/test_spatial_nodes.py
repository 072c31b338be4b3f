"""The nodes for spatial instructions, in a real server: boxes, sentences and orbits are the library's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pieces import BOX, difference, edited, encode, encoder, latents, load_image, sampled, shown_image, text_of
from PIL import Image

from joyimage import spatial
from joyimage.boxes import box_to_region
from tools.client import Failed, Graph, Rejected, output
from tools.tiny import examples


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


@pytest.fixture(scope="module")
def scene(client) -> tuple[Image.Image, dict]:
    """A drawn scene, which the server has as scene.png, and what is said of it."""
    words = json.loads((examples.FOLDER / "scenes.json").read_text(encoding="utf-8"))[0]
    picture = Image.open(examples.FOLDER / words["file"]).convert("RGB")
    picture.save(client.base / "input" / "scene.png")
    return picture, words


def move_in_words(graph: Graph, words: dict, where: str | list, **inputs) -> list:
    image = load_image(graph, "scene.png")
    return move(graph, **{"image": image, "object": words["object"], "place": where, **inputs})


@pytest.mark.parametrize("drawn", [None, "", json.dumps(BOX)])
def test_a_place_in_words_is_the_librarys_and_comes_before_the_drawn_box(client, library, scene, drawn):
    picture, words = scene
    where = f" where the {words['car']} is"
    graph = Graph()
    moved = move_in_words(graph, words, where, encoder=encoder(graph), box=drawn)
    image = graph.add("PreviewImage", images=moved)
    box = graph.add("PreviewAny", source=output(moved, 2))
    run = client.run(graph)
    expected = library.place(picture, words["object"], where)
    assert json.loads(text_of(run, box)) == box_to_region(expected)
    assert np.array_equal(shown_image(run, image), np.asarray(spatial.draw_box(picture, expected)))
    assert run.texts[moved[0]].startswith(f"{where.strip()}: {{")
    assert [step for step in run.progress if step[0] == moved[0]]


@pytest.mark.parametrize("kind", ["mask", "bbox"])
def test_a_mask_or_a_bounding_box_comes_before_words(client, pictures, scene, kind):
    graph = Graph()
    image = load_image(graph, "wide.png")
    moved = move_in_words(graph, scene[1], "on the table", image=image, **{kind: place(graph, kind)})
    shown = graph.add("PreviewImage", images=moved)  # without an encoder, which nobody asks
    expected = spatial.draw_box(pictures["wide.png"], (150, 0, 300, 100))
    assert np.array_equal(shown_image(client.run(graph), shown), np.asarray(expected))


def test_words_without_an_encoder_are_refused_before_running(client, scene):
    graph = Graph()
    moved = move_in_words(graph, scene[1], "on the table")
    graph.add("PreviewImage", images=moved)
    with pytest.raises(Rejected) as refused:
        client.run(graph)
    assert "a place in words takes an encoder" in refused.value.errors["JoyImageMoveObject"]
    reply = json.loads(str(refused.value))["node_errors"]
    assert [e["extra_info"]["input_name"] for e in reply[moved[0]]["errors"]] == ["place"]


@pytest.mark.parametrize(
    ("words", "message"), [("on the table", "takes an encoder"), (" ", "there is no box: draw one")]
)
def test_words_that_come_by_a_link_are_checked_when_they_are_there(client, scene, words, message):
    graph = Graph()
    linked = graph.add("PrimitiveString", value=words)
    graph.add("PreviewImage", images=move_in_words(graph, scene[1], linked, box=""))
    with pytest.raises(Failed, match=message):
        client.run(graph)


def test_an_encoder_alone_leaves_the_box_to_be_drawn(client, scene):
    graph = Graph()
    graph.add("PreviewImage", images=move_in_words(graph, scene[1], "", encoder=encoder(graph), box=""))
    with pytest.raises(Rejected) as refused:
        client.run(graph)
    assert "draw one" in refused.value.errors["JoyImageMoveObject"]


def test_a_place_without_room_is_an_error_that_says_so(client, scene):
    graph = Graph()
    words = {"object": scene[1]["car"]}  # which stands at the right edge
    graph.add("PreviewImage", images=move_in_words(graph, words, "to the right", encoder=encoder(graph), box=""))
    with pytest.raises(Failed, match="there is no room in the picture"):
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


def test_an_orbit_is_encoded_in_one_run_and_sampled_view_by_view(client, library, pictures):
    graph = Graph()
    views = graph.add("JoyImageOrbit", yaw_start=0, yaw_end=90, views=3, pitch=10, zoom="in")
    encoded = encode(graph, (load_image(graph, "wide.png"),), prompt=views)
    saved = sampled(graph, encoded)
    run = client.run(graph)
    assert run.executed.count(encoded[0]) == 1
    expected = edited(library, pictures["wide.png"], spatial.orbit(0, 90, 3, 10, "in")).split(1)
    results = latents(run, saved)
    assert [difference(a, b) < 1e-5 for a, b in zip(results, expected, strict=True)] == [True] * 3
