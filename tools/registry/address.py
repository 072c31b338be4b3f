"""The repository's address, carried from `address.txt` to where the registry and readers look for it.

Running it again changes nothing, and the empty address takes away all that another one put there.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from . import ADDRESS, BANNER, ICON

RAW = {  # what a host serves files' bytes under, on the default branch
    "github.com": "https://raw.githubusercontent.com/{repository}/HEAD/{path}",
    "gitlab.com": "https://gitlab.com/{repository}/-/raw/HEAD/{path}",
}
ISSUES = {"github.com": "issues", "gitlab.com": "-/issues"}
URLS = re.compile(r"^\[project\.urls\]\n(?:.+\n)*\n", re.MULTILINE)
PICTURES = re.compile(r"^(?:Icon|Banner) = .*\n", re.MULTILINE)
COMFY = re.compile(r"^\[tool\.comfy\]\n", re.MULTILINE)
CLONE, NO_ADDRESS = re.compile(r"`git clone` this repository|`git clone [^`\n]+`"), "`git clone` this repository"


def read(root: Path) -> str:
    return (root / ADDRESS).read_text(encoding="utf-8").strip()


def carry(address: str, root: Path) -> None:
    """Write an address, or that there is none, into `address.txt`, `pyproject.toml` and the README's clone line.

    Raises `ValueError` for an address whose pictures' addresses are not known, and where a file lacks its place for it.
    """
    address = checked(address)
    files = {root / "pyproject.toml": _project, root / "README.md": _readme}
    texts = {path: change(path.read_text(encoding="utf-8"), address) for path, change in files.items()}
    texts[root / ADDRESS] = f"{address}\n" if address else ""
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")


def checked(address: str) -> str:
    """`https://HOST/OWNER/NAME`, without what browsers and git may have at its end; the empty address stays so."""
    address = address.strip().removesuffix("/").removesuffix(".git")
    if address and not re.fullmatch(rf"https://({'|'.join(map(re.escape, RAW))})/[\w.-]+/[\w.-]+", address):
        raise ValueError(f"{address!r} is not https://HOST/OWNER/NAME with {' or '.join(RAW)} for HOST")
    return address


def raw(address: str, path: Path) -> str:
    """Where a file of the repository is served as it is."""
    parts = urlsplit(address)
    return RAW[parts.netloc].format(repository=parts.path.strip("/"), path=path.as_posix())


def _project(text: str, address: str) -> str:
    text = PICTURES.sub("", URLS.sub("", text))
    if not address:
        return text
    issues = f"{address}/{ISSUES[urlsplit(address).netloc]}"
    urls = f'[project.urls]\nRepository = "{address}"\nIssues = "{issues}"\n\n'
    pictures = f'Icon = "{raw(address, ICON)}"\nBanner = "{raw(address, BANNER)}"\n'
    return _put(text, COMFY, f"{urls}[tool.comfy]\n{pictures}")


def _readme(text: str, address: str) -> str:
    return _put(text, CLONE, f"`git clone {address}`" if address else NO_ADDRESS)


def _put(text: str, place: re.Pattern, words: str) -> str:
    changed, count = place.subn(lambda _: words, text)
    if count != 1:
        raise ValueError(f"{words!r} belongs where {place.pattern!r} is found once, and it is found {count} times")
    return changed
