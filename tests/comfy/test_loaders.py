"""The loaders in a running ComfyUI: what they list, load and say about files that they cannot use."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from joyimage import tiny
from joyimage.checkpoints.vae_keys import original_to_diffusers
from tools.client import TINY, Failed, Graph, Rejected

LOADERS = {
    "JoyImageLoadMMDiT": ("model", "diffusion_models"),
    "JoyImageLoadVAE": ("vae", "vae"),
    "JoyImageLoadEncoder": ("encoder", "text_encoders"),
}
FOLDER = "JoyAI-Tiny"


@pytest.fixture(scope="module")
def networks():
    return tiny.build()


@pytest.fixture(scope="module")
def noise(base_directory) -> None:
    """A picture in which every pixel matters."""
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    Image.fromarray(pixels).save(base_directory / "input" / "noise.png")


@pytest.fixture(scope="module")
def models(base_directory, networks):
    """The bundled weights as files in ComfyUI's folders and as a folder in Diffusers' layout; returns models/."""
    mmdit, vae, encoder = networks
    root = base_directory / "models"
    folder = root / "diffusers" / FOLDER
    for name in ("diffusion_models", "vae", "text_encoders"):
        (root / name).mkdir(exist_ok=True)
    for name in ("transformer", "vae"):
        (folder / name).mkdir(parents=True)
    diffusers_names = original_to_diffusers(vae.state_dict())
    vae_state = {diffusers_names[name]: tensor.contiguous() for name, tensor in vae.state_dict().items()}
    prefixed = {f"model.diffusion_model.{name}": tensor for name, tensor in mmdit.state_dict().items()}
    save_file(prefixed, root / "diffusion_models" / "mmdit.safetensors")
    rounded = {name: tensor.to(torch.float8_e4m3fn).to(tensor.dtype) for name, tensor in mmdit.state_dict().items()}
    save_file(rounded, root / "diffusion_models" / "rounded.safetensors")
    save_file(vae_state, root / "vae" / "vae.safetensors")
    save_file(mmdit.state_dict(), folder / "transformer" / "diffusion_pytorch_model.safetensors")
    save_file(vae_state, folder / "vae" / "diffusion_pytorch_model.safetensors")
    encoder.model.save_pretrained(folder / "text_encoder")
    encoder.tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "JoyImageEditPipeline"}))
    return root


def text_to_image(
    client, model: str = TINY, encoder: str = TINY, vae: str = TINY, steps: int = 2, **options
) -> torch.Tensor:
    """The latent of a tiny run with these files, encoded again so that the VAE counts too."""
    graph = Graph()
    latent = graph.add("JoyImageEncodePrompt", encoder=graph.add("JoyImageLoadEncoder", encoder=encoder), **PROMPT)
    sampler = graph.add(
        "JoyImageSampler",
        model=graph.add("JoyImageLoadMMDiT", model=model, **options),
        positive=latent,
        negative=[latent[0], 1],
        latent=[latent[0], 2],
        seed=3,
        steps=steps,
        guidance=1.0,  # more would multiply what differs
    )
    loaded = graph.add("JoyImageLoadVAE", vae=vae)
    pixels = graph.add("VAEDecode", samples=sampler, vae=loaded)
    saved = graph.add("SaveLatent", samples=graph.add("VAEEncode", pixels=pixels, vae=loaded), filename_prefix="test")
    return client.run(graph).latent(saved)


PROMPT = {
    "prompt": "A yellow cone on plain slate ground.",
    "negative_prompt": "",
    "base_size": "256",
    "width": 64,
    "height": 64,
    "batch_size": 1,
}


@pytest.mark.parametrize(("encoder", "pixels"), [(TINY, 64), (FOLDER, 1024)])
def test_the_automatic_base_size_is_that_of_the_encoders_model(client, models, encoder, pixels):
    graph = Graph()
    inputs = PROMPT | {"base_size": "auto", "width": 0, "height": 0}
    encoded = graph.add("JoyImageEncodePrompt", encoder=graph.add("JoyImageLoadEncoder", encoder=encoder), **inputs)
    saved = graph.add("SaveLatent", samples=[encoded[0], 2], filename_prefix="test")
    assert client.run(graph).latent(saved).shape == (1, 16, 1, pixels // 8, pixels // 8)


@pytest.mark.parametrize("node", LOADERS)
def test_lists_start_with_the_bundled_model(client, models, node):
    name, folder = LOADERS[node]
    choices = client.options(node, name)
    assert choices[0] == TINY
    assert FOLDER in choices
    assert {file.name for file in (models / folder).iterdir() if file.is_file()} <= set(choices)


def test_files_give_what_the_bundled_model_gives(client, models):
    """Its base size and tokenizer among them, by which a folder is another model."""
    files = {"model": "mmdit.safetensors", "vae": "vae.safetensors", "encoder": FOLDER}
    torch.testing.assert_close(text_to_image(client, **files), text_to_image(client), atol=1e-5, rtol=0)


def test_weight_dtype_is_a_cast_of_every_weight(client, models):
    """ComfyUI casts sensitive layers too, which moves the result more than files do that spare them."""
    cast, rounded = text_to_image(client, weight_dtype="fp8_e4m3fn"), text_to_image(client, model="rounded.safetensors")
    assert (cast - rounded).std() < 0.05 * rounded.std()  # the host computes in bf16 then


def test_theta_is_another_base_of_the_rotary_embedding(client, models, networks):
    plain, same, other = (text_to_image(client, theta=theta) for theta in (0.0, 10000.0, 256.0))
    assert np.array_equal(plain, same) and not np.array_equal(plain, other)


@pytest.mark.parametrize("theta", [0.5, 1.0])
def test_a_theta_that_is_none_is_refused_at_its_field(client, theta):
    graph = Graph()
    graph.add("PreviewAny", source=graph.add("JoyImageLoadMMDiT", model=TINY, theta=theta))
    with pytest.raises(Rejected, match="theta is"):
        client.run(graph)


def test_vae_nodes_tile_without_a_seam(client, noise):
    """ComfyUI's plain and tiled nodes, 128 pixels in tiles of 64: the very same latent and picture."""
    graph = Graph()
    vae, image = graph.add("JoyImageLoadVAE", vae=TINY), graph.add("LoadImage", image="noise.png")
    tiles = {"tile_size": 64, "overlap": 0, "temporal_size": 64, "temporal_overlap": 8}
    latents = [
        graph.add("VAEEncode", pixels=image, vae=vae),
        graph.add("VAEEncodeTiled", pixels=image, vae=vae, **tiles),
    ]
    decoded = [
        graph.add("VAEDecode", samples=latents[0], vae=vae),
        graph.add("VAEDecodeTiled", samples=latents[0], vae=vae, **tiles),
    ]
    saved = [graph.add("SaveLatent", samples=latent, filename_prefix="test") for latent in latents]
    shown = [graph.add("SaveImage", images=image, filename_prefix="test") for image in decoded]
    run = client.run(graph)
    whole, tiled = map(run.latent, saved)
    assert whole.shape == (1, 16, 1, 16, 16)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)
    whole, tiled = (np.asarray(Image.open(run.files(node)[0]), np.int16) for node in shown)
    assert np.abs(tiled - whole).max() <= 1


