"""A small HTTP server: `/metrics` for Prometheus and `/health` for a load balancer."""

import logging
import socket
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event
from typing import Any

from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.host_port import HostPort, parse_host_port
from smtpfeeds_common.logs import fields

from .health import Health
from .metrics import Metrics

logger = logging.getLogger(__name__)

#: The server disconnects a client that sends nothing for this long.
_CLIENT_TIMEOUT_S = 10.0
#: How often the server checks whether to stop; also the wait after an accept that failed.
_LOOK_S = 0.25


class _Handler(BaseHTTPRequestHandler):
    timeout = _CLIENT_TIMEOUT_S
    server_version = "smtpfeeds"
    sys_version = ""

    def __init__(self, metrics: Metrics, health: Health, *args: Any) -> None:
        self._metrics, self._health = metrics, health
        super().__init__(*args)

    def do_GET(self) -> None:
        """Answer `/metrics` and `/health`."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, "text/plain; version=0.0.4; charset=utf-8", self._metrics.render())
        elif path == "/health":
            problems = self._health.problems()
            body = "\n".join(problems or ["ok"]) + "\n"
            self._answer(503 if problems else 200, "text/plain; charset=utf-8", body.encode())
        else:
            self._answer(404, "text/plain; charset=utf-8", b"try /metrics or /health\n")

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - inherited name
        """Do not log requests."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    timeout = _LOOK_S

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a client; wait after a failure, so that a lack of descriptors uses no CPU."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_LOOK_S)
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log a lost client at debug level only."""
        logger.debug("metrics client lost")


class _Server6(_Server):
    address_family = socket.AF_INET6


class MetricsServer:
    """Serves metrics and health until it is stopped."""

    def __init__(self, listen: str, metrics: Metrics, health: Health) -> None:
        """Bind.

        Raises:
            SettingsError: `listen` is not HOST:PORT, or the server cannot listen there.
        """
        where = parse_host_port(listen, setting="metrics_listen")
        serve = _Server6 if ":" in where.host else _Server
        try:
            self._server = serve(where, partial(_Handler, metrics, health))
        except OSError as exc:
            raise SettingsError(
                f"metrics_listen: cannot listen on {listen!r}: {exc}; give a free HOST:PORT"
            ) from exc
        self.port = int(self._server.server_address[1])
        logger.info("metrics served", extra=fields(listen=HostPort(where.host, self.port)))

    def run(self, stop: Event) -> None:
        """Serve until `stop` is set."""
        while not stop.is_set():
            self._server.handle_request()
        self._server.server_close()
