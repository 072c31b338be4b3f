"""Where tables and pictures lie: a path of this machine, or the address of a storage that fsspec reaches."""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from ..errors import JoyImageError, MissingFileError
from ..extras import extra
from ..images import decoding, load

REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # of two letters at least: C: is a drive
SECRET = re.compile(r"(?<=://)[^/@]*@|\?.*$")  # a name with its password before the host, a signature behind


def is_remote(address: str) -> bool:
    return bool(REMOTE.match(address))


def shown(address: str) -> str:
    """An address as messages and manifests may quote it, without keys and signatures."""
    return SECRET.sub("", address) if is_remote(address) else address


def base_of(source: str) -> str:
    """What relative addresses in a table begin at: its folder. A folder of pictures is its own."""
    if is_remote(source):
        return source.rpartition("/")[0]
    return os.path.abspath(source if os.path.isdir(source) else os.path.dirname(os.path.abspath(source)))


def within(base: str, address: str) -> str:
    if is_remote(address) or os.path.isabs(address):
        return address
    return f"{base}/{address}" if is_remote(base) else os.path.join(base, address)


def suffix(address: str) -> str:
    return PurePosixPath(shown(address).replace("\\", "/")).suffix.lower()


def opened(address: str, mode: str = "rb", **options: Any) -> AbstractContextManager[Any]:
    """A file to read. Raises `MissingFileError` for one that is not there, `JoyImageError` for any other failure."""
    try:
        if not is_remote(address):
            return open(address, mode, **options)
        return extra("fsspec", "scale").open(address, mode, **options).open()
    except FileNotFoundError:
        away = ", or its storage cannot be reached" if is_remote(address) else ""  # some say the one for the other
        raise MissingFileError(f"{shown(address)} does not exist{away}") from None
    except JoyImageError:
        raise
    except Exception as error:  # what storages raise has no common kind
        said = str(error).replace(address, shown(address)) or type(error).__name__
        raise JoyImageError(f"cannot open {shown(address)}: {said}") from None


def check_picture(address: str) -> None:
    """Raise `MissingFileError` for a path without a file. Storages are asked when the picture is read."""
    if not is_remote(address) and not os.path.isfile(address):
        raise MissingFileError(f"there is no picture {address}")


def read_picture(address: str) -> Image.Image:
    """As `images.load`, whose errors these are, from anywhere."""
    return load(raw_picture(address)) if is_remote(address) else load(address)


def raw_picture(address: str) -> Image.Image | Path:
    """A picture as it is in its file: for a path that path, as it is read later."""
    if not is_remote(address):
        return Path(address)
    with opened(address) as file, decoding(shown(address)):
        picture = Image.open(BytesIO(file.read()))
        picture.load()
        return picture
