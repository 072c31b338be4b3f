"""Graphs saved for older packs, posted to a server and opened in the editor."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tools.client import TINY, Graph, Rejected, output

# Old and new, of joyai_image_comfyui: node, input.
LOADERS = {
    "model": (("JoyAIImageEditUNETLoader", "unet_name"), ("JoyImageLoadMMDiT", "model")),
    "encoder": (("JoyAIImageEditCLIPLoader", "clip_name"), ("JoyImageLoadEncoder", "encoder")),
    "vae": (("JoyAIImageEditVAELoader", "vae_name"), ("JoyImageLoadVAE", "vae")),
}
OLD, NEW = 0, 1


def add_loaders(graph: Graph, age: int) -> dict[str, list]:
    return {part: graph.add(pair[age][0], **{pair[age][1]: TINY}) for part, pair in LOADERS.items()}


def picture(client, graph: Graph, image: list) -> np.ndarray:
    saved = graph.add("SaveImage", images=image, filename_prefix="migration")
    return np.asarray(Image.open(client.run(graph).files(saved)[0]))


def titled(graph: Graph) -> Graph:
    """As the editor posts it."""
    for node in graph.values():
        node["_meta"] = {"title": node["class_type"]}
    return graph


def pixels(graph: Graph, images: int, name: str) -> dict[str, list]:
    """No image or one, for an input of that name."""
    size = {"width": 64, "height": 64, "batch_size": 1, "color": 0x3366CC}
    return {name: graph.add("EmptyImage", **size)} if images else {}


@pytest.mark.parametrize("prepare", [titled, lambda graph: graph], ids=["from the editor", "from a program"])
@pytest.mark.parametrize("images", [0, 1])
def test_a_posted_prompt_runs_with_its_settings(client, images, prepare):
    old, new = Graph(), Graph()
    prompt = {"prompt": "make it red", "seed": 3, "steps": 2, "width": 64, "height": 64}
    loaded = add_loaders(old, OLD)
    parts = {"model": loaded["model"], "clip": loaded["encoder"], "vae": loaded["vae"], **pixels(old, images, "image")}
    rest = {"guidance_scale": 3.0, "num_images_per_prompt": 1, "cpu_offload": True}
    edited = old.add("JoyAIImageEditPipeline", **parts, **prompt, **rest)
    parts = {**add_loaders(new, NEW), **pixels(new, images, "image1")}
    ours = new.add("JoyImageEdit", **parts, **prompt, guidance=3.0, base_size="auto")
    assert np.array_equal(picture(client, prepare(old), edited), picture(client, new, ours))


def test_a_wrong_size_is_named_in_our_words(client):
    graph = Graph()
    loaded = add_loaders(graph, OLD)
    parts = {"model": loaded["model"], "clip": loaded["encoder"], "vae": loaded["vae"]}
    rest = {"prompt": "a cube", "height": 64, "width": 0, "steps": 1, "guidance_scale": 0.5, "seed": 0}
    edited = graph.add("JoyAIImageEditPipeline", **parts, **rest, num_images_per_prompt=1, cpu_offload=True)
    graph.add("PreviewImage", images=edited)
    with pytest.raises(Rejected, match="give both width and height"):
        client.run(graph)


def test_loaders_sampler_and_decoder_of_the_other_pack(client):
    """Its encoder and its latents do not map: they are one node here."""

    def graph(old: bool) -> tuple[Graph, list]:
        graph = Graph()
        if old:
            model = graph.add("JoyAI_Image_SM_Model", dit=TINY, gguf="none")
            encoder = graph.add("JoyAI_Image_SM_Clip", clip=TINY, gguf="none")
            vae = graph.add("JoyAI_Image_SM_VAE", vae=TINY)
        else:
            model, encoder, vae = add_loaders(graph, NEW).values()
        encoded = graph.add(
            "JoyImageEncodePrompt", encoder=encoder, prompt="a cube", negative_prompt="", base_size="auto"
        )
        positive, negative, latent = (output(encoded, slot) for slot in range(3))
        conditions = {"model": model, "positive": positive, "negative": negative, "steps": 2}
        if old:
            more = {"latents": latent, "guidance_scale": 5.0, "offload": True, "offload_block_num": 1}
            return graph, graph.add(
                "JoyAI_Vae_Decoder", vae=vae, latents=graph.add("JoyAI_Image_SM_KSampler", **conditions, **more)
            )
        sampled = graph.add("JoyImageSampler", **conditions, latent=latent, guidance=5.0, seed=0)
        return graph, graph.add("VAEDecode", vae=vae, samples=sampled)

    theirs, ours = (picture(client, *graph(old)) for old in (True, False))
    assert np.array_equal(theirs, ours)


def test_editor_offers_and_makes_the_replacement(client):
    """One press replaces the old nodes; files, settings, links and the run are as they were."""
    pytest.importorskip("playwright", reason="no Playwright to open pages with: pip install playwright")
    from tools.workflows import page as editor

    if editor.CHROMIUM is None:
        pytest.skip("no Chromium to open pages with: apt-get install chromium")
    with editor.open_page(f"http://{client.address}", nodes_2=False) as page:
        editor.open_workflow(page, old_workflow())
        page.get_by_role("button", name="View details").click()
        page.get_by_role("button", name="Replace All").click()
        page.wait_for_function("() => !app.graph.nodes.some(node => node.type.startsWith('JoyAI'))")
        prompt = editor.prompt(page)
    assert_replaced(prompt)
    client.run(Graph(prompt))


def assert_replaced(prompt: dict) -> None:
    inputs = {node["class_type"]: node["inputs"] for node in prompt.values()}
    for _, (node, name) in LOADERS.values():
        assert inputs[node][name] == TINY
    edit = inputs["JoyImageEdit"]
    links = {"model": ["1", 0], "encoder": ["2", 0], "vae": ["3", 0], "image1": ["4", 0]}
    values = {
        "prompt": "make it red",
        "height": 48,
        "width": 80,
        "steps": 2,
        "guidance": 3.5,
        "batch_size": 2,
        "seed": 7,
    }
    assert {name: edit[name] for name in links | values} == links | values
    assert inputs["PreviewImage"]["images"] == ["5", 0]


def old_workflow() -> dict:
    """A graph as the old pack's users have saved it: its loaders 1 to 3 and an image into its pipeline."""
    sockets = {"model": "JOY_MODEL", "encoder": "JOY_CLIP", "vae": "JOY_VAE"}
    nodes = [
        {"type": LOADERS[part][OLD][0], "inputs": [], "outputs": [(part, kind)], "widgets_values": [TINY]}
        for part, kind in sockets.items()
    ]
    nodes.append(
        {"type": "EmptyImage", "inputs": [], "outputs": [("IMAGE", "IMAGE")], "widgets_values": [64, 64, 1, 0]}
    )
    inputs = [("model", "JOY_MODEL", 1), ("clip", "JOY_CLIP", 2), ("vae", "JOY_VAE", 3), ("image", "IMAGE", 4)]
    values = ["make it red", 48, 80, 2, 3.5, 2, 7, "fixed", True]
    nodes.append(
        {
            "type": "JoyAIImageEditPipeline",
            "inputs": inputs,
            "outputs": [("image", "IMAGE")],
            "widgets_values": values,
        }
    )
    nodes.append({"type": "PreviewImage", "inputs": [("images", "IMAGE", 5)], "outputs": [], "widgets_values": []})
    return {
        "last_node_id": 6,
        "last_link_id": 5,
        "nodes": [saved(number, **node) for number, node in enumerate(nodes, 1)],
        "links": [
            *([i, i, 0, 5, i - 1, kind] for i, (_, kind, _) in enumerate(inputs, 1)),
            [5, 5, 0, 6, 0, "IMAGE"],
        ],
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def saved(number: int, inputs: list, outputs: list, **node) -> dict:
    """A node in the editor's format. Node n, but the last, has its one output in link n."""
    return {
        "id": number,
        "pos": [0, 200 * number],
        "size": [300, 150],
        "flags": {},
        "mode": 0,
        "order": number,
        "properties": {"Node name for S&R": node["type"]},
        "inputs": [{"name": name, "type": kind, "link": link} for name, kind, link in inputs],
        "outputs": [{"name": name, "type": kind, "links": [number]} for name, kind in outputs],
        **node,
    }
