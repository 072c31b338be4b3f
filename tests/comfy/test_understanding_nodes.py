"""The nodes that ask the encoder, in a real server on the bundled model."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from pieces import encoder, load_image, text_of

from joyimage import spatial
from tools.client import Failed, Graph, Rejected

QUESTION = "Is the red cube to the left or to the right of the blue cube?"


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


def test_a_plain_wish_becomes_its_sentence_and_what_changed_is_shown(client, pictures):
    graph = Graph()
    wish = "turn the red cube so that we see its left side"
    rewritten = graph.add("JoyImageRewritePrompt", encoder=encoder(graph), prompt=wish)
    text = graph.add("PreviewAny", source=rewritten)
    run = client.run(graph)
    sentence = spatial.rotate_object("red cube", "left")
    assert text_of(run, text) == sentence
    assert run.texts[rewritten[0]] == f"{sentence}\n\nrotate: brought into the sentence that the model knows"


FINGERPRINTS = """
import importlib, os, sys
sys.path.insert(0, sys.argv[2])
import probes
probes.import_host(sys.argv[1])
node = importlib.import_module(".nodes.understanding", probes.PACK).RewritePrompt
os.environ.pop("OPENAI_BASE_URL", None)
for name, url in (("JOYIMAGE_REWRITE_URL", ""), ("OPENAI_API_KEY", "sk-1"), ("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")):
    os.environ[name] = url
    print(node.fingerprint_inputs(prompt="a cat") == node.fingerprint_inputs(prompt="a cat"))
"""


def test_only_a_server_is_asked_again_for_the_same_prompt(comfyui):
    command = [comfyui.python, "-c", FINGERPRINTS, str(comfyui.path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.split()[-3:] == ["True", "True", "False"], done.stderr[-2000:]


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
