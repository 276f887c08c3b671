"""The clients of fault runs distinguish a wrong answer from a killed sensor."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from faults.load import Load
from servers.processes import wait_until
from smtpfeeds_deploy.simulation import talk
from smtpfeeds_deploy.simulation.simulate import Target


@contextmanager
def sensor(answer: bytes) -> Iterator[Target]:
    """Run a server that sends a banner and the same answer to each line; without an answer it
    closes.
    """

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 mx.example ESMTP\r\n")
            while self.rfile.readline() and answer:
                self.wfile.write(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            host, port = server.server_address[:2]
            yield Target(str(host), port, "s1")
        finally:
            server.shutdown()
            thread.join()


def load(target: Target) -> Load:
    """Run at least fifty sessions."""
    clients = Load([target], seed=1, rate_per_s=400)
    clients.start()
    wait_until(lambda: len(clients.entries) >= 50, what="fifty sessions are over")
    clients.stop()
    return clients


def test_other_reply_is_an_error_and_a_closed_connection_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with sensor(b"") as target:
        assert load(target).odd == []
    # Some clients wait until the sensor closes, and this one does not.
    monkeypatch.setattr(talk, "ANSWER_LIMIT_S", 0.5)
    with sensor(b"451 not now\r\n") as target:
        assert any("answered 451, not 250" in line for line in load(target).odd)
