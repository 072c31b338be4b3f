"""Sizes and cropping as Diffusers does them, pictures of every mode, and PNGs that are written whole or not at all."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import struct
import zlib
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.joyimage.image_processor import BUCKETS, JoyImageEditImageProcessor, find_best_bucket
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from joyimage import JoyImageError, MissingFileError, images

sides = st.integers(1, 9000)


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


# --- sizes ---


def test_buckets_at_1024_are_diffusers():
    assert images.buckets(1024) == BUCKETS[1024]
    assert images.buckets() == images.buckets(1024)


def test_at_64_there_is_only_the_square():
    assert images.buckets(64) == [(64, 64)]
    assert {images.best_bucket(*shape, 64) for shape in ((10, 10), (1, 900), (300, 260))} == {(64, 64)}


@pytest.mark.parametrize("base_size", images.BASE_SIZES[1:])
def test_buckets_scale_with_the_base_size(base_size):
    found = images.buckets(base_size)
    scale = base_size // 256
    assert len(found) == len(set(found)) == 49
    assert (base_size, base_size) in found
    for height, width in found:
        assert height % (16 * scale) == width % (16 * scale) == 0
        assert height * width <= base_size**2
        assert max(height, width) <= 4 * min(height, width)
        assert (width, height) in found


@pytest.mark.parametrize("base_size", [0, 255, 1280, 1024.5, "1024"])
def test_bad_base_size_names_the_allowed(base_size):
    with pytest.raises(JoyImageError, match="64, 256, 512, 768, 1024"):
        images.buckets(base_size)
    with pytest.raises(JoyImageError, match="64, 256, 512, 768, 1024"):
        images.best_bucket(10, 10, base_size)


@given(sides, sides)
def test_best_bucket_is_diffusers(height, width):
    assert images.best_bucket(height, width) == find_best_bucket(height, width, 1024)


def test_best_bucket_between_two_is_diffusers():
    ratios = sorted({height / width for height, width in BUCKETS[1024]})
    for low, high in pairwise(ratios):
        middle = (low + high) / 2
        assert images.best_bucket(middle * 2**40, 2**40) == find_best_bucket(middle * 2**40, 2**40, 1024)


@given(sides, sides)
def test_best_bucket_of_every_base_size_has_the_same_shape(height, width):
    base = images.best_bucket(height, width, 256)
    for base_size in images.BASE_SIZES[1:]:
        assert images.best_bucket(height, width, base_size) == tuple(side * base_size // 256 for side in base)


@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, 0), (-1, 5)])
def test_no_bucket_without_pixels(height, width):
    with pytest.raises(JoyImageError, match="no pixels"):
        images.best_bucket(height, width)


@pytest.mark.parametrize("size", [(16, 16), (1024, 768), [32, 4096], (np.int64(64), 64)])
def test_good_sizes_pass(size):
    assert images.check_size(size) == tuple(size)


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        ((1000, 1024), "1008 x 1024"),
        ((7, 100), "16 x 96"),
        ((0, 16), "16 x 16"),
        ((-32, 16), "16 x 16"),
        ((24, 40), "32 x 48"),
    ],
)
def test_bad_sizes_name_the_nearest(size, nearest):
    with pytest.raises(JoyImageError, match=f"multiples of 16; the nearest is {nearest}$"):
        images.check_size(size)


@pytest.mark.parametrize("size", [(1024,), (16, 16, 16), (16.0, 16), ("16", 16), (True, 16)])
def test_sizes_are_two_whole_numbers(size):
    with pytest.raises(JoyImageError, match=r"a size is \(height, width\)"):
        images.check_size(size)


def test_nearest_size_of_another_multiple():
    assert images.nearest_size(100, 95, 64) == (128, 64)


# --- reading ---


def test_path_string_and_picture_agree(tmp_path):
    pixels = noise(5, 7)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    for source in (path, str(path), Image.open(path), pixels):
        loaded = images.load(source)
        assert loaded.mode == "RGB"
        assert (np.asarray(loaded) == pixels).all()


def test_loading_copies():
    original = Image.new("RGB", (2, 2))
    images.load(original).putpixel((0, 0), (1, 2, 3))
    assert original.getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = np.zeros((24, 16, 3), np.uint8)
    upright[:8, :8] = 255  # a white corner at the top left
    stored = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: np.rot90,
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert (np.asarray(images.load(tmp_path / "a.png")) == upright).all()
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.jpg", exif=exif)
    assert images.check_picture(tmp_path / "a.png") == images.check_picture(tmp_path / "a.jpg") == (24, 16)


@pytest.mark.parametrize("exif", [b"nonsense", b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_no_harm(tmp_path, exif):
    Image.new("RGB", (4, 2), "white").save(tmp_path / "a.jpg", exif=exif)
    assert images.load(tmp_path / "a.jpg").size == (4, 2) and images.check_picture(tmp_path / "a.jpg") == (2, 4)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize(("value", "alpha", "expected"), [(0, 0, 255), (0, 255, 0), (0, 128, 127), (100, 51, 224)])
def test_transparency_lies_on_white(tmp_path, mode, value, alpha, expected):
    Image.new("RGBA", (3, 2), (value, value, value, alpha)).convert(mode).save(tmp_path / "a.png")
    assert images.load(tmp_path / "a.png").getpixel((1, 1)) == (expected,) * 3


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_transparent_palette_lies_on_white(tmp_path, suffix):
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / f"a.{suffix}", transparency=0)
    loaded = images.load(tmp_path / f"a.{suffix}")
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (200, 100, 0)]


@pytest.mark.parametrize(
    ("mode", "color", "expected", "suffix"),
    [
        ("1", 1, (255, 255, 255), "png"),
        ("L", 77, (77, 77, 77), "png"),
        ("P", 0, (0, 0, 0), "png"),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0), "tif"),
        ("CMYK", (255, 255, 255, 255), (0, 0, 0), "jpg"),
        ("YCbCr", (128, 128, 128), (128, 128, 128), "tif"),
    ],
)
def test_opaque_modes(tmp_path, mode, color, expected, suffix):
    Image.new(mode, (16, 16), color).save(tmp_path / f"a.{suffix}")
    assert images.load(tmp_path / f"a.{suffix}").getpixel((3, 3)) == expected


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_gray_is_scaled_and_rounded(tmp_path, suffix):
    values = np.array([[0, 128, 129, 255, 32767, 65406, 65407, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    loaded = np.asarray(images.load(tmp_path / f"a.{suffix}"))
    assert loaded[0, :, 0].tolist() == [0, 0, 1, 1, 127, 254, 255, 255]
    assert (loaded[..., 0] == loaded[..., 2]).all()


def test_deep_pictures_of_all_modes():
    assert images.load(Image.new("I", (1, 1), 65535)).getpixel((0, 0)) == (255, 255, 255)
    assert images.load(Image.new("I;16B", (1, 1), 0x8000)).getpixel((0, 0)) == (128, 128, 128)
    assert images.load(Image.new("F", (1, 1), 0.5)).getpixel((0, 0)) == (128, 128, 128)
    assert images.load(Image.new("F", (1, 1), 1.0)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(("mode", "value"), [("I", 65536), ("I", -1), ("F", 1.5), ("F", -0.1), ("F", float("nan"))])
def test_deep_pictures_of_unknown_range_are_refused(mode, value):
    with pytest.raises(JoyImageError, match=f"pixels of mode {mode} run from .*; scale them to 0 to"):
        images.load(Image.new(mode, (2, 2), value))


def png_of_16_bit_colour(values: list[int]) -> bytes:
    """One pixel of 16-bit RGB, which Pillow reads and cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixels = zlib.compress(b"\0" + struct.pack(">3H", *values))
    header = chunk(b"IHDR", struct.pack(">2I5B", 1, 1, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_16_bit_colour_keeps_its_high_byte(tmp_path):
    (tmp_path / "a.png").write_bytes(png_of_16_bit_colour([0x1234, 0, 0xFFFF]))
    assert images.load(tmp_path / "a.png").getpixel((0, 0)) == (0x12, 0, 0xFF)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animations_give_their_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), color) for color in ("white", "black")]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert images.load(tmp_path / f"a.{suffix}").getpixel((4, 4)) == (255, 255, 255)


