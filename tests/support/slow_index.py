"""A package index whose one package is resolved at once and never downloaded: a build waits in its middle."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_NAME = "slow-1.0-py3-none-any.whl"
_METADATA = b"Metadata-Version: 2.1\nName: slow\nVersion: 1.0\n"
_PAGE = (
    f'<html><a href="/{_NAME}#sha256={"0" * 64}" data-core-metadata="sha256={hashlib.sha256(_METADATA).hexdigest()}">'
    f"{_NAME}</a></html>"
)


class SlowIndex:
    """Serves until it is closed."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        """Set when a build waits for the package."""
        self._closed = threading.Event()
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.endswith(".whl"):
                    index.asked.set()
                    index._closed.wait()
                    return
                content = {"/simple/slow/": _PAGE.encode(), f"/{_NAME}.metadata": _METADATA}.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "text/plain")
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/simple"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Lets those who wait go."""
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
