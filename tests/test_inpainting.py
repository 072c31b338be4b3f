"""Edits of a part of a picture and around it: what stays, what changes, and what is refused before any work."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from joyimage import JoyImage, JoyImageError, prompts
from joyimage.demo import asset
from joyimage.images import cover, to_tensor
from joyimage.inpainting import EDGE, GRAY, OVERLAP, Area, read_mask, regions, soft_edge, within
from joyimage.sampling import sample, schedule
from tools.photograph import photograph

WISH = "Remove the pink cylinder."
FAST = {"steps": 2}
SEEN = "A blue cone, a pink cylinder and a green cone on plain beige ground."  # by the bundled model in `scene`


@pytest.fixture(scope="module")
def model():
    return JoyImage.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def scene():
    return asset("move.png").convert("RGB")


@pytest.fixture(scope="module")
def mask(scene):
    mask = np.zeros((scene.height, scene.width), np.uint8)
    mask[13:51, 30:] = 255
    return mask


def pixels(picture) -> np.ndarray:
    return np.asarray(picture, np.int16)


def test_all_outside_the_mask_stays_and_the_inside_changes(model, scene, mask):
    [made] = model.edit(scene, WISH, mask=mask, **FAST)
    outside = mask == 0
    assert (pixels(made)[outside] == pixels(scene)[outside]).all()
    assert np.abs(pixels(made) - pixels(scene))[15:49, 32:].mean() > 1
    tensor = model.edit(scene, WISH, mask=mask, output="pt", **FAST)[0].permute(1, 2, 0).numpy()
    array = model.edit(scene, WISH, mask=mask, output="np", **FAST)[0]
    for values in (tensor, array):
        assert (np.rint(values * 255) == pixels(made)).all()
        assert np.abs(values[outside] - pixels(scene)[outside] / 255).max() < 1e-6


def test_a_picture_of_its_own_size_keeps_its_own_pixels(model):
    picture = photograph().resize((96, 80))
    mask = Image.new("L", picture.size)
    mask.paste(255, (20, 10, 60, 70))
    [made] = model.edit(picture, WISH, mask=mask, base_size=None, **FAST)
    assert made.size == picture.size
    same = (pixels(made) == pixels(picture)).all(-1)
    assert same[np.asarray(mask) == 0].all() and not same[12:68, 22:58].all()


def test_the_mask_is_scaled_and_cropped_as_its_picture(model):
    picture = photograph().resize((300, 200))
    mask = Image.new("L", picture.size)
    mask.paste(255, (130, 40, 220, 160))
    [made] = model.edit(picture, WISH, mask=mask, **FAST)
    fitted, outside = cover(picture, (64, 64)), np.asarray(cover(read_mask(mask), (64, 64))) == 0
    assert made.size == (64, 64) and 0.3 < outside.mean() < 0.9
    assert (pixels(made)[outside] == pixels(fitted)[outside]).all()
    assert (pixels(made) != pixels(fitted)).any()


def test_of_several_pictures_the_last_is_edited(model, scene, mask):
    other = photograph().resize((40, 90))
    [made] = model.edit([other, scene], WISH, mask=mask, size=(64, 64), base_size=None, **FAST)
    assert (pixels(made)[mask == 0] == pixels(scene)[mask == 0]).all()
    with pytest.raises(JoyImageError, match="the mask is 64 x 64 and its picture 90 x 40"):
        model.edit([scene, other], WISH, mask=mask)


def test_an_edit_without_a_mask_is_what_it_was(model, scene):
    """A white mask changes all but what rounding leaves."""
    plain = model.edit(scene, WISH, output="latent", **FAST)
    white = model.edit(scene, WISH, mask=np.full((64, 64), 255, np.uint8), output="latent", **FAST)
    torch.testing.assert_close(white, plain, atol=1e-5, rtol=0)


def test_a_latent_is_the_pictures_own_outside(model, scene, mask):
    clean = model.vae.encode(to_tensor(scene))
    made = model.edit(scene, WISH, mask=mask, output="latent", **FAST)
    kept = torch.from_numpy(mask == 0).reshape(8, 8, 8, 8).all(3).all(1)  # whole cells of the latent
    assert kept.any()
    torch.testing.assert_close(made[..., kept], clean[..., kept], atol=1e-5, rtol=0)
    assert (made - clean)[..., ~kept].abs().max() > 0.1


def test_strength_noise_and_solvers(model, scene, mask):
    run = partial(model.edit, scene, WISH, mask=mask, steps=6)
    outside = mask == 0
    pictures = [run(strength=0.5), run(), run(solver="heun"), run(forecast=2), run(sigmas=[0.7, 0.3])]
    assert len({picture.tobytes() for [picture] in pictures}) == len(pictures)
    assert all((pixels(picture)[outside] == pixels(scene)[outside]).all() for [picture] in pictures)
    noise = torch.randn(1, 16, 1, 8, 8, generator=torch.Generator().manual_seed(3)).float()
    given, [seeded] = run(latent=noise)[0], run()
    assert (pixels(given)[outside] == pixels(scene)[outside]).all()
    assert given.tobytes() != seeded.tobytes()


def test_a_weak_run_stays_near_the_picture(model, scene, mask):
    far = [
        np.abs(pixels(model.edit(scene, WISH, mask=mask, steps=20, strength=strength)[0]) - pixels(scene)).mean()
        for strength in (0.05, 1.0)
    ]
    assert far[0] < far[1]


def test_batches_take_one_mask_for_all_or_one_each(model, scene, mask):
    other = Image.fromarray(np.ascontiguousarray(np.asarray(scene)[:, ::-1]))
    mirrored = np.ascontiguousarray(mask[:, ::-1])
    edits, seeds = [[scene], [other]], [4, 9]
    each = model.edit(edits, WISH, mask=[mask, mirrored], seed=seeds, **FAST)
    shared = model.edit(edits, WISH, mask=mask, seed=seeds, **FAST)
    alone = model.edit(other, WISH, mask=mirrored, seed=9, **FAST)
    assert each[0].tobytes() == shared[0].tobytes() != shared[1].tobytes()
    assert each[1].tobytes() == alone[0].tobytes()
    together = model.edit(edits, WISH, mask=[mask, mirrored], seed=seeds, batch_size=2, **FAST)
    assert all(np.abs(pixels(a) - pixels(b)).max() <= 1 for a, b in zip(together, each, strict=True))
    assert (pixels(together[1])[mirrored == 0] == pixels(other)[mirrored == 0]).all()


def test_count_gives_several_within_one_mask(model, scene, mask):
    pictures = model.edit(scene, [WISH, "Make it night."], mask=mask, count=2, batch_size=3, **FAST)
    assert len({picture.tobytes() for picture in pictures}) == 4
    assert all((pixels(picture)[mask == 0] == pixels(scene)[mask == 0]).all() for picture in pictures)


def test_masked_and_whole_edits_do_not_share_a_forward(model, scene, mask):
    conditionings = model.condition(scene, WISH, mask=mask) + model.condition(scene, WISH)
    both = model.render(conditionings, batch_size=2, **FAST)
    assert both[0].tobytes() == model.edit(scene, WISH, mask=mask, **FAST)[0].tobytes()
    assert both[1].tobytes() == model.edit(scene, WISH, **FAST)[0].tobytes()


def test_a_budget_changes_nothing(model, scene, mask):
    small = JoyImage.load("tiny", device="cpu", memory="18MB")
    for change in ({"mask": mask}, {"outpaint": (16, 0, 0, 0)}):
        [own], [other] = (each.edit(scene, **change, **FAST) for each in (model, small))
        assert np.abs(pixels(own) - pixels(other)).max() <= 1


def test_a_callback_sees_the_masked_estimate_and_can_stop(model, scene, mask):
    clean = model.vae.encode(to_tensor(scene))
    seen = []

    def stop(step, sigma, denoised):
        seen.append(denoised)
        return step < 1

    [made] = model.edit(scene, WISH, mask=mask, steps=5, callback=stop)
    assert len(seen) == 2
    torch.testing.assert_close(seen[0][..., 0], clean[..., 0], atol=1e-5, rtol=0)  # far outside
    assert (pixels(made)[mask == 0] == pixels(scene)[mask == 0]).all()


def test_the_rule_is_comfyuis():
    """In each step: what the model sees is noised outside the mask, what it estimates is clean there."""
    generator = torch.Generator().manual_seed(0)
    clean, noise, goal = (torch.randn(2, 16, 1, 4, 6, generator=generator) for _ in range(3))
    mask = torch.rand(2, 1, 1, 4, 6, generator=generator)
    levels = schedule(5)

    def velocity(x, sigma):
        return (x - (0.3 * x + goal)) / sigma

    found = sample(within(velocity, mask, clean, noise), noise, levels)
    x = noise
    for sigma, following in pairwise(levels.tolist()):
        seen = x * mask + (sigma * noise + (1 - sigma) * clean) * (1 - mask)
        denoised = (0.3 * seen + goal) * mask + clean * (1 - mask)
        x = x + (following - sigma) * (x - denoised) / sigma
    torch.testing.assert_close(found, x, atol=1e-5, rtol=0)


def test_the_soft_edge_lies_within_the_mask():
    mask = torch.zeros(40, 50)
    mask[8:30, 20:] = 1
    share = soft_edge(mask)
    assert (share <= mask).all() and share[mask == 0].abs().max() == 0
    border = share[20, 20 : 20 + 2 * EDGE + 1]
    assert (border.diff() > 0).all() and 0 < border[0] < 0.5 and border[-1] > 0.999
    assert share[20, -1] > 0.999  # where the mask goes on beyond the picture


def test_the_latents_mask_is_the_mean_of_the_four_in_the_middle():
    mask = torch.rand(16, 32, generator=torch.Generator().manual_seed(0))
    area = Area(Image.new("RGB", (1, 1)), "", Image.new("RGB", (32, 16)), mask, mask)
    middle = mask.reshape(2, 8, 4, 8)[:, 3:5, :, 3:5].mean((1, 3))
    torch.testing.assert_close(area.latent_mask[0, 0, 0], middle)


def masks_of_all_kinds(folder, mask: np.ndarray) -> list:
    gray, fractions = Image.fromarray(mask), mask / 255
    gray.save(folder / "mask.png")
    erased = Image.new("RGBA", gray.size, "teal")
    erased.putalpha(Image.fromarray(255 - mask))
    opaque = gray.convert("RGBA")
    tensor = torch.from_numpy(fractions).float()
    return [
        str(folder / "mask.png"), folder / "mask.png", gray, gray.convert("RGB"), gray.convert("1"), erased, opaque,
        mask, mask == 255, mask[..., None], np.repeat(mask[..., None], 3, 2), fractions, fractions.astype(np.float16),
        tensor, tensor[None], tensor[None, None], tensor.bfloat16(), torch.from_numpy(mask), tensor > 0.5,
    ]  # fmt: skip


def test_a_mask_may_be_a_file_a_picture_an_array_or_a_tensor(tmp_path, mask):
    for given in masks_of_all_kinds(tmp_path, mask):
        read = read_mask(given)
        assert read.mode == "F" and np.array_equal(np.asarray(read), mask / 255)


def test_a_mask_turns_as_its_picture_by_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(np.full((4, 9), 255, np.uint8)).save(tmp_path / "turned.png", exif=exif)
    assert read_mask(tmp_path / "turned.png").size == (4, 9)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (112, 64)),
        ({"base_size": None}, (112, 64)),
        ({"base_size": 256}, (336, 192)),
        ({"size": (32, 64)}, (64, 32)),
    ],
)
def test_outpainting_widens_the_picture(model, scene, options, size):
    [made] = model.edit(scene, WISH, outpaint=(16, 0, 32, 0), **options, **FAST)
    assert made.size == size


def test_a_large_canvas_comes_at_the_area_of_the_published_models(scene):
    [region] = regions([[scene.resize((2000, 1000))]], outpaint=(400, 0, 0, 0))
    assert region._size("auto", 64) == (656, 1584)
    assert region._size(None, None) == (1008, 2400)


def test_an_outpainted_picture_keeps_all_but_the_rim_next_to_what_is_new(model, scene):
    [made] = model.edit(scene, outpaint=(16, 0, 0, 32), **FAST)
    assert made.size == (80, 96)
    kept = pixels(made)[: 64 - OVERLAP, 16 + OVERLAP :]
    assert (kept == pixels(scene)[: 64 - OVERLAP, OVERLAP:]).all()
    gray = np.array(GRAY)
    assert (pixels(made)[:, :16] != gray).any(-1).mean() > 0.9 and (pixels(made)[64:] != gray).any(-1).mean() > 0.9


def test_the_rim_is_blended_by_the_square(scene):
    [region] = regions([[scene]], outpaint=(16, 0, 0, 8))
    mask = np.asarray(region.mask)
    assert mask.shape == (72, 80) and (mask[:, :16] == 1).all() and (mask[64:] == 1).all()
    falling = np.square(1 - np.arange(OVERLAP + 1) / OVERLAP)
    np.testing.assert_allclose(mask[20, 16 : 16 + OVERLAP + 1], falling, atol=1e-6)
    np.testing.assert_allclose(mask[64 - OVERLAP : 64, 70], falling[1:][::-1][-OVERLAP:], atol=1e-6)
    assert (mask[: 64 - OVERLAP, 16 + OVERLAP :] == 0).all()


def test_without_an_instruction_the_model_describes_the_picture(model, scene, mask):
    for change, beginning in (({"mask": mask}, prompts.INPAINT), ({"outpaint": (16, 0, 0, 0)}, prompts.OUTPAINT)):
        said = model.edit(scene, beginning + SEEN, **change, **FAST)[0].tobytes()
        assert model.caption(scene) == SEEN
        for empty in (None, "", " ", [None], beginning):
            assert model.edit(scene, empty, **change, **FAST)[0].tobytes() == said
        assert model.edit(scene, WISH, **change, **FAST)[0].tobytes() != said
    for empty, message in ((None, "the prompt cannot be None"), ("", "prompt 1 of 1 is empty")):
        with pytest.raises(JoyImageError, match=message):
            model.edit(scene, empty)


def test_each_picture_is_described_once(model, scene, mask, monkeypatch):
    asked = []
    monkeypatch.setattr(model, "caption", lambda picture: asked.append(picture.size) or f"A picture, {len(asked)}.")
    texts = []
    encode = model.encoder.encode
    monkeypatch.setattr(model.encoder, "encode", lambda given, images: texts.extend(given) or encode(given, images))
    model.condition([[scene], [scene]], [None, WISH], mask=mask)
    model.condition(scene, ["", WISH, ""], outpaint=(16, 0, 0, 0))
    assert asked == [(64, 64), (64, 64)]  # the picture as it was given, without a border
    sentences = [prompts.INPAINT + "A picture, 1.", prompts.OUTPAINT + "A picture, 2."]
    assert [text for text in texts if text] == [sentences[0], WISH, sentences[1], WISH]


WHITE = np.full((64, 64), 255, np.uint8)
BAD = [
    ({"mask": np.zeros((64, 64), np.uint8)}, "black all over"),
    ({"mask": np.full((64, 64), 0.0019)}, "black all over"),  # of 255, less than half a level
    ({"mask": WHITE[:60]}, "the mask is 60 x 64 and its picture 64 x 64"),
    ({"mask": np.full((64, 64), np.nan)}, "without NaN"),
    ({"mask": np.full((64, 64), 1.5)}, r"\[0, 1\]"),
    ({"mask": WHITE.astype(np.int32)}, "not int32"),
    ({"mask": torch.ones(2, 64, 64)}, r"not float32 \(2, 64, 64\)"),
    ({"mask": "nowhere.png"}, "nowhere.png does not exist"),
    ({"mask": 3}, "the mask cannot be 3"),
    ({"mask": [WHITE, WHITE]}, "2 masks for 1 edits"),
    ({"mask": np.pad(WHITE[:2, :2], ((9, 53), (9, 53)))}, "too thin"),
    ({"mask": WHITE, "outpaint": (1, 0, 0, 0)}, "cannot go together"),
    ({"outpaint": (0, 0, 0, 0)}, "adds nothing"),
    ({"outpaint": (-1, 0, 0, 9)}, "from 0 to 16384"),
    ({"outpaint": (0, 0, 99999, 0)}, "from 0 to 16384"),
    ({"outpaint": (0, 0, 16384, 0)}, "16384 pixels a side are the most"),
    ({"outpaint": (0, 0, 16000, 16000)}, "178,956,970 in all"),
    ({"outpaint": (1, 2, 3)}, "left, top, right, bottom"),
    ({"outpaint": 16}, "left, top, right, bottom"),
    ({"outpaint": (1.5, 0, 0, 0)}, "whole numbers"),
    ({"mask": WHITE, "instruction": []}, "no prompt"),
    ({"mask": WHITE, "instruction": 5}, "the prompt cannot be 5"),
    ({"mask": WHITE, "steps": 0}, "steps"),
    ({"mask": WHITE, "latent": torch.zeros(1, 16, 1, 4, 4)}, "the latent has shape"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named_before_any_work(model, scene, monkeypatch, change, message):
    for name in ("encode", "answer"):
        monkeypatch.setattr(model.encoder, name, lambda *_, **__: pytest.fail("the encoder was asked"))
    with pytest.raises(JoyImageError, match=message):
        model.edit(scene, **change)


def test_a_mask_needs_a_picture(model):
    with pytest.raises(JoyImageError, match="need a picture"):
        model.condition([[]], WISH, mask=WHITE)
