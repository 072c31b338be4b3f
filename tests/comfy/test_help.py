"""Help pages, tooltips and translated names against the nodes as a real server describes them."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LANGUAGES = ("zh", "ja", "ko")
DOCS = ROOT / "web" / "docs"
PREFIX = "JoyImage"
GROWING = "COMFY_AUTOGROW_V3"
WORDS = {"en": ("required", "optional", "(empty)"), "zh": ("必连", "可选", "（空）")}  # in place of a default
SWITCH = {"en": ("off", "on"), "zh": ("关", "开")}


@pytest.fixture(scope="module")
def nodes(client) -> dict[str, dict[str, Any]]:
    """The definitions of the pack's nodes."""
    return {name: node for name, node in client.get("/object_info").items() if name.startswith(PREFIX)}


def inputs(node: dict[str, Any]) -> dict[str, tuple[str | list, dict[str, Any], bool]]:
    """Type, options and whether it is required, of each input by name."""
    return {
        name: (spec[0], spec[1] if len(spec) > 1 else {}, group == "required")
        for group in ("required", "optional")
        for name, spec in node["input"].get(group, {}).items()
    }


def default(kind: str | list, options: dict[str, Any], required: bool, language: str) -> str:
    """What a help page says where the value that an input starts with stands."""
    required_word, optional_word, empty_word = WORDS[language]
    if kind == "COMBO":
        return str(options.get("default", next(iter(options["options"]), empty_word)))  # no file, no choice
    if kind not in ("STRING", "INT", "FLOAT", "BOOLEAN"):
        return required_word if required else optional_word
    value = options.get("default", "")
    if kind == "BOOLEAN":
        return SWITCH[language][bool(value)]
    return f"{value:g}" if isinstance(value, float) else str(value) or empty_word


def table(page: Path, section: int) -> list[list[str]]:
    """The rows of the table in a section: 1 is inputs, 2 outputs."""
    text = page.read_text(encoding="utf-8").split("\n## ")[section]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]


def pages(nodes) -> list[tuple[str, str, Path]]:
    return [(name, "en", DOCS / f"{name}.md") for name in nodes] + [
        (name, "zh", DOCS / name / "zh.md") for name in nodes
    ]


def test_every_node_has_a_page_and_every_page_a_node(nodes):
    assert {page.stem for page in DOCS.glob("*.md")} == set(nodes)


def test_pages_name_the_true_inputs_with_their_defaults(nodes):
    for name, language, page in pages(nodes):
        told = {row[0].split("`")[1]: row[1] for row in table(page, 1)}
        assert told == {key: default(*spec, language) for key, spec in inputs(nodes[name]).items()}, page


def test_pages_name_the_true_outputs(nodes):
    for name, _, page in pages(nodes):
        assert [row[0].split("`")[1] for row in table(page, 2)] == nodes[name]["output_name"], page


def test_every_input_has_a_tooltip_and_every_node_a_description(nodes):
    missing = [
        f"{name}.{key}"
        for name, node in nodes.items()
        for key, spec in inputs(node).items()
        if not spec[1].get("tooltip")
    ]
    assert missing == []
    assert [name for name, node in nodes.items() if not node["description"]] == []


def growing(name: str, options: dict[str, Any]) -> list[str]:
    """The names of sockets that grow, with the underscore that the editor writes for their dot."""
    template = options["template"]
    items = template.get("names") or [f"{template['prefix']}{i}" for i in range(template["max"])]
    return [f"{name}_{item}" for item in items]


def expected_keys(node: dict[str, Any]) -> set[str]:
    """The keys under which the editor looks for a node's texts."""
    keys = {"display_name", "description"}
    for name, (kind, options, _) in inputs(node).items():
        names = [name, *growing(name, options)] if kind == GROWING else [name]
        keys |= {f"inputs.{key}.{part}" for key in names for part in ("name", "tooltip")}
        if options.get("control_after_generate"):
            keys.add("inputs.control_after_generate.name")
    for i, (name, kind, tooltip) in enumerate(
        zip(node["output_name"], node["output"], node["output_tooltips"], strict=True)
    ):
        keys |= {f"outputs.{i}.name"} if name != kind else set()  # those named by their type the host translates
        keys |= {f"outputs.{i}.tooltip"} if tooltip else set()
    return keys


