"""Days and bits of stored rows, compared with a simulation that keeps every event.

The test replaces the database's clock function, so that months pass between two batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import reduce
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_support import (
    DAY_MS,
    GREET,
    HOUR_MS,
    KnowsAllOrigins,
    Table,
    delivery_of,
    made_batch,
    settings_of,
    utc,
)
from ingest_support.fixtures import dsn, table  # noqa: F401 - fixtures
from smtpfeeds_aggregator.clock.database import ClockLimits, DatabaseClock
from smtpfeeds_aggregator.ingest.check import check
from smtpfeeds_aggregator.ingest.fold import fold
from smtpfeeds_aggregator.store.bounds import Bounds
from smtpfeeds_aggregator.store.connection import Connection, connect
from smtpfeeds_aggregator.store.ingest import IngestStore
from smtpfeeds_aggregator.store.purge import PurgeStore, part_of_epoch
from smtpfeeds_aggregator.store.rows import BatchKey, Folded
from smtpfeeds_common.feeds import FeedName
from smtpfeeds_common.history import DAYS_MAX, History, moved, of_stored, recent_flags
from smtpfeeds_common.wire import Observation

# ruff: noqa: F811 - fixtures are imported by name and used by name

#: Later than any clock; the first day of an epoch week.
START_MS = 24_500 // 7 * 7 * DAY_MS
IP = "192.0.2.1"
SENSORS = ("s1", "s2")
FEEDS: tuple[FeedName, ...] = ("smtpgreet", "smtpdata")


class Heard(NamedTuple):
    """Events of one row: hours before or after now; flags; a target."""

    feed: FeedName
    events: tuple[tuple[int, int, int], ...]
    is_note: bool

    def at(self, now_ms: int) -> list[tuple[int, int, int]]:
        """Return time, flags and target of each event; a note belongs to a recent event."""
        hours = -150 if self.is_note else -(10**6)
        return sorted(
            (now_ms + max(each[0], hours) * HOUR_MS, each[1], each[2]) for each in self.events
        )


events = st.tuples(
    st.integers(-40, 2) | st.integers(-24 * 90, 24 * 20),
    st.integers(0, 15),
    st.integers(0, 7),
)
heard = st.builds(
    Heard,
    st.sampled_from(FEEDS),
    st.lists(events, min_size=1, max_size=3).map(tuple),
    st.sampled_from([False, False, True]),
)
batches = st.lists(
    st.tuples(st.sampled_from(SENSORS), st.lists(heard, min_size=1, max_size=3)),
    min_size=1,
    max_size=3,
)
Step = tuple[int, list[tuple[str, list[Heard]]], bool]
#: Hours that pass, batches of one transaction, and whether s2 is purged afterwards.
steps = st.lists(
    st.tuples(
        st.integers(0, 30) | st.integers(0, 24 * 70),
        batches,
        st.sampled_from([False] * 5 + [True]),
    ),
    min_size=1,
    max_size=5,
)


def day(at_ms: int) -> int:
    return at_ms // DAY_MS


@dataclass
class Row:
    """The events of a feed at a sensor."""

    first_ms: int
    last_ms: int
    days: set[int]
    #: By the day for which they count.
    flags: list[tuple[int, int]]
    targets: list[tuple[int, int]]

    def recent(self, what: list[tuple[int, int]], week: int) -> int:
        """Return those of this epoch week and the week before."""
        return reduce(int.__or__, [bits for at, bits in what if at // 7 >= week - 1], 0)


def together(one: Row, other: Row) -> Row:
    return Row(
        min(one.first_ms, other.first_ms),
        max(one.last_ms, other.last_ms),
        one.days | other.days,
        one.flags + other.flags,
        one.targets + other.targets,
    )


def message(heard: Heard, now_ms: int) -> Observation:
    """Create a sensor's row of some events, or of a note."""
    seen = heard.at(now_ms)
    first, last = seen[0][0], seen[-1][0]
    if heard.is_note:
        return Observation(heard.feed, IP, last, last, 0, seen[-1][1])
    flags, targets = flags_and_targets(seen)
    return Observation(heard.feed, IP, first, last, len(seen), flags, targets)


def flags_and_targets(seen: list[tuple[int, int, int]]) -> tuple[int, int]:
    """Combine flags and targets of events."""
    return (
        reduce(int.__or__, [flags for _, flags, _ in seen]),
        reduce(int.__or__, [1 << target for _, _, target in seen]),
    )


