"""Folds checked batches into the rows of one transaction. Pure.

It makes one row per (address, feed, sensor): the minimum of first seen, the maximum
of last seen, the sum of hits. Days, flags and targets follow the rules of ``history``;
all are relative to today, so they can be ORed. A data event also updates its greet row
(times, days and targets, not hits and flags), so every data row has a greet row. A note,
the behaviours of an event that is recorded already, adds flags only. Rows are sorted by
key, the order in which every transaction takes its locks.

This module writes rows in PostgreSQL's binary COPY format: packing a row is one call of
``struct``, and the server parses neither addresses nor times.
https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS
"""

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from smtpfeeds_common.addresses import IPv4_BYTES
from smtpfeeds_common.feeds import DATA, FEED_NAMES, GREET
from smtpfeeds_common.history import DAY_MS, DAYS_MAX, OLDER, History, clamped, masked, moved
from smtpfeeds_common.wire import Observation

from ..origin import EMPTY
from ..origin.lookup import OriginLookup
from ..store.rows import ADDRESSES_MAX, MAX_COUNT, Folded, HourRow, OverflowRow, SensorReport
from .check import CheckedBatch, printable, stored_counters

_HOUR_MS: Final = 3_600_000
#: PostgreSQL counts microseconds from 2000-01-01.
_PG_EPOCH_MS: Final = 946_684_800_000
_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER: Final = b"\xff\xff"
#: Twelve columns, each after its length; -1 is NULL. An inet is family (2 or 3), bits,
#: is_cidr, octets, address. The packed names of feed and sensor follow, then first_seen,
#: last_seen, hits, days, flags and targets of this week and of the one before, and asn.
_IPv4_HEAD: Final = struct.pack(">hiBBBB", 12, 8, 2, 32, 0, 4)
_IPv6_HEAD: Final = struct.pack(">hiBBBB", 12, 20, 3, 128, 0, 16)
#: Packing takes half of the time of a row here. Many rows of today have the same flags or the same
#: targets, so each value is packed once for all of them.
_FLAGS: Final = struct.Struct(">iqiqiq")
_TARGETS: Final = struct.Struct(">iqiq")
#: Most packed values of flags, and of targets, that are kept; others are packed for each row.
_KEPT: Final = 4_096
_ROW: Final = f">{len(_IPv4_HEAD)}s{{octets}}s{{names}}siqiqiq{_FLAGS.size}s{_TARGETS.size}si"


def fold(batches: Sequence[CheckedBatch], origin: OriginLookup, today: int) -> Folded:
    """Fold batches with distinct keys.

    Args:
        batches: the batches to fold.
        origin: looks up the origin of each address.
        today: the day that days, flags and targets are relative to, since 1970-01-01. An
            event of a later day has a wrong clock and counts as of today.
    """
    rows = _fold_rows(batches, today)
    keys = sorted(rows)
    ordered = [rows[key] for key in keys]
    addresses = _distinct_addresses(ordered)
    asns = origin.lookup_many(addresses)
    return Folded(
        keys=tuple(sorted(batch.key for batch in batches)),
        copy=_copy(ordered, addresses, asns),
        rows=len(ordered),
        rows_read=sum(len(batch.rows) for batch in batches),
        one_sensor_each=_one_sensor_each(batches, keys),
        has_notes=any(not row[_DAYS] for row in ordered),
        has_ipv6=bool(ordered) and len(ordered[-1][_IP]) != IPv4_BYTES,
        oldest=_utc(min([row[_LAST] for row in ordered])) if ordered else None,
        today=today,
        annotated=origin.generation != EMPTY.generation,
        names=_names(asns, origin),
        hours=_fold_hours(batches),
        overflows=_fold_overflows(batches),
        sensors=_newest(batches),
        sealed_at=tuple(_utc(batch.batch.sealed_ms) for batch in batches),
    )


# A row before packing: first_ms, last_ms, hits, packed address, form, days, flags, flags_before,
# targets, targets_before. A row of notes only has no days.
_LAST: Final = 1
_IP: Final = 3
_DAYS: Final = 5
_Row = list[Any]
#: Keys begin with it, because PostgreSQL sorts IPv4 before IPv6.
_FAMILY: Final = {4: b"\4", 16: b"\6"}


