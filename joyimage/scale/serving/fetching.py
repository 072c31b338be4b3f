"""Pictures from the addresses in a request, where the server allows their hosts by name; else none is opened.

A name must lead to the public network alone, and the connection goes to the very address that was looked at: one that
leads elsewhere a moment later gains nothing. Redirects are not followed, no proxy, cookie or password is used, and what
comes is checked as an upload is. Whatever fails, the client is told the same, or it could feel out the network around;
the log says which host and why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import one_line
from .errors import ApiError, refused
from .hosts import Site, allowed, is_public
from .pictures import DATA_URL, NOT_ALLOWED
from .settings import Serving

if TYPE_CHECKING:
    from aiohttp import ClientSession

SECONDS = 20.0  # for all pictures of a request
PIECE = 2**16
NO_PICTURE = f"no picture came from its address within {SECONDS:g} seconds: its host gave none, or no answer"
HEADERS = {"Accept": "image/png, image/jpeg, image/webp", "Accept-Encoding": "identity", "User-Agent": "joyimage"}
log = logging.getLogger(__name__)


async def fetched(addresses: Mapping[str, str], serving: Serving) -> dict[str, bytes]:
    """What is at each of some addresses, which stand with the field that they are in; nothing where no host is allowed.

    Raises `ApiError` before the first is opened for a host that is not allowed and for too many, and then for more
    bytes together than a request may have, and with 424 where a picture does not come: there is nothing wrong with the
    request, which may do later.
    """
    places: dict[str, tuple[Site, str]] = {}
    for address, param in addresses.items():
        if not serving.sites or DATA_URL.match(address):
            continue
        place = allowed(address, serving.sites)
        if place is None:
            raise refused(NOT_ALLOWED, param, "host_not_allowed")
        places[address] = place
        if len(places) > serving.max_files:
            raise refused(f"there are more than {serving.max_files} addresses of pictures", param, "limit_exceeded")
    return await _all(places, addresses, serving) if places else {}


async def _all(places: Mapping[str, tuple[Site, str]], params: Mapping[str, str], serving: Serving) -> dict[str, bytes]:
    from aiohttp import ClientError, ClientSession, DummyCookieJar, TCPConnector

    found: dict[str, bytes] = {}
    connector = TCPConnector(resolver=_resolver(), use_dns_cache=False)
    options: Any = {"connector": connector, "cookie_jar": DummyCookieJar(), "headers": HEADERS}
    loop = asyncio.get_running_loop()
    end = loop.time() + SECONDS
    async with ClientSession(auto_decompress=False, **options) as session:
        for address, (site, path) in places.items():
            room = serving.max_bytes - sum(map(len, found.values()))
            try:
                found[address] = await asyncio.wait_for(_one(session, site, path, room), end - loop.time())
            except (ClientError, OSError, ValueError, asyncio.TimeoutError) as error:
                log.warning("no picture from %s: %s", site, one_line(f"{type(error).__name__} {error}")[:300])
                raise ApiError(424, NO_PICTURE, param=params[address], code="picture_not_fetched") from None
            except TooLargeError:
                message = f"the pictures at the addresses have more than {serving.max_bytes:,} bytes together"
                raise ApiError(413, message, param=params[address], code="too_large") from None
    return found


class TooLargeError(Exception):
    """More bytes than a request may have."""


async def _one(session: ClientSession, site: Site, path: str, room: int) -> bytes:
    """At most `room` bytes. Raises `TooLargeError`, and `OSError` for any answer but 200."""
    from yarl import URL

    body = bytearray()
    async with session.get(URL(f"{site}{path}", encoded=True), allow_redirects=False) as answer:
        if answer.status != 200:
            raise OSError(f"status {answer.status}")
        async for piece in answer.content.iter_chunked(PIECE):
            body += piece
            if len(body) > room:
                raise TooLargeError
    return bytes(body)


def _resolver():
    """The system's, which gives nothing for a name behind which there is any address that is not public.

    A site that was itself given as an address needs none: it may be anywhere.
    """
    from aiohttp import ThreadedResolver

    class Public(ThreadedResolver):
        async def resolve(self, *name, **options):
            found = await super().resolve(*name, **options)
            if not found or not all(is_public(each["host"]) for each in found):
                raise OSError("its name leads nowhere, or into a network that is not public")
            return found

    return Public()