def row_of(heard: Heard, now_ms: int) -> Row:
    """Return the events as a row represents them, clamped to the clock: two days, the last week."""
    seen = heard.at(now_ms)
    first, last = seen[0][0], seen[-1][0]
    counts_for = day(min(last, now_ms))
    flags, targets = flags_and_targets(seen)
    return Row(
        first,
        last,
        {day(min(at, now_ms)) for at in (first, last) if day(last) - day(at) < DAYS_MAX},
        [(counts_for, flags)],
        [(counts_for, targets)],
    )


class Simulation:
    """All events, by feed and sensor."""

    def __init__(self, retention: timedelta) -> None:
        self.retention_ms = int(retention.total_seconds() * 1000)
        self.rows: dict[tuple[str, str], Row] = {}

    def hear(self, heard_by: list[tuple[str, list[Heard]]], now_ms: int) -> None:
        """Apply the batches of one transaction."""
        oldest = now_ms - self.retention_ms
        incoming: dict[tuple[str, str], Row] = {}
        for sensor, each in heard_by:
            for heard in each:
                for feed in {heard.feed, GREET} if not heard.is_note else ():
                    row = row_of(heard, now_ms)
                    if feed != heard.feed:
                        row.flags = []
                    key = (feed, sensor)
                    incoming[key] = together(incoming[key], row) if key in incoming else row
        for key, row in incoming.items():
            if row.last_ms >= oldest:
                row.first_ms = max(min(row.first_ms, now_ms), oldest)
                row.last_ms = min(row.last_ms, now_ms)
                self.rows[key] = together(self.rows[key], row) if key in self.rows else row
        for sensor, each in heard_by:
            for note in each:
                key = (note.feed, sensor)
                # A note is dropped together with the expired events of its address.
                expired = key in incoming and incoming[key].last_ms < oldest
                if note.is_note and key in self.rows and not expired:
                    at, flags, _ = note.at(now_ms)[-1]
                    self.rows[key].flags.append((day(min(at, now_ms)), flags))

    def of(self, feed: str) -> Row | None:
        rows = [row for (of_feed, _), row in self.rows.items() if of_feed == feed]
        return reduce(together, rows) if rows else None


