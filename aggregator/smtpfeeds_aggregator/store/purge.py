"""Removes a part of what a sensor reported, and nothing else.

It is for a stolen password, a wrong trusted proxy or a test. ``observation`` is rebuilt
from the remaining sightings of all sensors, and the counts of new IPv6 addresses from
that.

A part is an epoch of the sensor's account, or what the centre heard from a time on. An
epoch is removed exactly: the database is then as if its batches had never arrived, and
would count them again. A row has only first seen, last seen and hits, so a row that the
centre heard of before and after a time cannot be split: it is reduced to what is
certain, that the centre heard of it once, and when. Hours and days with events of both
sides are deleted.

Events of other sensors that were counted under an IPv6 prefix because the part had
filled it stay there.
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
#: Sorts before every address: in PostgreSQL's order a prefix comes before its addresses.
_LOWEST: Final = "0.0.0.0/0"


class Part(NamedTuple):
    """A part of what a sensor reported."""

    sensor: str
    #: The names that its rows are stored under.
    enrolments: tuple[str, ...]
    #: None if the part is not an epoch.
    epoch: int | None
    #: The begin of the part, by the centre's clock; None if the part is an epoch.
    since: datetime | None


def part_of_epoch(sensor: str, epoch: int) -> Part:
    """Return the part with all that was heard in an ended epoch."""
    return Part(sensor, (enrolment_of(sensor, epoch),), epoch, None)


def part_since(sensor: str, current_epoch: int, since: datetime) -> Part:
    """Return the part with all that was heard since a time, in any epoch."""
    epochs = range(1, current_epoch + 1)
    return Part(sensor, tuple(enrolment_of(sensor, epoch) for epoch in epochs), None, since)


@dataclass(slots=True)
class Purged:
    """Counts of a purge."""

    addresses: int = 0
    sightings_deleted: int = 0
    sightings_cut: int = 0
    #: Rows of `observation` that no other sensor saw.
    observations_deleted: int = 0
    hours_deleted: int = 0

    def add(self, other: "Purged") -> None:
        """Add the counts of another purge."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


class PurgeStore:
    """Purges on one connection in autocommit mode."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sql = queries("purge.sql")

    def heard_recorded_since(self) -> datetime:
        """Return since when the database records when the centre heard of a row."""
        with database_errors():
            row = self._connection.execute(self._sql["heard_recorded_since"]).fetchone()
        assert row is not None
        time = row[0]
        assert isinstance(time, datetime)
        return time

    def touched(self, part: Part) -> int:
        """Return how many addresses a purge would change."""
        with database_errors():
            row = self._connection.execute(self._sql["count_touched"], _parameters(part)).fetchone()
        return int(row[0]) if row else 0

    def purge(self, part: Part) -> Purged:
        """Remove a part in slices; running it again is harmless."""
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
        """Yield slices of the addresses that the part concerns, in order."""
        after = _LOWEST
        while True:
            with database_errors():
                rows = self._connection.execute(
                    self._sql["touched"],
                    {**_parameters(part), "after": after, "rows": SLICE_ADDRESSES},
                ).fetchall()
            if rows:
                yield [ip for (ip,) in rows]
            if len(rows) < SLICE_ADDRESSES:
                return
            after = rows[-1][0]

    def _purge_slice(self, purged: Purged, ips: list[str], part: Part) -> None:
        """Purge some addresses; each statement sees what was committed before the locks."""
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
            parameters = {"prefixes": sorted(prefixes)}
            self._connection.execute(self._sql["lock_admissions"], parameters)
            self._connection.execute(self._sql["recount_admissions"], parameters)

    def _forget_batches(self, part: Part) -> None:
        self._run("lock_spools", part)
        self._run("forget_batches", part)
        self._run("note_purge", part)

    def _run(self, query: str, part: Part, **parameters: Any) -> int:
        return self._connection.execute(
            self._sql[query], {**_parameters(part), **parameters}
        ).rowcount


def _parameters(part: Part) -> dict[str, Any]:
    return {
        "sensor": part.sensor,
        "enrolments": list(part.enrolments),
        "epoch": part.epoch,
        "since": part.since,
    }
