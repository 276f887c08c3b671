"""The queries of the publisher: it reads the window, and writes origins back.

The connection is in autocommit mode: each statement is its own transaction, so no
snapshot stays open while files are written. The session holds an advisory lock for all
of them.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

from ..clock.database import Reading
from .clock import read_clock
from .connection import Connection
from .errors import database_errors
from .listed import ListedRange, store_lists
from .sql import queries

T = TypeVar("T")
#: Rows locked and written in one transaction.
SLICE_ROWS: Final = 5_000


class OriginChange(NamedTuple):
    """An address whose origin is no longer the stored one."""

    ip: str
    feed: str
    asn: int | None


class PublicationStore:
    """The publisher's statements, on one connection in autocommit mode."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sql = {name: sql.encode() for name, sql in queries("publication.sql").items()}

    def try_lock(self, key: int) -> bool:
        """Take the lock of a directory, unless another session has it."""
        return bool(self._value("try_lock", key=key))

    def unlock(self, key: int) -> None:
        """Release the lock."""
        self._value("unlock", key=key)

    def holds_lock(self, key: int) -> bool:
        """Return whether this session still has the lock."""
        return bool(self._value("holds_lock", key=key))

    def is_locked(self, key: int) -> bool:
        """Return whether any session has the lock of a directory."""
        return bool(self._value("is_locked", key=key))

    def store_lists(self, generation: str, ranges: Iterable[ListedRange]) -> bool:
        """Store the lists that were used; return whether they differ from the stored ones."""
        return store_lists(self._connection, generation, ranges)

    def now(self) -> datetime:
        """Return the time of the database's clock."""
        value = self._value("now")
        assert isinstance(value, datetime)
        return value

    def read_clock(self, monotonic: Callable[[], float]) -> Reading:
        """Read the database's clock, with its record."""
        return read_clock(self._connection, monotonic)

    def exclusions(self) -> list[str]:
        """Return the prefixes that may not be published now."""
        with database_errors():
            return [prefix for (prefix,) in self._connection.execute(self._sql["exclusions"])]

    @contextmanager
    def copy_window(
        self,
        since: datetime,
        until: datetime | None,
        week: int,
        only: Sequence[str] | None = None,
    ) -> Iterator[Iterable[bytes | bytearray | memoryview]]:
        """Copy the rows that were last seen in a window, in binary format.

        Args:
            since: rows last seen at this time or later.
            until: rows last seen before this time; None: no bound.
            week: the epoch week that counts as this one.
            only: only these addresses; None: all.

        Yields:
            Blocks as the server sends them.
        """
        wanted = None if only is None else list(only)
        parameters = {"since": since, "until": until, "week": week, "only": wanted}
        with (
            database_errors(),
            self._connection.cursor() as cursor,
            cursor.copy(self._sql["copy_window"], parameters) as copy,
        ):
            yield copy

    def addresses(self, feeds: Collection[str], since: datetime) -> tuple[bytes, bytes]:
        """Return the packed addresses of feeds that were last seen since a time, concatenated.

        First the IPv4 addresses, then the IPv6 addresses; an address in both feeds is there twice.
        """
        with database_errors(), self._connection.cursor(binary=True) as cursor:
            cursor.execute(self._sql["addresses_of_window"], {"feeds": list(feeds), "since": since})
            packed: dict[int, list[bytes]] = {4: [], 6: []}
            for family, addresses in cursor:
                packed[family].append(addresses)
        return b"".join(packed[4]), b"".join(packed[6])

    def events_by_hour(self, since: datetime) -> list[tuple[datetime, str, int]]:
        """Return the events of each feed and hour, from the hour of `since` on."""
        with database_errors():
            rows = self._connection.execute(self._sql["events_by_hour"], {"since": since})
            return [(hour, feed, int(events)) for hour, feed, events in rows]

    def events_by_sensor(self, since: datetime, rows: int) -> list[tuple[str, str, int]]:
        """Return the events of each sensor and feed from the hour of `since` on, busiest first."""
        with database_errors():
            parameters = {"since": since, "rows": rows}
            every = self._connection.execute(self._sql["events_by_sensor"], parameters)
            return [(sensor, feed, int(events)) for sensor, feed, events in every]

    def store_summary(self, generated: datetime, content: str) -> None:
        """Store the statistics of a publication; they replace the previous ones."""
        self._run("store_summary", generated=generated, content=content)

    def first_addresses(
        self, feed: str, since: datetime, until: datetime | None, rows: int
    ) -> list[str]:
        """Return a feed's first addresses in the order of publication, by origin."""
        parameters = {"feed": feed, "since": since, "until": until}
        first: list[str] = []
        for query in ("first_without_origin", "first_with_origin"):
            with database_errors():
                first += [
                    ip
                    for (ip,) in self._connection.execute(
                        self._sql[query], {**parameters, "rows": rows - len(first)}
                    )
                ]
        return first

    def sensors_alive(self, alive_s: int) -> int:
        """Return how many sensors were heard within `alive_s`."""
        return int(self._value("sensors_alive", alive_s=alive_s))

    def store_names(self, names: Mapping[int, str]) -> None:
        """Insert or update names of autonomous systems."""
        for asns in _slices(sorted(names)):
            stored = self.names_of(asns)
            changed = [asn for asn in asns if stored.get(asn) != names[asn]]
            if changed:
                self._run("store_names", asns=changed, names=[names[asn] for asn in changed])

    def store_origins(self, changes: Iterable[OriginChange]) -> int:
        """Write origins back, given in key order; return how many rows changed."""
        changed = 0
        for part in _slices(changes):
            ips, feeds, asns = zip(*part, strict=True)
            changed += self._run("store_origins", ips=list(ips), feeds=list(feeds), asns=list(asns))
        return changed

    def names_of(self, asns: Iterable[int]) -> dict[int, str]:
        """Return the stored names of autonomous systems."""
        with database_errors():
            return dict(self._connection.execute(self._sql["names_of"], {"asns": list(asns)}))

    def store_origin_generation(
        self,
        generation: str,
        *,
        source: str,
        table_time: datetime | None,
        prefixes: int,
        origins: int,
    ) -> None:
        """Record that a publication used an origin table."""
        self._run(
            "store_origin_generation",
            generation=generation,
            source=source,
            table_time=table_time,
            prefixes=prefixes,
            origins=origins,
        )

    def _run(self, query: str, **parameters: Any) -> int:
        with database_errors():
            return self._connection.execute(self._sql[query], parameters).rowcount

    def _value(self, query: str, **parameters: Any) -> Any:
        with database_errors():
            row = self._connection.execute(self._sql[query], parameters).fetchone()
        assert row is not None
        return row[0]


def _slices(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while part := list(islice(iterator, SLICE_ROWS)):
        yield part
