"""A small HTTP server for one page, such as metrics: bounded, and silent about its clients.

It runs inside a program with other work, and shares that program's descriptors, threads and log
with it. So a client has a time limit, there are few clients at once, and one that disconnects adds
nothing to the log.
"""

import logging
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import BoundedSemaphore
from typing import Any, Final

from .host_port import HostPort

logger = logging.getLogger(__name__)

#: Clients at once; a further one is disconnected.
CLIENTS_MAX: Final = 32
#: The server disconnects a client that sends nothing, or reads nothing, for this long.
CLIENT_TIMEOUT_S: Final = 10.0
#: How often `handle_request` returns; also the wait after an accept that failed.
_LOOK_S: Final = 0.25


class SmallServer(ThreadingHTTPServer):
    """Answers each client in a thread; call `handle_request` until the end, or `serve_forever`."""

    daemon_threads = True
    timeout = _LOOK_S
    #: With the default of 5, a client beside some others waits a second for its connection.
    request_queue_size = CLIENTS_MAX

    def __init__(self, where: HostPort, handler: Any) -> None:
        """Listen.

        Args:
            where: the address.
            handler: creates a handler for a request, as `http.server` calls it; its class has
                `CLIENT_TIMEOUT_S` as `timeout`.

        Raises:
            OSError: it cannot listen there.
        """
        if ":" in where.host:
            self.address_family = socket.AF_INET6
        self._free = BoundedSemaphore(CLIENTS_MAX)
        super().__init__(where, handler)

    def server_bind(self) -> None:
        """Bind without a query for the host's name, which takes seconds without a name server."""
        TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a client; wait after a failure, so that a lack of descriptors uses no CPU."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_LOOK_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a client, or disconnect it if there are too many."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a client, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log a lost client at debug level only, and any other error as a fault of the program."""
        error = sys.exception()
        if isinstance(error, OSError):
            logger.debug("client lost")
        else:
            logger.error("request not answered", exc_info=error)


class SmallHandler(BaseHTTPRequestHandler):
    """Answers one request; a subclass has `do_GET`."""

    timeout = CLIENT_TIMEOUT_S
    server_version = "smtpfeeds"
    sys_version = ""

    def answer(self, status: int, content_type: str, body: bytes) -> None:
        """Send an answer."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - inherited name
        """Do not log requests."""
