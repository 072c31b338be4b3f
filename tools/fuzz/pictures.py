"""Pictures in all formats and modes that Pillow writes, and damage to bytes, to PNG's chunks and to EXIF."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zlib
from random import Random

from PIL import Image, PngImagePlugin

from .mutations import EDGES, damage_bytes, damage_value, json_text

MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I", "F", "YCbCr", "LAB")
ANIMATED = ("GIF", "PNG", "WEBP", "TIFF", "AVIF")
OTHERS = (
    "BLP", "DIB", "EPS", "ICNS", "IM", "JPEG2000", "MPO", "MSP", "PCX", "PPM", "QOI", "SGI", "SPIDER", "TGA", "XBM",
)  # fmt: skip
PNG_START = b"\x89PNG\r\n\x1a\n"
PARAMETERS = {"prompt": "Make it snow.", "seed": 3, "steps": 30, "size": [64, 64], "loras": [], "sigmas": None}


def drawn(mode: str) -> Image.Image:
    picture = Image.radial_gradient("L").resize((24, 20))
    if mode == "P":
        picture = picture.convert("P")
        picture.info["transparency"] = 7
        return picture
    return picture.convert("RGB").convert(mode) if mode in ("LAB", "YCbCr", "CMYK") else picture.convert(mode)


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags.update({0x0112: 6, 0x010E: "a description", 0x0110: "a camera", 0x9286: b"ASCII\0\0\0a comment"})
    return tags


def originals(form: str) -> list[bytes]:
    """Small pictures of a format in every mode that it takes, still and animated."""
    found = []
    for mode in MODES:
        for options in ({"exif": exif()}, {}):
            with contextlib.suppress(Exception):  # what a format refuses comes as any type
                buffer = io.BytesIO()
                drawn(mode).save(buffer, form, **options)
                found.append(buffer.getvalue())
    if form in ANIMATED:
        buffer = io.BytesIO()
        drawn("RGB").save(buffer, form, save_all=True, append_images=[drawn("RGB").rotate(90 * i) for i in range(3)])
        found.append(buffer.getvalue())
    if form == "PNG":
        found += [with_parameters(json.dumps(PARAMETERS))] * 4
    return found


def with_parameters(text: str) -> bytes:
    """A PNG as `joyimage` writes it, with this text where its parameters are."""
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("joyimage", text)
    buffer = io.BytesIO()
    drawn("RGB").save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


def damage_picture(data: bytes, random: Random) -> bytes:
    if data.startswith(PNG_START) and random.random() < 0.6:
        return damage_png(data, random)
    return damage_bytes(data, random)


def damage_png(data: bytes, random: Random) -> bytes:
    """Chunks changed, dropped, doubled and exchanged, their checksums right; or other parameters in it."""
    if random.random() < 0.3:
        return with_parameters(json_text(damage_value(PARAMETERS, random), random).decode(errors="replace"))
    chunks = png_chunks(data)
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(chunks))
        kind, body = chunks[at]
        way = random.randrange(5)
        if way == 0 and len(chunks) > 1:
            del chunks[at]
        elif way == 1:
            chunks.insert(random.randrange(len(chunks)), chunks[at])
        elif way == 2:
            chunks[0] = chunks[0][0], damage_header(chunks[0][1], random)
        elif way == 3:
            kind = random.choice(
                (b"tRNS", b"PLTE", b"eXIf", b"iCCP", b"zTXt", b"iTXt", b"acTL", b"fcTL", b"fdAT", b"gAMA")
            )
            chunks.insert(
                random.randrange(1, len(chunks) + 1), (kind, random.randbytes(random.choice((0, 1, 8, 26, 100))))
            )
        else:
            chunks[at] = kind, damage_bytes(body, random)
    return PNG_START + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    position, found = len(PNG_START), []
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        found.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + length]))
        position += 12 + length
    return found


def damage_header(body: bytes, random: Random) -> bytes:
    """Width, height, depth, colour type or interlacing, each of an odd value."""
    fields = list(struct.unpack(">IIBBBBB", body)) if len(body) == 13 else [24, 20, 8, 2, 0, 0, 0]
    at = random.randrange(7)
    fields[at] = random.choice((*EDGES, 20, 24, 30, 1000)) % (2**31 if at < 2 else 256)
    if at in (2, 3, 6):
        fields[at] = random.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
    return struct.pack(">IIBBBBB", *fields)
