"""Masks in graphs of ComfyUI's own nodes against the library: the rule in the latent, the way back into the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from edits import normalised
from PIL import Image

from joyimage.demo import asset
from joyimage.inpainting import EDGE, OVERLAP
from joyimage.prompts import DEFAULT_QUESTION, INPAINT, OUTPAINT
from tools.client import TINY, Graph, output

STEPS, SEED, GUIDANCE = 6, 5, 4.0
WIDE = {"left": 16, "top": 0, "right": 32, "bottom": 16}
OPTIONS = [
    {},
    {"strength": 0.6},
    {"solver": "heun"},
    {"solver": "unipc", "shift": 3.0},
    {"guidance": 1.0},
    {"forecast": 2},
]


class Part(Graph):
    """A graph that edits a part of the scene, up to the picture and the latent that it saves."""

    def __init__(self):
        super().__init__()
        self.encoder = self.add("JoyImageLoadEncoder", encoder=TINY)
        self.vae = self.add("JoyImageLoadVAE", vae=TINY)
        self.scene = self.add("LoadImage", image="part.png")

    def caption(self, sentence: str) -> list:
        asked = {"images.image0": self.scene, "question": DEFAULT_QUESTION, "temperature": 0.0}
        answer = self.add("JoyImageAsk", encoder=self.encoder, max_new_tokens=512, **asked)
        return self.add("StringConcatenate", string_a=sentence, string_b=answer, delimiter="")

    def finish(self, picture: list, mask: list, edge: list, prompt: str | list, **options) -> tuple[list, list]:
        images = {"images.image0": picture, "vae": self.vae, "base_size": "exact"}
        encoded = self.add("JoyImageEncodePrompt", encoder=self.encoder, prompt=prompt, negative_prompt="", **images)
        clean = self.add("VAEEncode", pixels=picture, vae=self.vae)
        sampled = self.add(
            "JoyImageSampler",
            model=self.add("JoyImageLoadMMDiT", model=TINY),
            positive=encoded,
            negative=output(encoded, 1),
            latent=self.add("SetLatentNoiseMask", samples=clean, mask=mask),
            **{"seed": SEED, "steps": STEPS, "guidance": GUIDANCE} | options,
        )
        made = self.add("VAEDecode", samples=sampled, vae=self.vae)
        laid = {"x": 0, "y": 0, "resize_source": False, "mask": edge}
        whole = self.add("ImageCompositeMasked", destination=picture, source=made, **laid)
        saved = self.add("SaveImage", images=whole, filename_prefix="part")
        return saved, self.add("SaveLatent", samples=sampled, filename_prefix="part")

    def soft_edge(self, mask: list) -> list:
        inner = self.add("GrowMask", mask=mask, expand=-EDGE, tapered_corners=False)
        shown = self.add("MaskToImage", mask=inner)
        blurred = self.add("ImageBlur", image=shown, blur_radius=EDGE, sigma=1.0)
        return self.add("ImageToMask", image=blurred, channel="red")


@pytest.fixture(scope="module")
def scene(base_directory) -> Image.Image:
    picture = asset("move.png").convert("RGB")
    picture.save(base_directory / "input" / "part.png")
    return picture


def hard(width: int, height: int) -> np.ndarray:
    """Off the grid of the latent, and up to the picture's border on one side."""
    mask = np.zeros((height, width), np.uint8)
    mask[13:51, 30:] = 255
    return mask


def soft(width: int, height: int) -> np.ndarray:
    """A disc that fades out."""
    rows, columns = np.ogrid[:height, :width]
    distance = np.hypot(rows - 0.6 * height, columns - 0.4 * width)
    return (255 * np.clip(2 - distance / 14, 0, 1)).astype(np.uint8)


def saved(run, picture: list, latent: list) -> tuple[np.ndarray, torch.Tensor]:
    [file] = run.files(picture)
    return np.asarray(Image.open(file), np.int16), normalised(run.latent(latent))


def settings(options: dict) -> dict:
    given = {"steps": STEPS, "seed": SEED, "guidance_scale": GUIDANCE, "base_size": None} | options
    return given | ({"guidance_scale": given.pop("guidance")} if "guidance" in given else {})


def assert_same(library, run_result, *arguments, near=1e-4, **options) -> None:
    picture, latent = run_result
    [own] = library.edit(*arguments, **options)
    assert np.abs(picture - np.asarray(own, np.int16)).max() <= 1
    expected = library.edit(*arguments, **options, output="latent")
    torch.testing.assert_close(latent, expected, atol=near, rtol=0)


@pytest.mark.parametrize("paint", [hard, soft])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_masked_edit_equals_the_librarys(client, library, base_directory, scene, paint, options):
    mask = paint(*scene.size)
    Image.fromarray(mask).convert("RGB").save(base_directory / "input" / "mask.png")
    graph = Part()
    loaded = graph.add("LoadImageMask", image="mask.png", channel="red")
    nodes = graph.finish(graph.scene, loaded, graph.soft_edge(loaded), "Remove the pink cylinder.", **options)
    result = saved(client.run(graph), *nodes)
    assert_same(library, result, scene, "Remove the pink cylinder.", mask=mask, **settings(options))
    before = np.asarray(scene, np.int16)
    assert (result[0] == before)[mask == 0].all() and (result[0] != before)[mask == 255].any()


def test_the_model_writes_the_sentence(client, library, base_directory, scene):
    mask = hard(*scene.size)
    Image.fromarray(mask).convert("RGB").save(base_directory / "input" / "mask.png")
    graph = Part()
    loaded = graph.add("LoadImageMask", image="mask.png", channel="red")
    nodes = graph.finish(graph.scene, loaded, graph.soft_edge(loaded), graph.caption(INPAINT))
    assert_same(library, saved(client.run(graph), *nodes), scene, mask=mask, **settings({}))


@pytest.mark.parametrize("options", [{}, {"strength": 0.7}], ids=str)
def test_an_outpainted_picture_equals_the_librarys(client, library, scene, options):
    graph = Part()
    padded = graph.add("ImagePadForOutpaint", image=graph.scene, feathering=OVERLAP, **WIDE)
    mask = output(padded, 1)
    nodes = graph.finish(padded, mask, mask, graph.caption(OUTPAINT), **options)
    result = saved(client.run(graph), *nodes)
    # ComfyUI encodes a border of 127.5 levels, which no picture of 8 bits has
    assert_same(library, result, scene, outpaint=tuple(WIDE.values()), near=0.05, **settings(options))
    height, width = result[0].shape[:2]
    assert (height, width) == (scene.height + 16, scene.width + 48)
    inner = result[0][: scene.height - OVERLAP, 16 + OVERLAP : 16 + scene.width - OVERLAP]
    assert (inner == np.asarray(scene)[:-OVERLAP, OVERLAP:-OVERLAP]).all()
