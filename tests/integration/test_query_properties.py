"""Any mixture of terms gives what a loop over all rows gives, and the class that a feed gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_support.fixtures import migrated_database
from publish_support import Info, Origins
from servers.postgres import PostgresServer
from smtpfeeds_aggregator.classification.lists.model import AddressList, parse_prefix
from smtpfeeds_aggregator.classification.lists.table import ListTable
from smtpfeeds_aggregator.publish.once import publish_once
from smtpfeeds_aggregator.query.rows import FeedRow
from smtpfeeds_aggregator.query.term_query import QueryFilter, TermQuery
from smtpfeeds_aggregator.query.terms import Term, parse_term
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.store.connection import Connection, connect
from smtpfeeds_aggregator.store.listed import store_lists
from smtpfeeds_aggregator.store.query import QueryStore
from smtpfeeds_aggregator.store.query_rows import RowFilter
from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.cli import main
from smtpfeeds_common.feeds import FEED_NAMES

NAMES = {1: "Alpha Net", 2: "Beta Net, Inc", 3: "ALPHABET"}
LISTED = ("9.0.0.0/28", "9.0.0.3/32", "2620:fe::/126")
ACTOR = "scan-co"


@pytest.fixture(scope="module")
def dsn(postgres: PostgresServer) -> Iterator[str]:
    dsn = migrated_database(postgres)
    yield dsn
    postgres.drop_database(dsn)


@pytest.fixture(scope="module")
def connection(dsn: str) -> Iterator[Connection]:
    with connect(AggregatorSettings(dsn=dsn), "test", autocommit=True) as connection:
        fill(connection)
        table = lists()
        store_lists(connection, table.generation, table.ranges())
        yield connection


def lists() -> ListTable:
    day = datetime.now(UTC).date() - timedelta(days=90)
    prefixes = tuple(parse_prefix(text) for text in LISTED)
    scanners = AddressList("scans", "scanner", ACTOR, "", "", day, "stated", prefixes)
    mailers = AddressList("big", "mailer", "big", "", "", day, "stated", prefixes[:1])
    return ListTable((scanners, mailers), "lists-1")


def fill(connection: Connection) -> None:
    """Rows of every age, written by this version, by 0.1.0, by both, and with notes of a day later.

    What `day` says and what last_seen says differ as they can: 0.1.0 moves last_seen alone, a note
    moves the day alone.
    """
    today = datetime.now(UTC).toordinal() - date(1970, 1, 1).toordinal()
    for number in range(160):
        ip = f"9.0.{number % 3}.{number // 6}" if number % 4 else f"2620:fe::{number:x}"
        last_day = today - number % 19
        first_day = last_day - number * 7 % 23
        day = (0, last_day, last_day - 1, last_day - 9, min(last_day + 1, today))[number % 5]
        for feed in FEED_NAMES if number % 3 else FEED_NAMES[:1]:
            flags = (number * 2654435761 >> 3) & (1 << 29) - 1
            row = (
                ip, feed, first_day, last_day, number % 60 + 1, flags, number % 4 or None, day,
                number * 977 & 0xFFFF, flags & 0x15555555, flags >> 7,
            )  # fmt: skip
            connection.execute(
                "INSERT INTO observation (ip, feed, first_seen, last_seen, hits, flags, asn, day,"
                " days, flags_now, flags_before) VALUES (%s, %s, to_timestamp(%s * 86400),"
                " to_timestamp(%s * 86400), %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                row,
            )
            for sensor in range(1 + number % 3):
                seen = last_day - sensor * 5
                connection.execute(
                    "INSERT INTO sighting (ip, feed, sensor, first_seen, last_seen, hits)"
                    " VALUES (%s, %s, %s, to_timestamp(%s * 86400), to_timestamp(%s * 86400), 1)"
                    " ON CONFLICT DO NOTHING",
                    (ip, feed, f"sensor-{sensor}", min(first_day, seen), seen),
                )
    for asn, name in NAMES.items():
        connection.execute("INSERT INTO autonomous_system VALUES (%s, %s)", (asn, name))
    connection.execute(
        "INSERT INTO sensor (name, heard_at) SELECT 'sensor-' || n, now()"
        " FROM generate_series(0, 2) n"
    )


def test_class_and_days_are_those_that_the_feeds_publish(
    dsn: str, connection: Connection, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("site")
    site = AggregatorSettings(dsn=dsn, feeds_dir=str(folder), publish_exact_counts=True)
    publish_once(site, Origins(info=Info(prefixes=0)), connection, lists=lists())
    asked = CliRunner().invoke(
        main, ["query", "--all", "--json"], env={"SMTPFEEDS_AGGREGATOR_DSN": dsn}
    )
    known = {(row["ipaddr"], row["category"]): row for row in json.loads(asked.stdout)}
    published = [
        json.loads(line)
        for feed in FEED_NAMES
        for line in (folder / "feeds" / f"{feed}.ndjson").read_text().splitlines()
    ]
    assert len(published) > 50
    assert {row["class"] for row in published} > {"survey", "relay-test", "password-guess"}
    same = ("class", "why", "actor", "tags", "days", "days_seen", "new", "hits", "ASN", "ASname")
    for row in published:
        answer = known[row["ipaddr"], row["category"]]
        assert {name: answer[name] for name in same} == {name: row[name] for name in same}, row


@pytest.fixture(scope="module")
def everything(connection: Connection) -> list[FeedRow]:
    wanted = QueryFilter(stored=RowFilter(feeds=FEED_NAMES))
    return list(TermQuery(QueryStore(connection), wanted).everything())


address4 = st.builds("9.0.{}.{}".format, st.integers(0, 3), st.integers(0, 30))
address6 = st.builds("2620:fe::{:x}".format, st.integers(0, 200))
address = address4 | address6
prefix = st.builds("{}/{}".format, address4, st.integers(20, 32)) | st.builds(
    "{}/{}".format, address6, st.integers(112, 128)
)


def span_of(each: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(each, each).map(lambda two: "-".join(sorted(two, key=pack_address)))


span = span_of(address4) | span_of(address6)
word = st.sampled_from(["alpha", "NET", "Inc", ACTOR, "nobody"])
term = st.one_of(address, prefix, span, st.sampled_from(["AS1", "AS2", "3", "AS9"]), word)


def belongs(row: FeedRow, asked: Term) -> bool:
    """Whether a row is one of a term's; the simple way."""
    if asked.range is not None:
        return row.packed in asked.range
    if asked.asn is not None:
        return row.asn == asked.asn
    assert asked.word is not None
    named = asked.word.lower() in NAMES.get(row.asn or 0, "").lower()
    return named or (asked.word == ACTOR and any(entry[0] == "scanner" for entry in row.entries))


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(term, min_size=1, max_size=12),
    min_hits=st.integers(0, 20),
    feeds=st.sampled_from([FEED_NAMES, FEED_NAMES[:1], FEED_NAMES[1:]]),
    min_sensors=st.integers(0, 2),
)
def test_any_mixture_of_terms_gives_what_a_loop_gives(
    connection: Connection,
    everything: list[FeedRow],
    texts: list[str],
    min_hits: int,
    feeds: tuple[str, ...],
    min_sensors: int,
) -> None:
    store = QueryStore(connection)
    terms = [parse_term(text) for text in texts]
    wanted = QueryFilter(stored=RowFilter(feeds=feeds, min_hits=min_hits), min_sensors=min_sensors)
    candidates = [
        row
        for row in everything
        if row.feed in feeds and row.hits >= min_hits and row.sensors >= min_sensors
    ]
    expected: dict[tuple[str, str], tuple[int, FeedRow]] = {}
    for row in candidates:
        place = next((n for n, each in enumerate(terms) if belongs(row, each)), None)
        if place is not None:
            expected[row.ip, row.feed] = (place, row)
    term_query = TermQuery(store, wanted)
    placed = list(term_query.rows(terms))
    assert len(placed) == len(expected)
    assert {(row.ip, row.feed): (place, row) for place, row in placed} == expected
    assert [place for place, _ in placed] == sorted(place for place, _ in placed)
    missing = term_query.not_seen(terms, {place for place, _ in placed})
    unseen = [each for each in terms if not any(belongs(row, each) for row in candidates)]
    assert missing == unseen
    answers = [(each.text, summary.addresses) for each, summary in term_query.answers(terms)]
    assert answers == [
        (each.text, len({row.ip for row in candidates if belongs(row, each)})) for each in terms
    ]


def test_packed_order_is_the_servers(connection: Connection) -> None:
    """Pages and merged ranges rely on it: IPv4 before IPv6, each by its octets."""
    rows = connection.execute("SELECT host(ip) FROM observation ORDER BY ip").fetchall()
    ips = [ip for (ip,) in rows]
    assert ips == sorted(ips, key=lambda ip: (len(pack_address(ip)), pack_address(ip)))
