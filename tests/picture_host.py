"""A host of pictures on this machine, which notes what it was asked for."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Host:
    """Its port, its answers by path (status, headers, body), and the requests so far."""

    port: int
    scheme: str
    answers: dict[str, tuple[int, dict[str, str], bytes]]
    asked: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"


@contextlib.contextmanager
def host(answers: dict[str, tuple[int, dict[str, str], bytes]], tls: ssl.SSLContext | None = None) -> Iterator[Host]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            told.asked.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
            status, headers, body = answers[self.path.partition("?")[0]]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)
                if self.path == "/slow":
                    ended.wait(60)

        def log_message(self, *_):
            pass

    ended = threading.Event()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    told = Host(server.server_port, "http" if tls is None else "https", answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield told
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
