"""Places in words: what they say, and the box beside something."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyimage.errors import JoyImageError
from joyimage.places import AT, BEHIND, BESIDE, FRONT, IN, LEFT, ON, RIGHT, Place, box_beside, read_place


@pytest.mark.parametrize(
    ("words", "relation", "anchor"),
    [
        ("to the left of the blue cone", LEFT, "the blue cone"),
        ("Left of the plate.", LEFT, "the plate"),
        ("on the left-hand side of the plate", LEFT, "the plate"),
        ("the empty space just to the right of the plate", RIGHT, "the plate"),
        ("right of the plate", RIGHT, "the plate"),
        ("in front of the car", FRONT, "the car"),
        ("behind the car", BEHIND, "the car"),
        ("at the back of the car", BEHIND, "the car"),
        ("right behind the car", BEHIND, "the car"),
        ("next to the plate on the table", BESIDE, "the plate on the table"),
        ("beside a plate", BESIDE, "a plate"),
        ("near the plate", BESIDE, "the plate"),
        ("on the table", ON, "the table"),
        ("on top of the table", ON, "the table"),
        ("in the basket", IN, "the basket"),
        ("into the basket", IN, "the basket"),
        ("in the middle of the table", IN, "the middle of the table"),
        ("where the car is", AT, "the car"),
        ("the place where the car is now", AT, "the car"),
        ("蓝色圆锥左边", LEFT, "蓝色圆锥"),
        ("放到盘子的右侧。", RIGHT, "盘子"),
        ("在盘子右邊", RIGHT, "盘子"),
        ("汽车前面", FRONT, "汽车"),
        ("汽车正后方的空地方", BEHIND, "汽车"),
        ("盘子旁边", BESIDE, "盘子"),
        ("桌子上", ON, "桌子"),
        ("桌子上面", ON, "桌子"),
        ("篮子里", IN, "篮子"),
        ("汽车所在的位置", AT, "汽车"),
        ("to the left", LEFT, ""),
        ("further right", RIGHT, ""),
        ("往左", LEFT, ""),
        ("右边", RIGHT, ""),
    ],
)
def test_words_say_a_relation_and_what_it_is_to(words, relation, anchor):
    assert read_place(words) == Place(words, relation, anchor)


@pytest.mark.parametrize(
    "words",
    [
        "the empty chair",
        "the table in the corner",  # a table, not a place in a corner
        "the empty table next to the plate",
        "on the left side of the picture",
        "in the image",
        "图片右边",
        "left over bread",
        "空椅子",
        "bright of day",
    ],
)
def test_other_words_are_a_place_as_they_stand(words):
    assert read_place(words) == Place(words)


@pytest.mark.parametrize("words", ["", "  \n", ".", None])
def test_a_place_without_words_is_refused(words):
    with pytest.raises(JoyImageError, match="place must be described in words"):
        read_place(words)


SIZE = 1000, 800
CUP, PLATE = (100, 500, 180, 600), (500, 520, 700, 600)
AROUND = 80 * 100 * 1.12**2  # the area of a box around the cup, with a margin


def centre(box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def area(box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def shared(a, b) -> int:
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def test_the_box_is_on_the_side_that_the_words_say():
    left, right = (box_beside(side, CUP, PLATE, *SIZE) for side in (LEFT, RIGHT))
    assert left[2] <= PLATE[0] and right[0] >= PLATE[2]
    assert PLATE[0] - left[2] == right[0] - PLATE[2]
    front, behind = (box_beside(side, CUP, PLATE, *SIZE) for side in (FRONT, BEHIND))
    assert front[1] >= PLATE[3] and behind[3] <= PLATE[3] and centre(behind)[1] < PLATE[1]
    for box in (left, right, front, behind):
        assert box[3] - box[1] == pytest.approx((box[2] - box[0]) * 100 / 80, abs=2)


def test_what_stands_lower_is_nearer_and_larger():
    front, level, behind = (box_beside(side, CUP, PLATE, *SIZE) for side in (FRONT, LEFT, BEHIND))
    assert area(front) > area(level) > area(behind)
    assert area(level) == pytest.approx(AROUND, rel=0.1)
    assert area(box_beside(LEFT, CUP, (500, 120, 700, 200), *SIZE)) < 0.6 * AROUND


def test_next_to_takes_the_side_with_more_room():
    assert box_beside(BESIDE, CUP, PLATE, *SIZE) == box_beside(LEFT, CUP, PLATE, *SIZE)
    plate = (100, 520, 300, 600)
    assert box_beside(BESIDE, CUP, plate, *SIZE) == box_beside(RIGHT, CUP, plate, *SIZE)


def test_next_to_what_fills_the_width_is_in_front_of_it():
    wide = (10, 300, 990, 400)
    assert box_beside(LEFT, CUP, wide, *SIZE) is box_beside(RIGHT, CUP, wide, *SIZE) is None
    assert box_beside(BESIDE, CUP, wide, *SIZE) == box_beside(FRONT, CUP, wide, *SIZE) is not None


def test_on_in_and_where_something_is():
    table = (300, 300, 900, 700)
    on = box_beside(ON, CUP, table, *SIZE)
    assert abs(centre(on)[0] - centre(table)[0]) <= 1 and table[1] < on[3] < table[3]
    inside = box_beside(IN, (0, 0, 400, 790), PLATE, *SIZE)
    assert shared(inside, PLATE) == area(inside)
    at = box_beside(AT, CUP, PLATE, *SIZE)
    assert abs(centre(at)[0] - centre(PLATE)[0]) <= 1 and area(at) == pytest.approx(AROUND, rel=0.1)


def test_to_the_left_of_itself_is_beside_its_own_place():
    box = box_beside(LEFT, PLATE, PLATE, *SIZE)
    assert box[2] <= PLATE[0] and box[3] == pytest.approx(PLATE[3], abs=10)


def test_behind_something_tall_is_seen_past_its_side():
    left, right = (box_beside(BEHIND, CUP, bottle, *SIZE) for bottle in ((300, 100, 380, 640), (620, 100, 700, 640)))
    assert left[0] > 380 and right[2] < 620
    assert left[3] == right[3] < 640 and left[1] > 100


@pytest.mark.parametrize(
    ("side", "anchor"),
    [(LEFT, (0, 500, 200, 600)), (RIGHT, (800, 500, 1000, 600)), (FRONT, (400, 600, 600, 800))],
)
def test_without_room_there_is_no_box(side, anchor):
    assert box_beside(side, CUP, anchor, *SIZE) is None


def test_a_large_object_does_not_cover_a_small_one_for_want_of_room():
    large, small = (600, 200, 1000, 700), (150, 500, 190, 540)
    assert box_beside(LEFT, large, small, *SIZE) is None
    assert box_beside(BESIDE, large, small, *SIZE) == box_beside(RIGHT, large, small, *SIZE) is not None


sides = st.integers(1, 3000)
spans = st.tuples(st.integers(0, 2999), st.integers(1, 3000))  # where a box begins, and how long it is


def span(start: int, length: int, side: int) -> tuple[int, int]:
    start %= side
    return start, min(start + length, side)


@given(st.sampled_from([LEFT, RIGHT, FRONT, BEHIND, BESIDE, ON, IN, AT]), sides, sides, st.tuples(*[spans] * 4))
def test_every_box_lies_in_the_picture_and_hides_little(relation, width, height, four):
    across = [span(*each, width) for each in four[:2]]
    down = [span(*each, height) for each in four[2:]]
    obj, anchor = ((x[0], y[0], x[1], y[1]) for x, y in zip(across, down, strict=True))
    box = box_beside(relation, obj, anchor, width, height)
    if box is None:
        assert relation not in (ON, IN, AT)
        return
    left, top, right, bottom = box
    assert all(isinstance(side, int) for side in box)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    if relation in (LEFT, RIGHT, FRONT, BEHIND, BESIDE):
        assert shared(box, anchor) <= 0.25 * min(area(box), area(anchor))


def test_neither_sentences_nor_places_wait_for_torch():
    code = "import sys; from joyimage import boxes, places, spatial; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