class _Form(NamedTuple):
    """Packs the rows of one feed and sensor."""

    names: bytes
    ipv4: Callable[..., bytes]
    ipv4_no_asn: Callable[..., bytes]
    ipv6: Callable[..., bytes]
    ipv6_no_asn: Callable[..., bytes]


def _form(feed: str, sensor: str) -> _Form:
    names = b"".join(
        struct.pack(">i", len(name)) + name for name in (feed.encode(), sensor.encode())
    )
    ipv4, ipv6 = (_ROW.format(octets=octets, names=len(names)) for octets in (4, 16))
    packers = (struct.Struct(text).pack for text in (ipv4 + "q", ipv4, ipv6 + "q", ipv6))
    return _Form(names, *packers)


def _fold_rows(batches: Sequence[CheckedBatch], today: int) -> dict[bytes, _Row]:
    """Return rows by a key that sorts as (ip, feed, sensor) does in PostgreSQL."""
    rows: dict[bytes, _Row] = {}
    begin_ms, end_ms = today * DAY_MS, (today + 1) * DAY_MS
    for checked in batches:
        sensor = checked.key.sensor
        forms = {feed: _form(feed, sensor) for feed in FEED_NAMES}
        # 0 and 1 sort as the feeds' names do: smtpdata before smtpgreet.
        greet_end, data_end = b"\1" + sensor.encode(), b"\0" + sensor.encode()
        for packed, seen in checked.rows:
            feed, first_ms, last_ms, hits = seen.feed, seen.first_ms, seen.last_ms, seen.hits
            if begin_ms <= first_ms and last_ms < end_ms:
                days, flags, before = 1 if hits else 0, seen.flags, 0
                targets, older = seen.targets, 0
            else:
                days, flags, before, targets, older = _relative_to(seen, today)
            head = _FAMILY[len(packed)] + packed
            is_data = feed == DATA.name
            key = head + (data_end if is_data else greet_end)
            form = forms[feed]
            new = [first_ms, last_ms, hits, packed, form, days, flags, before, targets, older]
            row = rows.get(key)
            if row is None:
                rows[key] = new
            else:
                _merge(row, new)
            if is_data and days:
                key = head + greet_end
                form = forms[GREET.name]
                new = [first_ms, last_ms, 0, packed, form, days, 0, 0, targets, older]
                row = rows.get(key)
                if row is None:
                    rows[key] = new
                else:
                    _merge(row, new)
    return rows


def _relative_to(seen: Observation, today: int) -> tuple[int, int, int, int, int]:
    """Return days, flags and targets relative to today, of a row with another day in it.

    A row has its first and its last day. A sensor's spool keeps each row within one day. A row may
    span more days if 0.1.0 wrote it, a clock was set, or the spool was not writable for a day.
    """
    day, first_day = seen.last_ms // DAY_MS, seen.first_ms // DAY_MS
    days = masked(0, day, first_day, DAYS_MAX) if seen.hits else 0
    history = moved(clamped(History(day, days, seen.flags, 0, seen.targets, 0), today), today)
    return (history.days or (OLDER if seen.hits else 0), *history[2:])


def _merge(row: _Row, new: _Row) -> None:
    """Fold a row into another with the same key; the times of notes do not count."""
    if new[_DAYS] and not row[_DAYS]:
        row[:2] = new[:2]
    elif new[_DAYS] or not row[_DAYS]:
        # Not min and max: this runs for every repeated address.
        if new[0] < row[0]:  # noqa: PLR1730
            row[0] = new[0]
        if new[1] > row[1]:  # noqa: PLR1730
            row[1] = new[1]
    row[2] += new[2]
    row[5] |= new[5]
    row[6] |= new[6]
    row[7] |= new[7]
    row[8] |= new[8]
    row[9] |= new[9]


def _one_sensor_each(batches: Sequence[CheckedBatch], keys: list[bytes]) -> bool:
    """Whether each (address, feed) has rows of one sensor only."""
    if len({batch.key.sensor for batch in batches}) <= 1:
        return True
    ends = (6, 18)  # family, address, feed
    heads = {key[: ends[key[0] == _FAMILY[16][0]]] for key in keys}
    return len(heads) == len(keys)


def _distinct_addresses(ordered: list[_Row]) -> list[bytes]:
    """Return each address once, in order; the rows of an address are adjacent."""
    return list(dict.fromkeys([row[_IP] for row in ordered]))


