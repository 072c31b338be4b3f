"""ComfyUI started with flags of its own: they change what it does with our models, and none of it breaks them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pieces import encode, load_image, text_of
from PIL import Image

from tools.client import TINY, Graph, output
from tools.photograph import photograph

# Several at once, where one does not decide over another. On processors ComfyUI takes no --lowvram, --novram and the
# like: what they do there is in probes.py.
EXACT = "--force-channels-last --fp16-vae --cpu-vae --cache-none --deterministic --fp16-text-enc --disable-smart-memory"
ROUNDING = "--fp8_e4m3fn-unet --bf16-vae --bf16-text-enc --cache-lru 3 --fast --use-split-cross-attention"
# By flags: what the loader's option for weights is that says the same, and how much the result may differ
FLAGS = {EXACT: ("default", 1e-4), ROUNDING: ("fp8_e4m3fn", 0.05)}


def edit(client, weight_dtype: str = "default") -> tuple[np.ndarray, torch.Tensor, str]:
    """The picture and latent of an edit, and an answer."""
    graph = Graph()
    image, vae = load_image(graph, "flags.png"), graph.add("JoyImageLoadVAE", vae=TINY)
    encoded = encode(graph, (image,), vae=vae)
    model = graph.add("JoyImageLoadMMDiT", model=TINY, weight_dtype=weight_dtype)
    latent = graph.add(
        "JoyImageSampler",
        model=model,
        positive=encoded,
        negative=output(encoded, 1),
        latent=output(encoded, 2),
        seed=7,
        steps=2,
        guidance=1.0,
    )
    shown = graph.add("SaveImage", images=graph.add("VAEDecode", samples=latent, vae=vae), filename_prefix="flags")
    saved = graph.add("SaveLatent", samples=latent, filename_prefix="flags")
    encoder = graph.add("JoyImageLoadEncoder", encoder=TINY)
    question = {"question": "How many objects are there?", "images.image0": image}
    answer = graph.add("PreviewAny", source=graph.add("JoyImageAsk", encoder=encoder, **question))
    run = client.run(graph)
    return np.asarray(Image.open(run.files(shown)[0]), np.int16), run.latent(saved), text_of(run, answer)


@pytest.mark.parametrize("flags", FLAGS, ids=["exact", "rounding"])
@pytest.mark.slow
def test_flags_give_what_they_say(client, serve, make_base, flags):
    """With flags that round nothing it is the same picture; the others round weights as the loader's option does."""
    weight_dtype, bound = FLAGS[flags]
    picture = photograph().resize((200, 200))
    base = make_base()
    for folder in (client.base, base):
        picture.save(folder / "input" / "flags.png")
    expected, latent, answer = edit(client, weight_dtype)
    with serve(base, *flags.split()) as other:
        found, its_latent, its_answer = edit(other)
    assert its_answer == answer != ""
    assert np.ptp(found) > 100  # neither black nor grey
    assert (its_latent - latent).std() <= bound * latent.std()
    assert np.abs(found - expected).mean() <= 40 * bound  # of 255: bf16 moves edges