def test_a_batch_of_images_is_no_video(client, noise):
    """Each image of a batch has the latent it has alone."""
    graph = Graph()
    vae, image = graph.add("JoyImageLoadVAE", vae=TINY), graph.add("LoadImage", image="noise.png")
    other = graph.add("ImageInvert", image=image)
    both = graph.add("ImageBatch", image1=image, image2=other)
    latents = [graph.add("VAEEncode", pixels=pixels, vae=vae) for pixels in (both, image, other)]
    saved = [graph.add("SaveLatent", samples=latent, filename_prefix="test") for latent in latents]
    run = client.run(graph)
    both, *single = map(run.latent, saved)
    torch.testing.assert_close(both, torch.cat(single), atol=1e-5 * both.abs().max().item(), rtol=0)


def test_a_single_file_encoder_takes_comfyuis_tokenizer(probe):
    assert probe("single_file_encoder") < 1e-5


def test_encoder_computes_in_float32_where_the_processor_has_nothing_else(probe):
    found = probe("plain_processor")
    assert set(found["kept in"]) == {"torch.bfloat16"}
    assert found["error"] < 1e-5
    assert found["answers"][0] == found["answers"][1] != ""


def free(client) -> None:
    """Ask for all memory back; the server does so before or after the prompt that follows, whichever it sees first."""
    client.post("/free", {"unload_models": True, "free_memory": True})
    graph = Graph()
    graph.add("PreviewAny", source=graph.add("PrimitiveInt", value=1))
    client.run(graph)


