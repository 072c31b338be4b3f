"""The model as a judge: what it is asked about each kind of instruction, and the geometry of a camera's motion."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from joyimage import judging, prompts, spatial
from joyimage.boxes import overlap, red_box, red_line
from joyimage.candidates import Attempt
from joyimage.errors import JoyImageError
from joyimage.images import cover
from joyimage.judging import Mind, moved_box, own_judge
from joyimage.settings import VIEWS

GRAY = Image.new("RGB", (100, 100), (120, 120, 120))
BOX = (20, 30, 60, 80)


def answers(**replies):
    """A mind that answers by what a question holds, and finds each of its likely answers as likely as told."""

    def answer(pictures, question):
        return next(reply for part, reply in replies.items() if part in question)

    def likelihoods(pictures, question, choices):
        told = next(reply for part, reply in replies.items() if part in question)
        return [math.log(told.get(choice, 1e-6)) for choice in choices]

    return Mind(answer, likelihoods)


def box_2d(*corners) -> str:
    return f'[{{"bbox_2d": [{", ".join(str(10 * corner) for corner in corners)}], "label": "cup"}}]'


def test_a_moved_object_is_looked_for_in_its_box():
    attempt = Attempt((spatial.draw_box(GRAY, BOX),), spatial.move_object("cup"), GRAY)
    verdict = own_judge(answers(Locate=box_2d(22, 32, 58, 78)))(attempt)
    assert verdict.score == pytest.approx(36 * 46 / (40 * 50)) and verdict.sure
    assert own_judge(answers(Locate=box_2d(60, 30, 90, 80)))(attempt).score == 0
    assert own_judge(answers(Locate="There is none."))(attempt).reason == "no cup is found"


def test_a_red_line_that_is_left_spoils_a_move():
    marked = spatial.draw_box(GRAY, BOX)
    verdict = own_judge(answers(Locate=box_2d(*BOX)))(Attempt((marked,), spatial.move_object("cup"), marked))
    assert verdict.score == 0 and "red line" in verdict.reason


def test_a_rotation_is_judged_by_the_side_that_is_seen():
    attempt = Attempt((GRAY,), spatial.rotate_object("car", "left"), GRAY)
    assert own_judge(answers(side={"left": 0.9, "right": 0.1}))(attempt).score == pytest.approx(0.9, abs=1e-4)
    verdict = own_judge(answers(side={"front": 0.6, "left": 0.3, "rear": 0.1}))(attempt)
    assert verdict.reason == "the front side is seen (60%)" and not verdict.sure


@pytest.mark.parametrize(("yes", "sure"), [(0.99, True), (0.6, False), (0.2, False)])
def test_any_other_edit_is_asked_about(yes, sure):
    asked = []

    def likelihoods(pictures, question, choices):
        asked.append((len(pictures), question))
        return [math.log(yes), math.log(1 - yes)]

    judge = own_judge(Mind(lambda *_: "", likelihoods))
    verdict = judge(Attempt((GRAY, GRAY), "Add a hat.", GRAY))
    assert verdict.score == pytest.approx(yes) and verdict.sure is sure
    assert asked == [(3, prompts.edit_question("Add a hat.", 2))]


def test_a_picture_from_text_is_judged_by_how_well_the_text_describes_it():
    asked = []

    def likelihoods(pictures, question, choices, per_token):
        asked.append((len(pictures), question, choices, per_token))
        return [math.log(0.8)]

    verdict = own_judge(Mind(lambda *_: "", likelihoods))(Attempt((), "A cat.", GRAY))
    assert verdict.score == pytest.approx(0.8) and not verdict.sure and verdict.clear < 0.1
    assert asked == [(1, prompts.DEFAULT_QUESTION, ["A cat."], True)]


def test_a_move_without_its_red_box_is_asked_about():
    verdict = own_judge(answers(after={"yes": 0.7, "no": 0.3}))(Attempt((GRAY,), spatial.move_object("cup"), GRAY))
    assert verdict.score == pytest.approx(0.7)


def seen(boxes: dict[str, tuple], moved: dict[str, tuple], before: Image.Image) -> Mind:
    def answer(pictures, question):
        if question == prompts.NAMES_QUESTION:
            return ", ".join(boxes)
        places = boxes if pictures[0] is before else moved
        found = next((place for name, place in places.items() if name in question), None)
        return "none" if found is None else box_2d(*(round(side) for side in found))

    return Mind(answer, lambda *_: [])


@pytest.mark.parametrize(
    "camera", [spatial.Camera(45), spatial.Camera(-30, 15), spatial.Camera(0, 0, "in"), spatial.Camera(60, 0, "out")]
)
def test_a_camera_is_judged_by_where_things_went(camera):
    after = GRAY.copy()
    boxes = {"cup": (20, 60, 40, 85), "plate": (60, 30, 75, 40)}
    right = {name: moved_box(box, camera, GRAY.size) for name, box in boxes.items()}
    opposite = spatial.Camera(-camera.yaw, -camera.pitch, judging.OPPOSITE[camera.zoom])
    wrong = {name: moved_box(box, opposite, GRAY.size) for name, box in boxes.items()}
    attempt = Attempt((GRAY,), camera.text, after)
    good = own_judge(seen(boxes, right, GRAY))(attempt)
    bad, still = (own_judge(seen(boxes, places, GRAY))(attempt) for places in (wrong, boxes))
    assert good.score > 0.6 > 0.5 > max(bad.score, still.score)


def test_a_motion_that_cannot_be_told_has_no_score():
    after = GRAY.copy()
    nothing = own_judge(seen({"cup": BOX}, {}, GRAY))(Attempt((GRAY,), spatial.camera(45), after))
    still = own_judge(seen({"cup": (45, 45, 55, 55)}, {"cup": (45, 45, 55, 55)}, GRAY))(
        Attempt((GRAY,), spatial.camera(2), after)
    )
    assert nothing.score is None and still.score is None


def test_a_camera_that_goes_right_sees_what_is_near_go_left():
    near, far = (45, 70, 55, 90), (45, 10, 55, 30)
    camera = spatial.Camera(30)
    assert moved_box(near, camera, (100, 100))[0] < near[0] and moved_box(far, camera, (100, 100))[0] > far[0]


def test_still_cameras_leave_boxes_where_they_are():
    assert moved_box(BOX, spatial.Camera(0), (100, 80)) == pytest.approx(BOX)


@pytest.mark.parametrize("box", [(3, 5, 60, 40), (0, 0, 100, 100), (50, 50, 58, 99)])
def test_a_drawn_box_is_found_again(box):
    levels = np.random.default_rng(0).integers(0, 200, (100, 100, 3), dtype=np.uint8)
    picture = Image.fromarray(levels)
    assert red_box(picture) is None
    marked = spatial.draw_box(picture, box)
    assert red_box(marked) == box and red_line(marked, box) == 1 and red_line(picture, box) < 0.05


def test_a_drawn_box_is_found_in_a_scaled_picture():
    picture = spatial.draw_box(Image.new("RGB", (1500, 1200), (90, 120, 60)), (300, 240, 900, 840))
    found = red_box(cover(picture, (640, 800)))
    assert overlap(found, (160, 128, 480, 448)) > 0.97


def test_probabilities_are_among_the_answers():
    mind = answers(side={"front": 0.2, "rear": 0.2})
    assert sum(mind.probabilities([GRAY], "side", VIEWS)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "score", "reason"),
    [
        ('{"score": 85, "reason": "good"}', 0.85, "good"),
        ('It is well done.\n```json\n{"score": 0}\n```', 0.0, ""),
        ('<think>{"score": 10}</think>{"score": 100, "reason": "a\nb"}', 1.0, "a b"),
        ('{"score": 85}{"score": 40.5}', 0.405, ""),
    ],
)
def test_scores_of_a_server_are_read(text, score, reason):
    assert prompts.parse_score(text) == (pytest.approx(score), reason)


@pytest.mark.parametrize("text", ["", "85", '{"score": 101}', '{"score": -1}', '{"score": "good"}', '{"score": true}'])
def test_what_is_no_score_is_refused(text):
    with pytest.raises(JoyImageError, match="score"):
        prompts.parse_score(text)


def test_a_red_thing_is_no_red_box():
    picture = Image.new("RGB", (60, 60), (90, 120, 60))
    picture.paste((255, 0, 0), (10, 10, 40, 50))
    assert red_box(picture) is None
    assert red_box(spatial.draw_box(picture, (5, 5, 55, 58))) == (5, 5, 55, 58)