def leaves(tree: dict[str, Any], path: str = "") -> dict[str, str]:
    result = {}
    for key, value in tree.items():
        result |= leaves(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return result


@pytest.mark.parametrize("language", LANGUAGES)
def test_translated_names_are_those_of_the_nodes(client, nodes, language):
    served = client.get("/i18n")[language]
    assert served["nodeDefs"] == json.loads((ROOT / f"locales/{language}/nodeDefs.json").read_text(encoding="utf-8"))
    assert set(served["nodeDefs"]) == set(nodes)
    for name, node in nodes.items():
        texts = leaves(served["nodeDefs"][name])
        assert set(texts) == expected_keys(node), name
        assert all(texts.values()), name


@pytest.mark.parametrize(("language", "word"), [("en", "image"), ("zh", "图像"), ("ja", "画像"), ("ko", "이미지")])
def test_images_are_counted_from_1(client, nodes, language, word):
    for name, node in nodes.items():
        for key, (kind, options, _) in inputs(node).items():
            if kind == GROWING:
                sockets = (["image1"] if "image1" in inputs(node) else []) + growing(key, options)
                texts = client.get("/i18n")[language]["nodeDefs"][name]["inputs"]
                assert [texts[socket]["name"] for socket in sockets] == [f"{word} {i}" for i in range(1, 7)], name


def test_english_texts_of_growing_sockets_are_those_of_their_group(client, nodes):
    """The editor looks for them under each socket's name, and finds them nowhere else."""
    told = {
        (name, key): entry["tooltip"]
        for name, node in client.get("/i18n")["en"]["nodeDefs"].items()
        for key, entry in node["inputs"].items()
        if "tooltip" in entry
    }
    assert told == {
        (name, socket): options["tooltip"]
        for name, node in nodes.items()
        for key, (kind, options, _) in inputs(node).items()
        if kind == GROWING
        for socket in growing(key, options)
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_own_socket_types_have_a_name(client, nodes, language):
    kinds = {kind for node in nodes.values() for kind in node["output"] if kind.startswith(PREFIX.upper())}
    assert set(client.get("/i18n")[language]["dataTypes"]) == kinds


@pytest.mark.parametrize("language", LANGUAGES)
def test_settings_are_translated(client, language):
    script = (ROOT / "web" / "settings.js").read_text(encoding="utf-8")
    ids = re.findall(r'"(JoyImage\.[A-Z]\w+)"', script)
    expected = {f"{key.replace('.', '_')}.{part}" for key in ids for part in ("name", "tooltip")}
    expected |= {f"JoyImage_BaseSize.options.{word}" for word in ("auto", "exact")}
    served = leaves(client.get("/i18n")[language]["settings"])
    assert set(served) == expected
    assert all(served.values())


def test_the_setting_offers_the_base_sizes_that_the_nodes_have(nodes):
    script = (ROOT / "web" / "settings.js").read_text(encoding="utf-8")
    offered = json.loads(re.search(r"options: (\[.+\])", script)[1])
    for name in ("JoyImageEncodePrompt", "JoyImageEdit"):
        assert inputs(nodes[name])["base_size"][1]["options"] == offered


def test_the_server_gives_pages_and_pictures(client, nodes):
    """At the addresses that the editor asks, relative to docs/ for pictures."""
    base = f"http://{client.address}/extensions/ComfyUI-JoyImage/docs"
    for _, _, page in pages(nodes):
        with urllib.request.urlopen(f"{base}/{page.relative_to(DOCS).as_posix()}") as reply:
            text = reply.read().decode()
        (picture,) = re.findall(r"!\[.+\]\((.+)\)", text)
        with urllib.request.urlopen(f"{base}/{picture}") as reply:
            assert reply.headers["Content-Type"] == "image/png"
