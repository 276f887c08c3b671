"""A private PostgreSQL in one folder: creates, starts, watches and stops it, for a single host.

It listens only on a Unix socket in a folder that only its owner may enter. It needs no root, adds
no user and changes no permission outside its folder. `unprivileged` describes a start by root.

    DIRECTORY/postgres/     0700
        lock                held while a program runs this PostgreSQL
        data/               the cluster
        run/                the socket; if the path is too long, `socket-folder` names its folder
        log, log.1          the server's log; each at most about 8 MB
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from smtpfeeds_common.errors import SingleHostError
from smtpfeeds_deploy.single_host import postgres_binaries as programs
from smtpfeeds_deploy.single_host import unprivileged
from smtpfeeds_deploy.single_host.bounded_log import BoundedLog
from smtpfeeds_deploy.single_host.orphans import end_servers_in, is_alive, servers_in
from smtpfeeds_deploy.single_host.postgres_cluster import (
    SUPERUSER,
    environment,
    make_accounts,
    make_cluster,
)
from smtpfeeds_deploy.single_host.postgres_sockets import PORT, SocketFolder

DATABASE = "smtpfeeds"
USER = "smtpfeeds"


#: Little memory, because a small host also runs the sensor and the aggregator.
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "40",
    "shared_buffers": "64MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "max_wal_size": "512MB",
    "max_worker_processes": "4",
    "max_parallel_workers": "2",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
}

#: For tests, whose data may be lost if the machine crashes. Committed data still survives a kill -9
#: of the server: synchronous_commit stays on, so the kernel has the WAL.
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class PrivatePostgres:
    """One PostgreSQL in one directory; as a context manager it is started and stopped.

    The kernel signals the server when the thread that called `start` ends, so that the server
    ends with a killed program. Call `start` from a thread that lives as long as the program.
    """

    def __init__(
        self,
        directory: Path,
        *,
        binaries: Path | None = None,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
        user_namespaces: bool | None = None,
        start_limit_s: float = 900.0,
        stop_limit_s: float = 5.0,
        waiting: Callable[[], object] = lambda: None,
    ) -> None:
        """Describe the server; ``start`` creates and starts it.

        Args:
            directory: its folder; `postgres` in it is created if it is missing.
            binaries: the folder of PostgreSQL's programs; by default the embedded ones.
            durable: False makes it faster, but a crash of the machine can lose the data.
            settings: server settings that override the defaults of this module.
            user_namespaces: whether root may use user namespaces; by default this is tried.
            start_limit_s: the time limit of a start, including recovery after a crash. A slow disk
                needs minutes for that, and a recovery that is ended begins again at the next start.
            stop_limit_s: the time limit of a fast shutdown, before an immediate one.
            waiting: called many times a second during a start; an error in it ends the start.
        """
        self._root = directory.resolve() / "postgres"
        self._data = self._root / "data"
        self._socket_folder = SocketFolder(self._root)
        self._log = BoundedLog(self._root / "log")
        self._log_since = 0
        self._binaries_folder = binaries
        self._durable = durable
        self._settings = {**_SETTINGS, **({} if durable else _NOT_DURABLE), **(settings or {})}
        self._user_namespaces = user_namespaces
        self._start_limit_s = start_limit_s
        self._stop_limit_s = stop_limit_s
        self._waiting = waiting
        #: The user that the server runs as, if it is not the one that starts it.
        self.another_user = ""
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: Path | None = None
        self._binaries: programs.Binaries | None = None

    @property
    def dsn(self) -> str:
        """The connection string of the aggregator."""
        return self.dsn_for(DATABASE)

    def dsn_for(self, database: str, *, user: str = USER) -> str:
        """Return the connection string of a database; the server must have been started."""
        return connection_string(self._socket_folder_in_use(), database, user)

    @property
    def socket_path(self) -> Path:
        """The path of the Unix socket; the server must have been started."""
        return self._socket_folder_in_use() / f".s.PGSQL.{PORT}"

    def _socket_folder_in_use(self) -> Path:
        if self._sockets is None:
            msg = f"the PostgreSQL in {self._root} was not started yet"
            raise SingleHostError(msg)
        return self._sockets

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it runs."""
        return None if self._process is None or self.poll() is not None else self._process.pid

    @property
    def major(self) -> int | None:
        """PostgreSQL's major version, after a start."""
        return None if self._binaries is None else self._binaries.major

    @property
    def log_path(self) -> Path:
        """The path of the server's log."""
        return self._log.path

    def keep_log_bound(self) -> None:
        """Truncate the log if it is past its bound; call this about every second."""
        self._log.keep_bound()

    def poll(self) -> int | None:
        """Return the postmaster's exit code, or None while it runs; `start` starts another."""
        if self._process is None:
            return 0
        return self._process.poll()

    def start(self) -> None:
        """Create what is missing, start the server, and wait until the database can be used.

        Raises:
            SingleHostError: this failed; the message says why and what to do.
        """
        if self._process is not None and self._process.poll() is None:
            return
        try:
            self._prepare_and_launch()
            self._wait_ready()
            self._make_accounts()
        except OSError as exc:
            self.stop()
            msg = f"cannot run PostgreSQL in {self._root}: {exc}"
            raise SingleHostError(msg) from exc
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Shut down fast, or immediately at the time limit; leave nothing outside the directory."""
        if self._process is not None:
            fast, at_once, kill = signal.SIGINT, signal.SIGQUIT, signal.SIGKILL
            for number, limit_s in ((fast, self._stop_limit_s), (at_once, 2.0), (kill, None)):
                if self._process.poll() is None:
                    self._process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(limit_s)
                    break
            self._process = None
        self._sockets = None
        # Without the lock, the PostgreSQL and its socket belong to another program.
        if self._lock is not None:
            self._socket_folder.remove()
            self._lock.close()
            self._lock = None

    def log_tail(self) -> str:
        """Return the last lines that the server has logged since its last start."""
        return self._log.tail(self._log_since)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _prepare_and_launch(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        identity = self._identity()
        self._take_lock()
        self._root.chmod(0o700)
        self._clear_after_a_crash()
        binaries = self._choose_binaries()
        identity = unprivileged.reaching(self._root.parent, binaries.path("postgres"), identity)
        self.another_user = "" if identity.uid is None else identity.name
        unprivileged.hand_over(self._root, identity)
        if not self._data.exists():
            make_cluster(self._data, binaries, identity, durable=self._durable)
        self._sockets = self._socket_folder.make(identity)
        self._binaries = binaries
        self._process = self._launch(binaries, identity)

    def _identity(self) -> unprivileged.Identity:
        euid = os.geteuid()
        has_name = unprivileged.has_name(euid)
        namespaces = self._user_namespaces
        if namespaces is None:
            needed = euid == 0 or not has_name
            namespaces = needed and unprivileged.user_namespaces_work()
        sudo_uid = os.environ.get("SUDO_UID", "")
        try:
            return unprivileged.choose_identity(
                euid=euid,
                data_uid=self._root.stat().st_uid,
                namespaces=namespaces,
                sudo_uid=int(sudo_uid) if sudo_uid.isdigit() else None,
                has_name=has_name,
            )
        except SingleHostError as exc:
            msg = f"{self._root}: {exc}"
            raise SingleHostError(msg) from exc

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = (self._root / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            lock.seek(0)
            owner = lock.read().strip()
            lock.close()
            msg = f"{self._root} is in use by process {owner}: stop it, or choose another directory"
            raise SingleHostError(msg) from exc
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def _clear_after_a_crash(self) -> None:
        """End a server of an earlier run, and remove a misleading postmaster.pid.

        This program holds the lock, so no other program uses a server that still runs here.
        """
        stated = self._stated_pid()
        if not end_servers_in(self._data, stated, limit_s=self._stop_limit_s):
            running = servers_in(self._data)
            msg = (
                f"{self._root}: processes {running} of an earlier PostgreSQL do not end: kill them"
            )
            raise SingleHostError(msg)
        # The server itself removes a file with a dead process id. If another program has that id
        # now, the server would take it for a running postmaster.
        if stated is not None and is_alive(stated):
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _stated_pid(self) -> int | None:
        lines = self._pid_file_lines()
        return int(lines[0]) if lines and lines[0].isdigit() else None

    def _make_accounts(self) -> None:
        if self._binaries is None:
            raise AssertionError("the server does not run")
        make_accounts(self._root, self._binaries, self.dsn_for("postgres", user=SUPERUSER))

    def _pid_file_lines(self) -> list[str]:
        """Read postmaster.pid: line 1 is the process id, line 8 the state, as pg_ctl reads it."""
        try:
            text = (self._data / "postmaster.pid").read_text(errors="replace")
        except FileNotFoundError:
            return []
        return [line.strip() for line in text.splitlines()]

    def _choose_binaries(self) -> programs.Binaries:
        folder = self._binaries_folder
        installed = programs.embedded() if folder is None else [programs.at(folder)]
        return programs.choose(installed, self._data_major(), self._data)

    def _data_major(self) -> int | None:
        try:
            return int((self._data / "PG_VERSION").read_text())
        except FileNotFoundError:
            if self._data.exists():
                msg = f"{self._data} is not a PostgreSQL data folder: move it away"
                raise SingleHostError(msg) from None
            return None

    def _launch(
        self, binaries: programs.Binaries, identity: unprivileged.Identity
    ) -> subprocess.Popen[bytes]:
        sockets = str(self._sockets).replace('"', '""')
        settings = {
            **self._settings,
            "port": str(PORT),  # part of the socket's name, so a setting must not change it
            "unix_socket_directories": f'"{sockets}"',
        }
        command = [
            *identity.prefix,
            *unprivileged.death_signal("INT"),
            binaries.path("postgres"),
            "-D",
            str(self._data),
        ]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        self._log.keep_bound()
        self._log_since = self._log.size()
        log = self._log.open()
        try:
            return subprocess.Popen(
                command,
                cwd=self._root,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Keep Ctrl-C in the terminal from it; the parent stops the server last.
                start_new_session=True,
            )
        finally:
            os.close(log)

    def _wait_ready(self) -> None:
        process = self._process
        if process is None:
            raise AssertionError("the server was not launched")
        deadline = time.monotonic() + self._start_limit_s
        while True:
            lines = self._pid_file_lines()
            if lines[:1] == [str(process.pid)] and len(lines) >= 8 and lines[7] == "ready":
                return
            if process.poll() is not None:
                msg = f"PostgreSQL in {self._root} ended at its start:\n{self.log_tail()}"
                raise SingleHostError(msg)
            if time.monotonic() > deadline:
                msg = (
                    f"PostgreSQL in {self._root} was not ready after {self._start_limit_s:g} s; "
                    f"the end of {self._log.path}:\n{self.log_tail()}"
                )
                raise SingleHostError(msg)
            self._waiting()
            time.sleep(0.02)


def connection_string(sockets: Path, database: str, user: str) -> str:
    """Return a libpq connection string for the server whose socket is in this folder."""
    parts = {"host": str(sockets), "dbname": database, "user": user}
    return " ".join(f"{name}={_quoted(value)}" for name, value in parts.items())


def _quoted(value: str) -> str:
    """Quote a value for a libpq connection string."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'" if not value or set(value) & set(" '\\=") else value
