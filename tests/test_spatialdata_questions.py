"""Questions about drawn scenes, whose truth is known, and the checks that compute their answers again."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageChops

from joyimage.errors import JoyImageError
from joyimage.spatialdata import TASKS
from joyimage.spatialdata.cameras import Pinhole
from joyimage.spatialdata.checking.truth import Truth, least_distance, mentioned
from joyimage.spatialdata.index import index_scene
from joyimage.spatialdata.questions import marks
from joyimage.spatialdata.questions.draw import Draw
from joyimage.spatialdata.questions.evening import balance, evened, sides
from joyimage.spatialdata.questions.form import LETTERS, USUAL, Asking, Mark, Question
from joyimage.spatialdata.questions.words import COLOURS, read_lengths
from joyimage.spatialdata.readers import read_scenes
from joyimage.spatialdata.sides import SIDES, shown_side
from joyimage.spatialdata.tasks import CAPABILITIES, check, make_questions
from tools.tiny import captures
from tools.tiny import scenes as world

pytestmark = pytest.mark.slow
KEYS = [
    "absolute_distance",
    "absolute_size",
    "height",
    "multiview_distance",
    "depth_order",
    "depth_choice",
    "relative_distance",
    "relative_size",
    "height_comparison",
    "proximity",
    "multiview_relative_distance",
    "multiview_size_pair",
    "multiview_size_ranking",
    "multiview_direction",
    "camera_distance",
    "camera_motion",
    "camera_pose",
    "point_correspondence",
    "object_correspondence",
    "scene_caption",
    "counting",
    "grounding_3d",
    "orientation",
]
CHINESE = re.compile("[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Indices of scenes of three or four objects, and their truth."""
    folder = tmp_path_factory.mktemp("drawn")
    captures.make(folder, 8, seed=3, shares=(0, 0, 0.3, 0.7))
    return [(index_scene(scene), Truth(scene)) for scene in read_scenes(folder)]


def asked(drawn, tasks, quota=6, asking=USUAL):
    """Questions and the truth of their scenes."""
    for place, (index, truth) in enumerate(drawn):
        for question in make_questions(index, dict.fromkeys(tasks, quota), asking, place):
            yield question, truth


def test_the_sub_tasks_are_those_of_the_paper_and_the_engine():
    assert list(TASKS) == KEYS
    assert {task.capability for task in TASKS.values()} == set(CAPABILITIES)


@pytest.mark.parametrize("task", KEYS)
def test_answers_are_true_and_clear(drawn, task):
    found = list(asked(drawn, [task]))
    assert found
    for question, truth in found:
        assert question.text and question.answer and question.task == task
        assert check(truth, question), (question.text, question.answer)


def spoilt(question: Question) -> Question:
    """The question with an answer that is wrong."""
    if question.options:
        return replace(question, answer=LETTERS[(LETTERS.index(question.answer) + 1) % len(question.options)])
    exchanged = {"Yes": "No", "No": "Yes", "是": "否", "否": "是"}
    if question.answer in exchanged:
        return replace(question, answer=exchanged[question.answer])
    if question.task == "scene_caption":
        return replace(question, answer=question.answer.replace(next(iter(question.names.values())), "thing"))
    if question.task == "grounding_3d":
        return replace(
            question, answer=question.answer.replace('"bbox_3d": [', '"bbox_3d": [9', 1).replace("[9-", "[-9")
        )
    if re.search(r"\d", question.answer):  # a digit before a decimal point, or of a whole number
        changed = re.sub(r"\d+(?=\D|$)", lambda found: str(int(found[0]) + 3), question.answer, count=1)
        return replace(question, answer=changed)
    named = [name for name in question.names.values() if name not in question.answer]
    if question.task == "multiview_direction":
        return replace(question, answer={"front": "back", "前": "后"}.get(question.answer, "front"))
    if question.task == "orientation":
        return replace(question, answer={"front": "rear", "正面": "后面"}.get(question.answer, "front"))
    if named:
        return replace(question, answer=named[0])
    points = [mark.label for mark in question.marks if mark.label in question.answer]
    points += [mark.label for mark in question.marks if mark.label not in question.answer]
    first, second, *_ = question.names.values() or points
    return replace(question, answer=question.answer.replace(first, "#").replace(second, first).replace("#", second))


