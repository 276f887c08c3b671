"""What the load of the fault runs takes for a wrong answer, and what for a kill."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from faults.load import Load
from smtpfeeds_deploy.simulation import talk
from smtpfeeds_deploy.simulation.simulate import Target


@contextmanager
def sensor(answer: bytes) -> Iterator[Target]:
    """A server that sends a banner, and this in place of each reply; nothing: it closes."""

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
    """Some sessions of every kind."""
    clients = Load([target], seed=1, rate_per_s=400)
    clients.start()
    while len(clients.entries) < 50:
        threading.Event().wait(0.01)
    clients.stop()
    return clients


def test_closed_connection_is_no_wrong_answer_and_another_reply_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with sensor(b"") as target:
        assert load(target).odd == []
    # Some clients wait until the sensor closes, and this one does not.
    monkeypatch.setattr(talk, "ANSWER_LIMIT_S", 0.5)
    with sensor(b"451 not now\r\n") as target:
        assert any("answered 451, not 250" in line for line in load(target).odd)
