"""Which refused rows of a batch are kept."""

from __future__ import annotations

import json

from ingest_support import delivery_of, greet, made_batch
from smtpfeeds_aggregator.ingest.check import check
from smtpfeeds_aggregator.ingest.refusals import refused_rows_body


def test_refused_rows_past_the_bound_are_only_counted() -> None:
    """JSON in JSON grows: a message that is too large for the broker would be tried forever."""
    hostile = "\x00" * 64
    checked = check(delivery_of(made_batch(*(greet(hostile) for _ in range(15_000)))))
    body = refused_rows_body(checked)
    document = json.loads(body)
    assert len(body) < 5 * 1024 * 1024
    assert len(document["rows"]) + document["not_kept"] == 15_000
    assert document["not_kept"] > 0


def test_few_refused_rows_are_all_kept() -> None:
    checked = check(delivery_of(made_batch(greet("192.0.2.1"), greet("fe80::1%eth0"))))
    document = json.loads(refused_rows_body(checked))
    assert document["not_kept"] == 0
    assert json.loads(document["rows"][0]["row"])["ip"] == "fe80::1%eth0"