@pytest.mark.parametrize("task", KEYS)
def test_wrong_answers_are_found(drawn, task):
    found = list(asked(drawn, [task]))
    for question, truth in found:
        wrong = spoilt(question)
        assert wrong.answer != question.answer
        assert not check(truth, wrong).right, (question.text, question.answer, wrong.answer)


def test_a_seed_gives_the_same_questions_and_another_gives_others(drawn):
    def texts(seed):
        return [(question.text, question.answer) for question, _ in asked(drawn[:2], KEYS, 3, Asking(seed))]

    assert texts(0) == texts(0) != texts(1)


def test_a_scene_alone_gives_what_it_gives_among_others(drawn):
    among = [question.text for question, _ in asked(drawn[:3], ["depth_choice"])]
    alone = [question.text for question in make_questions(drawn[1][0], {"depth_choice": 6}, Asking(), 1)]
    assert alone and "\n\n".join(alone) in "\n\n".join(among)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_each_language_stays_in_its_words(drawn, language):
    asking = Asking(languages=(language,), translations=dict.fromkeys(world.KINDS, "物"))
    for question, truth in asked(drawn[:3], KEYS, 3, asking):
        assert bool(CHINESE.search(question.text)) == (language == "zh"), question.text
        assert language == "zh" or not CHINESE.search(question.answer)
        if language == "en":
            assert check(truth, question)


def test_every_sub_task_has_several_wordings(drawn):
    for task in KEYS:
        texts = {question.text.splitlines()[0] for question, _ in asked(drawn, [task], 4, Asking(languages=("en",)))}
        starts = {" ".join(text.split()[:2]) for text in texts}
        assert len(starts) >= 2, task


def test_tasks_in_two_forms_ask_in_both(drawn):
    for task in ("depth_order", "relative_distance", "multiview_direction", "camera_motion", "counting"):
        forms = Counter(question.form for question, _ in asked(drawn, [task]))
        assert set(forms) == {"open", "choice"}, task


def test_what_words_do_not_tell_apart_is_marked_in_a_colour_of_its_own(drawn):
    index, _ = drawn[0]
    same = index.scene.with_objects(tuple(replace(t, category="box", description="") for t in index.scene.objects))
    index = index_scene(same)
    assert set(index.names) == {""}
    tasks = [key for key in KEYS if key not in ("scene_caption", "counting", "grounding_3d")]
    found = list(make_questions(index, dict.fromkeys(tasks, 4), Asking(marked=0)))
    assert {question.task for question in found} >= {"absolute_distance", "relative_distance", "multiview_size_pair"}
    for question in found:
        named = [mark for mark in question.marks if mark.number is not None]
        assert {mark.number for mark in named} == set(question.names)
        assert len(named) == len({mark.colour for mark in named})
        assert len({mark.colour for mark in question.marks if mark.label}) <= 1
        assert check(Truth(same), question)
    assert not list(make_questions(index, {"scene_caption": 4}))  # nothing to call them by


def test_counting_and_grounding_are_never_marked(drawn):
    for question, _ in asked(drawn, ["counting", "grounding_3d"], 6, Asking(marked=1)):
        assert not question.marks


def test_all_are_marked_where_that_is_wanted_and_none_where_not(drawn):
    for question, _ in asked(drawn, ["relative_size", "multiview_distance"], 6, Asking(marked=1)):
        assert len(question.marks) == 2
    for question, _ in asked(drawn, ["relative_size", "multiview_distance"], 6, Asking(marked=0)):
        assert not question.marks


