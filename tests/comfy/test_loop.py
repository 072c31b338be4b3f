"""Best of and Reason with Views in the host: the library's choice and answer, what is shown, and stopping."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from test_edit import find, loaders

from joyimage import JoyImage, spatial
from joyimage.demo import asset
from tools.client import Failed, Graph, Rejected, output

SCENE = "loop_scene.png"
SETTINGS = {"seed": 5, "steps": 2, "guidance": 4.0, "base_size": "auto"}
TURN = spatial.rotate_object("red car", "left")


@pytest.fixture(scope="module", autouse=True)
def scene(client):
    asset("rotate.png").save(client.base / "input" / SCENE)


@pytest.fixture(scope="module")
def model() -> JoyImage:
    return JoyImage.load("tiny")


def best_of(prompt: str, picture: bool = True, **settings) -> Graph:
    graph = Graph()
    given = {"image1": graph.add("LoadImage", image=SCENE)} if picture else {}
    node = graph.add("JoyImageBestOf", **loaders(graph), **given, prompt=prompt, **{**SETTINGS, **settings})
    graph.add("SaveImage", images=node, filename_prefix="best")
    graph.add("SaveImage", images=output(node, 1), filename_prefix="candidates")
    graph.add("PreviewAny", source=output(node, 2))
    return graph


def reason(question: str, **settings) -> Graph:
    graph = Graph()
    image = graph.add("LoadImage", image=SCENE)
    settings = {**SETTINGS, "views": 1, "turns": 1, **settings}
    node = graph.add("JoyImageReason", **loaders(graph), image=image, question=question, **settings)
    graph.add("PreviewAny", source=node)
    graph.add("PreviewAny", source=output(node, 2))
    return graph


def saved(run, graph: Graph, which: int) -> list[np.ndarray]:
    keys = [key for key, node in graph.items() if node["class_type"] == "SaveImage"]
    return [np.asarray(Image.open(path)) for path in run.files([keys[which], 0])]


@pytest.mark.parametrize("prompt", [TURN, "Remove the red car."])
def test_the_choice_is_the_librarys(client, model, prompt):
    graph = best_of(prompt, candidates=3)
    run = client.run(graph)
    [picture] = saved(run, graph, 0)
    [ours] = model.edit(asset("rotate.png"), prompt, candidates=3, seed=5, steps=2)
    told = ours.info["candidates"]
    assert np.abs(picture.astype(int) - np.asarray(ours)).max() <= 1
    made = saved(run, graph, 1)
    assert len(made) == len(told["candidates"]) and np.array_equal(made[told["chosen"] - 5], picture)
    [text] = run.outputs[find(graph, "JoyImageBestOf")]["text"]
    lines = [line for line in text.splitlines() if "seed" in line]
    assert len(lines) == len(made)
    assert [line.startswith("* ") for line in lines] == [each["seed"] == told["chosen"] for each in told["candidates"]]
    for line, each in zip(lines, told["candidates"], strict=True):
        assert f"seed {each['seed']}: {each['score']:.2f}" in line or "0." in line  # rounded apart at most


def test_drafts_are_made_again_by_all_steps(client, model):
    graph = best_of(TURN, candidates=2, draft_steps=1)
    [picture] = saved(client.run(graph), graph, 0)
    [ours] = model.edit(asset("rotate.png"), TURN, candidates=2, draft_steps=1, seed=5, steps=2)
    assert np.abs(picture.astype(int) - np.asarray(ours)).max() <= 1


def test_text_alone_is_judged_too(client):
    graph = best_of("A red cube on plain gray ground.", picture=False, candidates=2)
    run = client.run(graph)
    [text] = run.outputs[find(graph, "JoyImageBestOf")]["text"]
    assert "as a description" in text and len(saved(run, graph, 0)) == 1


def test_an_empty_prompt_is_refused(client):
    with pytest.raises(Rejected, match="the prompt is empty"):
        client.run(best_of(" "))


def test_an_answer_with_views_is_the_librarys(client, model):
    question = "Seen from the right, from which side is the red car seen?"
    graph = reason(question, temperature=0.0, max_new_tokens=60)
    run = client.run(graph)
    ours = model.reason(asset("rotate.png"), question, seed=5, steps=2, temperature=0.0, max_new_tokens=60)
    node = find(graph, "JoyImageReason")
    shown = run.outputs[node]
    [text] = shown["text"]
    assert text.splitlines()[-1] == ours.text
    assert len(shown.get("images", [])) == len(ours.views) == sum("view: yaw" in line for line in text.splitlines())
    assert not run.previews  # which the page would go on showing beside the views
    for made, so_far in enumerate(run.shown[node][:-1], 1):
        assert so_far["images"] == shown["images"][:made] and so_far["text"] == ["\n".join(text.splitlines()[:made])]
    assert len(run.shown[node]) == len(ours.views) + 1


@pytest.mark.parametrize(
    ("inputs", "message"),
    [({"question": " "}, "the question is empty"), ({"question": "?", "views": 5, "turns": 2}, "at most 8")],
)
def test_what_cannot_be_asked_is_refused(client, inputs, message):
    question = inputs.pop("question")
    with pytest.raises((Rejected, Failed), match=message):
        client.run(reason(question, **inputs))
