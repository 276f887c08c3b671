"""Counts refused messages by account, hour and reason, and records floods.

It stores no bodies. A few messages of each account and hour are kept as samples in the
queue of refused messages; this module chooses them. So a flood of refused messages costs
one updated row, and does not push older samples out of that queue.

A message that is delivered again after it was counted (the aggregator or its connection
to the broker ended before the acknowledgement) counts again here, and only here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from smtpfeeds_common.errors import DatabaseError

from ..accounts import Flood, RefusedMessage
from .connection import Connection, discard
from .errors import database_errors
from .sql import queries

#: Bodies kept of an account in an hour, and their octets.
SAMPLES_OF_HOUR: Final = 20
SAMPLE_OCTETS_OF_HOUR: Final = 1024 * 1024
_DETAIL_MAX: Final = 300
_ACCOUNT_MAX: Final = 255


@dataclass(slots=True)
class _Count:
    """The numbers that are added to a row."""

    messages: int = 0
    octets: int = 0
    kept: int = 0
    kept_octets: int = 0
    detail: str = ""


class RefusalStore:
    """Counts refused messages, on one connection that it opens when needed."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        """``connect`` opens it in autocommit mode."""
        self._connect = connect
        self._connection: Connection | None = None
        self._sql = queries("refusals.sql")

    def record(self, messages: Sequence[RefusedMessage]) -> list[int]:
        """Count refused messages.

        Returns:
            For each, how many octets of its body to keep as a sample; -1 if it is only counted.

        Raises:
            DatabaseError: nothing was counted.
        """
        try:
            with database_errors():
                connection = self._ready()
                with connection.one_limit(), connection.transaction():
                    connection.execute(self._sql["lock_refusals"])
                    return self._record(connection, messages)
        except DatabaseError:
            self.close()
            raise

    def _record(self, connection: Connection, messages: Sequence[RefusedMessage]) -> list[int]:
        accounts = [_printable(message.account, _ACCOUNT_MAX) for message in messages]
        parameters = {"accounts": sorted(set(accounts))}
        whole: tuple[int, int] = (SAMPLES_OF_HOUR, SAMPLE_OCTETS_OF_HOUR)
        rooms: dict[str, tuple[int, int]] = dict.fromkeys(accounts, whole)
        for account, kept, octets in connection.execute(self._sql["samples_of_hour"], parameters):
            rooms[account] = (SAMPLES_OF_HOUR - kept, SAMPLE_OCTETS_OF_HOUR - octets)
        counts: dict[tuple[str, str], _Count] = {}
        samples = []
        for account, message in zip(accounts, messages, strict=True):
            count = counts.setdefault((account, message.code), _Count())
            count.messages += 1
            count.octets += message.octets
            count.detail = _printable(message.detail, _DETAIL_MAX)
            left, room = rooms[account]
            if left > 0 and room > 0:
                sample = min(message.octets, room)
                rooms[account] = (left - 1, room - sample)
                count.kept += 1
                count.kept_octets += sample
            else:
                sample = -1
            samples.append(sample)
        self._upsert(connection, counts)
        return samples

    def _upsert(self, connection: Connection, counts: dict[tuple[str, str], _Count]) -> None:
        connection.execute(
            self._sql["upsert_refusals"],
            {
                "accounts": [account for account, _ in counts],
                "reasons": [str(reason) for _, reason in counts],
                "messages": [count.messages for count in counts.values()],
                "octets": [count.octets for count in counts.values()],
                "kept": [count.kept for count in counts.values()],
                "kept_octets": [count.kept_octets for count in counts.values()],
                "details": [count.detail for count in counts.values()],
            },
        )

    def note_floods(self, floods: Sequence[Flood]) -> None:
        """Record which accounts flood now.

        Raises:
            DatabaseError: nothing was recorded.
        """
        if not floods:
            return
        by_account = {_printable(flood.account, _ACCOUNT_MAX): flood for flood in floods}
        try:
            with database_errors():
                self._ready().execute(
                    self._sql["upsert_floods"],
                    {
                        "accounts": list(by_account),
                        "messages": [float(flood.messages_per_s) for flood in by_account.values()],
                        "octets": [float(flood.octets_per_s) for flood in by_account.values()],
                        "refused": [float(flood.refused_per_s) for flood in by_account.values()],
                        "reasons": [flood.reason for flood in by_account.values()],
                    },
                )
        except DatabaseError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        discard(self._connection)
        self._connection = None

    def _ready(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection


def _printable(text: str, longest: int) -> str:
    """Cut a text and drop control characters: NUL harms PostgreSQL, ESC a terminal."""
    return "".join(char for char in text[:longest] if char.isprintable())
