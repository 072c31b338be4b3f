from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from joyimage.errors import JoyImageError
from joyimage.images import from_batch, load, to_batch


def picture(seed: int, mode: str = "RGB", size: tuple[int, int] = (7, 5)) -> Image.Image:
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_every_level_survives_the_way_there_and_back():
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3))
    batch = to_batch([ramp])
    assert batch.shape == (1, 1, 256, 3) and batch.dtype == torch.float32
    assert (batch.min(), batch.max()) == (0, 1)
    assert from_batch(batch)[0].tobytes() == ramp.tobytes()


def test_pictures_of_a_batch_keep_their_order():
    pictures = [picture(0), picture(1)]
    assert [p.tobytes() for p in from_batch(to_batch(pictures))] == [p.tobytes() for p in pictures]


def test_values_are_rounded_and_clipped():
    batch = torch.tensor([-1.0, 0.49 / 255, 0.51 / 255, 254.5001 / 255, 7.0]).reshape(1, 1, 5, 1).expand(1, 1, 5, 3)
    assert np.asarray(from_batch(batch)[0])[0, :, 0].tolist() == [0, 0, 1, 255, 255]


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_gray_and_transparent_batches_equal_files(mode):
    original = picture(3, mode)
    batch = torch.from_numpy(np.array(original)).float().reshape(1, 5, 7, -1) / 255
    assert from_batch(batch)[0].tobytes() == load(original).tobytes()


def test_other_float_types_are_taken():
    batch = to_batch([picture(4)])
    assert from_batch(batch.bfloat16())[0].mode == "RGB"
    assert from_batch(batch.double())[0].tobytes() == picture(4).tobytes()


@pytest.mark.parametrize("shape", [(5, 7, 3), (1, 5, 7, 2), (1, 0, 7, 3), (0, 5, 7, 3), (1, 3, 5, 7)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(JoyImageError, match="shape"):
        from_batch(torch.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(value):
    batch = torch.zeros(1, 2, 2, 3)
    batch[0, 1, 1, 2] = value
    with pytest.raises(JoyImageError, match="NaN or infinite"):
        from_batch(batch)
