"""Hosts whose addresses may be opened: named by whoever runs the server, and matched to the letter."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import quote

from ...errors import JoyImageError

PORTS = {"https": 443, "http": 80}
HOST = r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^/?#\\@\s:\[\]\x00-\x20\x7f]+)(?::(?P<port>[0-9]{1,5}))?"
ALLOWED = re.compile(rf"(?:(?P<scheme>https?)://)?{HOST}/?", re.IGNORECASE)
ADDRESS = re.compile(rf"(?P<scheme>https?)://{HOST}(?P<rest>[/?#][^\s\\\x00-\x20\x7f]*)?", re.IGNORECASE)
NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # the last part of what is an address of IPv4 and no name
MOST_CHARACTERS = 4096  # of an address
KEPT = "!$%&'()*+,-./:;=?@_~"  # of an address as it was sent: signatures hang on how its signs are written
GLOBAL = ipaddress.ip_network("2000::/3")
WITH_IPV4_INSIDE = (ipaddress.ip_network("2002::/16"), ipaddress.ip_network("2001::/32"))  # 6to4, Teredo


@dataclass(frozen=True)
class Site:
    """Where a connection may go: a scheme, a host as `normalised` writes it, and a port."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> Site:
        """From `images.example.com`, `http://10.0.0.5:8080` …; https unless it says http.

        Raises `JoyImageError` for what is no host, such as a pattern or an address with a path.
        """
        match = ALLOWED.fullmatch(text)
        site = match and _site(match)
        if not site:
            raise JoyImageError(
                f"allow_host is {text!r:.100}: give one host to the letter, such as images.example.com, "
                "images.example.com:8443 or http://10.0.0.5:8080"
            )
        return site

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def allowed(address: str, sites: Collection[Site]) -> tuple[Site, str] | None:
    """The site of an address and the path to ask it for, or None where it is none of `sites`, or not to be read."""
    match = ADDRESS.fullmatch(address) if len(address) <= MOST_CHARACTERS else None
    site = match and _site(match)
    if not match or not site or site not in sites:
        return None
    path = (match["rest"] or "/").partition("#")[0]
    return site, quote(path if path.startswith("/") else f"/{path}", safe=KEPT)


def _site(match: re.Match[str]) -> Site | None:
    scheme, host = (match["scheme"] or "https").lower(), normalised(match["host"])
    port = int(match["port"] or PORTS[scheme])
    return Site(scheme, host, port) if host and 0 < port < 2**16 else None


def normalised(host: str) -> str | None:
    """A host in the one way in which hosts are compared, or None for what is none: lower case, without the last dot,
    names beyond ASCII as browsers ask for them, addresses of IPv6 without brackets and at their shortest.
    """
    try:
        if host.startswith("["):
            return str(ipaddress.IPv6Address(host[1:-1]))
        if not host.isascii():
            import idna  # comes with the web framework; the settings are read without it

            host = idna.encode(host, uts46=True, std3_rules=True).decode("ascii")
        host = host.lower().removesuffix(".")
        if NUMBER.fullmatch(host.rpartition(".")[2]):
            return str(ipaddress.IPv4Address(host))  # and not 127.1 or 0x7f000001, which systems take for one
    except ValueError:  # that of addresses, and idna's own
        return None
    return host if len(host) <= 253 and NAME.fullmatch(host) else None


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public network: none of this machine, of a private network or link, and none
    of IPv6 behind which there is one of IPv4.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # with a zone behind it, which only links have
        return False
    if ip.version == 6 and (ip not in GLOBAL or any(ip in network for network in WITH_IPV4_INSIDE)):
        return False
    return ip.is_global and not ip.is_multicast
