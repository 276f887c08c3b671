"""Bounds the new addresses that one ingest transaction stores, and counts the others.

No account and no owner of an IPv6 prefix may fill the disk with new addresses. A sensor
has a bucket of them, which refills even while it is silent; an IPv6 /64, /48 and /32 have
a number a day. Past a bound, events of a new address are counted under the account, or
under the widest full prefix. Known addresses are not affected, and every answered event
is counted once.

The bound of a /64 is exact. Those of a sensor, a /48 and a /32 use estimates from a
random sample of the incoming rows: exact counts would cost a tenth of ingest, and make
workers wait for each other in a busy /32. A sensor near its bound is counted exactly. A
/48 or /32 may exceed its bound by one collection for each aggregator.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, LiteralString, NamedTuple

from smtpfeeds_common.addresses import format_address, pack_address

from .bounds import WIDE, Bounds, FullPrefixes, PrefixDay
from .connection import Connection
from .rows import Folded, OverflowRow


class AccountRow(NamedTuple):
    """Events of a sensor's new addresses that exceed its bucket."""

    sensor: str
    feed: str
    first_seen: datetime
    last_seen: datetime
    hits: int


@dataclass
class Admission:
    """The bounds in one transaction, whose rows are in the table ``incoming``."""

    connection: Connection
    #: The queries of ``admission.sql``, by name.
    sql: Mapping[str, LiteralString]
    bounds: Bounds
    retention: timedelta
    now: datetime
    full: FullPrefixes
    #: The name that a sensor's rows are stored under, if it is not the sensor's.
    enrolments: Mapping[str, str]
    #: Room left in the buckets; an unknown sensor has a full bucket.
    rooms: Mapping[str, int]
    #: Rows of ``incoming`` that are counted under a prefix or an account.
    overflowed: int = 0
    past_bucket: Counter[str] = field(default_factory=Counter)
    #: Estimated new addresses and prefixes, by sensor.
    new: Counter[str] = field(default_factory=Counter)
    #: /48s and /32s that are full after this transaction.
    now_full: list[PrefixDay] = field(default_factory=list)
    _overflows: list["_Overflow"] = field(default_factory=list)
    _accounts: list[AccountRow] = field(default_factory=list)
    _wide: Counter[PrefixDay] = field(default_factory=Counter)

    def remove_rows(self, folded: Folded) -> None:
        """Remove the rows past a bound from ``incoming``; call it before they are stored."""
        self._remove_of_sensors(folded)
        if folded.has_ipv6:
            self._remove_of_full()
            self._remove_of_prefixes()

    def write(self, overflows: Sequence[OverflowRow]) -> None:
        """Write the counts of prefixes and accounts; call it after all writes but the sensors'."""
        self._place(overflows)
        self._write_overflows()
        self._write_accounts()
        self._write_wide()

    # Sensors.

    def _room(self, sensor: str) -> int:
        return self.rooms.get(sensor, self.bounds.per_sensor)

    def _remove_of_sensors(self, folded: Folded) -> None:
        sensors = sorted({key.sensor for key in folded.keys})
        near = [sensor for sensor in sensors if self._room(sensor) < folded.rows]
        if near:
            rooms = [self._room(sensor) for sensor in near]
            for sensor, feed, first, last, hits, rows in self._run(
                "refuse_of_sensors", sensors=near, rooms=rooms
            ):
                if feed is None:
                    self.new[sensor] += rows
                else:
                    self.overflowed += rows
                    self._count_past_bucket(AccountRow(sensor, feed, first, last, hits), rows)
        if len(near) < len(sensors) or self.bounds.is_probe:
            for sensor, estimate in self._run("sample_new", percent=self.bounds.sample_percent):
                if sensor not in near:
                    self.new[sensor] += estimate

    def _count_past_bucket(self, row: AccountRow, rows: int) -> None:
        self.past_bucket[row.sensor] += rows
        if row.hits:
            self._accounts.append(row)

    # Prefixes.

    def _remove_of_full(self) -> None:
        """Remove new addresses of full prefixes; they need no row, no lock and no count."""
        for length in WIDE:
            if prefixes := self.full.of_length(length):
                self._refuse(length, dict.fromkeys(prefixes, 0), limit=0)

    def _remove_of_prefixes(self) -> None:
        crowded: dict[PrefixDay, int] = {}
        limit = self.bounds.per_prefix64
        for prefix, length, day, addresses in self._run(
            "admit_prefixes", retention=self.retention, limit=limit, one_in=self.bounds.one_in
        ):
            if length == 64:
                crowded[PrefixDay(prefix, length, day)] = addresses
            else:
                self._wide[PrefixDay(prefix, length, day)] = addresses
        if crowded:
            self._refuse(64, crowded, limit=limit)
            self._run_only("cap_admissions", limit=limit, **_columns(crowded))
        many = [
            prefix_day
            for prefix_day, addresses in self._wide.items()
            if addresses > self.bounds.many
        ]
        if many:
            self._remove_of_crowded(many)

    def _remove_of_crowded(self, many: Sequence[PrefixDay]) -> None:
        """Remove rows past the bound of a /48 or /32 that has many new addresses at once."""
        before = self._counts(many)
        for length in reversed(WIDE):
            limit = self.bounds.of_prefix(length)
            near = {
                prefix_day: before[prefix_day]
                for prefix_day in many
                # Twice, because the number of new addresses is an estimate.
                if prefix_day.length == length
                and before[prefix_day] + 2 * self._wide[prefix_day] > limit
            }
            if near:
                self._refuse(length, near, limit=limit)
            for prefix_day, addresses in near.items():
                # Removed rows must not fill this prefix, nor the wider one around it.
                taken = max(addresses + self._wide[prefix_day] - limit, 0)
                for each in {
                    prefix_day,
                    prefix_day._replace(prefix=_within(prefix_day.prefix, WIDE[0]), length=WIDE[0]),
                }:
                    self._wide[each] = max(self._wide[each] - taken, 0)

    def _counts(self, prefix_days: Sequence[PrefixDay]) -> Counter[PrefixDay]:
        """Return the counts of new addresses of prefixes before this transaction."""
        if not prefix_days:
            return Counter()
        rows = self._run("counts_of_prefixes", **_columns(prefix_days))
        return Counter({PrefixDay(*row[:3]): row[3] for row in rows})

    def _refuse(self, length: int, crowded: Mapping[PrefixDay, int], *, limit: int) -> None:
        """Remove new addresses past the limit; `crowded` has each prefix's count of addresses."""
        for prefix, feed, sensor, first, last, hits, rows in self._run(
            "refuse_newcomers",
            retention=self.retention,
            length=length,
            limit=limit,
            counts=list(crowded.values()),
            **_columns(crowded),
        ):
            self.overflowed += rows
            if hits:
                self._overflows.append(_Overflow(prefix, feed, sensor, first, last, hits))

    # What is counted under prefixes and accounts.

    def _place(self, overflows: Sequence[OverflowRow]) -> None:
        """Choose where to count sensors' /64 overflows; new rows of them are bounded too."""
        if not overflows:
            return
        rows = [_Overflow(_text(row.prefix, 64), *row[1:]) for row in overflows]
        known = set(self._run("known_overflows", **self._keys(rows)))
        fresh = [
            row for row in rows if (row.prefix, row.feed, self._stored(row.sensor)) not in known
        ]
        self._overflows += set(rows).difference(fresh)
        around = [self._wide_around(row) for row in fresh]
        counts = self._counts(list(dict.fromkeys(chain.from_iterable(around))))
        rooms = {row.sensor: self._room(row.sensor) - self.new[row.sensor] for row in fresh}
        for row, wide in zip(fresh, around, strict=True):
            full = [prefix_day.prefix for prefix_day in wide if self._is_full(prefix_day, counts)]
            if full:
                self._overflows.append(row._replace(prefix=full[0]))
            elif rooms[row.sensor] <= 0:
                self._count_past_bucket(AccountRow(row.sensor, row.feed, *row[3:]), 1)
            else:
                self._overflows.append(row)
                rooms[row.sensor] -= 1
                self.new[row.sensor] += 1
                counts.update(wide)
                self._wide.update(wide)

    def _is_full(self, prefix_day: PrefixDay, counts: Mapping[PrefixDay, int]) -> bool:
        return prefix_day in self.full or counts[prefix_day] >= self.bounds.of_prefix(
            prefix_day.length
        )

    def _wide_around(self, row: "_Overflow") -> list[PrefixDay]:
        """Return the wide prefixes around a row, widest first, on the day of its first event.

        A message may have 20,000 rows, so each is computed once.
        """
        first = max(min(row.first_seen, self.now), self.now - self.retention)
        day, network = first.astimezone(UTC).date(), pack_address(row.prefix.partition("/")[0])
        return [PrefixDay(_cut(network, length), length, day) for length in WIDE]

    def _stored(self, sensor: str) -> str:
        return self.enrolments.get(sensor, sensor)

    def _keys(self, rows: Sequence["_Overflow"]) -> dict[str, Any]:
        return {
            "prefixes": [row.prefix for row in rows],
            "feeds": [row.feed for row in rows],
            "sensors": [self._stored(row.sensor) for row in rows],
        }

    def _write_overflows(self) -> None:
        rows = self._overflows
        if rows:
            self._run_only("upsert_overflows", **self._keys(rows), **self._events(rows))

    def _write_accounts(self) -> None:
        rows = self._accounts
        if rows:
            self._run_only(
                "upsert_sensor_overflows",
                sensors=[self._stored(row.sensor) for row in rows],
                feeds=[row.feed for row in rows],
                **self._events(rows),
            )

    def _events(self, rows: Sequence["_Overflow | AccountRow"]) -> dict[str, Any]:
        return {
            "retention": self.retention,
            "first_seen": [row.first_seen for row in rows],
            "last_seen": [row.last_seen for row in rows],
            "hits": [row.hits for row in rows],
        }

    def _write_wide(self) -> None:
        added = {prefix_day: addresses for prefix_day, addresses in self._wide.items() if addresses}
        if added:
            addresses = list(added.values())
            rows = self._run("count_wide", addresses=addresses, **_columns(added))
            self.now_full += [
                PrefixDay(*row[:3]) for row in rows if row[3] >= self.bounds.of_prefix(row[1])
            ]

    def _run(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(self.sql[query], parameters).fetchall()

    def _run_only(self, query: str, **parameters: Any) -> None:
        self.connection.execute(self.sql[query], parameters)


class _Overflow(NamedTuple):
    """Events counted under a /64, /48 or /32."""

    #: As PostgreSQL writes it.
    prefix: str
    feed: str
    sensor: str
    first_seen: datetime
    last_seen: datetime
    hits: int


def _columns(prefix_days: Iterable[PrefixDay]) -> dict[str, Any]:
    each = list(prefix_days)
    return {"prefixes": [one.prefix for one in each], "days": [one.day for one in each]}


def _text(network: bytes, length: int) -> str:
    return f"{format_address(network)}/{length}"


def _within(prefix: str, length: int) -> str:
    """Return the wider prefix around an IPv6 prefix."""
    return _cut(pack_address(prefix.partition("/")[0]), length)


def _cut(network: bytes, length: int) -> str:
    octets = length // 8
    return _text(network[:octets] + bytes(16 - octets), length)
