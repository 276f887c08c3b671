"""An HTTP archive like Route Views on loopback, with failures that a test chooses."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MONTH, BEFORE = "2026.11", "2026.10"
RIB_PATH = f"/route-views4/bgpdata/{MONTH}/RIBS/rib.20261122.0600.bz2"


class Archive(ThreadingHTTPServer):
    """Serves `files` by path, and listings of their folders."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        #: How the RIB is served: see `_Handler`.
        self.mode = "well"
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent: list[int] = []
        self.released = threading.Event()

    @property
    def base(self) -> str:
        """The collector's address."""
        return f"{self.root}/route-views4/bgpdata"

    @property
    def root(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore it; tests close connections on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, request: socket.socket, client_address: Any, server: Archive) -> None:
        self.archive = server
        super().__init__(request, client_address, server)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Log nothing."""

    def do_GET(self) -> None:
        self.archive.requests.append((self.path, dict(self.headers.items())))
        self.close_connection = True
        content = self.archive.files.get(self.path)
        if content is None and self.path.endswith("/"):
            content = self._listing()
        mode = self.archive.mode if self.path == RIB_PATH else "well"
        if content is None:
            self._send(404, b"<html>not here</html>")
        else:
            getattr(self, "_" + mode.replace("-", "_"))(content)

    def _listing(self) -> bytes | None:
        names = [path for path in self.archive.files if path.startswith(self.path)]
        if not names and self.path.endswith("/RIBS/") and MONTH not in self.path:
            return None
        links = "".join(f'<a href="{p.rpartition("/")[2]}">x</a>\n' for p in names)
        return f"<html><title>Index</title>{links}</html>".encode()

    def _send(self, code: int, content: bytes, length: int | None = None, **more: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.send_header("Connection", "close")
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)
        self.archive.sent.append(len(content))

    def _well(self, content: bytes) -> None:
        etag = f'"{hash(content) & 0xFFFFFFFF:x}"'
        if self.headers.get("If-None-Match") == etag:
            self._send(304, b"", ETag=etag)
            return
        begin = self.headers.get("Range", "").removeprefix("bytes=").removesuffix("-")
        if begin.isdecimal() and self.headers.get("If-Range") == etag:
            at = int(begin)
            if at >= len(content):
                self._send(416, b"")
                return
            extent = f"bytes {at}-{len(content) - 1}/{len(content)}"
            self._send(206, content[at:], Content_Range=extent, ETag=etag)
            return
        self._send(200, content, ETag=etag)

    def _half(self, content: bytes) -> None:
        """Close the connection properly after half of the content."""
        etag = f'"{hash(content) & 0xFFFFFFFF:x}"'
        self._send(200, content[: len(content) // 2], len(content), ETag=etag)

    def _too_long(self, content: bytes) -> None:
        """Send more than Content-Length says."""
        self._send(200, content, len(content) - 10)

    def _html(self, content: bytes) -> None:
        """Send an error page with status 200."""
        self._send(200, b"<html><body>Sorry, we are being maintained</body></html>")

    def _redirect_loop(self, content: bytes) -> None:
        self._send(302, b"", Location=self.path)

    def _redirect_long(self, content: bytes) -> None:
        """Redirect with a body of 256 MiB."""
        self.send_response(302)
        self.send_header("Location", self.path)
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(4096):
                self.wfile.write(bytes(65536))
                self.archive.sent.append(65536)

    def _redirect_away(self, content: bytes) -> None:
        """Redirect to a scheme from which nothing may be fetched."""
        self._send(302, b"", Location="ftp://127.0.0.1/rib.bz2")

    def _redirect_file(self, content: bytes) -> None:
        self._send(302, b"", Location="file:///etc/passwd")

    def _error(self, content: bytes) -> None:
        self._send(503, b"busy")

    def _stall(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:100])
        self.wfile.flush()
        self.archive.released.wait(60)

    def _drip(self, content: bytes) -> None:
        """Send a byte ten times a second, without end, so that the transfer never stalls."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):
            while not self.archive.released.wait(0.1):
                self.wfile.write(b"B")
                self.wfile.flush()

    def _endless(self, content: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while not self.archive.released.is_set():
                self.wfile.write(b"BZh9" + bytes(65536))

    def _reset(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:1000])
        self.wfile.flush()
        time.sleep(0.05)
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

    def _garbage(self, content: bytes) -> None:
        self.connection.sendall(b"\x00\x01\x02 this is not HTTP\r\n\r\n")


@contextmanager
def serving() -> Iterator[Archive]:
    """Run an archive until the end of the block."""
    archive = Archive()
    thread = threading.Thread(target=archive.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield archive
    finally:
        archive.released.set()
        archive.shutdown()
        archive.server_close()
        thread.join()