def test_missing_file(tmp_path):
    with pytest.raises(MissingFileError, match=r"nothing\.png does not exist"):
        images.load(tmp_path / "nothing.png")


@pytest.mark.parametrize("content", [b"", b"hello, this is text", b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_no_pictures(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(JoyImageError, match=r"a\.png is not a picture"):
        images.load(tmp_path / "a.png")


def test_a_png_is_checked_undecoded(tmp_path):
    Image.fromarray(noise(64, 64)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    assert images.check_picture(tmp_path / "a.png") == images.check_picture(io.BytesIO(data)) == (64, 64)
    for damaged in (data[:-5], data[:5000], data[:5000] + b"?" + data[5001:], b"", b"no picture"):
        (tmp_path / "b.png").write_bytes(damaged)
        for source in (tmp_path / "b.png", io.BytesIO(damaged)):
            with pytest.raises(JoyImageError, match=r"picture|read"):
                images.check_picture(source)
    with pytest.raises(MissingFileError):
        images.check_picture(tmp_path / "c.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "webp"])
def test_truncated_files(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(JoyImageError, match=path.name):
        images.load(path)


WRITTEN = ["png", "jpg", "gif", "tif", "webp", "bmp", "dds", "avif", "ppm", "tga", "ico", "pcx", "sgi", "jp2"]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, bytes]:
    """A small picture in each format that Pillow writes here, with metadata where it takes them."""
    folder = tmp_path_factory.mktemp("written")
    picture = Image.fromarray(noise(24, 20))
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010E: "a description", 0x0110: "a camera"})
    files = {}
    for suffix in WRITTEN:
        with contextlib.suppress(KeyError, ValueError, OSError):  # a format that this Pillow was built without
            picture.save(folder / f"a.{suffix}", exif=exif)
            files[suffix] = (folder / f"a.{suffix}").read_bytes()
    return files


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_pictures_are_read_or_refused_by_name(written, tmp_path, data):
    """Pillow's readers raise NotImplementedError, TypeError, struct.error and more for them."""
    suffix = data.draw(st.sampled_from(sorted(written)))
    content = bytearray(written[suffix])
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=6)
    ):
        content[place] = value
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        assert images.load(path).mode == "RGB"
    except JoyImageError as error:
        assert path.name in str(error)


@pytest.mark.parametrize("error", [NotImplementedError(), RuntimeError("no"), TypeError("no"), struct.error("no")])
def test_whatever_a_reader_raises_is_one_error_of_ours(tmp_path, monkeypatch, error):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def broken(self):
        raise error

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", broken)
    with pytest.raises(JoyImageError, match=rf"cannot read .*a\.png: {str(error) or 'NotImplementedError'}"):
        images.load(tmp_path / "a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes with names of files")
def test_a_pipe_is_refused_unread(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for read in (images.load, images.read_parameters):
        with pytest.raises(JoyImageError, match=r"a\.png: it is no regular file"):
            read(tmp_path / "a.png")


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(JoyImageError, match=f"cannot read {tmp_path}: .*directory"):
        images.load(tmp_path)


@pytest.mark.slow
def test_a_file_that_would_exhaust_the_memory_is_refused(tmp_path):
    """20000 x 20000 pixels of one bit take 50 KB on disk and 1.6 GB in memory."""
    Image.new("1", (20000, 20000)).save(tmp_path / "bomb.png")
    with pytest.raises(JoyImageError, match=r"cannot read .*bomb\.png: Image size \(400000000 pixels\) exceeds"):
        images.load(tmp_path / "bomb.png")


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_pictures_without_pixels(size):
    with pytest.raises(JoyImageError, match="no pixels"):
        images.load(Image.new("RGB", size))
    with pytest.raises(JoyImageError, match="cannot read the picture"):
        images.load(np.zeros((*size, 3), np.uint8))


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((3, 4, 4), np.uint8)],
)
def test_arrays_of_other_forms_are_refused(array):
    with pytest.raises(JoyImageError, match=r"uint8 \(H, W, 3\), not"):
        images.load(array)


