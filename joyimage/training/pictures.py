"""The pictures of a training set, wherever they lie: in files, in tars, or in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, TypeAlias

from PIL import Image

from .. import images
from ..errors import JoyImageError
from ..images import Size, decoding
from ..inpainting import read_mask

ORIENTATION = 0x0112  # EXIF's number for it
LYING = (5, 6, 7, 8)  # its values by which width and height change places
READ_BYTES = 2**20
DIGEST_BYTES = 16


@dataclass(frozen=True)
class Member:
    """A file within an uncompressed tar, read where it lies: nothing is unpacked, and any one can be read first."""

    tar: Path
    name: str
    offset: int  # of its first byte in the tar
    size: int  # in bytes

    def read(self) -> bytes:
        """Its bytes. Raises `JoyImageError` if the tar is cut off before their end, `OSError` if it cannot be read."""
        with self.tar.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise JoyImageError(f"{self}: the tar is cut off; download it again")
        return data

    def __str__(self) -> str:
        return f"{self.tar}: {self.name}"


Picture: TypeAlias = Path | Image.Image | Member


def describe(picture: Picture) -> str:
    """What a message calls a picture."""
    if isinstance(picture, Image.Image):
        return f"a picture of {picture.height} x {picture.width} in memory"
    return str(picture)


def load(picture: Picture) -> Image.Image:
    """As an upright RGB picture. Raises as `images.load` does."""
    with _decoded(picture) as source:
        return images.load(source)


def load_mask(picture: Picture) -> Image.Image:
    """As a mask of mode F, from 0 to 1. Raises as `inpainting.read_mask` does, for one that is black all over too."""
    with _decoded(picture) as source:
        return read_mask(source)


def size_of(picture: Picture) -> Size:
    """Height and width of the upright picture in pixels, from its file's header. Raises as `load` does."""
    if isinstance(picture, Path):
        with decoding(picture), Image.open(picture) as image:
            return _upright_size(image)
    with _decoded(picture) as image:
        assert isinstance(image, Image.Image)
        return _upright_size(image)


def digest(picture: Picture) -> str:
    """A hash of its file's bytes, or of its pixels where it is in memory: the same name means the same picture."""
    if isinstance(picture, Image.Image):
        return _hashed(BytesIO(f"{picture.mode} {picture.size} ".encode() + picture.tobytes()))
    with decoding(describe(picture)):
        if isinstance(picture, Member):
            return _hashed(BytesIO(picture.read()))
        with picture.open("rb") as file:
            return _hashed(file)


@contextmanager
def _decoded(picture: Picture) -> Iterator[Path | Image.Image]:
    if not isinstance(picture, Member):
        yield picture
        return
    with decoding(describe(picture)), Image.open(BytesIO(picture.read())) as image:
        image.load()
        yield image


def _upright_size(image: Image.Image) -> Size:
    lying = image.getexif().get(ORIENTATION) in LYING
    return (image.width, image.height) if lying else (image.height, image.width)


def _hashed(file: BinaryIO) -> str:
    found = hashlib.blake2b(digest_size=DIGEST_BYTES)
    while data := file.read(READ_BYTES):
        found.update(data)
    return found.hexdigest()
