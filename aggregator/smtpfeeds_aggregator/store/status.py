"""The queries of the command line, except those of `query`, which are in `query.py`.

Each answer is one statement, and short.
"""

from datetime import datetime
from typing import Any, Final, NamedTuple

from .connection import Connection
from .errors import database_errors
from .query_rows import ALIVE_S
from .sql import queries

#: A flood is over after this long; while it lasts, it is recorded every second or two.
FLOOD_S: Final = 30


class FeedState(NamedTuple):
    """The content of a feed."""

    feed: str
    addresses: int
    newest: datetime


class CrowdedPrefix(NamedTuple):
    """An IPv6 prefix past its bound for a day, with the events counted under it in a feed."""

    prefix: str
    feed: str
    sensors: int
    first_seen: datetime
    last_seen: datetime
    events: int


class SensorState(NamedTuple):
    """The state of a sensor."""

    name: str
    heard_at: datetime | None
    alive: bool | None
    version: str
    #: The current epoch of its account; None if no batch of it was ever accepted.
    epoch: int | None
    events_24h: int
    events: int
    #: Its clock less the database's, less the delay of the delivery.
    skew_s: float | None
    spool_depth: int
    drops: int
    #: Events of new addresses that exceed its bucket, counted under the account.
    past_bucket_24h: int
    #: Refused messages of its account, by whole hours.
    refused_24h: int
    #: None if the account does not flood now.
    flood_since: datetime | None
    flood_messages_per_s: float | None
    flood_reason: str | None
    #: These are None if the sensor has no row, or the event has not happened.
    enrolled_at: datetime | None
    first_heard_at: datetime | None
    revoked_at: datetime | None
    retired_at: datetime | None
    #: When its current epoch began.
    epoch_at: datetime | None

    @property
    def state(self) -> str:
        """Whether it is heard, and why not, in one word."""
        if self.epoch is None:
            return "unknown"
        if self.retired_at is not None:
            return "retired"
        if self.revoked_at is not None:
            return "revoked"
        if self.heard_at is None:
            return "enrolled"
        return "alive" if self.alive else "silent"


class RefusalRow(NamedTuple):
    """Refused messages of an account in an hour, for one reason."""

    account: str
    hour: datetime
    reason: str
    messages: int
    octets: int
    #: How many of them were kept in the queue of refused messages.
    kept: int
    last_at: datetime
    detail: str


class StatusStore:
    """Runs the queries on one connection in autocommit mode."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sql = {name: sql.encode() for name, sql in queries("status.sql").items()}

    def feeds(self, since: datetime) -> list[FeedState]:
        """Return the content of the feeds since a time."""
        return [FeedState(*row) for row in self._rows("feeds", since=since)]

    def sensors(self) -> list[SensorState]:
        """Return all sensors by name, and other accounts with recent refusals or a flood."""
        return [
            SensorState(*row) for row in self._rows("sensors", alive_s=ALIVE_S, flood_s=FLOOD_S)
        ]

    def summary(self) -> str | None:
        """Return the stored statistics of the last publication."""
        rows = self._rows("summary")
        return str(rows[0][0]) if rows else None

    def crowded(self, since: datetime | None, rows: int) -> list[CrowdedPrefix]:
        """Return at most `rows` IPv6 prefixes past their bound for a day, newest first."""
        return [CrowdedPrefix(*row) for row in self._rows("crowded", since=since, rows=rows)]

    def refusals(self, account: str | None, since: datetime | None, rows: int) -> list[RefusalRow]:
        """Return at most `rows` counts of refused messages, of one account or all, newest first."""
        parameters = {"account": account, "since": since, "rows": rows}
        return [RefusalRow(*row) for row in self._rows("refusals", **parameters)]

    def _rows(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with database_errors():
            return self._connection.execute(self._sql[query], parameters).fetchall()
