"""Graphs saved for the older pack `joyai_image_comfyui`, posted to a server and opened in the editor."""

from __future__ import annotations

import pytest
import torch
from comfy_client import TINY, Graph, Rejected, output

# Old and new: node, input.
LOADERS = {
    "model": (("JoyAIImageEditUNETLoader", "unet_name"), ("JoyImageLoadMMDiT", "model")),
    "encoder": (("JoyAIImageEditCLIPLoader", "clip_name"), ("JoyImageLoadEncoder", "encoder")),
    "vae": (("JoyAIImageEditVAELoader", "vae_name"), ("JoyImageLoadVAE", "vae")),
}
OLD, NEW = 0, 1


def add_loaders(graph: Graph, age: int) -> dict[str, list]:
    return {part: graph.add(pair[age][0], **{pair[age][1]: TINY}) for part, pair in LOADERS.items()}


def latent(client, age: int) -> torch.Tensor:
    """A small picture's latent, by old or new loaders and the new nodes after them."""
    graph = Graph()
    loaded = add_loaders(graph, age)
    pixels = graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0x3366CC)
    encoded = graph.add(
        "JoyImageEncodePrompt",
        **{"encoder": loaded["encoder"], "vae": loaded["vae"], "images.image0": pixels},
        **{"prompt": "make it red", "negative_prompt": "", "base_size": "exact"},
    )
    conditions = {name: output(encoded, slot) for slot, name in enumerate(("positive", "negative", "latent"))}
    sampler = graph.add("JoyImageSampler", model=loaded["model"], **conditions, seed=3, steps=2, guidance=4.0)
    saved = graph.add("SaveLatent", samples=sampler, filename_prefix="migration")
    return client.run(with_titles(graph)).latent(saved)


def with_titles(graph: Graph) -> Graph:
    """As the editor posts it: ComfyUI replaces nodes only where there is this."""
    for node in graph.values():
        node["_meta"] = {"title": node["class_type"]}
    return graph


def test_old_loaders_load_by_the_new_ones(client):
    torch.testing.assert_close(latent(client, OLD), latent(client, NEW), atol=0, rtol=0)


def test_old_pipeline_is_named_as_missing(client):
    graph = Graph()
    loaded = add_loaders(graph, OLD)
    settings = {"prompt": "make it red", "height": 0, "width": 0, "steps": 2, "guidance_scale": 4.0}
    settings |= {"num_images_per_prompt": 1, "seed": 0, "cpu_offload": True}
    inputs = {"model": loaded["model"], "clip": loaded["encoder"], "vae": loaded["vae"]}
    images = graph.add("JoyAIImageEditPipeline", **inputs, **settings)
    graph.add("PreviewImage", images=images)
    with pytest.raises(Rejected, match="JoyAIImageEditPipeline"):
        client.run(with_titles(graph))


def test_editor_offers_and_makes_the_replacement(client):
    """An old graph with the three loaders: one press replaces them and keeps the files' names and the links."""
    pytest.importorskip("playwright", reason="no Playwright to open pages with: pip install playwright")
    from tools.workflows import page as editor

    if editor.CHROMIUM is None:
        pytest.skip("no Chromium to open pages with: apt-get install chromium")
    with editor.open_page(f"http://{client.address}", nodes_2=False) as page:
        editor.open_workflow(page, old_workflow())
        page.get_by_role("button", name="View details").click()
        page.get_by_role("button", name="Replace All").click()
        page.wait_for_function("() => app.graph.nodes.every(node => node.type.startsWith('JoyImage'))")
        prompt = editor.prompt(page)
    loaders = {node["class_type"]: node["inputs"] for node in prompt.values()}
    for _, (node, name) in LOADERS.values():
        assert loaders[node][name] == TINY
    encode = loaders["JoyImageEncodePrompt"]
    assert (encode["encoder"], encode["vae"]) == (["2", 0], ["3", 0])


def old_workflow() -> dict:
    """Old loaders 1 to 3 in the editor's format, two of them linked to our Encode Prompt."""
    sockets = {"model": "JOY_MODEL", "encoder": "JOY_CLIP", "vae": "JOY_VAE"}
    nodes = []
    for number, (part, (old, _)) in enumerate(LOADERS.items(), 1):
        links = [number] if part != "model" else []
        outputs = [{"name": part, "type": sockets[part], "links": links}]
        nodes.append({"id": number, "type": old[0], "inputs": [], "outputs": outputs, "widgets_values": [TINY]})
    inputs = [{"name": part, "type": sockets[part], "link": link} for part, link in (("encoder", 2), ("vae", 3))]
    values = ["make it red", "", "1024", 0, 0, 1]
    encode = {"id": 4, "type": "JoyImageEncodePrompt", "inputs": inputs, "outputs": [], "widgets_values": values}
    frame = {"size": [300, 150], "flags": {}, "mode": 0, "properties": {}}
    return {
        "last_node_id": 4,
        "last_link_id": 3,
        "nodes": [{**frame, **node, "pos": [0, 200 * node["id"]], "order": node["id"]} for node in [*nodes, encode]],
        "links": [[2, 2, 0, 4, 0, "JOY_CLIP"], [3, 3, 0, 4, 1, "JOY_VAE"]],
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }
