"""The PostgreSQL of a fault run: kill it, restore it, or promote a standby.

fsync is off, because no machine loses power here. Full pages are written, because a killed server
may leave half a page in the kernel's cache.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import psycopg

from smtpfeeds_common.history import DAYS_MAX
from smtpfeeds_deploy.single_host.postgres import PrivatePostgres, connection_string
from smtpfeeds_deploy.single_host.postgres_cluster import SUPERUSER, environment
from smtpfeeds_deploy.single_host.postgres_sockets import PORT

from .reckoning import Recorded, Row

_SETTINGS = {"max_connections": "60", "full_page_writes": "on", "max_wal_senders": "5"}
#: Behaviours as one number and by weeks, and days as a reader takes them, relative to today.
_OBSERVATIONS = """
SELECT feed, host(ip), hits, (extract(epoch FROM first_seen) * 1000)::bigint,
       (extract(epoch FROM last_seen) * 1000)::bigint, flags,
       recent_bits(flags, flags_now, flags_before, day, last_seen, today / 7), NULL,
       row_days(days, day, first_seen, last_seen, today), today
FROM observation, utc_day(now()) AS today
"""
#: By the sensor's own name: each epoch of its account has rows of its own.
_SIGHTINGS = """
SELECT feed, host(ip), split_part(sensor, '@', 1), sum(hits)::bigint,
       (extract(epoch FROM min(first_seen)) * 1000)::bigint,
       (extract(epoch FROM max(last_seen)) * 1000)::bigint, bit_or(flags),
       bit_or(recent_bits(flags, flags_now, flags_before, day, last_seen, today / 7)),
       bit_or(recent_bits(targets, targets_now, targets_before, day, last_seen, today / 7)),
       bit_or(row_days(days, day, first_seen, last_seen, today)), today
FROM sighting, utc_day(now()) AS today GROUP BY 1, 2, 3, today
"""
_ACTIVITY = """
SELECT (extract(epoch FROM hour) * 1000)::bigint, feed, split_part(sensor, '@', 1),
       sum(events)::bigint
FROM activity GROUP BY 1, 2, 3
"""
_MISSING = """
SELECT number FROM unnest(%s::text[], %s::inet[], %s::text[], %s::float8[])
       WITH ORDINALITY AS delivered (feed, ip, sensor, sent_ms, number)
LEFT JOIN sighting USING (ip, feed, sensor)
WHERE last_seen IS NULL OR last_seen < to_timestamp(floor(sent_ms) / 1000 - 0.001)
"""

#: A feed, an address, a sensor, and when its client sent the event (ms).
Delivered = tuple[str, str, str, int]


class Database(PrivatePostgres):
    """A server that can be killed, copied, and started as a standby of another."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, durable=False, settings=_SETTINGS, start_limit_s=120)
        self._is_standby = False

    @property
    def data(self) -> Path:
        return self._data

    def kill(self) -> None:
        """Kill the postmaster with SIGKILL; its children end too."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def superuser_dsn(self) -> str:
        return self.dsn_for("smtpfeeds", user=SUPERUSER)

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Run one statement as the superuser."""
        with psycopg.connect(
            self.superuser_dsn(), autocommit=True, connect_timeout=5
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def set_up(self, **settings: str) -> None:
        """Run ALTER SYSTEM, and make it take effect."""
        for name, value in settings.items():
            self.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self.execute("SELECT pg_reload_conf()")

    def back_up(self, target: Path) -> None:
        """Take a base backup of the running server, like an operator."""
        self._base_backup(target)

    def restore(self, backup: Path) -> None:
        """Replace the data by a backup; the server must not run."""
        shutil.rmtree(self._data)
        shutil.copytree(backup, self._data)

    def become_standby_of(self, primary: Database) -> None:
        """Replace the data by a copy of the primary's, and follow it after the next start."""
        self.stop()
        if self._data.exists():
            shutil.rmtree(self._data)
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        primary._base_backup(self._data, standby=True)
        self._is_standby = True
        self.start()
        self._is_standby = False

    def promote(self) -> None:
        """Make this standby the primary, without a standby of its own."""
        with psycopg.connect(self.superuser_dsn(), autocommit=True) as connection:
            connection.execute("SELECT pg_promote(true, 60)")
        self.set_up(synchronous_standby_names="")

    def _base_backup(self, target: Path, *, standby: bool = False) -> None:
        assert self._binaries is not None
        command = [
            *self._identity().prefix,
            self._binaries.path("pg_basebackup"),
            f"--host={self._socket_folder_in_use()}",
            f"--port={PORT}",
            f"--username={SUPERUSER}",
            f"--pgdata={target}",
            "--checkpoint=fast",
            "--no-sync",
            *(["--write-recovery-conf"] if standby else []),
        ]
        done = subprocess.run(
            command, env=environment(), cwd=self._root, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        target.chmod(0o700)

    def _make_accounts(self) -> None:
        if not self._is_standby:
            super()._make_accounts()


def several_hosts(*databases: Database) -> str:
    """Return a connection string that finds the primary among the servers."""
    folders = [str(each._socket_folder_in_use()) for each in databases]
    one = connection_string(Path("HOSTS"), "smtpfeeds", "smtpfeeds")
    ports = ",".join(str(PORT) for _ in folders)
    return (
        one.replace("HOSTS", ",".join(folders)) + f" port={ports} target_session_attrs=read-write"
    )


def read_all(dsn: str) -> Recorded:
    """Read everything that is compared."""
    with psycopg.connect(dsn, connect_timeout=5) as connection:
        return Recorded(
            observations={
                (feed, ip): _row(*rest)
                for feed, ip, *rest in connection.execute(_OBSERVATIONS).fetchall()
            },
            sightings={
                (feed, ip, sensor): _row(*rest)
                for feed, ip, sensor, *rest in connection.execute(_SIGHTINGS).fetchall()
            },
            activity={
                (hour, feed, sensor): int(events)
                for hour, feed, sensor, events in connection.execute(_ACTIVITY).fetchall()
            },
        )


def _row(
    hits: int,
    first_ms: int,
    last_ms: int,
    flags: int,
    recent_flags: int,
    targets: int | None,
    days: int,
    today: int,
) -> Row:
    """Convert a selected row: targets are signed there, and days relative to today."""
    seen = frozenset(today - back for back in range(DAYS_MAX) if days >> back & 1)
    hit = None if targets is None else targets % (1 << 64)
    return Row(hits, first_ms, last_ms, flags, recent_flags, hit, seen)


class Gauge:
    """Finds which of the clients' latest events are not in the database yet."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.Connection | None = None

    def missing(self, delivered: list[Delivered]) -> list[Delivered]:
        """Return the events whose sighting is missing or older; all if the database does not
        answer.
        """
        columns = zip(*delivered, strict=True) if delivered else ([], [], [], [])
        try:
            if self._connection is None:
                self._connection = psycopg.connect(self._dsn, autocommit=True, connect_timeout=2)
            rows = self._connection.execute(_MISSING, [list(c) for c in columns]).fetchall()
        except psycopg.Error:
            self.close()
            return delivered
        return [delivered[number - 1] for (number,) in rows]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
