"""Takes out a part of what a sensor reported, and nothing else.

For a stolen password, a wrong trusted proxy, a test. ``observation`` is rebuilt from
what is left of everybody's sightings, and the counts of new IPv6 addresses from that.

A part is an epoch of the sensor's account, which goes exactly: afterwards the database
is as if the epoch's batches had never come, also the record that they came. Or it is
what the centre heard from a time on. A row holds first seen, last seen and hits, so one
that was heard of before that time and after it cannot be split: it is cut back to what
is certain, that the centre heard of it once, and when. Hours that are mixed so go.

What others reported of an IPv6 prefix while the part had filled it was counted under
the prefix, and stays there.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from ipaddress import IPv6Network
from typing import Any, Final, NamedTuple

from .connection import Connection
from .errors import database_errors
from .rows import enrolment_of
from .sql import queries

#: Addresses locked and rebuilt in one transaction.
SLICE_ADDRESSES: Final = 2_000
#: In PostgreSQL's order a prefix comes before the addresses in it, so this before all.
_LOWEST: Final = "0.0.0.0/0"


class Part(NamedTuple):
    """What is taken out."""

    sensor: str
    #: Under which names it is stored.
    enrolments: tuple[str, ...]
    #: The epoch, where it is one.
    epoch: int | None
    #: From when on, by the centre's clock, where it is not.
    since: datetime | None


def part_of_epoch(sensor: str, epoch: int) -> Part:
    """All that was heard in an epoch that is over."""
    return Part(sensor, (enrolment_of(sensor, epoch),), epoch, None)


def part_since(sensor: str, current_epoch: int, since: datetime) -> Part:
    """All that was heard since a time, in whichever epoch."""
    epochs = range(1, current_epoch + 1)
    return Part(sensor, tuple(enrolment_of(sensor, epoch) for epoch in epochs), None, since)


@dataclass(slots=True)
class Purged:
    """What a purge came to."""

    addresses: int = 0
    sightings_deleted: int = 0
    sightings_cut: int = 0
    #: Rows of `observation` that nobody else saw.
    observations_deleted: int = 0
    hours_deleted: int = 0

    def add(self, other: "Purged") -> None:
        """Count another purge as well."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


class PurgeStore:
    """Purges; one connection, in autocommit."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sql = queries("purge.sql")

    def heard_recorded_since(self) -> datetime:
        """Since when the database records when the centre heard of a row."""
        with database_errors():
            row = self._connection.execute(self._sql["heard_recorded_since"]).fetchone()
        assert row is not None
        time = row[0]
        assert isinstance(time, datetime)
        return time

    def touched(self, part: Part) -> int:
        """How many addresses a purge would concern."""
        with database_errors():
            row = self._connection.execute(self._sql["count_touched"], _asked(part)).fetchone()
        return int(row[0]) if row else 0

    def purge(self, part: Part) -> Purged:
        """Take a part out, in slices; run again, it does nothing more."""
        purged = Purged()
        for ips in self._pages(part):
            with database_errors(), self._connection.transaction():
                self._purge_slice(purged, ips, part)
            with database_errors(), self._connection.transaction():
                self._recount_admissions(ips)
        with database_errors(), self._connection.transaction():
            purged.hours_deleted = self._run("delete_activity", part)
            self._run("delete_overflow", part)
            if part.since is not None:
                self._run("cut_overflow", part)
            self._run("delete_sensor_overflow", part)
        with database_errors(), self._connection.transaction():
            self._run("lock_wide_admissions", part)
            self._run("recount_wide_admissions", part)
        if part.epoch is not None:
            with database_errors(), self._connection.transaction():
                self._forget_batches(part)
        return purged

    def _pages(self, part: Part) -> Iterator[list[str]]:
        """The addresses that the part concerns, in order."""
        after = _LOWEST
        while True:
            with database_errors():
                rows = self._connection.execute(
                    self._sql["touched"],
                    {**_asked(part), "after": after, "rows": SLICE_ADDRESSES},
                ).fetchall()
            if rows:
                yield [ip for (ip,) in rows]
            if len(rows) < SLICE_ADDRESSES:
                return
            after = rows[-1][0]

    def _purge_slice(self, purged: Purged, ips: list[str], part: Part) -> None:
        """Each statement sees what was committed until the locks were taken."""
        self._run("lock_observations", part, ips=ips)
        purged.sightings_deleted += self._run("delete_sightings", part, ips=ips)
        if part.since is not None:
            purged.sightings_cut += self._run("cut_sightings", part, ips=ips)
        purged.observations_deleted += self._run("delete_observations", part, ips=ips)
        self._run("rebuild_observations", part, ips=ips)
        purged.addresses += len(ips)

    def _recount_admissions(self, ips: list[str]) -> None:
        prefixes = {str(IPv6Network((ip, 64), strict=False)) for ip in ips if ":" in ip}
        if prefixes:
            asked = {"prefixes": sorted(prefixes)}
            self._connection.execute(self._sql["lock_admissions"], asked)
            self._connection.execute(self._sql["recount_admissions"], asked)

    def _forget_batches(self, part: Part) -> None:
        self._run("lock_spools", part)
        self._run("forget_batches", part)
        self._run("note_purge", part)

    def _run(self, query: str, part: Part, **parameters: Any) -> int:
        return self._connection.execute(self._sql[query], {**_asked(part), **parameters}).rowcount


def _asked(part: Part) -> dict[str, Any]:
    return {
        "sensor": part.sensor,
        "enrolments": list(part.enrolments),
        "epoch": part.epoch,
        "since": part.since,
    }
