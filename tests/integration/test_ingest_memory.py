"""Of large messages from a real broker, few are in memory at a time, and all batches count."""

from __future__ import annotations

import uuid

import pytest

from ingest_support import Publisher, Table, greet, made_batch, running, settings_of, until
from ingest_support.fixtures import dsn, table  # noqa: F401 - fixtures
from servers.fixtures import Vhost
from smtpfeeds_aggregator.service import Service
from smtpfeeds_aggregator.sources import amqp, prefetch
from smtpfeeds_aggregator.sources.dead_letters import DeadLetters
from smtpfeeds_common.topology import EXCHANGE
from smtpfeeds_common.wire import encode

# ruff: noqa: F811 - fixtures are imported by name and used by name

LARGE = 1_000_000


class Watched(prefetch.Prefetch):
    """Records the most octets in memory."""

    most_bytes = 0

    def add(self, octets: int) -> None:
        super().add(octets)
        self.most_bytes = max(self.most_bytes, self._bytes)


def source_of(service: Service) -> amqp.AmqpSource:
    assert isinstance(service._source, amqp.AmqpSource)
    return service._source


def large_batch(spool: uuid.UUID, seq: int) -> bytes:
    """Create a batch with a large field that the reader ignores."""
    body = encode(made_batch(greet("192.0.2.1"), spool=spool, seq=seq))
    return body[:-1] + b',"later":"' + b"x" * LARGE + b'"}'


@pytest.fixture
def publisher(vhost: Vhost) -> Publisher:
    url = vhost.add_account("s1", write=f"^{EXCHANGE}$", topics={EXCHANGE: r"^observations\.s1$"})
    return Publisher(url, "s1")


def test_unacknowledged_octets_are_bounded_while_the_database_is_busy(
    vhost: Vhost, dsn: str, table: Table, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefetch, "MAX_BYTES", 5 * LARGE)
    monkeypatch.setattr(prefetch, "NARROW", 4)
    monkeypatch.setattr(prefetch, "CALM_S", 0.5)
    monkeypatch.setattr(amqp, "Prefetch", Watched)
    spool = uuid.uuid4()
    with running(settings_of(dsn, vhost.url)) as service:
        hand = source_of(service)._prefetch
        assert isinstance(hand, Watched)
        until(lambda: service._source.consuming, "the aggregator consumes")
        with table.connection.transaction():
            table.run("LOCK TABLE observation IN ACCESS EXCLUSIVE MODE")
            for seq in range(1, 31):
                publisher.publish(large_batch(spool, seq))
            until(lambda: hand.prefetch == 4, "it takes few at a time")
        counted = {("192.0.2.1", "smtpgreet"): 30}
        until(lambda: table.hits() == counted, "all are counted")
        publisher.publish(made_batch(greet("192.0.2.1"), spool=spool, seq=31))
        until(lambda: hand.prefetch == 100, "it takes many again")
    # Messages in memory at the restart and those it may then receive, each within the bound.
    assert hand.most_bytes <= 2 * prefetch.MAX_BYTES + LARGE
    assert table.hits() == {("192.0.2.1", "smtpgreet"): 31}
    publisher.close()


def test_message_longer_than_any_batch_is_refused_and_its_beginning_kept(
    vhost: Vhost, dsn: str, table: Table, publisher: Publisher
) -> None:
    with running(settings_of(dsn, vhost.url)) as service:
        until(lambda: service._source.consuming, "the aggregator consumes")
        publisher.publish(b"x" * 9_000_000)
        publisher.publish(made_batch(greet("192.0.2.1")))
        until(lambda: len(table.rows()) == 1, "the good one counts")
        letters = DeadLetters(settings_of("", vhost.url))
        until(lambda: len(letters.read(2)) == 1, "the long one is refused")
    (letter,) = letters.read(2)
    assert "9000000 octets" in letter.reason
    assert len(letter.body) == 65_536
    publisher.close()
