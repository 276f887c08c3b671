"""The database as the command line sees it.

Each answer is one statement, and short. ``asking`` has what `query` asks.
"""

from datetime import datetime
from typing import Any, Final, NamedTuple

from .asked import ALIVE_S
from .connection import Connection
from .errors import database_errors
from .sql import queries

#: A flood is written every second or two while it lasts.
FLOOD_S: Final = 30


class FeedState(NamedTuple):
    """What a feed holds."""

    feed: str
    addresses: int
    newest: datetime


class CrowdedPrefix(NamedTuple):
    """An IPv6 prefix past its addresses of a day, and what was counted under it in a feed."""

    prefix: str
    feed: str
    sensors: int
    first_seen: datetime
    last_seen: datetime
    events: int


class SensorState(NamedTuple):
    """What is known of a sensor; skew is its clock less ours, with the delivery's delay in it."""

    name: str
    heard_at: datetime | None
    alive: bool | None
    version: str
    #: Which of its account; None: nothing was ever taken of it.
    epoch: int | None
    events_24h: int
    events: int
    skew_s: float | None
    spool_depth: int
    drops: int
    #: Events of new addresses past its bucket, counted under the account.
    past_bucket_24h: int
    #: Messages of its account that were refused, by whole hours.
    refused_24h: int
    #: None: the account does not flood now.
    flood_since: datetime | None
    flood_messages_per_s: float | None
    flood_reason: str | None
    #: None: the sensor has no row, or this has not happened.
    enrolled_at: datetime | None
    first_heard_at: datetime | None
    revoked_at: datetime | None
    retired_at: datetime | None
    #: When its current epoch began.
    epoch_at: datetime | None

    @property
    def state(self) -> str:
        """In one word: whether it is heard, and if not, why not."""
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
    #: How many of them are in the queue of the refused.
    kept: int
    last_at: datetime
    detail: str


class ReadingStore:
    """Asks; one connection, in autocommit."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sql = {name: sql.encode() for name, sql in queries("reading.sql").items()}

    def feeds(self, since: datetime) -> list[FeedState]:
        """What the feeds hold since a time."""
        return [FeedState(*row) for row in self._rows("feeds", since=since)]

    def sensors(self) -> list[SensorState]:
        """All sensors by name, and the accounts that were refused lately or flood."""
        return [
            SensorState(*row) for row in self._rows("sensors", alive_s=ALIVE_S, flood_s=FLOOD_S)
        ]

    def summary(self) -> str | None:
        """The statistics of the last publication, as they are stored."""
        rows = self._rows("summary")
        return str(rows[0][0]) if rows else None

    def crowded(self, since: datetime | None, rows: int) -> list[CrowdedPrefix]:
        """The IPv6 prefixes past their addresses of a day, newest first, at most so many."""
        return [CrowdedPrefix(*row) for row in self._rows("crowded", since=since, rows=rows)]

    def refusals(self, account: str | None, since: datetime | None, rows: int) -> list[RefusalRow]:
        """Refused messages of one account or of all, by hour, the newest first, at most so many."""
        asked = {"account": account, "since": since, "rows": rows}
        return [RefusalRow(*row) for row in self._rows("refusals", **asked)]

    def _rows(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with database_errors():
            return self._connection.execute(self._sql[query], parameters).fetchall()