def test_turns_are_even_over_scenes_of_one_question_each(drawn):
    index, _ = drawn[0]
    for count in (2, 3, 8):
        turns = Counter(Draw(index, "counting", Asking(), place).turn("letter", count) for place in range(10 * count))
        assert set(turns.values()) == {10}


def test_sides_and_letters_are_evened():
    def question(side, answer="A"):
        return Question("t", "s", (0,), "en", "choice", "?", answer, ("x", "y"), about={"side of 2": side})

    kept = list(evened([question(0)] * 20 + [question(1, "B")] * 5, ahead=2))
    assert Counter(one.about["side of 2"] for one in kept) == {0: 2, 1: 4}


def test_values_without_end_stay_beside_the_next_frequent():
    def question(count):
        return Question("t", "s", (0,), "en", "open", "?", str(count), about={"side": count})

    kept = list(evened([question(count) for count in [2] * 20 + [1] * 20 + [2] * 20 + [7]], ahead=3))
    assert Counter(one.about["side"] for one in kept) == {2: 9, 1: 6, 7: 1}
    assert balance(side for one in kept for side in sides(one)) == {}  # no chance is known for them


def test_quotas_and_needs(drawn):
    index, _ = drawn[0]
    found = Counter(question.task for question in make_questions(index, {"height": 3, "relative_size": 2}))
    assert found["height"] == 3 and found["relative_size"] <= 2
    shapeless = index_scene(replace(index.scene, metric=False))
    assert not list(make_questions(shapeless, {"height": 3, "grounding_3d": 3}))
    one = index_scene(replace(index.scene, views=index.scene.views[:1]))
    assert not list(make_questions(one, {"multiview_distance": 3, "camera_motion": 3}))
    with pytest.raises(JoyImageError, match="weight"):
        list(make_questions(index, {"weight": 1}))


def test_no_question_is_asked_twice(drawn):
    for index, _ in drawn[:3]:
        found = [(q.task, q.views, str(q.about)) for q in make_questions(index, dict.fromkeys(KEYS, 12))]
        assert len(found) == len(set(found))


