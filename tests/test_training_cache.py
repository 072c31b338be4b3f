"""A training set, encoded once: what is kept, what is not encoded again, and what a kill leaves."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
import training_sets as sets
from PIL import Image, ImageDraw

from joyimage import JoyImage
from joyimage.errors import JoyImageError, MissingFileError
from joyimage.images import load, to_tensor
from joyimage.training import pictures
from joyimage.training.caching import Samples, cache
from joyimage.training.encoders import ModelEncoders
from joyimage.training.examples import Example
from joyimage.training.layouts import read
from joyimage.training.masks import difference_weights, mask_weights
from joyimage.training.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model() -> JoyImage:
    return JoyImage.load("tiny", device="cpu")


@pytest.fixture
def examples(tmp_path) -> list[Example]:
    root = sets.folders(tmp_path / "set")
    return read(root / "targets", [root / "control0"])


class Counting(ModelEncoders):
    """A model's encoders, and what has visited them."""

    def __init__(self, model: JoyImage):
        super().__init__(model)
        self.seen: list[str] = []

    def texts(self, pixels, tokens):
        return self._counted(super().texts(pixels, tokens), lambda texts, _: texts)

    def pictures(self, pixels):
        return self._counted(super().pictures(pixels), lambda _: ["picture"])

    def _counted(self, visit, names):
        @contextmanager
        def counted():
            with visit as encode:

                def noted(*given):
                    self.seen.extend(names(*given))
                    return encode(*given)

                yield noted

        return counted()


def same(one: Samples, other: Samples) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b)
        for first, second in zip(one, other, strict=True)
        for a, b in zip(tensors(first), tensors(second), strict=True)
    )


def tensors(sample) -> list[torch.Tensor]:
    return [sample.latent, *sample.references, sample.context, sample.empty, *filter(None.__ne__, [sample.mask])]


