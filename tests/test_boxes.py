from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from joyimage.boxes import (
    box_from_json,
    box_from_mask,
    box_from_regions,
    box_to_json,
    box_to_region,
    boxes_from_json,
    boxes_to_mask,
    locate_question,
    parse_boxes,
)
from joyimage.errors import JoyImageError
from joyimage.spatial import draw_box

CUP = (200, 50, 400, 100)  # of a picture of 1000 x 500


def test_the_question_asks_for_boxes_in_json():
    assert locate_question(" the red cup ") == (
        "Locate the red cup in the image. Report its bbox coordinates in JSON format."
    )


@pytest.mark.parametrize("obj", ["", "  \n"])
def test_an_empty_object_cannot_be_located(obj):
    with pytest.raises(JoyImageError, match="object to locate is empty"):
        locate_question(obj)


@pytest.mark.parametrize(
    "answer",
    [
        '{"bbox_2d": [200, 100, 400, 200], "label": "cup"}',
        '[{"bbox_2d": [200, 100, 400, 200], "label": "cup"}]',
        '```json\n[\n\t{"bbox_2d": [200, 100, 400, 200], "label": "cup"}\n]\n```',
        'There is one: {"label": "cup [red]", "bbox_2d" : [ 200.0,\n100, 400, 200 ]}. It is red.',
        "[{'bbox_2d': [200, 100, 400, 200], 'label': 'cup'}]",
        '[{"bbox_2d": [400, 200, 200, 100]}]',  # corners in the other order
        '[{"bbox_2d": [200, 100, 400, 200], "label": "cu',  # cut off by the limit on new tokens
        '[{"bbox_2d": [1, 2]}, {"bbox_2d": ["a", 1, 2, 3]}, {"bbox_2d": [200, 100, 400, 200]}]',
        '{"bbox_2d": [5, 5, 5, 5]}, {"bbox_2d": [200, 100, 400, 200]}',
        '[{"bbox_2d": [1, nan, 5, 5]}, {"bbox_2d": [1200, 100, 1400, 200]}, {"bbox_2d": [200, 100, 400, 200]}]',
    ],
)
def test_one_box_is_read_from_every_form_of_answer(answer):
    assert parse_boxes(answer, 1000, 500) == [CUP]


def test_several_boxes_keep_the_order_of_the_answer():
    answer = '[{"bbox_2d": [200, 100, 400, 200]}, {"bbox_2d": [0, 0, 100, 1000]}]'
    assert parse_boxes(answer, 1000, 500) == [CUP, (0, 0, 100, 500)]


def test_numbers_are_thousandths_of_a_picture_of_any_size():
    assert parse_boxes('{"bbox_2d": [250, 125, 875, 999]}', 8000, 16000) == [(2000, 2000, 7000, 15984)]


def test_numbers_outside_are_brought_inside():
    assert parse_boxes('{"bbox_2d": [-20, 500, 1004, 9999]}', 640, 480) == [(0, 240, 640, 480)]


@pytest.mark.parametrize(
    "answer", ["I see no cup.", "", '{"bbox_2d": []}', '{"bbox_2d": [1, 2, 3, 4, 5]}', "[1, 2, 3, 4]"]
)
def test_an_answer_without_a_box_is_quoted(answer):
    with pytest.raises(JoyImageError, match="named no box") as error:
        parse_boxes(answer, 1000, 500)
    assert repr(answer) in str(error.value)


def test_a_long_answer_is_quoted_in_part():
    with pytest.raises(JoyImageError) as error:
        parse_boxes("no " * 1000, 1000, 500)
    assert len(str(error.value)) < 400


sides = st.integers(1, 8000)
thousandths = st.integers(0, 1000)


@given(sides, sides, st.tuples(thousandths, thousandths, thousandths, thousandths))
def test_every_box_that_was_read_survives_its_json(width, height, corners):
    answer = json.dumps({"bbox_2d": corners})
    try:
        (box,) = parse_boxes(answer, width, height)
    except JoyImageError:
        x0, y0, x1, y1 = corners  # only a box that vanishes between pixels
        assert abs(x1 - x0) * width <= 1000 or abs(y1 - y0) * height <= 1000
        return
    assert box_from_json(box_to_json(box, width, height), width, height) == box


def test_a_box_that_was_read_can_be_drawn():
    picture = Image.new("RGB", (101, 67))
    (box,) = parse_boxes('{"bbox_2d": [333, 0, 1000, 667]}', *picture.size)
    assert draw_box(picture, box).getpixel((100, 0)) == (255, 0, 0)


def test_the_json_of_a_box_holds_fractions():
    text = box_to_json(CUP, 1000, 500)
    assert json.loads(text) == {"x": 0.2, "y": 0.1, "w": 0.2, "h": 0.1}
    assert box_from_json(text, 1000, 500) == CUP


