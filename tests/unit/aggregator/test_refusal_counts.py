"""Refused messages are counted, then acknowledged; a few are kept; floods are named."""

from __future__ import annotations

import logging

import pytest

from ingest_support import MemoryLedger, delivery_of
from ingest_support.stepped import SteppedStop, SteppedTime
from smtpfeeds_aggregator.accounts import AccountWatch, Flood, RefusalCode
from smtpfeeds_aggregator.metrics import OTHER_ACCOUNTS, Metrics
from smtpfeeds_aggregator.sources import Delivery, Refusal
from smtpfeeds_aggregator.sources.refusal_counts import RefusalCounter
from smtpfeeds_aggregator.sources.refused import Sample
from smtpfeeds_common.errors import BadRows, DatabaseUnavailable


class Counting:
    """A counter, and what it did."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self.ledger = ledger
        self.time = SteppedTime()
        self.stop = SteppedStop(self.time)
        self.metrics = Metrics()
        self.watch = AccountWatch(messages_per_s=50, octets_per_s=10**9)
        self.kept: list[Sample] = []
        self.acknowledged: list[Delivery] = []
        self.stale: set[int] = set()
        self.counter = RefusalCounter(
            ledger,
            self.watch,
            self.metrics,
            keep=self.kept.append,
            acknowledge=self.acknowledged.extend,
            is_current=lambda delivery: delivery.token not in self.stale,
            monotonic=self.time.monotonic,
        )

    def refuse(self, number: int, account: str | None = "mallory", *, start: int = 0) -> None:
        for token in range(start, start + number):
            delivery = delivery_of(b"junk", account, token=token)
            self.counter.put(delivery, Refusal(RefusalCode.NOT_A_BATCH, "no JSON", b"junk"))

    def turns(self, number: int) -> None:
        """Let the counter take turns of one second."""
        for _ in range(number):
            self.time.wait(1)
            self.counter.turn(self.stop)


def test_message_beyond_the_samples_is_acknowledged_once_counted() -> None:
    counting = Counting(MemoryLedger(samples=3))
    counting.refuse(1_500)
    counting.turns(2)
    assert len(counting.ledger.counted) == 1_500
    assert [sample.delivery.token for sample in counting.kept] == [0, 1, 2]
    assert [delivery.token for delivery in counting.acknowledged] == list(range(3, 1_500))
    counting.stop.set()
    counting.counter.run(counting.stop)
    assert counting.ledger.closed


def test_nothing_is_acknowledged_without_a_database() -> None:
    counting = Counting(MemoryLedger(samples=0))
    counting.ledger.error = DatabaseUnavailable("away")
    counting.refuse(5)
    counting.turns(2)
    assert counting.acknowledged == []
    counting.ledger.error = None
    counting.turns(1)
    assert len(counting.acknowledged) == 5, "counted when it is back"
    assert len(counting.ledger.counted) == 5, "each once"


@pytest.mark.parametrize(
    "error", [BadRows("the database refuses the data"), ValueError("a fault of ours")]
)
def test_message_that_cannot_be_counted_is_kept(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """It is not lost, and does not end the thread and with it the program."""
    counting = Counting(MemoryLedger())
    counting.ledger.error = error
    counting.refuse(2)
    counting.turns(1)
    assert len(counting.kept) == 2
    assert "refused messages not counted" in caplog.text


def test_message_of_a_closed_channel_is_neither_counted_nor_acknowledged() -> None:
    """The broker delivers it again, and it is refused again."""
    counting = Counting(MemoryLedger(samples=0))
    counting.stale = {0, 1}
    counting.refuse(3)
    counting.turns(1)
    assert len(counting.acknowledged) == 1, "the one of the open channel is"
    assert len(counting.ledger.counted) == 1


def test_message_without_an_account_is_counted_with_its_routing_key() -> None:
    counting = Counting(MemoryLedger())
    counting.counter.put(
        Delivery(b"x", None, "observations.s7", redelivered=False, token=0),
        Refusal(RefusalCode.NO_ACCOUNT, "no user_id", b"x"),
    )
    counting.turns(1)
    (message,) = counting.ledger.counted
    assert (message.account, message.detail) == ("", "routing key observations.s7: no user_id")


def test_flood_is_named_in_log_metric_and_ledger_and_its_end_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    counting = Counting(MemoryLedger(samples=0))
    flooding = counting.metrics.registry.get_sample_value
    labels = {"account": "mallory", "reason": "not_a_batch"}
    counting.refuse(40)
    counting.turns(3)
    assert counting.ledger.flooding, "the ledger has it"
    assert flooding("smtpfeeds_ingest_account_flooding", labels) is not None
    monkeypatch.setattr(counting.watch, "floods", list[Flood])
    counting.turns(1)
    assert "stopped flooding" in caplog.text
    lines = [record for record in caplog.records if "account floods;" in record.message]
    assert len(lines) == 1, "once in ten seconds, not once a look"
    assert flooding("smtpfeeds_ingest_account_flooding", labels) is None
    assert flooding("smtpfeeds_ingest_account_refused_total", labels) == 40
    assert sum("refused" in record.message for record in caplog.records) == 1


def test_metrics_name_a_bounded_number_of_accounts() -> None:
    counting = Counting(MemoryLedger(samples=0))
    for number in range(1_010):
        counting.refuse(1, f"a{number}", start=number)
    counting.turns(2)
    assert len(counting.acknowledged) == 1_010
    value = counting.metrics.registry.get_sample_value(
        "smtpfeeds_ingest_account_refused_total",
        {"account": OTHER_ACCOUNTS, "reason": "not_a_batch"},
    )
    assert value == 10
