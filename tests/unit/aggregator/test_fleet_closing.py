"""A deleted account's connections that end by themselves while they are being closed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from smtpfeeds_aggregator.fleet.management import Management
from smtpfeeds_common.errors import FleetError


class _Broker(BaseHTTPRequestHandler):
    """Answers like RabbitMQ: 500 for a connection that is just ending, and 404 afterwards."""

    ending = True

    def do_GET(self) -> None:
        here = [{"name": "127.0.0.1:1 -> 127.0.0.1:2", "user": "edge-1"}] if self.ending else []
        self._answer(200, json.dumps(here).encode())

    def do_DELETE(self) -> None:
        status = 204 if self.path.startswith("/api/users/") else 500
        type(self).ending = self.ending and status == 204
        self._answer(status, b"")

    def do_PUT(self) -> None:
        self._answer(500, b"{}")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited name
        """Log nothing."""


@pytest.fixture
def management() -> Iterator[Management]:
    _Broker.ending = True
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Broker)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    management = Management(f"http://admin@127.0.0.1:{server.server_port}", "secret", vhost="v")
    yield management
    management.close()
    server.shutdown()
    thread.join()
    server.server_close()


def test_connection_that_ends_while_it_is_closed_is_not_a_failure(management: Management) -> None:
    """Otherwise a rotation would end between the account's deletion and its new epoch."""
    assert management.delete("edge-1")
    assert management.close_connections("edge-1") == 0
    with pytest.raises(FleetError, match="500"):
        management.add_vhost()
