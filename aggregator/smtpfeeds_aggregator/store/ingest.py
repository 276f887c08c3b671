"""Writes folded batches, each batch exactly once, in one transaction.

The primary key of ``applied_batch`` decides which transaction counts a batch: one that
is already there, or in its spool's compacted ranges, was counted before and is left out.
The caller folds before the transaction, on the assumption that every batch is new, as
is usual; if some are not, it folds the new ones again.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from psycopg.types.json import Jsonb

from smtpfeeds_common.errors import BadRows, DatabaseUnavailable
from smtpfeeds_common.history import day_of, days_kept
from smtpfeeds_common.logs import fields

from ..clock.database import ClockInDoubt, DatabaseClock, Times, retention_from
from .admission import Admission
from .bounds import PROBE_BOUNDS, Bounds, FullPrefixes, PrefixDay
from .clock import read_clock
from .connection import Connection, discard
from .errors import TransactionConflict, database_errors, session_errors
from .rows import BatchKey, Folded, Outcome, Refold, enrolment_of
from .sql import queries

logger = logging.getLogger(__name__)

T = TypeVar("T")
#: How often a transaction runs at once again after conflicts with others.
_CONFLICT_TRIES: Final = 10
#: Most AS names that are remembered as stored; with more, all are compared again.
_NAMES_KNOWN: Final = 200_000


class _NotStored(NamedTuple):
    """Counts of incoming rows that are not stored."""

    #: Rows older than the retention.
    expired: int
    #: Notes: behaviours whose event has no row.
    notes: int


class IngestStore:
    """Writes for the ingest worker, on one connection that it opens when needed.

    ``connect`` opens it in autocommit mode; this class begins and ends transactions.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        clock: DatabaseClock,
        retention: timedelta,
        bounds: Bounds,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._retention = retention
        self._bounds = bounds
        self._full = FullPrefixes()
        self._connection: Connection | None = None
        self._sql, self._admission_sql = queries("ingest.sql"), queries("admission.sql")
        self._names: dict[int, str] = {}
        #: The server's session of this connection: process id and start.
        self._session: tuple[int, datetime] | None = None
        #: The session that was abandoned last, which may still run in the server.
        self._abandoned: tuple[int, datetime] | None = None
        self.conflicts = 0

    def apply(self, folded: Folded, refold: Refold) -> Outcome:
        """Write all of it and commit.

        Args:
            folded: the fold of all batches.
            refold: folds only the given batches, relative to a day.

        Raises:
            BadRows: the database refuses the data; nothing was written.
            ClockInDoubt: nothing was written, and nothing will be while the doubt lasts.
            DatabaseTimeout: it took too long; fewer batches may succeed.
            DatabaseUnavailable: nothing was written, or that is not known; writing the same
                batches again is harmless.
        """
        return self._run(lambda: self._transaction(folded, refold))

    def probe(self, good: Folded) -> None:
        """Write known-good rows with every statement, and roll them back.

        Raises:
            DatabaseError: as in ``apply``; the data is not the cause.
        """
        self._run(lambda: self._rolled_back(good))

    def _run(self, transaction: Callable[[], T]) -> T:
        for _ in range(_CONFLICT_TRIES):
            try:
                return transaction()
            except TransactionConflict as exc:
                self.conflicts += 1
                logger.info(
                    "transaction conflict; trying again", extra=fields(reason=str(exc)[:200])
                )
        raise DatabaseUnavailable(
            f"the transaction conflicted with others {_CONFLICT_TRIES} times; trying again later"
        )

    def close(self) -> None:
        """Close the connection."""
        discard(self._connection)
        self._connection = self._session = None

    def _ready(self) -> Connection:
        if self._connection is None or self._connection.closed:
            connection = self._connect()
            try:
                with session_errors():
                    _refuse_read_only(connection)
                    connection.execute(self._sql["set_up_session"])
                    connection.execute(self._sql["create_incoming"])
                    connection.execute(self._sql["create_newcomer"])
                    session = self._end_abandoned(connection)
            except BaseException:
                discard(connection)
                raise
            self._connection, self._session, self._abandoned = connection, session, None
            self._names = {}
        return self._connection

    def _end_abandoned(self, connection: Connection) -> tuple[int, datetime]:
        """End the abandoned session in the server, because it may keep the same batches locked."""
        if self._abandoned is not None:
            pid, start = self._abandoned
            connection.execute(self._sql["end_session"], {"pid": pid, "start": start})
        row = connection.execute(self._sql["this_session"]).fetchone()
        assert row is not None
        return row[0], row[1]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Translate errors, and close a connection whose state is unknown."""
        try:
            with database_errors():
                yield
        except (TransactionConflict, ClockInDoubt, BadRows):
            raise
        except Exception:
            # Errors of other kinds too, because they leave the session in an unknown state.
            self._abandoned = self._session or self._abandoned
            self.close()
            raise

    def _transaction(self, folded: Folded, refold: Refold) -> Outcome:
        with self._errors():
            connection = self._ready()
            begun_s = self._clock.monotonic()
            with connection.one_limit(), connection.transaction():
                times = self._check_clock(connection, begun_s)
                outcome, folded, full = self._write(
                    connection, folded, refold, times, self._bounds, self._full
                )
        self._names |= folded.names
        self._full.add(full)
        return outcome

    def _rolled_back(self, good: Folded) -> None:
        with self._errors():
            connection = self._ready()
            _refuse_read_only(connection)
            begun_s = self._clock.monotonic()
            with connection.one_limit(), connection.transaction(force_rollback=True):
                times = self._check_clock(connection, begun_s)
                nothing = FullPrefixes()
                self._write(
                    connection, good, lambda _keys, _today: good, times, PROBE_BOUNDS, nothing
                )
                connection.execute(self._sql["check_deferred"])

    def _write(
        self,
        connection: Connection,
        folded: Folded,
        refold: Refold,
        times: Times,
        bounds: Bounds,
        full: FullPrefixes,
    ) -> tuple[Outcome, Folded, list[PrefixDay]]:
        """Write the new batches; return the outcome, the written fold and the full prefixes."""
        fresh = self._claim(connection, folded.keys)
        today = day_of(times.now)
        if len(fresh) < len(folded.keys) or folded.today != today:
            folded = refold(fresh, today)
        admission = self._admission(connection, folded, times, bounds, full)
        not_stored = self._write_rows(connection, folded, admission, times)
        self._write_hours(connection, folded, admission.enrolments, times)
        admission.write(folded.overflows)
        new_sensors = self._write_sensors(connection, folded, admission)
        outcome = Outcome(
            fresh=fresh,
            rows=folded.rows - sum(not_stored) - admission.overflowed,
            rows_read=folded.rows_read,
            expired=not_stored.expired,
            overflowed=admission.overflowed,
            past_bucket=dict(admission.past_bucket),
            now=times.now,
            sealed_at=folded.sealed_at,
            new_sensors=new_sensors,
        )
        return outcome, folded, admission.now_full

    def _check_clock(self, connection: Connection, begun_s: float) -> Times:
        """Check the clock; return the times of this transaction, in which now() is constant."""
        return self._clock.check(read_clock(connection, self._clock.monotonic, begun_s=begun_s))

    def _retention_at(self, times: Times) -> timedelta:
        return retention_from(times, self._retention)

    def _claim(self, connection: Connection, keys: tuple[BatchKey, ...]) -> frozenset[BatchKey]:
        """Claim the batches that were not counted before."""
        ids = self._lock_spools(connection, keys)
        by_row = {(ids[key.sensor, key.spool], key.seq): key for key in keys}
        claimed = connection.execute(
            self._sql["claim_batches"],
            {"spools": [row[0] for row in by_row], "seqs": [row[1] for row in by_row]},
        ).fetchall()
        return frozenset(by_row[spool, seq] for spool, seq in claimed)

    def _lock_spools(
        self, connection: Connection, keys: tuple[BatchKey, ...]
    ) -> dict[tuple[str, UUID], int]:
        spools = sorted({(key.sensor, key.spool) for key in keys})
        parameters = {
            "sensors": [sensor for sensor, _ in spools],
            "uuids": [spool for _, spool in spools],
        }
        connection.execute(self._sql["share_spools"], parameters)
        rows = connection.execute(self._sql["lock_spools"], parameters).fetchall()
        if len(rows) < len(spools):
            connection.execute(self._sql["insert_spools"], parameters)
            connection.execute(self._sql["share_spools"], parameters)
            rows = connection.execute(self._sql["lock_spools"], parameters).fetchall()
        return {(row[1], row[2]): row[0] for row in rows}

    def _admission(
        self,
        connection: Connection,
        folded: Folded,
        times: Times,
        bounds: Bounds,
        full: FullPrefixes,
    ) -> Admission:
        """Return the bounds of this transaction, with its sensors' epochs and buckets."""
        parameters = {
            "sensors": sorted({key.sensor for key in folded.keys}),
            "burst": bounds.per_sensor,
            "new_per_s": bounds.new_per_s,
        }
        rows = connection.execute(self._sql["sensors"], parameters).fetchall()
        return Admission(
            connection,
            self._admission_sql,
            bounds,
            self._retention_at(times),
            times.now,
            full,
            enrolments={
                sensor: enrolment_of(sensor, epoch) for sensor, epoch, _ in rows if epoch > 1
            },
            rooms={sensor: room for sensor, _, room in rows},
        )

    def _write_rows(
        self, connection: Connection, folded: Folded, admission: Admission, times: Times
    ) -> "_NotStored":
        """Write the rows; return how many are not stored."""
        if not folded.rows or folded.oldest is None:
            return _NotStored(0, 0)
        with connection.cursor() as cursor, cursor.copy(self._sql["copy_incoming"]) as copy:
            copy.write(folded.copy)
        retention = self._retention_at(times)
        enrolments = admission.enrolments
        parameters: dict[str, Any] = {
            "retention": retention,
            "annotated": folded.annotated,
            "one_sensor_each": folded.one_sensor_each,
            "today": folded.today,
            "days_kept": days_kept(retention.days),
            "sensors": list(enrolments),
            "enrolments": list(enrolments.values()),
        }
        expired = notes = 0
        if folded.oldest < times.now - retention:
            expired = connection.execute(self._sql["delete_expired"], parameters).rowcount
        if folded.has_notes:
            notes = connection.execute(self._sql["delete_lone_notes"], parameters).rowcount
        self._write_names(connection, folded.names)
        admission.remove_rows(folded)
        connection.execute(self._sql["upsert_observations"], parameters)
        connection.execute(self._sql["upsert_sightings"], parameters)
        return _NotStored(expired, notes)

    def _write_names(self, connection: Connection, names: dict[int, str]) -> None:
        if len(self._names) > _NAMES_KNOWN:
            self._names = {}
        new = {asn: name for asn, name in names.items() if self._names.get(asn) != name}
        if new:
            connection.execute(
                self._sql["upsert_names"], {"asns": list(new), "names": list(new.values())}
            )

    def _write_hours(
        self, connection: Connection, folded: Folded, enrolments: Mapping[str, str], times: Times
    ) -> None:
        rows = folded.hours
        if rows:
            connection.execute(
                self._sql["upsert_activity"],
                {
                    "retention": self._retention_at(times),
                    "hours": [row.hour for row in rows],
                    "feeds": [row.feed for row in rows],
                    "sensors": [enrolments.get(row.sensor, row.sensor) for row in rows],
                    "events": [row.events for row in rows],
                },
            )

    def _write_sensors(
        self, connection: Connection, folded: Folded, admission: Admission
    ) -> tuple[str, ...]:
        """Write the sensors' reports; return the sensors that are new."""
        rows = folded.sensors
        if not rows:
            return ()
        written = connection.execute(
            self._sql["upsert_sensors"],
            {
                "names": [row.name for row in rows],
                "sealed_at": [row.sealed_at for row in rows],
                "versions": [row.version for row in rows],
                "counters": [Jsonb(row.counters) for row in rows],
                "depths": [row.spool_depth for row in rows],
                "drops": [row.drops for row in rows],
                "addresses": [row.addresses for row in rows],
                "new": [admission.new[row.name] for row in rows],
                "burst": admission.bounds.per_sensor,
                "new_per_s": admission.bounds.new_per_s,
            },
        ).fetchall()
        return tuple(name for name, is_new in written if is_new)


def _refuse_read_only(connection: Connection) -> None:
    if connection.execute("SHOW transaction_read_only").fetchone() != ("off",):
        raise DatabaseUnavailable("the database is read-only (a standby, or set so)")