def _names(asns: list[int | None], origin: OriginLookup) -> dict[int, str]:
    named = {asn: origin.name(asn) for asn in sorted({asn for asn in asns if asn})}
    return {asn: name for asn, name in named.items() if name}


def _copy(ordered: list[_Row], addresses: list[bytes], asns: list[int | None]) -> bytes:
    """Pack the rows for COPY; ``addresses`` and ``asns`` are in the order of the rows."""
    parts = [_COPY_HEADER]
    append = parts.append
    origins = iter(zip(addresses, asns, strict=True))
    address: bytes | None = None
    asn: int | None = None
    flags_of_today: dict[int, bytes] = {}
    targets_of_week: dict[int, bytes] = {}
    for first_ms, last_ms, hits, packed, form, days, flags, before, targets, older in ordered:
        if packed != address:
            address, asn = next(origins)
        is_of_today = days == 1 and not before
        behaviours = flags_of_today.get(flags) if is_of_today else None
        if behaviours is None:
            behaviours = _FLAGS.pack(8, days, 8, flags, 8, before)
            if is_of_today and len(flags_of_today) < _KEPT:
                flags_of_today[flags] = behaviours
        breadth = None if older else targets_of_week.get(targets)
        if breadth is None:
            breadth = _TARGETS.pack(8, targets, 8, older)
            if not older and len(targets_of_week) < _KEPT:
                targets_of_week[targets] = breadth
        first = (first_ms - _PG_EPOCH_MS) * 1000
        last = (last_ms - _PG_EPOCH_MS) * 1000
        count = hits if hits < MAX_COUNT else MAX_COUNT  # noqa: FURB136 - min is slower
        tail = (packed, form.names, 8, first, 8, last, 8, count, behaviours, breadth)
        if len(packed) == IPv4_BYTES:
            append(
                form.ipv4(_IPv4_HEAD, *tail, 8, asn)
                if asn
                else form.ipv4_no_asn(_IPv4_HEAD, *tail, -1)
            )
        else:
            append(
                form.ipv6(_IPv6_HEAD, *tail, 8, asn)
                if asn
                else form.ipv6_no_asn(_IPv6_HEAD, *tail, -1)
            )
    append(_COPY_TRAILER)
    return b"".join(parts)


def _fold_hours(batches: Sequence[CheckedBatch]) -> tuple[HourRow, ...]:
    counts: dict[tuple[int, str, str], int] = {}
    for checked in batches:
        for count in checked.batch.hours:
            hour_ms = count.hour_ms - count.hour_ms % _HOUR_MS
            key = (hour_ms, count.feed, checked.key.sensor)
            counts[key] = counts.get(key, 0) + count.events
    return tuple(
        HourRow(_utc(hour_ms), feed, sensor, min(events, MAX_COUNT))
        for (hour_ms, feed, sensor), events in sorted(counts.items())
    )


def _fold_overflows(batches: Sequence[CheckedBatch]) -> tuple[OverflowRow, ...]:
    totals: dict[tuple[bytes, str, str], list[int]] = {}
    for checked in batches:
        for prefix, row in checked.overflows:
            key = (prefix, row.feed, checked.key.sensor)
            total = totals.setdefault(key, [row.first_ms, row.last_ms, 0])
            total[0], total[1] = min(total[0], row.first_ms), max(total[1], row.last_ms)
            total[2] += row.hits
    return tuple(
        OverflowRow(prefix, feed, sensor, _utc(first), _utc(last), min(hits, MAX_COUNT))
        for (prefix, feed, sensor), (first, last, hits) in sorted(totals.items())
    )


def _newest(batches: Sequence[CheckedBatch]) -> tuple[SensorReport, ...]:
    newest: dict[str, CheckedBatch] = {}
    for checked in batches:
        known = newest.get(checked.key.sensor)
        if known is None or checked.batch.sealed_ms >= known.batch.sealed_ms:
            newest[checked.key.sensor] = checked
    return tuple(
        SensorReport(
            name,
            _utc(checked.batch.sealed_ms),
            printable(checked.batch.version),
            stored_counters(checked.batch.counters),
            checked.batch.depth,
            checked.batch.drops,
            min(checked.batch.addresses, ADDRESSES_MAX),
        )
        for name, checked in sorted(newest.items())
    )


def _utc(ms: int) -> datetime:
    return _UNIX_EPOCH + timedelta(milliseconds=ms)