def test_a_box_to_the_very_edge_may_stick_out_by_a_rounding():
    assert box_from_json('{"x": 0.70001, "y": 0, "w": 0.3, "h": 1}', 1000, 500) == (700, 0, 1000, 500)
    assert box_from_json('{"x": 0, "y": 0, "w": 1.001, "h": 1}', 1000, 500) == (0, 0, 1000, 500)
    assert box_from_json('{"x": -0.001, "y": 0, "w": 1, "h": 1}', 1000, 500) == (0, 0, 999, 500)
    for text in ('{"x": 0, "y": 0, "w": 1.0011, "h": 1}', '{"x": 0, "y": -0.0011, "w": 1, "h": 1}'):
        with pytest.raises(JoyImageError, match="reaches outside the picture"):
            box_from_json(text, 1000, 500)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no box: draw one"),
        ("  ", "there is no box: draw one"),
        ('{"x": 0, "y": 0, "w": 0, "h": 0}', "covers nothing"),
        ('{"x": 0.5, "y": 0.5, "w": 0.0001, "h": 0.3}', "covers nothing"),
        ('{"x": 0.5, "y": 0.5, "w": 0.6, "h": 0.3}', "reaches outside"),
        ('{"x": 100, "y": 100, "w": 200, "h": 200}', "fractions from 0 to 1"),
        ('{"x": 0.5, "y": 0.5, "w": -0.2, "h": 0.3}', "reaches outside"),
        ('{"x": NaN, "y": 0.5, "w": 0.2, "h": 0.3}', "reaches outside"),
        ('{"x": 0.5, "y": 0.5}', "must read"),
        ('{"x": "left", "y": 0, "w": 1, "h": 1}', "must read"),
        ("[0, 0, 1, 1]", "must read"),
        ("null", "must read"),
        ("draw here", "must read"),
    ],
)
def test_a_json_box_that_cannot_be_used_is_refused(text, message):
    with pytest.raises(JoyImageError, match=message):
        box_from_json(text, 1000, 500)


BOXES = '[{"x": 0.2, "y": 0.1, "w": 0.2, "h": 0.1}, {"x": 0.70001, "y": 0, "w": 0.3, "h": 1}]'


def test_boxes_keep_the_order_of_their_list():
    assert boxes_from_json(BOXES, 1000, 500) == [CUP, (700, 0, 1000, 500)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there are no boxes: draw at least one"),
        (" \n", "there are no boxes: draw at least one"),
        ("[]", "there are no boxes: draw at least one"),
        ("draw here", "the boxes must read"),
        ("null", "the boxes must read"),
        ('{"x": 0.2, "y": 0.1, "w": 0.2, "h": 0.1}', "the boxes must read"),
        ("[[0, 0, 1, 1]]", "box 1: the box must read"),
        (BOXES[:-1] + ', {"x": 0.5, "y": 0.5, "w": 0.6, "h": 0.3}]', "box 3: the box .* reaches outside"),
        (BOXES[:-1] + ', {"x": 0.5, "y": 0.5, "w": 0, "h": 0.3}]', "box 3: the box .* covers nothing"),
        ('[{"x": NaN, "y": 0.5, "w": 0.2, "h": 0.3}]', "box 1: the box .* reaches outside"),
    ],
)
def test_a_list_of_boxes_that_cannot_be_used_is_refused(text, message):
    with pytest.raises(JoyImageError, match=message):
        boxes_from_json(text, 1000, 500)


def test_the_mask_of_boxes_is_white_in_all_of_them():
    mask = boxes_to_mask([(1, 0, 3, 2), (2, 1, 4, 3)], 5, 4)
    assert mask.tolist() == [[[0, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]]]


REGION = {"x": 200, "y": 50.0, "width": 200, "height": 50}


@pytest.mark.parametrize("regions", [REGION, [REGION], [[REGION, {"x": 0, "y": 0, "width": 9, "height": 9}], []]])
def test_the_first_region_is_taken(regions):
    assert box_from_regions(regions, 1000, 500) == CUP


def test_a_box_is_its_region():
    assert box_to_region(CUP) == REGION


def test_a_region_that_sticks_out_is_cut_off():
    assert box_from_regions({"x": -5, "y": 400, "width": 100, "height": 300}, 1000, 500) == (0, 400, 95, 500)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([], "nothing was detected"),
        ([[]], "nothing was detected"),
        ("text", "nothing was detected"),
        ({"x": 1}, "x, y, width and height"),
        ({"x": 2000, "y": 0, "width": 10, "height": 10}, "covers nothing"),
        ({"x": 0, "y": 0, "width": 0, "height": 10}, "covers nothing"),
    ],
)
def test_regions_that_cannot_be_used_are_refused(regions, message):
    with pytest.raises(JoyImageError, match=message):
        box_from_regions(regions, 1000, 500)


@pytest.mark.parametrize("shape", [(20, 10), (1, 20, 10)])
def test_the_box_of_a_mask_scales_to_the_picture(shape):
    mask = torch.zeros(shape)
    mask[..., 2:4, 2] = 1
    mask[..., 3, 3] = 0.51
    mask[..., 0, 0] = 0.5  # not more than half
    assert box_from_mask(mask, 1000, 500) == (200, 50, 400, 100)


def test_masks_of_a_batch_are_joined():
    mask = torch.zeros(2, 10, 10)
    mask[0, 1, 2] = mask[1, 8, 5] = 1
    assert box_from_mask(mask, 10, 10) == (2, 1, 6, 9)


def test_a_mask_without_content_is_refused():
    with pytest.raises(JoyImageError, match="mask is empty"):
        box_from_mask(torch.zeros(1, 64, 64), 1000, 500)
