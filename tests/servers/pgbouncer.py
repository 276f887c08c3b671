"""A pgbouncer in front of a test's PostgreSQL, only on a Unix socket."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from servers.postgres import PostgresServer, database_name
from servers.processes import ServerFailedError, bound_to_parent, end, wait_until
from smtpfeeds_deploy.single_host import unprivileged

_PORT = 6432  # only a part of the socket's name


class Pooler:
    """A pgbouncer; a context manager that starts and stops it."""

    def __init__(self, folder: Path, server: PostgresServer, mode: str, **settings: object) -> None:
        """Write the configuration.

        Args:
            folder: for its configuration, its log and its socket; a short path.
            server: the PostgreSQL behind it.
            mode: session, transaction or statement.
            settings: further lines of [pgbouncer].
        """
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        target = server.private.socket_path.parent
        lines = {
            "listen_addr": "",
            "listen_port": _PORT,
            "unix_socket_dir": folder,
            "auth_type": "trust",
            "auth_file": folder / "users",
            "pool_mode": mode,
            "max_client_conn": 100,
            "default_pool_size": 20,
            **settings,
        }
        (folder / "users").write_text('"smtpfeeds" ""\n')
        text = "".join(f"{name} = {value}\n" for name, value in lines.items())
        self._config = folder / "pgbouncer.ini"
        self._config.write_text(
            f"[databases]\n* = host={target} port=5432\n[pgbouncer]\n{text}", encoding="utf-8"
        )

    def dsn(self, direct: str) -> str:
        """Return the connection string of the same database through the pooler."""
        return (
            f"host={self._folder} port={_PORT} dbname={database_name(direct)} user=smtpfeeds"
            " sslmode=disable"
        )

    def __enter__(self) -> Self:
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            msg = "pgbouncer is missing: run `make test-programs`"
            raise ServerFailedError(msg)
        # It refuses to run as root, as PostgreSQL does.
        chosen = unprivileged.choose_identity(
            euid=os.geteuid(),
            data_uid=None,
            namespaces=unprivileged.user_namespaces_work(),
            sudo_uid=None,
        )
        identity = unprivileged.reaching(self._folder, program, chosen)
        unprivileged.hand_over(self._folder, identity)
        log = self._folder / "log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                bound_to_parent([*identity.prefix, program, str(self._config)]),
                stdout=out,
                stderr=out,
            )
        socket = self._folder / f".s.PGSQL.{_PORT}"
        process = self._process
        wait_until(lambda: socket.exists() or process.poll() is not None, what="it listens")
        if process.poll() is not None:
            raise ServerFailedError(log.read_text())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            end(self._process, limit_s=5)
