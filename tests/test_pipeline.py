"""Whole edits against Diffusers' pipelines, and what callers may rely on."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    JoyImageEditPlusTransformer3DModel,
    JoyImageEditTransformer3DModel,
)
from einops import rearrange
from PIL import Image

from joyimage import JoyImage, JoyImageError, sampling, spatial, tiny
from joyimage.conditioning import Conditioning
from joyimage.images import cover, to_tensor
from joyimage.rendering import Renderer, Run
from joyimage.settings import Sampling
from joyimage.vae import WanVAE
from tools import oracle
from tools.photograph import photograph

INSTRUCTION = "Remove the space shuttle."


@pytest.fixture(scope="module")
def model():
    """The tiny model, with modulation tables that make every block count."""
    model = JoyImage.load("tiny", device="cpu")
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.mmdit.named_parameters():
        if "modulate_table" in name:
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def picture():
    return photograph().resize((300, 260))


def reference(model: JoyImage, plus: bool = False):
    """Diffusers' pipeline over the same weights."""
    from joyimage.checkpoints.vae_keys import original_to_diffusers

    sizes = model.mmdit.config
    transformer = (JoyImageEditPlusTransformer3DModel if plus else JoyImageEditTransformer3DModel)(
        hidden_size=sizes.hidden_size,
        num_attention_heads=sizes.num_heads,
        num_layers=sizes.num_layers,
        in_channels=16,
        text_dim=sizes.text_dim,
        rope_dim_list=list(sizes.rope_dims),
        theta=sizes.theta,
    ).eval()
    transformer.load_state_dict(model.mmdit.state_dict())
    vae = AutoencoderKLWan(base_dim=model.vae.config.base_dim).eval()
    with_frames(vae, model.vae, original_to_diffusers)
    return oracle.pipeline(transformer, vae, model.encoder.model, model.encoder.tokenizer, plus)


def with_frames(target, vae: WanVAE, names) -> None:
    """Give a 3-D VAE the weights of the 2-D one, as the last slice of kernels whose other slices are random."""
    state = target.state_dict()
    flat = vae.state_dict()
    for key, name in names(list(flat)).items():
        value = flat[key]
        if value.ndim == 4 and state[name].ndim == 5:
            state[name][:, :, -1] = value
        else:
            state[name] = value.reshape(state[name].shape)
    target.load_state_dict(state)


