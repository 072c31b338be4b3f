"""Every setting of the server: its name, default and range, checked when it is made. It imports nothing heavy."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ...errors import JoyImageError
from ...settings import MAX_REFERENCES, given, number
from ..limits import Limits
from .hosts import Site

KEY_VARIABLE = "JOYIMAGE_API_KEY"
HOST, PORT = "127.0.0.1", 8000
MEGABYTE = 2**20
TOKEN = re.compile(r"[\x21-\x7e]+")  # what a header can carry


@dataclass(frozen=True, kw_only=True)
class Serving(Limits):
    """What one request may ask for, and how many there may be.

    Raises `JoyImageError` for a value out of range, and for a host that is none.
    """

    queue: int = number(16, 0, 10_000, help="requests that may wait; the next is told when to come again")
    batch: int = number(1, 1, 64, help="equal-shaped pictures that share a forward; moves pixels by a level at most")
    seconds: int = number(600, 1, 86_400, help="from a request to its answer, waiting included")
    grace: int = number(60, 0, 86_400, help="seconds in which accepted requests are finished after SIGTERM")
    max_pixels: int = number(4_194_304, 4096, 67_108_864, help="of a picture that comes or is made")
    max_megabytes: int = number(32, 1, 1024, help="of a request, its pictures included")
    max_chat_characters: int = number(32_000, 1, 4_000_000, help="of all texts of a chat")
    max_pictures: int = number(4, 1, 64, help="that one request may ask for")
    allow_host: tuple[str, ...] = given((), help="whose https addresses of pictures may be opened; http:// where said")

    def __post_init__(self):
        super().__post_init__()
        _ = self.sites

    @cached_property
    def sites(self) -> frozenset[Site]:
        """Those of `allow_host`. Raises `JoyImageError` for one that is no host."""
        return frozenset(map(Site.of, self.allow_host))

    @property
    def max_bytes(self) -> int:
        return self.max_megabytes * MEGABYTE

    @property
    def max_files(self) -> int:
        """A mask may come beside the pictures."""
        return MAX_REFERENCES + 1


def key_from(environment: Mapping[str, str] = os.environ) -> str | None:
    """The key that clients must send, or None where the environment names none.

    Raises `JoyImageError`, which never quotes it, for one that no client could send.
    """
    key = environment.get(KEY_VARIABLE)
    if key is not None and not TOKEN.fullmatch(key):
        raise JoyImageError(f"{KEY_VARIABLE} is empty or holds spaces or signs beyond ASCII; give another key, or none")
    return key


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_binding(host: str, key: str | None, without_key: bool) -> None:
    """Raise `JoyImageError` for an address that others reach where anybody could use it, unless that is asked for.

    Also where a key is there and none is asked for: whoever set it may rely on it.
    """
    if key is not None and without_key:
        raise JoyImageError(f"--without-key lets everybody in, and {KEY_VARIABLE} is set: leave out one of them")
    if key is None and not without_key and not is_loopback(host):
        raise JoyImageError(
            f"{host} is reached from other machines: set {KEY_VARIABLE} to the key that clients must send, or add "
            "--without-key for a network in which everybody may use the server"
        )