def shards(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", sets.LAYOUTS)
def test_samples_are_what_an_edit_is_conditioned_on(model, layout, tmp_path):
    make, _ = sets.LAYOUTS[layout]
    examples = read(make(tmp_path / "set"))
    samples = cache(model, examples, tmp_path / "cache")
    for example, sample in zip(examples, samples, strict=True):
        controls = list(map(pictures.load, example.controls))
        edit = model.condition([controls], example.caption)[0]
        torch.testing.assert_close(sample.context, edit.positive, atol=2e-4, rtol=0)
        torch.testing.assert_close(sample.empty, edit.negative, atol=2e-4, rtol=0)
        assert [tuple(each.shape) for each in sample.references] == [(16, 1, 8, 8)] * len(controls)
        assert all(torch.equal(a[None], b) for a, b in zip(sample.references, edit.references, strict=True))
        with torch.inference_mode():
            assert torch.equal(sample.latent[None], model.vae.encode(to_tensor(pictures.load(example.target))))
        assert sample.mask is None


def test_gradients_pass_what_is_read(model, examples, tmp_path):
    sample = cache(model, examples, tmp_path)[0]
    t, noise = torch.tensor([500.0]), torch.randn(1, 16, 1, 8, 8)
    weight = model.mmdit.double_blocks[0].attn.img_attn_qkv.weight.requires_grad_()
    try:
        inputs = [each[None] for each in (sample.context, *sample.references)]
        model.mmdit(sample.latent[None] + noise, t, inputs[0], inputs[1:]).square().mean().backward()
        assert weight.grad is not None and weight.grad.abs().sum() > 0
    finally:
        weight.requires_grad_(False).grad = None
    assert not any(tensor.is_inference() for tensor in tensors(sample))


def test_a_set_is_a_sequence_with_its_shapes(model, examples, tmp_path):
    samples = cache(model, examples, tmp_path)
    assert samples.shapes == [((8, 8), (8, 8))] * 3
    assert [tensors(a)[0].sum() for a in samples[1:]] == [samples[1].latent.sum(), samples[-1].latent.sum()]
    with pytest.raises(IndexError):
        samples[3]


def test_pictures_in_memory_are_as_good_as_files(model, examples, tmp_path):
    held = [Example(pictures.load(e.target), e.caption, tuple(map(pictures.load, e.controls))) for e in examples]
    assert same(cache(model, held, tmp_path / "held"), cache(model, examples, tmp_path / "files"))


# -- what is not encoded again ----------------------------------------------------------------------------------------


def test_each_text_and_picture_visits_once(model, examples, tmp_path):
    encoders = Counting(model)
    again = [*examples, Example(examples[0].target, "Another caption.", examples[0].controls)]
    first = cache(encoders, again, tmp_path)
    assert sorted(encoders.seen) == sorted([*sets.CAPTIONS, "Another caption.", *[""] * 3, *["picture"] * 6])
    encoders.seen.clear()
    assert cache(encoders, again, tmp_path).key == first.key
    assert cache(encoders, again[::-1], tmp_path).key != first.key
    assert encoders.seen == []


def test_pictures_alone_share_one_empty_prompt(model, tmp_path):
    encoders = Counting(model)
    cache(encoders, read(sets.folders(tmp_path / "set") / "targets"), tmp_path / "cache")
    assert encoders.seen.count("") == 1


def test_what_has_changed_is_encoded_anew_and_nothing_else(model, examples, tmp_path):
    encoders = Counting(model)
    keys = {cache(encoders, examples, tmp_path).key}
    encoders.seen.clear()
    examples[1] = Example(examples[1].target, "Say it otherwise.", examples[1].controls)
    keys.add(cache(encoders, examples, tmp_path).key)
    assert encoders.seen == ["Say it otherwise."]
    encoders.seen.clear()
    sets.target(0, 48).save(examples[2].target)  # another picture of the same name
    keys.add(cache(encoders, examples, tmp_path).key)
    assert encoders.seen == ["picture"]
    encoders.seen.clear()
    Image.new("RGB", (64, 64), "purple").save(examples[0].controls[0], lossless=True)
    keys.add(cache(encoders, examples, tmp_path).key)
    assert sorted(encoders.seen) == sorted(["", examples[0].caption, "picture"])
    encoders.seen.clear()
    assert {*keys, cache(encoders, examples, tmp_path, base_size=256).key} > keys
    assert encoders.seen.count("picture") == 6
    assert len(keys) == 4


def test_another_model_has_another_cache(model, examples, tmp_path):
    encoders = ModelEncoders(model)
    bias = model.encoder.backbone.language_model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        before = bias.clone()
        bias.mul_(1.5)
        changed = ModelEncoders(model)
        bias.copy_(before)
    assert changed.text_identity != encoders.text_identity == ModelEncoders(model).text_identity
    assert changed.picture_identity == encoders.picture_identity


# -- kills ------------------------------------------------------------------------------------------------------------

RUN = """
import sys
sys.path.insert(0, {tests!r})
import training_sets as sets
from joyimage import JoyImage
from joyimage.training.caching import cache
from joyimage.training.layouts import read

def said(*progress):
    print(*progress, flush=True)

examples = read({root!r} + "/targets", [{root!r} + "/control0"])
cache(JoyImage.load("tiny", device="cpu"), examples, {folder!r}, shard=2, progress=said)
"""


@pytest.mark.parametrize("line", ["texts 3 6", "pictures 5 6"])
def test_a_killed_run_goes_on(model, examples, line, tmp_path):
    """Killed after that line: what was written stays, nothing half written is left, and the set is the same."""
    names = {"tests": str(Path(__file__).parent), "root": str(tmp_path / "set"), "folder": str(tmp_path / "killed")}
    command = [sys.executable, "-c", RUN.format(**names)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as run:
        assert any(said.strip() == line for said in run.stdout)
        run.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    assert shards(tmp_path / "killed")
    encoders = Counting(model)
    resumed = cache(encoders, examples, tmp_path / "killed", shard=2)
    whole = cache(model, examples, tmp_path / "whole")
    assert 0 < len(encoders.seen) < 12
    assert resumed.key == whole.key and same(resumed, whole)
    assert all(name.endswith(".safetensors") and not name.startswith(".") for name in shards(tmp_path / "killed"))


@pytest.mark.parametrize("stop", [("texts", 4, 6), ("pictures", 1, 6), ("masks", 2, 3)])
def test_a_cancelled_run_keeps_what_it_has_done(model, examples, stop, tmp_path):
    class Cancelled(Exception):
        pass

    def progress(*told) -> None:
        if told == stop:
            raise Cancelled

    with pytest.raises(Cancelled):
        cache(model, examples, tmp_path / "cache", loss="difference", progress=progress)
    encoders = Counting(model)
    cache(encoders, examples, tmp_path / "cache", loss="difference")
    assert len(encoders.seen) == {"texts": 2 + 6, "pictures": 5, "masks": 0}[stop[0]]


def test_a_damaged_shard_is_named(model, examples, tmp_path):
    samples = cache(model, examples, tmp_path)
    shard = next(tmp_path.glob("latents-*"))
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(JoyImageError, match=rf"{shard.name}: is damaged .* delete it"):
        cache(model, examples, tmp_path)
    shard.unlink()
    with pytest.raises(MissingFileError, match="has been removed; begin again"):
        samples[0]
    assert same(cache(model, examples, tmp_path), samples)


def test_memory_does_not_grow_with_what_is_read(tmp_path):
    store = Store(tmp_path)
    for i in range(12):
        store.write("contexts", {f"{i}": torch.full((2**22,), float(i))})  # 16 MB
    assert [store.read(f"{i}").mean().item() for i in range(4)] == list(range(4))  # the allocator has what it wants
    before = psutil.Process().memory_info().rss
    assert [store.read(f"{i}").mean().item() for i in range(4, 12)] == list(range(4, 12))
    assert psutil.Process().memory_info().rss - before < 48 * 2**20


# -- masks ------------------------------------------------------------------------------------------------------------


def test_the_loss_counts_where_target_and_control_differ(model, examples, tmp_path):
    plain, masked = cache(model, examples, tmp_path), cache(model, examples, tmp_path, loss="difference")
    assert plain.key != masked.key
    mask = masked[0].mask
    assert mask.shape == (1, 1, 8, 8) and mask.min() >= 0 and mask.max() <= 1
    assert (mask[0, 0, :2, :2] == 1).all()  # the box, 16 pixels wide
    assert (mask[0, 0, 4:] == 0).all() and (mask[0, 0, :, 4:] == 0).all()
    assert 0 < mask[0, 0, 0, 3] < mask[0, 0, 0, 2] <= 1  # soft


def test_what_jpeg_changes_is_no_difference():
    image = Image.new("RGB", (64, 64), "teal")
    ImageDraw.Draw(image).ellipse((8, 8, 40, 40), fill="orange")
    data = io.BytesIO()
    image.save(data, "JPEG", quality=90)
    noise = difference_weights(load(Image.open(data)), image)
    assert noise.mean() < 0.1
    edited = image.copy()
    ImageDraw.Draw(edited).rectangle((48, 48, 63, 63), fill="white")
    weights = difference_weights(edited, image)[0, 0]
    assert (weights[6:, 6:] == 1).all() and (weights[:4] == 0).all()
    assert difference_weights(image, image).max() == 0


def test_a_mask_is_averaged_over_the_cells_of_the_latent(model, examples, tmp_path):
    mask = Image.new("L", (128, 128))
    ImageDraw.Draw(mask).rectangle((0, 0, 63, 127), fill=255)
    ImageDraw.Draw(mask).rectangle((64, 0, 71, 127), fill=255)
    mask.save(tmp_path / "mask.png")
    shown = Example(examples[0].target, "x", examples[0].controls, tmp_path / "mask.png")
    weights = cache(model, [shown], tmp_path / "cache", loss="mask")[0].mask
    assert weights.shape == (1, 1, 8, 8)
    assert torch.allclose(weights[0, 0, 0], torch.tensor([1, 1, 1, 1, 0.5, 0, 0, 0]), atol=0.02)
    assert torch.equal(weights, mask_weights(pictures.load_mask(mask).resize((64, 64), Image.Resampling.BILINEAR)))
