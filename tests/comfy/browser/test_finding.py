"""Finding one's way: names in the user's language, colours, what new nodes begin with, and the search for nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from editor import OPENING

from joyimage import spatial
from tools.workflows import load

WORDS = {"en": "image", "zh": "图像", "ja": "画像", "ko": "이미지"}
SIDES = {
    "zh": ["正面", "右侧", "左侧", "背面", "右前", "左前", "右后", "左后"],
    "ja": ["正面", "右", "左", "背面", "右前", "左前", "右後ろ", "左後ろ"],
    "ko": ["정면", "오른쪽", "왼쪽", "뒤", "오른쪽 앞", "왼쪽 앞", "오른쪽 뒤", "왼쪽 뒤"],
}
OTHERS = {  # what choices begin with, besides the side of an object
    "zh": {"JoyImageCamera": "不变", "JoyImageEncodePrompt": "自动", "JoyImageSchedule": "原版"},
    "ja": {"JoyImageCamera": "そのまま", "JoyImageEncodePrompt": "自動", "JoyImageSchedule": "オリジナル"},
    "ko": {"JoyImageCamera": "그대로", "JoyImageEncodePrompt": "자동", "JoyImageSchedule": "원본"},
}
SETTINGS = {
    "en": "Base size of new nodes",
    "zh": "新节点的基准尺寸",
    "ja": "新しいノードの基準サイズ",
    "ko": "새 노드의 기준 크기",
}
KINDS = ["JoyImageLoadVAE", "JoyImageEncodePrompt", "JoyImageCamera", "JoyImageAsk"]  # one of each colour
TRIES = 3
SEARCHES = {
    "image edit": ["JoyImageEdit", "JoyImageEncodePrompt"],
    "qwen edit": ["JoyImageEdit", "JoyImageEncodePrompt"],
    "instruction edit": ["JoyImageEdit", "JoyImageEncodePrompt"],
    "multi angle": ["JoyImageCamera", "JoyImageOrbit", "JoyImageRotateObject"],
    "turnaround": ["JoyImageOrbit", "JoyImageRotateObject"],
}
NAMES = "id => app.graph.getNodeById(id).inputs.filter(i => !i.widget).map(i => i.label || i.localized_name || i.name)"
IMAGES = """app.graph.nodes.filter(node => node.type.startsWith('JoyImage')).map(node => node.inputs
    .filter(({name}) => /^images\\.|^image1$/.test(name)).map(i => i.label || i.localized_name || i.name))"""
PLACE = """([id, name]) => {
    const node = app.graph.getNodeById(id), widget = node.widgets.find(each => each.name === name);
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + node.size[0] / 2, node.pos[1] + widget.y + 10]);
    const { left, top } = app.canvas.canvas.getBoundingClientRect();
    return [left + x, top + y];
}"""
SHOWN = "([id, name]) => app.graph.getNodeById(id).widgets.find(widget => widget.name === name)._displayValue"
SPOKEN = """word =>
    LiteGraph.createNode('JoyImageAsk').inputs.some(input => (input.label || input.localized_name) === `${word} 1`)"""
SET = "([name, value]) => app.extensionManager.setting.set(name, value)"


@pytest.fixture
def speak(editor) -> Callable[[str], None]:
    """Sets the page's language, until the test ends."""

    def set_to(language: str) -> None:
        if editor.page.evaluate("app.extensionManager.setting.get('Comfy.Locale')") == language:
            return
        editor.page.evaluate("id => { app.graph.getNodeById(id).isOld = true }", editor.add("JoyImageAsk"))
        editor.page.evaluate(SET, ["Comfy.Locale", language])
        editor.page.wait_for_function("!app.graph.nodes.some(node => node.isOld)")  # the page has opened its graph anew
        editor.page.wait_for_function(SPOKEN, arg=WORDS[language])
        editor.clear()

    yield set_to
    set_to("en")


@pytest.fixture
def settings(editor) -> Callable[[str, Any], None]:
    """Sets one of the pack's settings, until the test ends."""

    def set_to(name: str, value: Any) -> None:
        editor.page.evaluate(SET, [name, value])

    yield set_to
    set_to("JoyImage.BaseSize", "auto")
    set_to("JoyImage.RememberFiles", True)


@pytest.fixture
def files(editor):
    """Two files for Load VAE, which the page knows; the page remembers none of them before and after."""
    folder = editor.client.base / "models" / "vae"
    folder.mkdir(exist_ok=True)
    paths = [folder / "first.safetensors", folder / "second.safetensors"]
    for path in paths:
        path.touch()
    forget(editor)
    yield paths
    for path in paths:
        path.unlink(missing_ok=True)
    forget(editor)


def forget(editor) -> None:
    editor.page.evaluate("localStorage.removeItem('JoyImage.file.JoyImageLoadVAE')")
    editor.reload()
    editor.clear()


