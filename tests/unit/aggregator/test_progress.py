"""What an aggregator reports of itself while it runs."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest_support import KnowsAllOrigins, data, delivery_of, greet, made_batch
from smtpfeeds_aggregator.health import Health
from smtpfeeds_aggregator.ingest.check import check
from smtpfeeds_aggregator.ingest.fold import fold
from smtpfeeds_aggregator.ingest.handover import Collection
from smtpfeeds_aggregator.ingest.last_client import LastClientNote
from smtpfeeds_aggregator.metrics import Metrics
from smtpfeeds_aggregator.origin import EMPTY
from smtpfeeds_aggregator.origin.lookup import OriginLookup
from smtpfeeds_aggregator.progress import Progress
from smtpfeeds_common.wire import Observation

AT = 1_790_000_000_000


def collection(*rows: Observation, origin: OriginLookup = EMPTY) -> Collection:
    checked = (check(delivery_of(made_batch(*rows))),)
    return Collection(checked, (), fold(checked, origin, 0), origin)


def test_last_client_is_the_newest_stored_one() -> None:
    origin = KnowsAllOrigins()
    clients = LastClientNote()
    clients.note(
        collection(
            greet("192.0.2.1", AT),
            data("2001:db8::7", AT + 2000),
            greet("192.0.2.3", AT + 1000),
            origin=origin,
        )
    )
    newest = clients.newest
    assert newest is not None
    assert (newest.ip, newest.seen_s) == ("2001:db8::7", (AT + 2000) / 1000)
    assert newest.asn is not None
    assert newest.name == origin.name(newest.asn)


def test_older_and_empty_collections_change_nothing() -> None:
    clients = LastClientNote()
    clients.note(collection(greet("192.0.2.1", AT)))
    clients.note(collection(greet("192.0.2.2", AT - 1000)))
    clients.note(collection())
    newest = clients.newest
    assert newest is not None
    assert (newest.ip, newest.asn, newest.name) == ("192.0.2.1", None, None)


class Reported:
    """A progress, and what it reports."""

    def __init__(self, receiver: socket.socket) -> None:
        self._receiver, self.now_s = receiver, 0.0
        self.metrics, self.health, self.clients = Metrics(), Health(), LastClientNote()
        self.progress = Progress(self.metrics, self.health, self.clients, lambda: self.now_s)

    def report(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the statuses and values of a report."""
        self.progress.report()
        received: list[tuple[str, dict[str, Any]]] = []
        while True:
            try:
                status, values = self._receiver.recv(8192).decode().split("\n")
            except BlockingIOError:
                return received
            received.append((status.removeprefix("STATUS="), json.loads(values.partition("=")[2])))


@pytest.fixture
def reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reported]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield Reported(receiver)


def test_changes_are_reported_once_a_second(reported: Reported) -> None:
    nothing = {"published_s": 0.0, "troubles": [], "client": None}
    assert reported.report() == [("all is well; nothing published yet", nothing)]
    reported.metrics.published_at.set(AT / 1000)
    assert reported.report() == []
    reported.now_s += 1
    assert reported.report() == [
        (
            "all is well; published at 2026-09-21T14:13:20Z",
            {**nothing, "published_s": AT / 1000},
        )
    ]
    reported.now_s += 1
    assert reported.report() == []


def test_status_line_has_troubles_and_no_client(reported: Reported) -> None:
    """`systemctl status` shows it to every user of a host, who may not see a client's address."""
    reported.clients.note(collection(greet("192.0.2.7", AT)))
    reported.health.trouble("database", "away" + "y" * 500)
    ((status, values),) = reported.report()
    assert status == f"database: away{'y' * 186}"
    assert values["client"]["ip"] == "192.0.2.7"


def test_size_of_a_report_is_bounded(reported: Reported) -> None:
    for number in range(100):
        reported.health.trouble(f"part {number:02}", "ü" * 1000)
    ((_, values),) = reported.report()
    assert len(values["troubles"]) == 4
    assert len(json.dumps(values)) < 8192