def test_models_stay_loaded_and_free_lets_them_go(client):
    def run(seed: int) -> int:
        """How many loaders ran."""
        graph = Graph()
        encoder = graph.add("JoyImageLoadEncoder", encoder=TINY)
        latent = graph.add("JoyImageEncodePrompt", encoder=encoder, **PROMPT)
        model = graph.add("JoyImageLoadMMDiT", model=TINY)
        inputs = {"model": model, "positive": latent, "latent": [latent[0], 2], "steps": 2, "guidance": 1.0}
        graph.add("SaveLatent", samples=graph.add("JoyImageSampler", seed=seed, **inputs), filename_prefix="test")
        return sum(graph[key]["class_type"].startswith("JoyImageLoad") for key in client.run(graph).executed)

    def requests() -> int:
        return client.log.read_text(errors="replace").count("Requested to load JoyImageModel")

    free(client)
    before = requests()
    assert [run(1), run(2)] == [2, 0]
    assert requests() == before + 1
    free(client)
    assert run(3) == 2
    assert requests() == before + 2


def test_a_missing_file_is_named_with_its_source(client):
    graph = Graph()
    graph.add("PreviewAny", source=graph.add("JoyImageLoadMMDiT", model="joyai_image_edit_bf16.safetensors"))
    with pytest.raises(Rejected) as rejected:
        client.run(graph)
    message = rejected.value.errors["JoyImageLoadMMDiT"]
    for part in ("joyai_image_edit_bf16.safetensors", "models/diffusion_models", "huggingface.co/Comfy-Org"):
        assert part in message


@pytest.mark.parametrize("value", [5, None, {}, [], True, "x" * 300, "~nobody", "a\0b"], ids=repr)
@pytest.mark.parametrize(
    ("node", "field"),
    [("LoadMMDiT", "model"), ("LoadVAE", "vae"), ("LoadEncoder", "encoder"), ("LoadLora", "lora")],
    ids=str,
)
def test_what_is_no_file_is_refused_in_words(client, node, field, value):
    graph = Graph()
    others = {"model": graph.add("JoyImageLoadMMDiT", model=TINY), "strength": 1.0} if node == "LoadLora" else {}
    graph.add("PreviewAny", source=graph.add(f"JoyImage{node}", **others, **{field: value}))
    with pytest.raises(Rejected) as rejected:
        client.run(graph)
    message = rejected.value.errors[f"JoyImage{node}"]
    assert "Error" not in message and "object" not in message, message


def test_a_file_of_another_kind_is_named(client, models, networks):
    save_file(networks[0].state_dict(), models / "vae" / "no_vae.safetensors")
    graph = Graph()
    graph.add("PreviewAny", source=graph.add("JoyImageLoadVAE", vae="no_vae.safetensors"))
    with pytest.raises(Failed) as failed:
        client.run(graph)
    assert "no_vae.safetensors: this looks like a JoyImage MMDiT, not a Wan 2.1 VAE" in str(failed.value)
    assert "hidden_size 160" in str(failed.value)  # what the file is, in full


def test_an_incomplete_file_is_named(client, models, networks):
    state = networks[0].state_dict()
    del state["double_blocks.2.attn.img_attn_proj.bias"]
    save_file(state, models / "diffusion_models" / "part.safetensors")
    graph = Graph()
    graph.add("PreviewAny", source=graph.add("JoyImageLoadMMDiT", model="part.safetensors"))
    with pytest.raises(Failed) as failed:
        client.run(graph)
    assert "part.safetensors: does not fit a JoyImage MMDiT of its sizes: 1 missing: double_blocks.2" in str(
        failed.value
    )


def test_a_truncated_file_is_named(client, models):
    whole = (models / "vae" / "vae.safetensors").read_bytes()
    (models / "vae" / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    graph = Graph()
    graph.add("PreviewAny", source=graph.add("JoyImageLoadVAE", vae="half.safetensors"))
    with pytest.raises(Failed, match=r"half\.safetensors: .*truncated"):
        client.run(graph)


def test_a_file_outside_the_folders_is_refused(client, base_directory, networks):
    save_file(networks[0].state_dict(), base_directory / "outside.safetensors")
    graph = Graph()
    graph.add("PreviewAny", source=graph.add("JoyImageLoadMMDiT", model="../../outside.safetensors"))
    with pytest.raises(Rejected):
        client.run(graph)


def test_an_older_comfyui_is_told_so(probe):
    assert probe("older_comfyui") == "needs ComfyUI 0.33.0 or newer and this is 0.3.66: update ComfyUI"


def test_the_nodes_wait_for_no_encoder(probe):
    assert probe("loads_at_start") == []
