"""The connections of deleted accounts, at a management API that answers like RabbitMQ's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

import pytest
from click import Context

from smtpfeeds_aggregator.cli.fleet_revoke import _revoked_before, revoke
from smtpfeeds_aggregator.fleet.closing import LIMIT_S, wait_until_closed
from smtpfeeds_aggregator.fleet.management import Management
from smtpfeeds_common.errors import FleetError

NEVER = 1_000_000
NAME = "127.0.0.1:1 -> 127.0.0.1:2"


@dataclass
class _Connection:
    """A connection of the account edge-1."""

    #: How many requests to close it the broker needs; a client that does not answer takes two.
    closes: int
    #: Whether the list of all connections has it.
    is_described: bool = True
    #: The status of a request to close it by its name.
    status: int = 204


@dataclass
class _Broker:
    connections: dict[str, _Connection] = field(default_factory=dict)
    #: Whether it has the requests for the connections of one account.
    has_accounts_path: bool = True
    #: What it was asked to close.
    closed: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str) -> tuple[int, object]:
        """Return the status and the document for a request."""
        answer: tuple[int, object] = (500, {})
        match method, path.split("/")[2:]:
            case "DELETE", ["users", _]:
                answer = 204, None
            case "GET", ["nodes"]:
                answer = 200, b"<html>a proxy's page</html>"
            case _, ["connections", "username", _] if not self.has_accounts_path:
                answer = 404, {"error": "Object Not Found"}
            case "GET", ["connections", "username", _]:
                answer = 200, self._rows(list(self.connections))
            case "GET", ["connections"]:
                described = [n for n, c in self.connections.items() if c.is_described]
                other = {"name": "127.0.0.1:8 -> 127.0.0.1:2", "user": "edge-2"}
                answer = 200, [*self._rows(described), other]
            case "DELETE", ["connections", *_, name]:
                self.closed.append(name)
                names = list(self.connections) if name == "edge-1" else [name]
                answer = max(map(self._close, names), default=204), None
        return answer

    def _rows(self, names: list[str]) -> list[dict[str, str]]:
        return [{"name": name, "user": "edge-1"} for name in names]

    def _close(self, name: str) -> int:
        connection = self.connections.get(name)
        if connection is None:
            return 404
        connection.closes -= 1
        if connection.closes <= 0:
            del self.connections[name]
        return connection.status


@pytest.fixture
def broker() -> _Broker:
    return _Broker()


@pytest.fixture
def management(broker: _Broker) -> Iterator[Management]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, document = broker.answer(self.command, unquote(self.path))
            body = b"" if document is None else document
            if not isinstance(body, bytes):
                body = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_DELETE = do_PUT = do_GET  # noqa: N815 - inherited names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited name
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    management = Management(f"http://admin@127.0.0.1:{server.server_port}", "secret", vhost="v")
    yield management
    management.close()
    server.shutdown()
    thread.join()
    server.server_close()


class _Waiting:
    """A wait with a clock that moves only while the caller sleeps."""

    def __init__(self, management: Management) -> None:
        self._management = management
        self.now_s = 1_000.0
        self.notes: list[str] = []

    def run(self, *accounts: str) -> None:
        wait_until_closed(
            self._management,
            accounts,
            self.notes.append,
            clock=lambda: self.now_s,
            sleep=self._sleep,
        )

    def _sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


@pytest.fixture
def waiting(management: Management) -> _Waiting:
    return _Waiting(management)


def test_connection_that_ends_while_it_is_closed_is_not_a_failure(
    broker: _Broker, management: Management
) -> None:
    """Otherwise a rotation would end between the account's deletion and its new epoch."""
    broker.connections[NAME] = _Connection(closes=1, status=500)
    assert management.delete("edge-1")
    assert management.close_connections("edge-1") == 0
    with pytest.raises(FleetError, match="500"):
        management.add_vhost()


def test_answer_that_is_not_json_is_an_error_of_the_address(management: Management) -> None:
    """A proxy in between may answer with a page of its own."""
    with pytest.raises(FleetError, match=r"GET nodes with something that is not JSON: is it the"):
        management.accepts_certificates()


def test_client_that_does_not_answer_costs_one_look(broker: _Broker, waiting: _Waiting) -> None:
    """The broker ends its connection at the second request, also one that it does not describe."""
    broker.connections[NAME] = _Connection(closes=2, is_described=False)
    waiting.run("edge-1")
    assert broker.connections == {}
    assert waiting.notes == []
    assert waiting.now_s - 1_000 < 2


def test_slow_broker_is_waited_for_with_one_note(broker: _Broker, waiting: _Waiting) -> None:
    """It may take its own 30 s, and a busy one longer."""
    broker.connections[NAME] = _Connection(closes=100)
    waiting.run("edge-1")
    assert waiting.notes == ["waiting until the broker has closed the connections of edge-1"]
    assert 45 < waiting.now_s - 1_000 < LIMIT_S


def test_connection_that_the_broker_does_not_close_is_an_error_with_what_to_do(
    broker: _Broker, waiting: _Waiting
) -> None:
    broker.connections[NAME] = _Connection(closes=NEVER)
    with pytest.raises(FleetError) as error:
        waiting.run("edge-1")
    assert error.value.message == (
        f"edge-1 has no account any more, but the broker does not close {NAME}: run `rabbitmqctl "
        "close_all_user_connections edge-1 revoked` on its host, or restart it"
    )
    assert LIMIT_S <= waiting.now_s - 1_000 < LIMIT_S + 1


def test_entry_whose_connection_has_ended_is_noted(broker: _Broker, waiting: _Waiting) -> None:
    """The broker keeps such an entry until it restarts; nobody can publish with it."""
    broker.connections[NAME] = _Connection(closes=NEVER, is_described=False)
    waiting.run("edge-1")
    *_, last = waiting.notes
    ended = f"the broker lists connections of edge-1 that have ended: {NAME}"
    assert last == f"{ended}; it does so until it restarts"


def test_broker_without_the_requests_for_an_account_is_asked_for_each_connection(
    broker: _Broker, waiting: _Waiting
) -> None:
    """The first releases of RabbitMQ 3.10 answer 404 there, which is not an empty list."""
    broker.has_accounts_path = False
    broker.connections[NAME] = _Connection(closes=2)
    waiting.run("edge-1", "edge-3")
    assert broker.closed == [NAME, NAME]
    assert broker.connections == {}


def test_revoke_can_be_repeated_without_a_database_while_a_connection_is_open(
    broker: _Broker, management: Management
) -> None:
    """Also after somebody deleted the account with `rabbitmqctl`."""
    no_database = (None, "host=127.0.0.1 port=1 dbname=nobody", None)
    with Context(revoke):
        assert _revoked_before(management, ["edge-1"], *no_database) == set()
    broker.connections[NAME] = _Connection(closes=1)
    assert _revoked_before(management, ["edge-1"], *no_database) == {"edge-1"}
