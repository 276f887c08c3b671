"""A small web server to look at published feeds; `smtpfeeds feed serve` runs it.

It is for looking at the page and for tests, not for the Internet: one process, no TLS, no limits.
It answers with the types and the policy of the web server's example, and serves only files inside
the folder.
"""

from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET6
from typing import Final

from .page.render import CONTENT_SECURITY_POLICY

_TYPES: Final = {
    ".txt": "text/plain; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".ndjson": "application/x-ndjson",
    ".json": "application/json",
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".gz": "application/gzip",
}


class FeedsServer(ThreadingHTTPServer):
    """Serves one folder on one address, of either family."""

    def __init__(self, address: tuple[str, int], folder: Path) -> None:
        """Listen.

        Raises:
            OSError: it cannot listen there.
        """
        if ":" in address[0]:
            self.address_family = AF_INET6
        super().__init__(address, partial(FeedsHandler, directory=str(folder)))


class FeedsHandler(SimpleHTTPRequestHandler):
    """Serves files of one folder; a link to a file outside of it gives 404."""

    server_version = "smtpfeeds"
    sys_version = ""

    def end_headers(self) -> None:
        """Add the headers of the web server's example."""
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        self.send_header(
            "Content-Security-Policy", f"{CONTENT_SECURITY_POLICY}; frame-ancestors 'none'"
        )
        super().end_headers()

    def guess_type(self, path: object) -> str:
        """Return the type by the end of the name."""
        return _TYPES.get(Path(str(path)).suffix, "text/plain; charset=utf-8")

    def translate_path(self, path: str) -> str:
        """Return the file of a path; a file outside of the folder does not exist for it."""
        file = Path(super().translate_path(path)).resolve()
        inside = Path(self.directory).resolve()
        return str(file if file.is_relative_to(inside) else inside / "not-there")

    def list_directory(self, path: object) -> None:
        """Answer 404: a folder has no page."""
        del path
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited
        """Log nothing: requests are private, and the terminal is for the address."""