def noise(model: JoyImage, size: tuple[int, int]) -> torch.Tensor:
    return torch.randn(1, 16, 1, size[0] // 8, size[1] // 8, generator=torch.Generator().manual_seed(11))


@pytest.fixture
def posterior_mean(monkeypatch):
    """Edit samples the posterior from the global random state; both sides take its mean here."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mean)


def levels(image) -> np.ndarray:
    return np.asarray(image, dtype=np.int16)


@pytest.mark.parametrize("guidance_scale", [4.0, 1.0])
@pytest.mark.slow
def test_edit_equals_diffusers(model, picture, posterior_mean, monkeypatch, guidance_scale):
    monkeypatch.setattr("diffusers.pipelines.joyimage.image_processor.BUCKETS", {1024: [(208, 256), (256, 256)]})
    theirs = reference(model)
    options = {"guidance_scale": guidance_scale, "height": 208, "width": 256, "num_inference_steps": 5}
    start = noise(model, (208, 256))
    call = lambda **more: theirs(image=picture, prompt=INSTRUCTION, latents=start[:, None], **options, **more)  # noqa: E731
    expected = call(output_type="latent").images
    ours = {"size": (208, 256), "steps": 5, "schedule": "diffusers", "latent": start, "guidance_scale": guidance_scale}
    latent = model.edit(picture, INSTRUCTION, output="latent", **ours)
    assert np.abs(latent[0, :, 0].numpy() - latents_of(expected)).max() <= 1e-4
    (edited,) = model.edit(picture, INSTRUCTION, **ours)
    assert np.abs(levels(edited) - levels(call().images[0])).max() <= 1


def latents_of(output) -> np.ndarray:
    """Diffusers passes latents through its picture post-processing: undo what it did to their layout."""
    value = output[0] if isinstance(output, list) else output
    return np.asarray(value).reshape(16, *np.asarray(value).shape[-2:])


@pytest.mark.slow
def test_edit_plus_equals_diffusers(model, picture):
    """Two references, each of its own size."""
    theirs = reference(model, plus=True)
    other = picture.rotate(90, expand=True).crop((0, 0, 200, 300))
    fitted = [cover(image, size) for image, size in ((picture, (208, 256)), (other, (256, 192)))]
    theirs.image_processor.get_default_height_width = lambda image, *_: (image.height, image.width)
    start = noise(model, (256, 192))
    call = {"latents": start, "num_inference_steps": 4, "height": 256, "width": 192, "negative_prompt": ""}
    patches = theirs(images=fitted, prompt=INSTRUCTION, output_type="latent", **call).images[0]
    expected = rearrange(patches[: 16 * 12], "(r q) c t ph pw -> c t (r ph) (q pw)", r=16)
    options = {"base_size": None, "steps": 4, "schedule": "diffusers", "latent": start, "size": (256, 192)}
    latent = model.edit(fitted, INSTRUCTION, output="latent", **options)
    torch.testing.assert_close(latent[0], expected, atol=1e-4, rtol=0)
    (edited,) = model.edit(fitted, INSTRUCTION, **options)
    (image,) = theirs(images=fitted, prompt=INSTRUCTION, **call).images
    assert np.abs(levels(edited) - levels(image)).max() <= 1


@pytest.mark.slow
def test_text_to_image_equals_diffusers(model, monkeypatch):
    monkeypatch.setattr("diffusers.pipelines.joyimage.image_processor.BUCKETS", {1024: [(192, 256)]})
    start = noise(model, (192, 256))
    expected = reference(model)(
        prompt="a red cube", height=192, width=256, latents=start[:, None], num_inference_steps=4
    ).images[0]
    (made,) = model.generate("a red cube", size=(192, 256), steps=4, schedule="diffusers", latent=start)
    assert np.abs(levels(made) - levels(expected)).max() <= 1


SMALL = {"size": (64, 80), "steps": 2}


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """To 1e-5 of the largest value: float32 sums in another order."""
    torch.testing.assert_close(found, expected, atol=1e-5 * expected.abs().max().item(), rtol=0)


def test_same_seed_gives_the_same_bytes(model, picture):
    first, second, other = (model.edit(picture, INSTRUCTION, seed=seed, **SMALL)[0].tobytes() for seed in (7, 7, 8))
    assert first == second != other


def test_a_sample_does_not_depend_on_its_batch(model, picture):
    """Several instructions of different lengths on one picture, packed, with two seeds each."""
    instructions = ["Remove it.", "Paint the wall behind the astronaut in a darker shade of green."]
    options = {"output": "latent", "batch_size": 4, **SMALL}
    together = model.edit(picture, instructions, count=2, seed=3, **options)
    alone = [model.edit(picture, text, seed=seed, **options) for text in instructions for seed in (3, 4)]
    assert_same(together, torch.cat(alone))


def test_a_seed_gives_the_same_bytes_alone_and_among_others(model, picture):
    several = model.edit(picture, INSTRUCTION, count=5, seed=3, **SMALL)
    again = model.edit(picture, INSTRUCTION, count=2, seed=6, **SMALL)
    (alone,) = model.edit(picture, INSTRUCTION, seed=6, **SMALL)
    assert several[3].tobytes() == again[0].tobytes() == alone.tobytes()


@pytest.mark.parametrize(("batch_size", "forwards"), [(1, 5), (2, 3), (5, 1), (16, 1)])
def test_samples_share_a_forward_on_request(model, picture, batch_size, forwards):
    batches = []
    hook = model.mmdit.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    options = {"guidance_scale": 1.0, "batch_size": batch_size, **SMALL}
    try:
        made = model.edit(picture, INSTRUCTION, count=5, seed=3, **options)
    finally:
        hook.remove()
    assert len(batches) == forwards * SMALL["steps"] and max(batches) == min(batch_size, 5)
    for k, picture_k in enumerate(made):
        (alone,) = model.edit(picture, INSTRUCTION, seed=3 + k, guidance_scale=1.0, **SMALL)
        assert np.abs(np.asarray(alone, int) - np.asarray(picture_k, int)).max() <= 1


def test_a_batch_of_edits_keeps_its_order(model, picture):
    """Edits of different shapes cannot share a forward; results come back where they belong."""
    edits = [[picture], [picture, picture.crop((0, 0, 160, 100))], [picture.rotate(180)]]
    options = {"steps": 2, "output": "latent", "size": (64, 64), "base_size": None}
    together = model.edit(edits, INSTRUCTION, seed=[1, 2, 3], **options)
    for i, edit in enumerate(edits):
        alone = model.edit(edit, INSTRUCTION, seed=i + 1, **options)
        assert_same(together[i : i + 1], alone)


def test_instructions_that_share_pictures_have_the_contexts_of_each_alone(model, picture):
    """To the bit: what an edit is must not hang on which others are beside it."""
    instructions = ["Remove it.", "Replace the sky with a sunset.", "Make it night."]
    together = model.condition(picture, instructions, base_size=256)
    for conditioning, instruction in zip(together, instructions, strict=True):
        (alone,) = model.condition(picture, instruction, base_size=256)
        assert torch.equal(conditioning.positive, alone.positive)
        assert torch.equal(conditioning.negative, alone.negative)


def test_an_edit_whose_texts_are_equal_among_others(model, picture):
    together = model.condition(picture, ["Remove it.", "Remove it."], negative_prompt=["Remove it.", ""], base_size=256)
    for conditioning, negative in zip(together, ["Remove it.", ""], strict=True):
        (alone,) = model.condition(picture, "Remove it.", negative_prompt=negative, base_size=256)
        assert torch.equal(conditioning.positive, alone.positive)
        assert torch.equal(conditioning.negative, alone.negative)


def test_packed_and_separate_passes_agree(model, picture, monkeypatch):
    packed = model.edit(picture, INSTRUCTION, output="latent", **SMALL)
    monkeypatch.setattr("joyimage.batching.PACKED_TOKENS", 0)
    assert_same(model.edit(picture, INSTRUCTION, output="latent", **SMALL), packed)


def test_images_are_encoded_once_for_many_instructions(model, picture, monkeypatch):
    calls = []
    encode = model.vae.encode
    monkeypatch.setattr(model.vae, "encode", lambda *args: calls.append("vae") or encode(*args))
    hook = model.encoder.backbone.visual.register_forward_hook(lambda *_: calls.append("vision"))
    model.edit(picture, ["Move it.", "Paint it.", "Remove it."], **SMALL)
    hook.remove()
    assert sorted(calls) == ["vae", "vision"]


def test_results_have_the_size_asked_for(model, picture):
    assert model.edit(picture, INSTRUCTION, steps=1, base_size=256)[0].size == (272, 240)
    assert model.edit(picture, INSTRUCTION, steps=1, base_size=None)[0].size == (304, 256)
    assert model.edit([picture, picture.resize((90, 64))], INSTRUCTION, steps=1, base_size=None)[0].size == (96, 64)
    assert model.generate("a cube", size=(48, 32), steps=1)[0].size == (32, 48)


def test_the_automatic_base_size_is_the_models(model, picture, monkeypatch):
    assert model.base_size == tiny.BASE_SIZE == 64
    assert model.edit(picture, INSTRUCTION, steps=1)[0].size == model.generate("a cube", steps=1)[0].size == (64, 64)
    assert model.condition(picture, INSTRUCTION)[0].size == (64, 64)
    assert model.condition(picture, INSTRUCTION, size=(64, 80))[0].size == (64, 80)
    assert model.generate("a cube", base_size=256, steps=1)[0].size == (256, 256)
    other = JoyImage(model.mmdit, model.vae, model.encoder)
    assert other.base_size == 1024
    monkeypatch.setattr(other, "base_size", 256)
    assert other.condition(picture, INSTRUCTION)[0].size == (240, 272)
    with pytest.raises(JoyImageError, match="no picture whose size to keep"):
        model.generate("a cube", base_size=None)


@pytest.mark.parametrize("size", [(1, 1), (8000, 6000)])
def test_tiny_and_huge_pictures_can_be_edited(model, size):
    (edited,) = model.edit(Image.new("RGB", size, "teal"), INSTRUCTION, base_size=256, steps=1)
    assert edited.size == {1: (256, 256), 8000: (288, 208)}[size[0]]


def test_of_several_pictures_each_keeps_its_bucket_whatever_size_is_asked_for(model, picture):
    wide, high = picture.resize((400, 200)), picture.resize((200, 400))
    alone = [model.condition(each, INSTRUCTION, base_size=256)[0] for each in (wide, high)]
    (together,) = model.condition([wide, high], INSTRUCTION, base_size=256, size=(64, 80))
    assert together.size == (64, 80) and alone[0].size != alone[1].size
    for reference, own in zip(together.references, alone, strict=True):
        torch.testing.assert_close(reference, own.references[0])


def test_tokens_are_those_of_the_target_and_of_each_reference(model):
    references = tuple(torch.zeros(1, 16, 1, *size) for size in [(8, 10), (4, 6)])
    renderer = Renderer(model.mmdit, model.vae, model.memory)
    for count, tokens in enumerate([4 * 5, 4 * 5 + 4 * 5, 4 * 5 + 4 * 5 + 2 * 3]):
        conditioning = Conditioning(torch.zeros(3, 8), torch.zeros(2, 8), references[:count], (64, 80))
        assert renderer.tokens(conditioning) == tokens


def test_a_run_of_which_nothing_is_said_is_one_picture_without_a_bar(model, picture, capsys):
    conditionings = model.condition(picture, INSTRUCTION, size=(64, 80))
    renderer = Renderer(model.mmdit, model.vae, model.memory)
    (made,) = renderer.render(conditionings, Sampling(steps=2), Run())
    assert capsys.readouterr().err == ""
    (expected,) = model.render(conditionings, seed=0, steps=2)
    assert made.tobytes() == expected.tobytes()


def test_a_bar_counts_the_steps_if_it_is_asked_for(model, capsys):
    model.generate("a cube", **SMALL)
    assert capsys.readouterr().err == ""
    model.generate("a cube", progress=True, **SMALL)
    assert "2/2" in capsys.readouterr().err


def test_outputs(model):
    outputs = {kind: model.generate("a cube", output=kind, **SMALL) for kind in ("pil", "pt", "np", "latent")}
    assert outputs["pt"].shape == (1, 3, 64, 80) and outputs["np"].shape == (1, 64, 80, 3)
    assert outputs["latent"].shape == (1, 16, 1, 8, 10)
    assert np.abs(outputs["np"][0] * 255 - levels(outputs["pil"][0])).max() <= 0.5001
    np.testing.assert_array_equal(outputs["pt"].permute(0, 2, 3, 1), outputs["np"])


def test_strength_starts_from_the_picture(model, picture):
    """One of 50 steps from sigma 0.03 moves little; the whole run ends elsewhere."""
    source = model.vae.encode(to_tensor(cover(picture, (64, 80))))
    options = {"size": (64, 80), "steps": 50, "output": "latent", "guidance_scale": 1.0}
    near = model.edit(picture, INSTRUCTION, strength=0.02, **options)
    given = model.edit(picture, INSTRUCTION, strength=0.02, latent=source, **options)
    torch.testing.assert_close(near, given, atol=1e-6, rtol=0)
    assert (near - source).abs().mean() < 0.1 * (model.edit(picture, INSTRUCTION, **options) - source).abs().mean()


def test_of_several_pictures_strength_starts_from_the_last(model, picture):
    """One of 50 steps from sigma 0.03 ends near where it began."""
    pictures = [Image.new("RGB", picture.size, "teal"), picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    options = {"base_size": 64, "steps": 50, "output": "latent", "guidance_scale": 1.0}
    near = model.edit(pictures, INSTRUCTION, strength=0.02, **options)
    size = near.shape[-2] * 8, near.shape[-1] * 8
    distances = [(near - model.vae.encode(to_tensor(cover(each, size)))).abs().mean() for each in pictures]
    assert distances[2] < 0.2 * min(distances[:2])


def test_at_full_strength_nothing_of_the_picture_is_in_the_start(model, picture):
    options = {"size": (64, 80), "sigmas": [0.5, 0.2], "seed": 5, "output": "latent"}
    expected = model.edit(picture, INSTRUCTION, latent=sampling.noise((16, 1, 8, 10), [5]), **options)
    torch.testing.assert_close(model.edit(picture, INSTRUCTION, **options), expected)


@pytest.mark.parametrize("solver", sampling.SOLVERS)
def test_a_run_is_the_solvers_over_the_networks_velocity(model, picture, solver):
    (conditioning,) = model.condition(picture, INSTRUCTION, size=(64, 80))

    def velocity(x, sigma):
        with torch.inference_mode():
            return model.mmdit(x, torch.tensor([1000 * sigma]), [conditioning.positive], conditioning.references)

    start = sampling.noise((16, 1, 8, 10), [7])
    expected = sampling.sample(velocity, start, sampling.schedule(4, shift=3.0), solver=solver)
    options = {"steps": 4, "shift": 3.0, "seed": 7, "guidance_scale": 1.0, "output": "latent"}
    torch.testing.assert_close(model.render([conditioning], solver=solver, **options), expected)


def test_callback_sees_every_step_and_can_stop(model):
    seen = []

    def callback(step, sigma, denoised):
        seen.append((step, round(sigma, 3), tuple(denoised.shape), denoised))
        return step < 1

    stopped = model.generate("a cube", size=(64, 80), steps=4, output="latent", callback=callback)
    assert [entry[:3] for entry in seen] == [(0, 1.0, (1, 16, 1, 8, 10)), (1, 0.818, (1, 16, 1, 8, 10))]
    torch.testing.assert_close(stopped, seen[-1][3])


def test_an_exception_from_the_callback_comes_through(model):
    def callback(step, sigma, denoised):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        model.generate("a cube", callback=callback, **SMALL)


def test_conditioning_can_be_kept_and_reused(model, picture):
    conditionings = model.condition(picture, INSTRUCTION, size=(64, 80))
    expected = model.edit(picture, INSTRUCTION, seed=5, output="latent", **SMALL)
    torch.testing.assert_close(model.render(conditionings, seed=5, steps=2, output="latent"), expected)


def test_a_near_miss_of_a_spatial_instruction_warns(model, picture):
    builders = r"spatial nodes, --move, --rotate and --camera, and joyimage\.spatial"
    with pytest.warns(UserWarning, match=f"word for word.*Yaw ' is missing.*{builders}"):
        model.condition(picture, "Move the camera.", base_size=256)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.condition(picture, ["Move the cup to the left.", spatial.camera(10, 0, "in")], base_size=256)


@pytest.mark.slow
def test_ask_and_rewrite(model, picture):
    answer = model.ask(picture, "How many people are there?", max_new_tokens=5, temperature=0)
    assert answer == model.ask([picture], "How many people are there?", max_new_tokens=5, temperature=0)
    with pytest.warns(UserWarning, match="used unchanged"):
        assert model.rewrite("remove cup", picture) == "remove cup"  # random weights answer no JSON


BAD = [
    ({"instruction": ""}, "prompt 1 of 1 is empty"),
    ({"instruction": ["Move it.", " \n"]}, "prompt 2 of 2 is empty"),
    ({"instruction": []}, "no prompt"),
    ({"images": []}, "no image given"),
    ({"images": [Image.new("RGB", (32, 32))] * 7}, "7 images; the model takes at most 6"),
    ({"images": [[Image.new("RGB", (32, 32))], Image.new("RGB", (32, 32))]}, "mixed"),
    ({"images": [[Image.new("RGB", (32, 32))]] * 2, "instruction": ["a", "b", "c"]}, "3 instructions for 2 edits"),
    ({"images": "nowhere.png"}, "nowhere.png"),
    ({"size": (100, 64)}, "100"),
    ({"base_size": 300, "size": None}, "256, 512, 768"),
    ({"base_size": "1024"}, """base size '1024' is neither "auto" nor one of the numbers 64, 256"""),
    ({"steps": 0}, "steps"),
    ({"sigmas": [0.5, 0.7]}, "fall"),
    ({"sigmas": [0.5], "timesteps": [500]}, "sigmas"),
    ({"solver": "magic"}, "euler, heun, dpmpp_2m, unipc"),
    ({"schedule": "magic"}, "original, diffusers"),
    ({"guidance_scale": float("nan")}, "guidance scale"),
    ({"rescale": 2.0}, r"\[0, 1\]"),
    ({"strength": 0.0}, "strength"),
    ({"seed": -1}, "seed"),
    ({"seed": [1, 2]}, "2 seeds for 1 edits"),
    ({"count": 0}, "count is 0"),
    ({"output": "jpeg"}, "pil, pt, np, latent"),
    ({"latent": torch.zeros(1, 16, 1, 4, 4)}, "the latent has shape"),
    ({"latent": torch.full((1, 16, 1, 8, 10), float("nan"))}, "NaN"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(model, picture, change, message):
    with pytest.raises(JoyImageError, match=message):
        model.edit(**{"images": picture, "instruction": INSTRUCTION, **SMALL, **change})


TWO = [Image.new("RGB", (64, 64)), Image.new("RGB", (64, 160))]
TOO_LATE = [  # what only shows once the pictures are fitted, and still before they are encoded
    ({"images": TWO, "size": (64, 64), "strength": 0.5, "base_size": None}, r"comes as 160 x 64 .* not as 64 x 64"),
    ({"latent": torch.zeros(1, 16, 1, 4, 4)}, "the latent has shape"),
    ({"latent": torch.zeros(3, 16, 1, 8, 10)}, "3 samples for 1 pictures"),
    ({"latent": torch.full((1, 16, 1, 8, 10), float("nan"))}, "NaN"),
    ({"images": [[picture] for picture in TWO], "output": "latent", "size": None, "base_size": None}, "differ in size"),
]


@pytest.mark.parametrize(("change", "message"), TOO_LATE, ids=[message for _, message in TOO_LATE])
def test_where_a_run_cannot_start_is_said_before_anything_is_encoded(model, picture, monkeypatch, change, message):
    monkeypatch.setattr(model.encoder, "encode", lambda *_: pytest.fail("the encoder was asked"))
    with pytest.raises(JoyImageError, match=message):
        model.edit(**{"images": picture, "instruction": INSTRUCTION, **SMALL, **change})


def test_results_of_different_size_do_not_fit_in_a_tensor(model, picture):
    edits = [[picture], [picture.resize((64, 160))]]
    assert [image.size for image in model.edit(edits, INSTRUCTION, base_size=None, steps=1)] == [(304, 256), (64, 160)]
    with pytest.raises(JoyImageError, match="differ in size"):
        model.edit(edits, INSTRUCTION, base_size=None, steps=1, output="latent")


def test_a_missing_part_is_named():
    with pytest.raises(JoyImageError, match="no vae and no encoder given"):
        JoyImage.load(mmdit="some.safetensors")


def test_building_the_tiny_model_leaves_the_random_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = tiny.build()[0], tiny.build()[0]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.proj_out.weight, second.proj_out.weight)


@pytest.fixture(scope="module")
def diffusers_folder(model, tmp_path_factory):
    """The model as Diffusers saves it."""
    folder = tmp_path_factory.mktemp("diffusers")
    pipeline = reference(model)
    for name in ("transformer", "vae", "text_encoder", "tokenizer"):
        getattr(pipeline, name).save_pretrained(folder / name)
    (folder / "model_index.json").write_text('{"_class_name": "JoyImageEditPipeline"}')
    return folder


def test_a_diffusers_folder_gives_the_same_edit(model, picture, diffusers_folder):
    loaded = JoyImage.load(diffusers_folder, device="cpu")
    assert loaded.base_size == 1024  # nothing there says otherwise
    expected = model.edit(picture, INSTRUCTION, output="latent", **SMALL)
    torch.testing.assert_close(loaded.edit(picture, INSTRUCTION, output="latent", **SMALL), expected, atol=1e-5, rtol=0)
    options = {"temperature": 0, "max_new_tokens": 4}
    assert loaded.ask(picture, "What is it?", **options) == model.ask(picture, "What is it?", **options)


def test_parts_can_come_from_single_files(model, picture, diffusers_folder):
    """As people with ComfyUI have them: MMDiT and VAE as files, encoder with a tokenizer folder."""
    loaded = JoyImage.load(
        mmdit=diffusers_folder / "transformer" / "diffusion_pytorch_model.safetensors",
        vae=diffusers_folder / "vae" / "diffusion_pytorch_model.safetensors",
        encoder=diffusers_folder / "text_encoder",
        tokenizer=diffusers_folder / "tokenizer",
        device="cpu",
    )
    expected = model.edit(picture, INSTRUCTION, output="latent", **SMALL)
    torch.testing.assert_close(loaded.edit(picture, INSTRUCTION, output="latent", **SMALL), expected, atol=1e-5, rtol=0)


def test_the_command_line_takes_a_model_folder(picture, diffusers_folder, tmp_path, monkeypatch, capsys):
    from joyimage.cli import main

    monkeypatch.chdir(tmp_path)
    picture.save("photo.png")
    command = ["edit", "photo.png", INSTRUCTION, "--size", "64x80", "--steps", "1", "--quiet", "--device", "cpu"]
    assert main([*command, "--model", str(diffusers_folder), "--json"]) == 0
    assert main(["inspect", str(diffusers_folder)]) == 0
    assert "encoder" in capsys.readouterr().out
