"""The page for trying the server, whose files are read once: no request opens one."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import Response
from starlette.routing import BaseRoute, Route

FOLDER = Path(__file__).parent / "page"
PAGES = {"/": "index.html", "/docs": "api.html"}  # all others by their names under /page/
TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


def routes() -> list[BaseRoute]:
    """One for each file."""
    places = {name: path for path, name in PAGES.items()}
    return [
        _route(places.get(file.name, f"/page/{file.name}"), file)
        for file in sorted(FOLDER.iterdir())
        if file.suffix in TYPES
    ]


def _route(path: str, file: Path) -> Route:
    kind = TYPES[file.suffix]
    content = file.read_bytes()

    async def send(_request) -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return Route(path, send, name=file.name, include_in_schema=False)
