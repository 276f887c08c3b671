"""The metrics endpoint cannot take a sensor's descriptors, threads and log."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Iterator

import pytest

from servers.processes import wait_until
from smtpfeeds_common.small_server import CLIENTS_MAX, SmallHandler
from smtpfeeds_sensor.counters import new_counters
from smtpfeeds_sensor.metrics import MetricsServer

LIMIT_S = 60.0


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    server = MetricsServer("127.0.0.1:0", dict, new_counters(), dict)
    yield server
    server.close()


def connect(server: MetricsServer) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S)
    client.settimeout(LIMIT_S)
    return client


def answer(server: MetricsServer) -> bytes:
    """Return what a client gets; nothing if it is disconnected at once."""
    with connect(server) as client:
        try:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            return client.recv(65_536)
        except OSError:
            return b""


def test_clients_are_few_and_a_further_one_is_disconnected(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SmallHandler, "timeout", 600)
    held = [connect(server) for _ in range(CLIENTS_MAX)]
    assert answer(server) == b""
    for client in held:
        client.close()
    wait_until(lambda: answer(server).startswith(b"HTTP/1.0 200"), what="others are answered")


def test_client_that_sends_nothing_is_disconnected(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SmallHandler, "timeout", 0.05)
    for first in (b"", b"GET /met", b"GET /metrics HTTP/1.0\r\nHost: "):
        with connect(server) as client:
            client.sendall(first)
            assert client.recv(1) == b""


def test_client_that_disconnects_adds_nothing_to_the_log(
    server: MetricsServer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for first in (b"", b"GET /metrics HTTP/1.0\r\n", b"\x1b[31m\r\n\r\n", b"x" * 70_000):
        client = connect(server)
        client.sendall(first)
        # Closing without waiting resets the connection.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    wait_until(lambda: "client lost" in caplog.text, what="the server has noticed")
    assert answer(server).startswith(b"HTTP/1.0 200")
    assert "Traceback" not in caplog.text
    assert "".join(capfd.readouterr()) == ""


def test_error_of_the_program_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise nothing says why Prometheus gets no answer."""
    server = MetricsServer("127.0.0.1:0", lambda: {"x": 1 / 0}, new_counters(), dict)
    assert answer(server) == b""
    server.close()
    assert "request not answered" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_start_asks_for_no_name_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reactor starts the endpoint, and all clients would wait for the name server."""
    asked: list[str] = []
    monkeypatch.setattr(socket, "getfqdn", asked.append)
    MetricsServer("127.0.0.1:0", dict, new_counters(), dict).close()
    assert asked == []
