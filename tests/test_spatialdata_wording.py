"""What a question's words and marks mean to whoever has nothing but these and the pictures."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import ImageChops

from joyimage.spatialdata import TASKS
from joyimage.spatialdata.checking.truth import Truth, mentioned
from joyimage.spatialdata.index import index_scene
from joyimage.spatialdata.questions import awareness, camera, marks, matching, measurement, relationship, several
from joyimage.spatialdata.questions.evening import Evening
from joyimage.spatialdata.questions.form import LETTERS, Asking
from joyimage.spatialdata.questions.words import DIRECTION_WORDS
from joyimage.spatialdata.readers import read_scenes
from joyimage.spatialdata.tasks import check, make_questions
from tools.tiny import captures, render
from tools.tiny import scenes as world

PHRASES = {
    key: wordings
    for module in (awareness, camera, matching, measurement, relationship, several)
    for key, wordings in module.PHRASES.items()
}


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """Indices of scenes of four objects, of which some are of one kind."""
    folder = tmp_path_factory.mktemp("crowded")
    captures.make(folder, 6, seed=3, shares=(0, 0, 0, 1))
    return [index_scene(scene) for scene in read_scenes(folder)]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Indices and truth of scenes seen from close by with a wide lens: depth and distance have different orders."""
    folder = tmp_path_factory.mktemp("wide")
    with pytest.MonkeyPatch.context() as patch:
        for module in (captures, render):
            patch.setattr(module, "FIELD_OF_VIEW", 80.0)
        for i in range(6):
            generator = np.random.default_rng([77, i])
            views = captures.shoot(world.draw(1, generator, numbers=np.eye(4)[3]), generator, 6)
            views = replace(views, camera=views.camera * [1, 1, 0.6])
            captures.write(folder / f"scene{i:05d}", views)
    return [(index_scene(scene), Truth(scene)) for scene in read_scenes(folder)]


def test_every_wording_about_depth_says_so():
    for key in ("depth_order", "depth_nearest", "depth_farthest", "depth_nth"):
        for text in PHRASES[key]["en"]:
            assert re.search("depth|camera's plane", text), text
        for text in PHRASES[key]["zh"]:
            assert "深度" in text, text


def test_no_article_stands_before_a_word_that_may_begin_with_a_vowel():
    assert len(PHRASES) > 20
    for wordings in PHRASES.values():
        for text in wordings["en"]:
            assert not re.search(r"\ban? \{", text, re.IGNORECASE), text


@pytest.mark.slow
def test_only_what_is_alone_of_its_kind_is_tinted(crowded):
    kinds = Counter()
    for place, index in enumerate(crowded):
        tags = Counter(thing.category for thing in index.scene.objects)
        called = {thing.number: thing.category for thing in index.things}
        for question in make_questions(index, dict.fromkeys(TASKS, 6), Asking(marked=1), place):
            for mark in question.marks:
                if mark.number is not None:
                    alone = tags[called[mark.number]] == 1
                    kinds[mark.kind, alone] += 1
                    assert alone or mark.kind != "tint", question.text
    assert min(kinds["tint", True], kinds["box", False], kinds["point", False]) > 20


@pytest.mark.slow
@pytest.mark.parametrize("size", [128, 512])
def test_no_letter_lies_on_another_point(tmp_path, size):
    captures.make(tmp_path, 1, seed=5, size=size, shares=(0, 0, 0, 1))
    (index,) = map(index_scene, read_scenes(tmp_path))
    made = make_questions(index, {"point_correspondence": 80, "depth_order": 40})
    questions = [question for question in made if "points" in question.about]
    assert min(Counter(question.task for question in questions).values()) > 20
    for question in questions:
        view = question.views[-1]
        picture = index.scene.views[view].picture()
        drawn = [
            ImageChops.difference(picture, marks.draw(picture, index, view, [mark]))
            for mark in question.marks
            if mark.label
        ]
        covered = sum((np.asarray(one).max(axis=-1) > 0).astype(int) for one in drawn)
        assert len(drawn) == len(question.about["points"]) and covered.max() == 1, question.text


@pytest.mark.slow
def test_a_point_is_not_told_by_what_it_lies_on_or_where_in_its_pixel(crowded):
    gain, centred, asked = 0.0, Counter(), 0
    for place, index in enumerate(crowded):
        truth = Truth(index.scene)
        for question in make_questions(index, {"point_correspondence": 40}, Asking(), place):
            view = question.views[1]
            if len(index.clear[view]) < 3:
                continue
            assert check(truth, question)
            numbers, camera = truth.numbers(view), index.frames[view].camera
            pixels = np.array(question.about["points"]) * [camera.width, camera.height]
            answer = LETTERS.index(question.answer)
            on_objects = [numbers[int(y), int(x)] > 0 for x, y in pixels]
            assert sum(on_objects) >= 2
            gain, asked = gain + on_objects[answer] / sum(on_objects) - 1 / 4, asked + 1
            for i, (x, y) in enumerate(pixels):
                centred[i == answer] += abs(x % 1 - 0.5) < 1e-6 and abs(y % 1 - 0.5) < 1e-6
    assert asked > 100 and not centred.total()
    assert abs(gain / asked) < 0.05  # of a guess among those on objects


