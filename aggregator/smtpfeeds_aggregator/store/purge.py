"""Take out what one sensor said since a time, and nothing else.

For a wrong trusted proxy, a stolen account, a test: `observation` is rebuilt
from what the other sensors saw. A sighting holds first seen, last seen and
hits, so one that began before the time cannot be split: it is cut back to what
is certain, the first time it was seen, one hit. The time given is compared
with the event's, not with the arrival's.

Sightings that the retention has already deleted are no longer there to
rebuild from: hits and first seen of a touched address then count from the
oldest sighting that is kept.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from .connection import Connection
from .errors import database_errors
from .sql import queries

#: Addresses locked and rebuilt in one transaction.
SLICE_ADDRESSES: Final = 2_000


@dataclass(slots=True)
class Purged:
    """What a purge came to."""

    addresses: int = 0
    sightings_deleted: int = 0
    sightings_cut: int = 0
    #: Rows of `observation` that nobody else saw.
    observations_deleted: int = 0
    hours_deleted: int = 0


class PurgeStore:
    """Purges; one connection, in autocommit."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sql = {name: sql.encode() for name, sql in queries("purge.sql").items()}

    def knows(self, sensor: str) -> bool:
        """Whether anything is known of a sensor."""
        with database_errors():
            row = self._connection.execute(self._sql["known_sensor"], {"sensor": sensor}).fetchone()
        return bool(row and row[0])

    def touched(self, sensor: str, since: datetime) -> list[str]:
        """The addresses that a purge would concern, in order."""
        with database_errors():
            rows = self._connection.execute(
                self._sql["touched"], {"sensor": sensor, "since": since}
            ).fetchall()
        return [ip for (ip,) in rows]

    def purge(self, sensor: str, since: datetime) -> Purged:
        """Take a sensor's part out from a time on, in slices; run again, it does nothing more."""
        purged = Purged()
        ips = self.touched(sensor, since)
        for start in range(0, len(ips), SLICE_ADDRESSES):
            part = ips[start : start + SLICE_ADDRESSES]
            with database_errors(), self._connection.transaction():
                self._purge_slice(purged, part, sensor, since)
        with database_errors(), self._connection.transaction():
            purged.hours_deleted = self._run("delete_activity", sensor=sensor, since=since)
            self._run("delete_overflow", sensor=sensor, since=since)
            self._run("cut_overflow", sensor=sensor, since=since)
        return purged

    def _purge_slice(self, purged: Purged, ips: list[str], sensor: str, since: datetime) -> None:
        """Each statement sees what was committed until the locks were taken."""
        self._run("lock_observations", ips=ips)
        purged.sightings_deleted += self._run(
            "delete_sightings", ips=ips, sensor=sensor, since=since
        )
        purged.sightings_cut += self._run("cut_sightings", ips=ips, sensor=sensor, since=since)
        purged.observations_deleted += self._run("delete_observations", ips=ips)
        self._run("rebuild_observations", ips=ips)
        purged.addresses += len(ips)

    def _run(self, query: str, **parameters: Any) -> int:
        return self._connection.execute(self._sql[query], parameters).rowcount
