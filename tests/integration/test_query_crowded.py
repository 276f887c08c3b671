"""IPv6 /64s past their addresses of a day are shown, and said where they would be missed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner, Result

from ingest_support.fixtures import migrated_database
from servers.postgres import PostgresServer
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_common.cli import main

Run = Callable[..., Result]
NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
ROWS = [
    ("2001:db8:0:1::/64", "smtpgreet", "s1", NOW - 3 * HOUR, NOW - 2 * HOUR, 2**62 - 1),
    ("2001:db8:0:1::/64", "smtpgreet", "s2", NOW - 4 * HOUR, NOW - HOUR, 2**62 - 1),
    ("2001:db8:0:9::/64", "smtpdata", "s1", NOW - 9 * HOUR, NOW - 8 * HOUR, 7),
]


@pytest.fixture(scope="module")
def dsn(postgres: PostgresServer) -> Iterator[str]:
    dsn = migrated_database(postgres)
    with connect(AggregatorSettings(dsn=dsn), "test", autocommit=True) as connection:
        for row in ROWS:
            connection.execute("INSERT INTO prefix_overflow VALUES (%s, %s, %s, %s, %s, %s)", row)
    yield dsn
    postgres.drop_database(dsn)


@pytest.fixture
def run(dsn: str) -> Run:
    return lambda *args: CliRunner().invoke(main, args, env={"SMTPFEEDS_AGGREGATOR_DSN": dsn})


def test_crowded_prefixes_are_listed_newest_first_with_saturated_sums(run: Run) -> None:
    done = run("feed", "crowded", "--json")
    assert done.exit_code == 0
    first, second = json.loads(done.stdout)
    assert first == {
        "prefix": "2001:db8:0:1::/64",
        "feed": "smtpgreet",
        "last_seen": f"{NOW - HOUR:%Y-%m-%dT%H:%M:%SZ}",
        "first_seen": f"{NOW - 4 * HOUR:%Y-%m-%dT%H:%M:%SZ}",
        "events": 2**62 - 1,
        "sensors": 2,
    }
    assert (second["prefix"], second["events"]) == ("2001:db8:0:9::/64", 7)


def test_list_over_its_limit_is_cut_with_a_note(run: Run) -> None:
    done = run("feed", "crowded", "--limit", "1", "--format", "ndjson")
    assert len(done.stdout.splitlines()) == 1
    assert "there are more rows" in done.stderr


def test_nothing_crowded_since_a_time_is_exit_code_1(run: Run) -> None:
    done = run("feed", "crowded", "--since", "30m")
    assert done.exit_code == 1
    assert "no IPv6 prefix" in done.stderr


@pytest.mark.parametrize(
    ("asked", "noted"),
    [
        # Nothing named: all there is.
        (["--all"], True),
        # An address inside, and prefixes that meet it from above, within and at its edges.
        (["2001:db8:0:1::5"], True),
        (["2001:db8::/32"], True),
        (["2001:db8:0:1::/64"], True),
        (["2001:db8:0:1:8000::/65"], True),
        (["192.0.2.1", "2001:db8:0:1:ffff:ffff:ffff:ffff"], True),
        # Beside it, another family, an ASN, another feed, another time.
        (["2001:db8::ffff"], False),
        (["2001:db8:0:2::"], False),
        (["192.0.2.0/24"], False),
        (["AS64496"], False),
        (["2001:db8:0:1::5", "--feed", "smtpdata"], False),
        (["2001:db8:0:1::5", "--since", "30m"], False),
    ],
)
def test_query_says_that_some_of_it_has_no_row(run: Run, asked: list[str], noted: bool) -> None:
    done = run("query", *asked)
    assert done.exit_code == 1
    assert ("feed crowded" in done.stderr) == noted
    assert "nothing found" in done.stderr or "not seen" in done.stderr
