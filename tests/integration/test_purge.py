"""`smtpfeeds sensors purge --since` deletes what the aggregator received since a time, no more.

test_epochs.py tests the purge of epochs, which is exact.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner, Result

from ingest_support import DAY_MS, Table, greet, made_batch, now_ms
from ingest_support.fixtures import connection, dsn, table  # noqa: F401 - fixtures
from ingest_support.storing import apply, ingest_store
from smtpfeeds_aggregator.store import purge
from smtpfeeds_aggregator.store.connection import Connection
from smtpfeeds_aggregator.store.purge import PurgeStore, part_since
from smtpfeeds_common.cli import main
from smtpfeeds_common.wire import HourCount, Observation, PrefixOverflow

# ruff: noqa: F811 - fixtures are imported by name and used by name

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
#: The sensor `bad` is not trusted since then.
BAD = NOW - 3 * HOUR
LONG_AGO = NOW - 9 * HOUR


def run(dsn: str, *arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(main, ["sensors", *arguments, "--dsn", dsn], input=answer)


def see(
    table: Table,
    ip: str,
    feed: str = "smtpgreet",
    sensor: str = "bad",
    *,
    seen: tuple[datetime, datetime],
    heard: tuple[datetime | None, datetime | None],
    hits: int = 2,
    flags: int = 0,
) -> None:
    table.run(
        "INSERT INTO sighting (ip, feed, sensor, first_seen, last_seen, hits, flags, targets,"
        " first_heard, last_heard) VALUES (%s, %s, %s, %s, %s, %s, %s, 1, %s, %s)",
        *(ip, feed, sensor, *seen, hits, flags, *heard),
    )


def fold(table: Table) -> None:
    """Compute `observation` from `sighting`, as ingest does."""
    table.run(
        "INSERT INTO observation SELECT s.ip, f.feed, min(first_seen), max(last_seen),"
        " coalesce(sum(hits) FILTER (WHERE s.feed = f.feed), 0),"
        " coalesce(bit_or(flags) FILTER (WHERE s.feed = f.feed), 0), 64496"
        " FROM sighting s JOIN (VALUES ('smtpgreet', 'smtpgreet'), ('smtpgreet', 'smtpdata'),"
        " ('smtpdata', 'smtpdata')) f (feed, source) ON s.feed = f.source GROUP BY 1, 2"
    )


@pytest.fixture
def seen(table: Table) -> None:
    """Store the reports of `bad` and `good`, before and after."""
    table.run("INSERT INTO sensor (name) VALUES ('bad'), ('good')")
    before, after, both = (LONG_AGO, LONG_AGO), (BAD, NOW), (LONG_AGO, NOW)
    # Only from the bad sensor, since then, dated back, as a thief may.
    see(table, "192.0.2.1", seen=(NOW - 99 * HOUR, NOW - 98 * HOUR), heard=after)
    see(table, "192.0.2.1", "smtpdata", seen=after, heard=after)
    # Both; the bad one since then.
    see(table, "192.0.2.2", seen=(NOW - 99 * HOUR, NOW), heard=after, hits=50, flags=4)
    see(table, "192.0.2.2", sensor="good", seen=(LONG_AGO, BAD), heard=both, hits=3, flags=1)
    # Reported before too, with DATA; a later report may have lowered the first time.
    see(table, "192.0.2.3", seen=(NOW - 99 * HOUR, NOW), heard=both, hits=9, flags=2)
    see(table, "192.0.2.3", "smtpdata", seen=(LONG_AGO, NOW - 8 * HOUR), heard=both)
    # Before only; by another only.
    see(table, "192.0.2.4", seen=(LONG_AGO, LONG_AGO + HOUR), heard=before)
    see(table, "2001:db8::5", sensor="good", seen=(LONG_AGO, NOW), heard=both)
    # From before the database recorded arrival times; only the event's time decides.
    see(table, "192.0.2.6", seen=(LONG_AGO, NOW), heard=(None, None), hits=7)
    fold(table)
    for hour, heard, sensor in (
        (LONG_AGO, LONG_AGO, "bad"),
        (LONG_AGO - HOUR, NOW, "bad"),
        (BAD + HOUR, NOW, "bad"),
        (BAD + HOUR, None, "bad"),
        (BAD + HOUR, NOW, "good"),
    ):
        table.run(
            "INSERT INTO activity (hour, feed, sensor, events, last_heard) VALUES (%s, %s, %s, 5,"
            " %s) ON CONFLICT DO NOTHING",
            *(hour, "smtpgreet", sensor, heard),
        )


def observations(table: Table) -> list[tuple[object, ...]]:
    return table(
        "SELECT host(ip), feed, first_seen, last_seen, hits, flags, asn FROM observation"
        " ORDER BY ip, feed"
    )


@pytest.mark.usefixtures("seen")
def test_observation_is_rebuilt_from_what_is_left(dsn: str, table: Table) -> None:
    result = run(dsn, "purge", "bad", "--since", BAD.isoformat(), "--yes")
    assert result.exit_code == 0, result.output
    assert "4 addresses rebuilt, 3 sightings deleted, 3 cut back, 2 rows left" in result.stdout
    later = LONG_AGO + HOUR
    assert observations(table) == [
        ("192.0.2.2", "smtpgreet", LONG_AGO, BAD, 3, 1, 64496),
        # Seen once, at its first arrival, regardless of later reports.
        ("192.0.2.3", "smtpdata", LONG_AGO, LONG_AGO, 1, 0, 64496),
        ("192.0.2.3", "smtpgreet", LONG_AGO, LONG_AGO, 1, 0, 64496),
        ("192.0.2.4", "smtpgreet", LONG_AGO, later, 2, 0, 64496),
        ("192.0.2.6", "smtpgreet", LONG_AGO, LONG_AGO, 1, 0, 64496),
        ("2001:db8::5", "smtpgreet", LONG_AGO, NOW, 2, 0, 64496),
    ]
    assert table("SELECT hour, sensor FROM activity ORDER BY 2, 1") == [
        (LONG_AGO, "bad"),
        (BAD + HOUR, "good"),
    ]


def test_backdated_events_of_a_thief_are_removed_too(
    dsn: str, table: Table, connection: Connection
) -> None:
    """Ingest accepts events of five days ago, which a purge by event time would miss."""
    store = ingest_store(dsn)
    at = now_ms()
    apply(store, made_batch(greet("192.0.2.1", at - 1000), sensor="s1"))
    apply(store, made_batch(greet("192.0.2.1", at - 1000), sensor="honest"))
    since = table.one("SELECT clock_timestamp()")
    old = at - 5 * 86_400_000
    apply(
        store,
        made_batch(
            Observation("smtpgreet", "192.0.2.1", old, old, 40),
            greet("192.0.2.2", old),
            sensor="s1",
            hours=[HourCount("smtpgreet", old, 40)],
            overflows=[PrefixOverflow("smtpgreet", "2001:db8::/64", old, old, 9)],
        ),
    )
    store.close()
    PurgeStore(connection).purge(part_since("s1", 1, since))
    rows = table.rows()
    assert list(rows) == [("192.0.2.1", "smtpgreet")]
    first, last, hits = rows["192.0.2.1", "smtpgreet"][:3]
    assert (first.timestamp() * 1000, hits) == (at - 1000, 2)
    assert last >= first
    assert table("SELECT * FROM activity") == []
    assert table("SELECT * FROM prefix_overflow") == []


def test_prefix_counts_that_were_heard_before_and_after_are_cut_back(
    table: Table, connection: Connection
) -> None:
    for prefix, heard in (("2001:db8::/64", LONG_AGO), ("2001:db8:1::/64", BAD)):
        table.run(
            "INSERT INTO prefix_overflow VALUES (%s, 'smtpgreet', 'bad', %s, %s, 90, %s, %s)",
            *(prefix, NOW - 99 * HOUR, NOW, heard, NOW),
        )
    PurgeStore(connection).purge(part_since("bad", 1, BAD))
    assert table("SELECT text(prefix), first_seen, last_seen, hits FROM prefix_overflow") == [
        ("2001:db8::/64", LONG_AGO, LONG_AGO, 1)
    ]


@pytest.mark.usefixtures("seen")
def test_days_and_bits_are_those_of_what_is_left(table: Table, connection: Connection) -> None:
    """A row that is cut back has the day of its first arrival, and no behaviours."""
    table.run("TRUNCATE observation, sighting")
    today = now_ms() // DAY_MS
    long_ago = NOW - timedelta(days=10)
    first_day = int(long_ago.timestamp()) * 1000 // DAY_MS
    for sensor, days, bits in (("bad", 0b1001, 2), ("good", 0b110, 4)):
        see(table, "192.0.2.1", sensor=sensor, seen=(long_ago, NOW), heard=(long_ago, NOW), flags=7)
        table.run(
            "UPDATE sighting SET day = %s, days = %s, flags_now = %s, flags_before = 1,"
            " targets_now = 1, flags = %s WHERE sensor = %s",
            *(today, days, bits, bits | 1, sensor),
        )
    fold(table)
    PurgeStore(connection).purge(part_since("bad", 1, BAD))
    names = "day, days, flags, flags_now, flags_before"
    (cut, good) = table(f"SELECT {names}, targets, targets_now FROM sighting ORDER BY sensor")
    assert cut == (first_day, 1, 0, 0, 0, 0, 0)
    assert good[:5] == (today, 0b110, 5, 4, 1)
    ((day, days, flags, *weeks),) = table(f"SELECT {names} FROM observation")
    # Both ends are set. The day of the purge may be the next one.
    assert days == (1 << today - first_day | 0b111) << day - today
    assert (flags, weeks) == ((5, [4, 1]) if day // 7 == today // 7 else (4, [0, 4]))


def test_second_purge_changes_nothing(table: Table, connection: Connection) -> None:
    store = PurgeStore(connection)
    part = part_since("bad", 1, BAD)
    store.purge(part)
    before = observations(table)
    again = store.purge(part)
    assert (again.addresses, again.sightings_deleted, again.sightings_cut) == (0, 0, 0)
    assert observations(table) == before


def test_absurd_counts_do_not_stop_a_purge(table: Table, connection: Connection) -> None:
    for sensor in ("a", "b", "c", "bad"):
        see(table, "192.0.2.9", sensor=sensor, seen=(BAD, NOW), heard=(BAD, NOW), hits=2**62 - 1)
    table.run(
        "INSERT INTO observation SELECT ip, feed, first_seen, last_seen, hits FROM sighting"
        " WHERE sensor = 'bad'"
    )
    PurgeStore(connection).purge(part_since("bad", 1, BAD))
    assert observations(table)[0][4] == 2**62 - 1


@pytest.mark.usefixtures("seen")
def test_purge_asks_first(dsn: str, table: Table) -> None:
    before = observations(table)
    result = run(dsn, "purge", "bad", "--since", "3h", answer="n\n")
    assert result.exit_code == 1
    assert "4 addresses?" in result.stderr
    assert "the centre records since" in result.stderr
    assert observations(table) == before


def test_slices_contain_every_address_once(
    table: Table, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "SLICE_ADDRESSES", 3)
    ips = ["0.0.0.0", "255.255.255.255", "::", "2001:db8::1", *(f"192.0.2.{n}" for n in range(9))]
    for ip in ips:
        see(table, ip, seen=(BAD, NOW), heard=(BAD, NOW))
    fold(table)
    purged = PurgeStore(connection).purge(part_since("bad", 1, BAD))
    assert (purged.addresses, purged.observations_deleted) == (len(ips), len(ips))
    assert observations(table) == []


def test_sightings_are_kept_as_long_as_their_address(
    dsn: str, table: Table, connection: Connection
) -> None:
    """Sightings are kept as long as their address, so that a purge rebuilds it exactly."""
    from ingest_support.storing import RETENTION
    from smtpfeeds_aggregator.store.maintenance import MaintenanceStore

    store = ingest_store(dsn)
    apply(store, made_batch(greet("192.0.2.1", hits=3), sensor="first"))
    days = "now() - interval '60 days'"
    for name in ("sighting", "observation"):
        table.run(f"UPDATE {name} SET first_seen = {days}, last_seen = {days}")
    table.run("UPDATE observation SET last_seen = now() - interval '1 day'")
    apply(store, made_batch(greet("192.0.2.1"), sensor="stolen"))
    store.close()
    list(MaintenanceStore(connection, retention=RETENTION).retire(datetime.now(UTC)))
    PurgeStore(connection).purge(part_since("stolen", 1, NOW - HOUR))
    (row,) = observations(table)
    assert (row[2], row[4]) == (table.one("SELECT first_seen FROM sighting"), 3)
    list(MaintenanceStore(connection, retention=RETENTION).retire(datetime.now(UTC)))
    assert table("SELECT FROM sighting") == [], "it goes with its address"