def is_shown(editor, node: int, name: str, text: str) -> bool:
    """Whether the page shows a widget's value as this text."""
    if editor.nodes_2:
        editor.page.locator(f'[data-node-id="{node}"] [role=combobox]', has_text=text).wait_for()
        return True
    return editor.page.evaluate(SHOWN, [node, name]) == text


def choose(editor, node: int, name: str, text: str) -> None:
    """Choose one of a widget's values by hand."""
    if editor.nodes_2:
        editor.page.locator(f'[data-node-id="{node}"] [role=combobox]').first.click()
        editor.page.get_by_role("option", name=text, exact=True).click()
    else:
        editor.page.mouse.click(*editor.page.evaluate(PLACE, [node, name]))
        editor.page.locator(".litemenu-entry").get_by_text(text, exact=True).click()
    editor.settle()


def value(editor, node: int, name: str) -> Any:
    return editor.inputs_of(node)[name]


@pytest.mark.parametrize("language", WORDS)
def test_images_are_counted_from_1(editor, speak, language):
    speak(language)
    word = WORDS[language]
    prompt, edit = editor.add("JoyImageEncodePrompt", 400, 0), editor.add("JoyImageEdit", 850, 0)
    picture = editor.add("LoadImage", 0, 0)
    for node, names in ((prompt, ("images.image0", "images.image1")), (edit, ("image1", "images.image2"))):
        for name in names:
            editor.connect(picture, 0, node, name)
            editor.settle()
        labels = editor.page.evaluate(NAMES, node)
        assert [label for label in labels if label.startswith(word)] == [f"{word} {i}" for i in (1, 2, 3)]
    if editor.nodes_2:
        assert editor.page.locator(f'[data-node-id="{prompt}"]').get_by_text(f"{word} 3", exact=True).is_visible()
    editor.load(load("Edit with three images"))
    [labels] = [labels for labels in editor.page.evaluate(IMAGES) if len(labels) > 3]
    assert labels == [f"{word} {i + 1}" for i in range(len(labels))]


@pytest.mark.parametrize(("label", "shown"), [("image0", "image 1"), ("the sky", "the sky")])
def test_labels_that_older_files_hold_give_way_and_those_of_users_stay(editor, label, shown):
    editor.connect(editor.add("LoadImage", 0, 0), 0, editor.add("JoyImageEncodePrompt", 400, 0), "images.image0")
    editor.settle()
    workflow = editor.save()
    [node] = [node for node in workflow["nodes"] if node["type"] == "JoyImageEncodePrompt"]
    slots = [slot for slot in node["inputs"] if slot["name"].startswith("images.")]
    assert [slot.get("label") for slot in slots] == [None, None]
    for slot, held in zip(slots, (label, "image1"), strict=True):
        slot["label"] = held
    editor.load(workflow)
    assert editor.page.evaluate(IMAGES) == [[shown, "image 2"]]


@pytest.mark.parametrize("language", SIDES)
def test_choices_in_the_users_language(editor, speak, language):
    speak(language)
    names = dict(zip(spatial.VIEWS, SIDES[language], strict=True))
    node = editor.add("JoyImageRotateObject", 100, 0, object="chair")
    editor.settle()
    assert is_shown(editor, node, "view", names["right"])
    choose(editor, node, "view", names["rear left"])
    assert is_shown(editor, node, "view", names["rear left"])
    assert editor.inputs("JoyImageRotateObject")["view"] == "rear left"
    [saved] = editor.save()["nodes"]
    assert "rear left" in saved["widgets_values"]
    for i, (kind, text) in enumerate(OTHERS[language].items()):
        other = editor.add(kind, 500 + 400 * i, 0)
        editor.settle()
        shown = {"JoyImageCamera": "zoom", "JoyImageEncodePrompt": "base_size", "JoyImageSchedule": "schedule"}[kind]
        if editor.nodes_2 and kind == "JoyImageSchedule":  # whose choice is among the advanced inputs, which are folded
            continue
        assert is_shown(editor, other, shown, text)


def test_new_nodes_are_coloured_by_what_they_are_for(editor):
    colours = [
        editor.page.evaluate("id => app.graph.getNodeById(id).color", editor.add(kind, 400 * i, 0))
        for i, kind in enumerate(KINDS)
    ]
    assert all(colours) and len(set(colours)) == len(KINDS)
    assert editor.page.evaluate("id => app.graph.getNodeById(id).color ?? ''", editor.add("LoadImage", 0, 400)) == ""