@pytest.mark.parametrize("source", [None, 3, torch.zeros(4, 4, 3), b"a.png"])
def test_other_sources_are_refused(source):
    with pytest.raises(JoyImageError, match=f"not {type(source).__name__}"):
        images.load(source)


@pytest.mark.parametrize("size", [(1, 1), (8000, 6000)])
def test_smallest_and_large_photos(tmp_path, size):
    Image.new("L", size, 90).save(tmp_path / "a.jpg")
    picture = images.load(tmp_path / "a.jpg")
    covered = images.cover(picture, images.best_bucket(picture.height, picture.width, 256))
    assert np.asarray(covered).min() == np.asarray(covered).max() == 90


# --- cropping ---


def scaled(height: int, width: int, size: tuple[int, int]) -> tuple[float, float]:
    scale = max(size[0] / height, size[1] / width)
    return height * scale, width * scale


@settings(max_examples=60)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 6), st.integers(1, 6))
def test_cover_is_diffusers_to_the_pixel(height, width, rows, columns):
    picture = Image.fromarray(noise(height, width))
    size = (16 * rows, 16 * columns)
    assume(math.prod(scaled(height, width, size)) <= 32 * math.prod(size))  # strips are refused: below
    ours = images.cover(picture, size)
    assert (ours.height, ours.width) == size
    assert (np.asarray(ours) == np.asarray(JoyImageEditImageProcessor().resize_center_crop(picture, size))).all()


