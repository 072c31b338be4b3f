"""The scenes that the bundled model is trained and judged on: what is drawn, what is asked, and who judges it."""

from dataclasses import replace

import numpy as np
import pytest

from joyimage import spatial
from joyimage.boxes import parse_boxes
from tools.tiny import data, judge, questions, render, scenes, tasks

pytestmark = pytest.mark.slow

COUNT = 40


@pytest.fixture(scope="module")
def pairs():
    """A few test pairs of each task."""
    return {name: make(COUNT, np.random.default_rng(3), True) for name, make in tasks.TASKS.items()}


def test_objects_lie_where_the_geometry_says():
    drawn = scenes.draw(40, np.random.default_rng(0))
    alone = drawn.with_slot(1, present=False).with_slot(2, present=False).with_slot(3, present=False)
    seen = render.render(alone).box()
    around = scenes.boxes(alone)[:, 0]
    assert (seen[:, :2] >= around[:, :2] - 1).all() and (seen[:, 2:] <= around[:, 2:] + 1).all()
    cubes = alone.kind[:, 0] == scenes.CUBE  # which fill their boxes
    assert cubes.any() and np.abs(around - seen)[cubes].max() < 1.5


def test_a_nearer_object_hides_a_farther_one():
    drawn = scenes.draw(1, np.random.default_rng(0))
    both = drawn.with_slot(1, present=True)
    front = both.with_slot(0, place=np.array([0, -1.2])).with_slot(1, place=np.array([0, 1.2]))
    one = render.render(front.with_slot(1, present=False)).slots[..., 0]
    assert np.allclose(render.render(front).slots[..., 0], one)


@pytest.mark.parametrize("view", range(len(spatial.VIEWS)))
def test_the_named_view_is_the_one_shown(view):
    drawn = scenes.draw(5, np.random.default_rng(view), kind=scenes.CAR)
    turned = drawn.with_slot(0, yaw=scenes.view_yaw(drawn, np.full(5, view)))
    shown, error = scenes.shown_view(turned)
    assert (shown == view).all() and error.max() < 1e-3


def test_whoever_sees_the_right_side_sees_the_front_on_the_right():
    drawn = scenes.draw(20, np.random.default_rng(0), kind=scenes.CAR)
    drawn = drawn.with_slot(1, present=False).with_slot(2, present=False).with_slot(3, present=False)
    right = spatial.VIEWS.index("right")
    turned = drawn.with_slot(0, yaw=scenes.view_yaw(drawn, np.full(20, right)))
    rendered = render.render(turned)
    for picture, share in zip(rendered.pixels, rendered.slots[..., 0], strict=True):
        coloured = (judge.segment(picture) >= 0) & (share > 0.9)
        white = (judge.segment(picture) < 0) & (share > 0.9)
        assert np.nonzero(white)[1].mean() > np.nonzero(coloured)[1].mean()


def test_positive_yaw_takes_the_camera_to_the_right():
    camera = np.array([[0.0, 38.0, scenes.DISTANCE]])
    moved = scenes.moved_camera(camera, np.array([30]), np.array([15]), np.array([2]))
    (eye,), _ = scenes.axes(camera)
    (turned,), _ = scenes.axes(moved)
    assert turned[0] > eye[0] + 1 and turned[2] > eye[2] + 1


def test_no_training_scene_holds_a_combination_that_is_kept_for_tests():
    drawn = scenes.draw(500, np.random.default_rng(0))
    assert not scenes.held_out(drawn.colour, drawn.kind)[drawn.present].any()
    tested = scenes.draw(100, np.random.default_rng(0), test=True)
    assert scenes.held_out(tested.colour[:, 0], tested.kind[:, 0]).all()


@pytest.mark.parametrize("task", ["rotate", "camera"])
def test_turns_of_tests_are_not_those_of_training(task):
    def turns(test):
        made = tasks.TASKS[task](80, np.random.default_rng(1), test)
        if task == "camera":
            return set(made.texts)
        return set(zip(made.before.colour[:, 0].tolist(), made.details["view"].tolist(), strict=True))

    assert not turns(False) & turns(True)


def test_instructions_are_the_products_own(pairs):
    for task in ("move", "rotate", "camera"):
        for text in pairs[task].texts:
            found = spatial.parse(text)
            assert found.instruction is not None and found.instruction.kind == task and not found.problems


def test_judges_pass_the_truth_and_fail_the_input(pairs):
    for task, made in pairs.items():
        truth = judge.verdicts(made, made.target)
        unchanged = judge.verdicts(made, made.references[0] if made.references else made.target[::-1].copy())
        for name, values in truth.items():
            if values.dtype == bool:
                assert values.mean() >= 0.9, (task, name)
                assert unchanged[name].mean() <= 0.35, (task, name)
            else:
                assert values.min() > 50, (task, name)