def test_the_colours_of_files_and_copies_stay(editor):
    node = editor.add("JoyImageCamera", 0, 0)
    editor.page.evaluate("id => { app.graph.getNodeById(id).color = undefined }", node)
    script = "id => { app.canvas.select(app.graph.getNodeById(id)); app.canvas.copyToClipboard(); "
    editor.page.evaluate(script + "app.canvas.pasteFromClipboard() }", node)
    editor.page.evaluate("app.graph.add(LiteGraph.createNode('JoyImageAsk'))")
    editor.settle()
    saved = editor.save()
    plain, copy, coloured = [node.get("color") for node in saved["nodes"]]
    assert (plain, copy) == (None, None) and coloured
    saved["nodes"][0]["color"] = "#123456"
    editor.load(saved)
    assert [node.get("color") for node in editor.save()["nodes"]] == ["#123456", None, coloured]


def test_a_template_opens_unmodified(editor):
    workflow = load("Edit with three images")
    editor.load(workflow)
    assert editor.page.evaluate("app.extensionManager.workflow.activeWorkflow.isModified") is False
    colours = {node["id"]: (node.get("color"), node.get("bgcolor")) for node in workflow["nodes"]}
    assert {node["id"]: (node.get("color"), node.get("bgcolor")) for node in editor.save()["nodes"]} == colours
    editor.ready()
    states = "(({initialState, activeState}) => [initialState, activeState])"
    before, after = editor.page.evaluate(
        f"{states}(app.extensionManager.workflow.activeWorkflow.changeTracker)"
    )  # the new renderer of the older frontend measures some nodes anew
    plain = [[{**node, "size": None} for node in state["nodes"]] for state in (before, after)]
    assert plain[0] == plain[1]


def test_new_nodes_begin_with_the_base_size_of_the_settings(editor, settings):
    settings("JoyImage.BaseSize", "512")
    nodes = [editor.add("JoyImageEncodePrompt", 0, 0), editor.add("JoyImageEdit", 400, 0)]
    assert [value(editor, node, "base_size") for node in nodes] == ["512", "512"]
    settings("JoyImage.BaseSize", "exact")
    saved = editor.save()
    editor.load(saved)
    assert [value(editor, node, "base_size") for node in nodes] == ["512", "512"]
    for node in saved["nodes"]:
        node.pop("widgets_values", None)
        node.pop("widgets_values_named", None)
    editor.load(saved)  # a file without values has those of the nodes' definitions
    assert [value(editor, node, "base_size") for node in nodes] == ["auto", "auto"]


def test_new_loaders_begin_with_the_file_last_chosen(editor, settings, files):
    first, second = (file.name for file in files)
    node = editor.add("JoyImageLoadVAE", 100, 0)
    editor.settle()
    tiny, opened = value(editor, node, "vae"), editor.save()
    choose(editor, node, "vae", second)
    assert value(editor, node, "vae") == second
    assert value(editor, editor.add("JoyImageLoadVAE", 100, 300), "vae") == second
    editor.load(opened)
    assert editor.save()["nodes"][0]["widgets_values"] == [tiny]
    settings("JoyImage.RememberFiles", False)
    assert value(editor, editor.add("JoyImageLoadVAE"), "vae") == tiny
    editor.clear()
    node = editor.add("JoyImageLoadVAE", 100, 0)
    editor.settle()
    choose(editor, node, "vae", first)
    settings("JoyImage.RememberFiles", True)
    assert value(editor, editor.add("JoyImageLoadVAE"), "vae") == second
    files[1].unlink()
    editor.reload()
    assert value(editor, editor.add("JoyImageLoadVAE"), "vae") == tiny


@pytest.mark.parametrize("language", SETTINGS)
def test_the_settings_are_in_the_dialog(editor, speak, settings, language):
    speak(language)
    editor.page.evaluate("app.extensionManager.command.execute('Comfy.ShowSettingsDialog')")
    dialog = editor.page.get_by_role("dialog")
    dialog.get_by_text("JoyImage", exact=True).click()
    dialog.get_by_text(SETTINGS[language], exact=True).wait_for()
    if language == "en":
        dialog.get_by_role("combobox").last.click()
        editor.page.get_by_role("option", name="768", exact=True).click()
    dialog.locator("input").first.press("Escape")
    dialog.wait_for(state="hidden")
    if language == "en":
        assert value(editor, editor.add("JoyImageEdit"), "base_size") == "768"


@pytest.mark.parametrize("words", SEARCHES)
def test_the_search_finds_our_nodes(editor, words):
    names = [editor.client.get(f"/object_info/{kind}")[kind]["display_name"] for kind in SEARCHES[words]]
    search = editor.page.get_by_role("combobox").last
    for _ in range(TRIES):  # a busy page may take the two clicks for single ones
        editor.page.mouse.dblclick(900, 700)
        editor.page.wait_for_timeout(OPENING)
        if search.is_visible():
            break
    search.fill(words)
    for name in names:
        editor.page.get_by_role("option").filter(has_text=name).first.wait_for()
    editor.press("Escape")
    editor.page.get_by_role("option").first.wait_for(state="hidden")