@pytest.mark.parametrize("size", [(480, 640), (333, 1000), (512, 512), (1300, 700)])
def test_cover_of_buckets_is_diffusers_to_the_pixel(size):
    picture = Image.fromarray(noise(*size))
    bucket = images.best_bucket(*size, 512)
    theirs = JoyImageEditImageProcessor().resize_center_crop(picture, bucket)
    assert (np.asarray(images.cover(picture, bucket)) == np.asarray(theirs)).all()


@settings(max_examples=60)
@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from(images.buckets(256)))
def test_the_scaled_picture_never_falls_short(height, width, bucket):
    """Where a crop reaches beyond the picture it is black."""
    assume(math.prod(scaled(height, width, bucket)) <= 16 * math.prod(bucket))
    covered = images.cover(Image.new("L", (width, height), 255), bucket)
    assert covered.size == bucket[::-1]
    assert covered.getextrema() == (255, 255)


@pytest.mark.parametrize("size", [(1, 8000), (8000, 1)])
def test_strips_are_refused_before_they_fill_the_memory(size):
    picture = Image.fromarray(noise(*size))
    with pytest.raises(JoyImageError, match=f"{size[0]} x {size[1]} is too narrow for .*crop it first"):
        images.cover(picture, images.best_bucket(*size))


def test_long_screenshots_are_covered():
    assert images.cover(Image.new("RGB", (100, 3000)), (512, 128)).size == (128, 512)


# --- tensors ---


def test_to_tensor_is_diffusers():
    picture = Image.fromarray(noise(16, 24))
    tensor = images.to_tensor(picture)
    theirs = VaeImageProcessor(do_resize=False).preprocess(picture)
    assert tensor.shape == (1, 3, 16, 24)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert (tensor - theirs).abs().max() <= 2e-7
    assert images.to_tensor(Image.new("RGB", (1, 1), (0, 255, 0))).flatten().tolist() == [-1, 1, -1]


def test_to_tensor_wants_rgb():
    with pytest.raises(JoyImageError, match="mode RGBA must go through `load`"):
        images.to_tensor(Image.new("RGBA", (2, 2)))


def test_there_and_back_is_exact():
    picture = Image.fromarray(np.arange(256 * 3, dtype=np.uint16).astype(np.uint8).reshape(16, 16, 3))
    (back,) = images.to_pil(images.to_tensor(picture))
    assert (np.asarray(back) == np.asarray(picture)).all()


def test_levels_are_rounded_and_clipped():
    levels = torch.tensor([0.49, 0.51, 99.6, 254.49, 254.51, -20, 300])
    row = (levels / 127.5 - 1).expand(2, 3, 1, 7)
    pictures = images.to_pil(row)
    assert len(pictures) == 2
    for picture in pictures:
        assert np.asarray(picture)[0, :, 0].tolist() == [0, 1, 100, 254, 255, 0, 255]