@pytest.mark.slow
@pytest.mark.parametrize("task", ["depth_order", "depth_choice"])
def test_where_points_are_is_shown_and_not_told(crowded, task):
    """By coordinates in the text, who calls the lower point nearer would be right four times of five."""
    nearest, lowest = Counter(), 0
    for place, index in enumerate(crowded):
        truth = Truth(index.scene)
        for question in make_questions(index, {task: 30}, Asking(), place):
            if "points" not in question.about:
                continue
            assert not re.search(r"\d{2}|\d, \d", question.text), question.text
            (view,) = question.views
            depth, names = truth.depth(view), [mark.label for mark in question.marks]
            assert [mark.at for mark in question.marks] == list(question.about["points"])
            assert set(names) == set(re.findall("(?:point |点)([P-Z])", question.stem)) and check(truth, question)
            places = {mark.label: mark.at for mark in question.marks}
            rows, columns = depth.shape
            first = min(places, key=lambda name: depth[int(places[name][1] * rows), int(places[name][0] * columns)])
            nearest[names.index(first) / (len(names) - 1)] += 1
            lowest += first == max(names, key=lambda name: places[name][1])
            turned = (*question.marks[1:], question.marks[0])
            moved = tuple(replace(mark, at=other.at) for mark, other in zip(question.marks, turned, strict=True))
            assert not check(truth, replace(question, marks=moved))
    asked = nearest.total()
    assert asked > 60 and lowest > asked / 2  # as seen in the picture
    assert abs(sum(part * count for part, count in nearest.items()) / asked - 0.5) < 0.12  # letters are in any order


def taken(indices, task, quota):
    """The questions of a data set, and the index of each."""
    evening = Evening()
    for place, index in enumerate(indices):
        for question in make_questions(index, {task: quota}, Asking(), place):
            if evening.takes(question):
                yield question, index


@pytest.mark.slow
def test_a_direction_is_not_told_by_the_one_that_is_given(crowded):
    """Most corners of three things are narrow, so that the options beside the given direction would be right."""
    words = {word: place for language in DIRECTION_WORDS.values() for place, word in enumerate(language.values())}
    gain = asked = 0
    for question, _ in taken(crowded * 6, "multiview_direction", 24):
        if question.options:
            turns = [(words[option] - question.about["given"]) % 8 for option in question.options]
            beside = [turn in (1, 7) for turn in turns]
            gain, asked = gain + beside[LETTERS.index(question.answer)] / max(sum(beside), 1) - 1 / 4, asked + 1
    assert asked > 60 and abs(gain / asked) < 0.1


@pytest.mark.slow
def test_no_motion_is_told_by_being_level(crowded):
    """Most are: of 0° and 15° of pitch the first would be right."""
    pitches = Counter()
    for question, _ in taken(crowded, "camera_motion", 24):
        if question.options:
            found = [float(re.search(r"(?:Pitch|俯仰) (-?\d+)°", option)[1]) for option in question.options]
            assert len(set(map(abs, found))) == 1, question.options
            pitches[len(set(found))] += 1
    assert min(pitches[1], pitches[2]) > 10


@pytest.mark.slow
def test_a_count_is_not_two_most_of_the_time(crowded):
    counts, rows = Counter(), set()
    for question, _ in taken(crowded, "counting", 24):
        counts[question.said] += 1
        if question.options:
            rows.add(tuple(sorted(question.options)))
    assert counts["1"] > 10 and max(counts.values()) <= counts.total() / 2 + 3
    assert rows == {("1", "2", "3", "4")}


@pytest.mark.slow
def test_whether_another_picture_shows_it_is_even_on_its_own(crowded):
    """Where it mostly does, those questions would be yes, and as many others no."""

    def hidden(index):
        """Without its first object, but in one view."""
        return replace(index, sights={key: sight for key, sight in index.sights.items() if key[1] or key[0] == 1})

    answers = Counter()
    for question, _ in taken(map(hidden, crowded), "object_correspondence", 80):
        if len(question.about["objects"]) == 1:
            answers[question.answer in ("No", "否")] += 1
    assert min(answers.values()) > 5 and abs(answers[True] - answers[False]) <= 3


@pytest.mark.slow
def test_what_a_caption_calls_nearest_is_nearest_by_distance(wide):
    told = other = 0
    for place, (index, truth) in enumerate(wide):
        for question in make_questions(index, {"scene_caption": 12}, Asking(languages=("en",)), place):
            assert check(truth, question), question.answer
            if found := re.search(r"[^.]+ is nearest to the camera", question.answer):
                (view,) = question.views
                clouds = {n: truth.in_camera(view, truth.cloud(view, n)) for n in question.about["objects"]}
                distance = {n: np.quantile(np.linalg.norm(cloud, axis=1), 0.2) for n, cloud in clouds.items()}
                depth = {n: np.quantile(cloud[:, 2], 0.1) for n, cloud in clouds.items()}
                (first,) = mentioned(found[0], question.names)
                assert first == min(distance, key=lambda n: distance[n])
                told, other = told + 1, other + (first != min(depth, key=lambda n: depth[n]))
    assert told > 10 and other, "no scene in which depth tells another than distance"


@pytest.mark.slow
def test_boxes_are_in_the_order_that_the_question_asks_for(wide):
    several_boxes = 0
    for place, (index, truth) in enumerate(wide):
        for question in make_questions(index, {"grounding_3d": 6}, Asking(), place):
            assert "smallest z first" in question.text or "按z由小到大" in question.text
            boxes = json.loads(question.answer)
            ahead = [box["bbox_3d"][2] for box in boxes]
            assert ahead == sorted(ahead) and check(truth, question)
            if len(boxes) > 1:
                several_boxes += 1
                assert not check(truth, replace(question, answer=json.dumps(boxes[::-1])))
    assert several_boxes > 5
