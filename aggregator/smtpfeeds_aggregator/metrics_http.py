"""A small HTTP server: `/metrics` for Prometheus and `/health` for a load balancer."""

import logging
from functools import partial
from threading import Event
from typing import Any

from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.host_port import HostPort, parse_host_port
from smtpfeeds_common.logs import fields
from smtpfeeds_common.small_server import SmallHandler, SmallServer

from .health import Health
from .metrics import Metrics

logger = logging.getLogger(__name__)


class _Handler(SmallHandler):
    def __init__(self, metrics: Metrics, health: Health, *args: Any) -> None:
        self._metrics, self._health = metrics, health
        super().__init__(*args)

    def do_GET(self) -> None:
        """Answer `/metrics` and `/health`."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self.answer(200, "text/plain; version=0.0.4; charset=utf-8", self._metrics.render())
        elif path == "/health":
            problems = self._health.problems()
            body = "\n".join(problems or ["ok"]) + "\n"
            self.answer(503 if problems else 200, "text/plain; charset=utf-8", body.encode())
        else:
            self.answer(404, "text/plain; charset=utf-8", b"try /metrics or /health\n")


class MetricsServer:
    """Serves metrics and health until it is stopped."""

    def __init__(self, listen: str, metrics: Metrics, health: Health) -> None:
        """Bind.

        Raises:
            SettingsError: `listen` is not HOST:PORT, or the server cannot listen there.
        """
        where = parse_host_port(listen, setting="metrics_listen")
        try:
            self._server = SmallServer(where, partial(_Handler, metrics, health))
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
