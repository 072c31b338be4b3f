"""What nodes say: one text each, in the page during and after the run, over tabs and reloads, and nowhere else."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from tools.workflows import load

SIZE = "64 x 64 pixels, references: "
SHOWN = "[...document.querySelectorAll('.joyimage-answer')].map(element => element.textContent)"
PREVIEWS = (
    "app.graph.nodes.flatMap(node => node.widgets ?? []).filter(({name}) => name === '$$node-text-preview').length"
)
COMMAND = "command => app.extensionManager.command.execute(command)"


@pytest.fixture
def graph(editor) -> None:
    """A question, a place to be found, two prompts and one to be rewritten, of which the server has nothing at hand."""
    workflow = load("3 Try it - Ask, locate and move")
    for node in workflow["nodes"]:
        if node["type"] == "JoyImageEncodePrompt":
            node["widgets_values"][1] = uuid4().hex  # the negative prompt
    editor.load({**workflow, "id": str(uuid4())})
    [loader] = [node["id"] for node in workflow["nodes"] if node["type"] == "JoyImageLoadEncoder"]
    rewrite = editor.add("JoyImageRewritePrompt", 450, -330, prompt=f"Remove the red cube {uuid4().hex}.")
    editor.connect(loader, 0, rewrite, "encoder")
    editor.connect(rewrite, 0, editor.add("PreviewAny", 850, -330), "source")
    editor.ready()  # so that the page keeps what was added
    editor.view(0.5)


def texts(editor) -> list[str]:
    return editor.page.evaluate(SHOWN)


def wait_for(editor, expected: list[str]) -> None:
    editor.page.wait_for_function(f"expected => JSON.stringify({SHOWN}) === JSON.stringify(expected)", arg=expected)


def test_texts_stay(editor, graph):
    assert texts(editor) == [""] * 5
    editor.run()
    said = texts(editor)
    answer, box, *sizes, rewritten = said
    assert "not rewritten" in rewritten
    assert sizes == [f"{SIZE}1", f"{SIZE}1"] and answer.startswith("the ") and '{"x"' in box
    assert editor.page.evaluate(PREVIEWS) == 0
    assert SIZE not in json.dumps(editor.prompt()) and SIZE not in json.dumps(editor.save())
    editor.page.wait_for_timeout(1500)  # in which the page writes the open workflow to its storage
    editor.reload()
    wait_for(editor, said)
    editor.run()  # which finds all of it done
    [*_, last] = editor.client.get("/history").values()
    [cached] = [data["nodes"] for event, data in last["status"]["messages"] if event == "execution_cached"]
    assert set(cached) >= {key for key, node in editor.prompt().items() if node["class_type"].startswith("JoyImage")}
    wait_for(editor, said)
    editor.page.evaluate(COMMAND, "Comfy.NewBlankWorkflow")
    wait_for(editor, [])
    editor.page.evaluate(COMMAND, "Workspace.PreviousOpenedWorkflow")
    wait_for(editor, said)