@pytest.mark.parametrize("wrong", [{"languages": ("fr",)}, {"languages": ()}, {"marked": 1.5}, {"tries": 0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(JoyImageError):
        Asking(**wrong)


def test_the_index_knows_where_objects_are(drawn):
    index, truth = drawn[0]
    for (view, n), sight in index.sights.items():
        number = index.things[n].number
        mask = truth.numbers(view) == number
        assert sight.mask.sum() == mask.sum() and sight.share == pytest.approx(mask.mean())
        rows, columns = np.nonzero(mask)
        height, width = mask.shape
        box = columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height
        assert sight.box == pytest.approx(box)
        assert mask[int(sight.point[1] * height), int(sight.point[0] * width)]
        assert all(mask[row, column] for column, row in sight.inner)
        assert sight.outline.min(axis=0) == pytest.approx(box[:2]) and sight.outline.max(axis=0) == pytest.approx(
            box[2:]
        )
    assert index.turned == pytest.approx(index.turned.T) and (np.diag(index.turned) < 1e-3).all()
    assert all(set(clear) <= set(shown) for clear, shown in zip(index.clear, index.shown, strict=True))


def test_the_index_leaves_structure_out_and_wants_boxes(drawn):
    index, _ = drawn[0]
    first, *rest = index.scene.objects
    assert len(index_scene(index.scene.with_objects((replace(first, category="Wall"), *rest))).things) == len(rest)
    with pytest.raises(JoyImageError, match="lift"):
        index_scene(index.scene.with_objects((replace(first, box=None), *rest)))


def test_without_masks_objects_are_what_their_boxes_hold(drawn):
    index, _ = drawn[0]
    bare = replace(index.scene, views=tuple(replace(view, instances=None) for view in index.scene.views))
    found = index_scene(bare)
    for key, sight in index.sights.items():
        if sight.clear:
            assert found.sights[key].share == pytest.approx(sight.share, rel=0.25)


def test_the_side_of_a_car_is_what_the_drawing_says():
    generator = np.random.default_rng(0)
    scenes = world.draw(40, generator, kind=world.CAR)
    shown, off = world.shown_view(scenes)
    checked = 0
    for i in range(len(scenes)):
        views = captures.shoot(scenes[i : i + 1], generator, 1)
        camera = captures.poses(views.camera)[0]
        side = shown_side(captures.true_box(views, 0), Pinhole(np.eye(3), camera, 1, 1))
        if side is not None:
            checked += 1
            assert SIDES[side] == world.VIEWS[shown[i]]
        else:
            assert off[i] > 12
    assert checked > 10


def test_marks_are_drawn_where_they_belong(drawn):
    index, truth = drawn[0]
    picture = index.scene.views[0].picture()
    n = index.clear[0][0]
    number, sight = index.things[n].number, index.sights[0, n]

    def changed(mark):
        difference = ImageChops.difference(picture, marks.draw(picture, index, 0, [mark]))
        return np.asarray(difference).max(axis=-1) > 0

    mask = truth.numbers(0) == number
    assert (changed(Mark(0, "tint", "white", number)) & ~mask).sum() == 0
    assert changed(Mark(0, "tint", "white", number))[mask].mean() > 0.9
    boxed = changed(Mark(0, "box", "red", number))
    assert boxed.any() and not (boxed & mask).any()
    rows, columns = np.nonzero(changed(Mark(0, "point", "blue", number, sight.point)))
    height, width = mask.shape
    assert abs(columns.mean() / width - sight.point[0]) < 0.02 and abs(rows.mean() / height - sight.point[1]) < 0.02
    labelled = changed(Mark(0, "label", "blue", None, (0.98, 0.01), "A"))  # the letter stays in the picture
    assert labelled.sum() > len(rows)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_mark_is_seen_on_its_own_colour(drawn, colour):
    index, _ = drawn[0]
    number = index.things[index.clear[0][0]].number
    for under in (COLOURS[colour]["rgb"], (0, 0, 0), (255, 255, 255)):
        plain = Image.new("RGB", (128, 128), under)
        points = (Mark(0, "point", colour, None, (0.5, 0.5)), Mark(0, "label", colour, None, (0.5, 0.5), "P"))
        for mark in (*points, Mark(0, "box", colour, number)):
            difference = np.asarray(ImageChops.difference(plain, marks.draw(plain, index, 0, [mark])))
            seen = (difference.max(axis=-1) > 120).sum()
            assert seen >= (9 if mark.kind == "point" else 40), (colour, under, mark.kind, seen)


def test_pictures_of_a_question_carry_their_own_marks(drawn):
    question = next(q for q, _ in asked(drawn[:1], ["multiview_distance"], 6, Asking(marked=1)))
    index, _ = drawn[0]
    for place, (view, picture) in enumerate(zip(question.views, marks.pictures(index, question), strict=True)):
        bare = index.scene.views[view].picture()
        own = [mark for mark in question.marks if mark.picture == place]
        assert len(own) == 1 and ImageChops.difference(bare, picture).getbbox()


def test_least_distance_is_that_of_all_pairs():
    generator = np.random.default_rng(0)
    for offset in (0.0, 1.0, 4.0):
        first, second = generator.normal(size=(300, 3)), generator.normal(size=(200, 3)) + offset
        true = np.linalg.norm(first[:, None] - second, axis=-1).min()
        assert least_distance(first, second) == pytest.approx(true, abs=1e-6)
    assert least_distance(first, first[:0]) == np.inf


def test_names_and_lengths_are_read_from_texts():
    names = {1: "the cube", 2: "the cube in the red box", 3: "the car"}
    assert mentioned("The car, the cube in the red box and the cube", names) == [3, 2, 1]
    assert read_lengths("1.20 m and 0.35 m") == [1.2, 0.35] == read_lengths("1.20 米、0.35 米")