def test_to_pil_is_diffusers():
    values = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ours = np.stack([np.asarray(picture) for picture in images.to_pil(values)])
    theirs = np.stack([np.asarray(picture) for picture in VaeImageProcessor().postprocess(values)])
    assert (ours == theirs).all()


def test_to_pil_takes_other_float_types():
    assert images.to_pil(torch.full((1, 3, 2, 2), 1.0, dtype=torch.bfloat16))[0].getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_pixels_are_an_error(value):
    tensor = torch.zeros(3, 3, 2, 2)
    tensor[1, 0, 0, 0] = value
    with pytest.raises(JoyImageError, match="NaN or infinite pixels in picture 1 of 3"):
        images.to_pil(tensor)


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 4, 4, 4), (1, 4, 4, 3)])
def test_to_pil_wants_three_channels(shape):
    with pytest.raises(JoyImageError, match=r"shape \(B, 3, H, W\), not"):
        images.to_pil(torch.zeros(shape))


# --- saving ---

PARAMETERS = {"prompt": 'Put "雪" on the\nsign', "seed": 3, "size": [1024, 768], "shift": 1.5, "negative": None}


def test_parameters_travel_in_the_png(tmp_path):
    picture = Image.fromarray(noise(6, 5))
    images.save_png(picture, tmp_path / "a.png", PARAMETERS)
    assert images.read_parameters(tmp_path / "a.png") == PARAMETERS
    assert (np.asarray(Image.open(tmp_path / "a.png")) == np.asarray(picture)).all()
    assert json.loads(Image.open(tmp_path / "a.png").text["joyimage"]) == PARAMETERS
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_saving_replaces(tmp_path):
    for seed in (1, 2):
        images.save_png(Image.new("RGB", (2, 2)), str(tmp_path / "A.PNG"), {"seed": seed})
    assert images.read_parameters(tmp_path / "A.PNG") == {"seed": 2}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken"), MemoryError()], ids=repr)
def test_an_interrupted_save_leaves_the_old_file_and_nothing_else(tmp_path, error):
    images.save_png(Image.new("RGB", (2, 2)), tmp_path / "a.png", {"seed": 1})
    picture = Image.new("RGB", (64, 64))
    begun = []

    def load():
        """Pillow asks for the pixels before it writes, and again once the header is written: the old file is there."""
        begun.append(len(list(tmp_path.iterdir())))
        if len(begun) == 2:
            raise error

    picture.load = load
    with pytest.raises(type(error)):
        images.save_png(picture, tmp_path / "a.png", {"seed": 2})
    assert begun == [2, 2]
    assert images.read_parameters(tmp_path / "a.png") == {"seed": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_refusing_disk_is_one_error_and_no_leftover(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(JoyImageError, match=r"cannot write .*a\.png: .*irectory"):
        images.save_png(Image.new("RGB", (2, 2)), tmp_path / "a.png", {})
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("parameters", [{"latent": object()}, {"shift": float("nan")}])
def test_parameters_that_json_cannot_hold_write_nothing(tmp_path, parameters):
    with pytest.raises((TypeError, ValueError), match="JSON"):
        images.save_png(Image.new("RGB", (2, 2)), tmp_path / "a.png", parameters)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_an_error_and_not_made(tmp_path):
    with pytest.raises(MissingFileError, match=r"the folder .*typo does not exist; make it first"):
        images.save_png(Image.new("RGB", (2, 2)), tmp_path / "typo" / "a.png", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.jpg", "a", "png"])
def test_only_png_names(tmp_path, name):
    with pytest.raises(JoyImageError, match=r"must end in \.png"):
        images.save_png(Image.new("RGB", (2, 2)), tmp_path / name, {})


@pytest.mark.parametrize("text", ["[1]", "3", "null", "{", "[" * 100_000])
def test_parameters_that_are_none(tmp_path, text):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(images.PARAMETERS, text)
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png", pnginfo=chunks)
    with pytest.raises(JoyImageError, match=r"cannot read .*a\.png: "):
        images.read_parameters(tmp_path / "a.png")


def test_pictures_without_parameters(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    with pytest.raises(JoyImageError, match=r"a\.png: it carries no parameters"):
        images.read_parameters(tmp_path / "a.png")
    with pytest.raises(MissingFileError):
        images.read_parameters(tmp_path / "b.png")