@pytest.mark.parametrize("opacity", [0.7, 1.0])
@pytest.mark.parametrize("sides", [1, 4])
def test_a_red_line_that_was_left_is_seen(pairs, sides, opacity):
    """Whole, in all scenes; faint, where no red solid lies under it or against it."""
    made = pairs["move"]
    red = ((made.after.colour == list(scenes.COLOURS).index("red")) & made.after.present).any(1)
    output = made.target.astype(np.float32)
    for picture, (left, top, right, bottom) in zip(output, made.box, strict=True):
        lines = [np.s_[top : top + 2, left:right], np.s_[bottom - 2 : bottom, left:right]]
        lines += [np.s_[top:bottom, left : left + 2], np.s_[top:bottom, right - 2 : right]]
        drawn = np.zeros(picture.shape[:2], dtype=bool)
        for line in lines[:sides]:
            drawn[line] = True
        picture[drawn] += opacity * (np.array([255, 0, 0]) - picture[drawn])
    gone = judge.move(made, output.round().astype(np.uint8))["box gone"]
    assert 0 < red.sum() < COUNT and not gone[~red if opacity < 1 else np.full(COUNT, True)].any()


def test_a_red_solid_that_is_too_wide_is_no_line(pairs):
    made = pairs["move"]
    red = list(scenes.COLOURS).index("red")
    after = made.after.with_slot(0, colour=np.full(COUNT, red))
    wide = render.render(after.with_slot(0, size=1.2 * after.size[:, 0])).pixels
    changed = replace(made, after=after, target=render.render(after).pixels)
    line = judge.inside(made.box) & ~judge.inside(made.box + np.array([2, 2, -2, -2]))
    assert ((judge.segment(wide) == red) & (judge.segment(changed.target) != red) & line).any((1, 2)).sum() > COUNT / 2
    assert judge.move(changed, wide)["box gone"].all()


def test_the_solids_that_others_are_compared_with_are_drawn_once(monkeypatch, tmp_path):
    monkeypatch.setattr(judge, "CACHE", tmp_path / "kept")
    monkeypatch.setattr(judge, "DRAWN", 60)
    drawn = judge.draw_examples()
    read = judge.examples.__wrapped__  # past what this process holds
    for _ in range(2):
        for ours, wanted in zip(read(), drawn, strict=True):
            assert np.array_equal(ours, wanted)
        monkeypatch.setattr(judge, "draw_examples", lambda: pytest.fail("drawn again"))


def test_answers_follow_from_the_scene():
    exam = questions.make(60, np.random.default_rng(5), test=True)
    kinds = set()
    for i, asked in enumerate(exam.questions):
        for question in asked:
            kinds.add(question.kind)
            if question.kind == "count":
                assert question.answer == str(exam.scenes.present[i].sum())
            if question.kind == "locate":
                (box,) = parse_boxes(question.answer, scenes.SIZE, scenes.SIZE)
                assert np.abs(np.array(box) - question.box).max() <= 1
    assert kinds == {ask.__name__.replace("description", "describe") for ask in questions.KINDS_OF_QUESTION}


def test_every_object_can_be_asked_about_and_nothing_twice():
    exam = questions.make(60, np.random.default_rng(5), every_object=True)
    rendered = render.render(exam.scenes)
    for i, asked in enumerate(exam.questions):
        assert len({question.text for question in asked}) == len(asked)
        located = [q.box for q in asked if q.kind == "locate"]
        shown = [tuple(rendered.box(slot)[i]) for slot in np.flatnonzero(exam.scenes.present[i])]
        assert sorted(located) == sorted(shown)


def test_relations_follow_from_the_places():
    exam = questions.make(80, np.random.default_rng(6), every_object=True)
    seen = set()
    for i, asked in enumerate(exam.questions):
        names = {exam.scenes.name(i, slot): exam.scenes.place[i, slot] for slot in range(scenes.SLOTS)}
        for question in asked:
            if question.kind == "relation":
                found = [name for name in names if name in question.text]
                a, b = sorted(found, key=question.text.index)
                across, along = names[a] - names[b]
                side = {"to the left": across < 0, "to the right": across > 0}
                side |= {"in front of it": along < 0, "behind it": along > 0}
                assert side[question.answer]
                seen.add(question.answer)
    assert len(seen) == 4


def test_shards_do_not_depend_on_what_else_is_made(tmp_path):
    data.make(tmp_path / "a", 0, {"remove": 2}, size=4, processes=1)
    data.make(tmp_path / "b", 0, {"remove": 1, "add": 1}, size=4, processes=1)
    first, second = (np.load(data.path(tmp_path / name, "remove", 0)) for name in "ab")
    assert all((first[key] == second[key]).all() for key in first.files)
    assert len(data.read(tmp_path / "a", "remove", 2)["texts"]) == 8