class Database:
    """A store on a database whose clock the test sets."""

    def __init__(self, dsn: str, retention: timedelta) -> None:
        self._dsn = dsn
        self.now_ms = START_MS
        clock = DatabaseClock(ClockLimits(settle_s=0), monotonic=lambda: self.now_ms / 1000)
        self._settings = settings_of(dsn)
        self.connection = self._connect()
        self.store = IngestStore(
            lambda: self.connection, clock=clock, retention=retention, bounds=Bounds()
        )

    def _connect(self) -> Connection:
        connection = connect(self._settings, "test", autocommit=True)
        connection.execute("SET search_path = clock, pg_catalog, public")
        return connection

    def set_clock(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.connection.execute("SELECT set_config('test.now', %s, false)", [str(utc(now_ms))])

    def hear(self, heard_by: list[tuple[str, list[Heard]]], folded_on: int) -> None:
        checked = [
            check(delivery_of(made_batch(*(message(each, self.now_ms) for each in rows), sensor=s)))
            for s, rows in heard_by
        ]

        def refold(keys: frozenset[BatchKey], today: int) -> Folded:
            return fold([each for each in checked if each.key in keys], KnowsAllOrigins(), today)

        self.store.apply(fold(checked, KnowsAllOrigins(), folded_on), refold)


@pytest.fixture
def database(dsn: str, table: Table) -> str:
    table.run("CREATE SCHEMA clock")
    table.run(
        "CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE"
        " RETURN current_setting('test.now')::timestamptz"
    )
    return dsn


RETENTIONS = [7, 8, 30, 59, 60, 61, 365, 3650]


def test_stored_days_and_bits_are_those_of_a_simulation(database: str, table: Table) -> None:
    """With late batches, wrong clocks, any order and a purge, nothing is lost or invented."""

    @settings(deadline=None, max_examples=25, derandomize=True)
    @given(steps, st.sampled_from(RETENTIONS), st.integers(0, 20), st.integers(-1, 1))
    def check_steps(steps: list[Step], retention_days: int, later: int, folded_on: int) -> None:
        table.run("TRUNCATE observation, sighting, sensor, spool CASCADE")
        retention = timedelta(days=retention_days)
        kept = Database(database, retention)
        expected = Simulation(retention)
        now_ms = START_MS + 100 * DAY_MS
        for hours, heard_by, purges in steps:
            now_ms += hours * HOUR_MS
            kept.set_clock(now_ms)
            kept.hear(heard_by, day(now_ms) + folded_on)
            expected.hear(heard_by, now_ms)
            if purges:
                PurgeStore(kept.connection).purge(part_of_epoch("s2", 1))
                expected.rows = {key: row for key, row in expected.rows.items() if key[1] != "s2"}
        kept.connection.close()
        today = day(now_ms) + later
        for feed in FEEDS:
            compare(table, feed, expected, today, retention_days)

    check_steps()


def compare(table: Table, feed: str, expected: Simulation, today: int, retention_days: int) -> None:
    stored = table(
        "SELECT day, days, flags_now, flags_before, flags, first_seen, last_seen"
        " FROM observation WHERE feed = %s",
        feed,
    )
    row = expected.of(feed)
    if row is None:
        assert stored == []
        return
    ((at, days, now, before, every, first, last),) = stored
    assert (first, last) == (utc(row.first_ms), utc(row.last_ms))
    history = of_stored(
        History(at, days, now, before), every, day(row.first_ms), day(row.last_ms), retention_days
    )
    backs = {
        today - each
        for each in {*row.days, day(row.first_ms), day(row.last_ms)}
        if each >= day(row.first_ms) and today - each <= min(retention_days, DAYS_MAX - 1)
    }
    assert {
        back
        for back in range(min(retention_days, DAYS_MAX - 1) + 1)
        if moved(history, today).days >> back & 1
    } == backs
    assert recent_flags(history, today) == row.recent(row.flags, today // 7)
    targets = table(
        "SELECT sensor, recent_bits(targets, targets_now, targets_before, day, last_seen, %s),"
        " recent_bits(flags, flags_now, flags_before, day, last_seen, %s)"
        " FROM sighting WHERE feed = %s",
        *(today // 7, today // 7, feed),
    )
    assert {sensor: bits for sensor, *bits in targets} == {
        sensor: [each.recent(each.targets, today // 7), each.recent(each.flags, today // 7)]
        for (of_feed, sensor), each in expected.rows.items()
        if of_feed == feed
    }


def test_transaction_that_began_before_midnight_and_waited_loses_no_day(
    database: str, table: Table
) -> None:
    """The other transaction has moved the row to the next day; this one has the day before."""
    midnight = START_MS + 7 * DAY_MS
    for hour, flags in ((1, 1), (-1, 2)):
        now_ms = midnight + hour * HOUR_MS
        aggregator = Database(database, timedelta(days=30))
        aggregator.set_clock(now_ms)
        one = Heard("smtpgreet", ((0, flags, flags),), is_note=False)
        aggregator.hear([("s1", [one])], day(now_ms))
        aggregator.connection.close()
    for name in ("observation", "sighting"):
        assert table(f"SELECT day, days, flags_now, flags_before, flags FROM {name}") == [
            (day(midnight), 0b11, 1, 2, 3)
        ]
    assert table("SELECT targets_now, targets_before, targets FROM sighting") == [(2, 4, 6)]


def test_note_of_a_later_epoch_of_the_account_finds_its_event(database: str, table: Table) -> None:
    """After the first epoch, rows of a sensor have another name than the sensor."""
    aggregator = Database(database, timedelta(days=30))
    aggregator.set_clock(START_MS)
    event = Heard("smtpgreet", ((0, 1, 1),), is_note=False)
    note = Heard("smtpgreet", ((0, 8, 0),), is_note=True)
    aggregator.hear([("s1", []), ("s2", [event])], day(START_MS))
    table.run("UPDATE sensor SET epoch = 2 WHERE name = 's1'")
    for heard in (note, event, note):
        aggregator.hear([("s1", [heard])], day(START_MS))
    aggregator.connection.close()
    rows = table("SELECT sensor, hits, flags FROM sighting ORDER BY sensor")
    assert rows == [("s1@2", 1, 9), ("s2", 1, 1)]
