"""Pictures from requests and into answers, as bytes; what stands at an allowed address is fetched before."""

from __future__ import annotations

import base64
import binascii
import io
import math
import re
from typing import Any

from PIL import Image, UnidentifiedImageError

from ...errors import JoyImageError
from ...images import decoding, load, load_mask
from .errors import ApiError, refused

FORMATS = ("PNG", "JPEG", "WEBP")  # Pillow reads many more, some of them by other programs
OUTPUTS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)
NO_ADDRESS = "pictures come as data URLs, such as data:image/png;base64,…; this server opens no addresses or files"
NOT_ALLOWED = "pictures come as data URLs, or from addresses of the hosts that this server allows"


def from_data_url(text: str, param: str) -> bytes:
    """The bytes in a data URL. Raises `ApiError` for any other address, which is not opened."""
    match = DATA_URL.match(text)
    if match is None:
        raise refused(NO_ADDRESS, param, "not_a_data_url")
    try:
        return base64.b64decode(text[match.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise refused("the data URL is not in base64", param) from None


def read(data: bytes, param: str, most: int, *, mask: bool = False) -> Image.Image:
    """An upright RGB picture, or a mask of mode F, of at most `most` pixels.

    The size is looked at before anything is decoded. Raises `ApiError` for what is no PNG, JPEG or WebP, is damaged, or
    has too many pixels.
    """
    try:
        with decoding("the picture"):
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            if math.prod(image.size) > most:
                raise Image.DecompressionBombError
        with image:
            return (load_mask if mask else load)(image)
    except JoyImageError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):
            message = f"a picture has more than {most:,} pixels: scale it down"
            raise ApiError(413, message, param=param, code="too_many_pixels") from None
        unknown = isinstance(error.__context__, UnidentifiedImageError)
        message = f"this is not a picture in {', '.join(FORMATS)}" if unknown else str(error)
        raise refused(message, param, "invalid_image") from None


def encode(picture: Image.Image, kind: str, quality: int) -> bytes:
    """A picture in one of `OUTPUTS`; `quality`, 1 to 100, is that of JPEG and WebP."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {} if kind == "png" else {"quality": quality}
    picture.save(buffer, format=OUTPUTS[kind], **options)
    return buffer.getvalue()


def as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
