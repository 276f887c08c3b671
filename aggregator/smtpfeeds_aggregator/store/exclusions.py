"""Excludes prefixes from publication, and deletes ("forgets") addresses.

Excluding hides rows from publications and keeps them. Forgetting deletes them, and
excludes the prefix for as long as a spool or a replay could deliver its events again.
Locks are taken in the order that all writers use: observation, then sighting, each
sorted by key.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from smtpfeeds_common.addresses import Network

from .connection import Connection
from .errors import database_errors
from .sql import queries

#: Addresses deleted in one transaction.
SLICE_ADDRESSES: Final = 2_000
#: Sorts before every address: nothing is smaller than IPv4's /0 in PostgreSQL's order.
_BEFORE_ALL: Final = "0.0.0.0/0"


class Exclusion(NamedTuple):
    """A prefix that is not published, with its reason and time; `until` None: without an end."""

    prefix: str
    reason: str
    since: datetime
    until: datetime | None
    in_force: bool


@dataclass(slots=True)
class Forgotten:
    """Counts of deleted rows, and for how long the prefix is not published."""

    addresses: int = 0
    observations: int = 0
    sightings: int = 0
    crowded_prefixes: int = 0
    #: When the exclusion ends; None: never.
    until: datetime | None = None


class ExclusionStore:
    """Reads and writes exclusions, on one connection in autocommit mode."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sql = {name: sql.encode() for name, sql in queries("exclusions.sql").items()}

    def all(self) -> list[Exclusion]:
        """Return all exclusions, ended ones too, newest last."""
        with database_errors():
            rows = self._connection.execute(self._sql["list_exclusions"]).fetchall()
        return [Exclusion(*row) for row in rows]

    def add(
        self, prefix: Network, reason: str, until: datetime | None, *, extend: bool = False
    ) -> datetime | None:
        """Exclude a prefix from now on; return when the exclusion ends, None for never.

        Args:
            prefix: the prefix that is not published.
            reason: for the operator; it is not published either.
            until: when it ends; None for never.
            extend: if the prefix is excluded already, keep its reason and the later end.
        """
        with database_errors():
            row = self._connection.execute(
                self._sql["add_exclusion"],
                {"prefix": str(prefix), "reason": reason, "until": until, "extend": extend},
            ).fetchone()
        assert row is not None
        end: datetime | None = row[0]
        return end

    def remove(self, prefix: Network) -> bool:
        """End an exclusion. Returns False if there is none of exactly this prefix."""
        with database_errors():
            return bool(self._run("remove_exclusion", prefix=str(prefix)))

    def count(self, prefix: Network) -> int:
        """Return how many addresses of a prefix have a row."""
        with database_errors():
            row = self._connection.execute(self._sql["count_addresses"], _ends(prefix)).fetchone()
        assert row is not None
        return int(row[0])

    def forget(
        self,
        prefix: Network,
        reason: str,
        until: datetime,
        progress: Callable[[int], None] = lambda _addresses: None,
    ) -> Forgotten:
        """Exclude a prefix until a time, and delete its rows in slices.

        Running it again is harmless. It excludes the prefix first, so that rows that arrive
        meanwhile are stored but not published.
        """
        forgotten = Forgotten(until=self.add(prefix, reason, until, extend=True))
        after = _BEFORE_ALL
        while ips := self._slice(prefix, after):
            with database_errors(), self._connection.transaction():
                self._run("lock_observations", ips=ips)
                self._run("lock_sightings", ips=ips)
                forgotten.observations += self._run("forget_observations", ips=ips)
                forgotten.sightings += self._run("forget_sightings", ips=ips)
            forgotten.addresses += len(ips)
            after = ips[-1]
            progress(forgotten.addresses)
        with database_errors():
            forgotten.crowded_prefixes = self._run("forget_overflows", prefix=str(prefix))
        return forgotten

    def _slice(self, prefix: Network, after: str) -> list[str]:
        parameters = {**_ends(prefix), "after": after, "rows": SLICE_ADDRESSES}
        with database_errors():
            rows = self._connection.execute(self._sql["stored_addresses"], parameters).fetchall()
        return [row[0] for row in rows]

    def _run(self, query: str, **parameters: Any) -> int:
        return self._connection.execute(self._sql[query], parameters).rowcount


def _ends(prefix: Network) -> dict[str, Any]:
    return {"low": str(prefix.network_address), "high": str(prefix.broadcast_address)}
