"""Counts of refused messages and of floods in PostgreSQL, and `smtpfeeds sensors` with them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from ingest_support import Table, settings_of, until
from ingest_support.fixtures import dsn, table  # noqa: F401 - fixtures
from smtpfeeds_aggregator.accounts import Flood, RefusalCode, RefusedMessage
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_aggregator.store.refusals import (
    SAMPLE_OCTETS_OF_HOUR,
    SAMPLES_OF_HOUR,
    RefusalStore,
)
from smtpfeeds_common.cli import main

# ruff: noqa: F811 - fixtures are imported by name and used by name


@pytest.fixture
def store(dsn: str, table: Table) -> Iterator[RefusalStore]:
    store = RefusalStore(lambda: connect(settings_of(dsn), "test", autocommit=True))
    # Counts are by the hour, so no test starts in the last seconds of one.
    left = "SELECT now() < date_trunc('hour', now()) + interval '59 minutes 40 seconds'"
    until(lambda: bool(table.one(left)), "the next hour begins")
    yield store
    store.close()


def refused(
    number: int,
    account: str = "mallory",
    code: RefusalCode = RefusalCode.NOT_A_BATCH,
    octets: int = 10,
) -> list[RefusedMessage]:
    return [RefusedMessage(account, code, octets, f"what is wrong {n}") for n in range(number)]


def run(dsn: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--dsn", dsn])


def test_refusals_are_counted_by_account_hour_and_reason(store: RefusalStore, table: Table) -> None:
    store.record([*refused(3), *refused(2, code=RefusalCode.TOO_LARGE), *refused(1, "other")])
    store.record(refused(4, octets=5))
    counted = table(
        "SELECT account, hour = date_trunc('hour', now()), reason, messages, octets, detail"
        " FROM refusal ORDER BY 1, 3"
    )
    assert counted == [
        ("mallory", True, "not_a_batch", 7, 50, "what is wrong 3"),
        ("mallory", True, "too_large", 2, 20, "what is wrong 1"),
        ("other", True, "not_a_batch", 1, 10, "what is wrong 0"),
    ]


def test_samples_of_an_account_and_hour_are_bounded_in_number_whatever_the_reason(
    store: RefusalStore, table: Table
) -> None:
    """A flood leaves no more bodies in the queue than a few refusals do."""
    first = store.record([*refused(15), *refused(15, code=RefusalCode.TOO_LARGE)])
    assert first == [10] * SAMPLES_OF_HOUR + [-1] * (30 - SAMPLES_OF_HOUR)
    assert store.record(refused(5)) == [-1] * 5
    assert store.record(refused(2, "honest")) == [10, 10], "others have samples of their own"
    table.run("UPDATE refusal SET hour = hour - interval '1 hour'")
    assert store.record(refused(1)) == [10], "the next hour has new ones"
    assert table.one("SELECT sum(kept) FROM refusal WHERE account = 'mallory'") == 21


def test_samples_of_an_account_and_hour_are_bounded_in_octets(
    store: RefusalStore, table: Table
) -> None:
    """A body that does not fit is cut."""
    third = SAMPLE_OCTETS_OF_HOUR // 3 + 1
    rest = SAMPLE_OCTETS_OF_HOUR - 2 * third
    assert store.record(refused(4, octets=third)) == [third, third, rest, -1]
    kept = store.record(refused(3, "large", octets=8 * 1024 * 1024))
    assert kept == [SAMPLE_OCTETS_OF_HOUR, -1, -1]
    assert table("SELECT account, kept_octets FROM refusal ORDER BY 1") == [
        ("large", SAMPLE_OCTETS_OF_HOUR),
        ("mallory", SAMPLE_OCTETS_OF_HOUR),
    ]


def test_texts_of_strangers_are_stored_without_control_characters(
    store: RefusalStore, table: Table
) -> None:
    hostile = "a\0b\x1b[31m" + "x" * 5000
    store.record([RefusedMessage(hostile, RefusalCode.FAULT, 1, hostile)])
    store.note_floods([Flood(hostile, 1, 1, 1, "fault"), Flood("a\0", 2, 2, 2, "octets")])
    account, detail = table("SELECT account, detail FROM refusal")[0]
    assert account.startswith("ab[31mxxx")
    assert (len(account), len(detail)) == (253, 298)


def test_counts_saturate(store: RefusalStore, table: Table) -> None:
    store.record(refused(1))
    table.run("UPDATE refusal SET messages = 4611686018427387903, octets = 4611686018427387903")
    store.record(refused(1))
    assert table("SELECT messages, octets FROM refusal") == [(2**62 - 1, 2**62 - 1)]


def test_flood_keeps_its_start_and_a_later_one_is_new(store: RefusalStore, table: Table) -> None:
    flood = Flood("mallory", 312.4, 4e6, 300.0, "not_a_batch")
    store.note_floods([flood])
    table.run("UPDATE flood SET since = since - interval '20 s', last_at = now() - interval '5 s'")
    since = table.one("SELECT since FROM flood")
    store.note_floods([flood, Flood("another", 51, 1, 0, "messages")])
    store.note_floods([])
    assert table.one("SELECT since FROM flood WHERE account = 'mallory'") == since
    table.run("UPDATE flood SET last_at = now() - interval '2 minutes'")
    store.note_floods([flood])
    assert table.one("SELECT since > %s FROM flood WHERE account = 'mallory'", since)


def test_sensors_shows_flooding_accounts_and_those_that_only_sent_refused_messages(
    dsn: str, store: RefusalStore, table: Table
) -> None:
    table.run("INSERT INTO sensor (name, heard_at) VALUES ('good', now())")
    store.record([*refused(7), *refused(2, "")])
    store.note_floods([Flood("mallory", 312.4, 4e6, 300.0, "not_a_batch")])
    table.run("INSERT INTO flood VALUES ('past', now(), now() - interval '1 hour', 9, 9, 9, 'x')")
    result = run(dsn, "sensors", "--json")
    nobody, good, mallory = json.loads(result.stdout)
    assert (nobody["sensor"], nobody["refused_24h"]) == ("(no account)", 2)
    assert (good["alive"], good["refused_24h"], good["flood"]) == (True, 0, None)
    assert (mallory["alive"], mallory["refused_24h"]) == (False, 7)
    assert mallory["flood"] == "312/s not_a_batch"
    assert "mallory has flooded the queue since" in result.stderr


def test_refusals_are_listed_of_all_accounts_or_one(
    dsn: str, store: RefusalStore, table: Table
) -> None:
    assert run(dsn, "sensors", "refusals").exit_code == 1
    store.record([*refused(7), *refused(2, "other"), *refused(1, "")])
    rows = json.loads(run(dsn, "sensors", "refusals", "--json").stdout)
    assert [(row["account"], row["messages"], row["kept"]) for row in rows] == [
        ("mallory", 7, 7),
        ("other", 2, 2),
        ("(no account)", 1, 1),
    ]
    (row,) = csv.DictReader(
        io.StringIO(run(dsn, "sensors", "refusals", "other", "--format", "csv").stdout)
    )
    assert (row["reason"], row["octets"], row["detail"]) == ("not_a_batch", "20", "what is wrong 1")
    cut = run(dsn, "sensors", "refusals", "--limit", "1", "--json")
    assert len(json.loads(cut.stdout)) == 1
    assert "--limit 1" in cut.stderr
    table.run("UPDATE refusal SET last_at = now() - interval '2 days'")
    assert run(dsn, "sensors", "refusals", "--since", "1d").exit_code == 1
