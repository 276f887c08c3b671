"""The folder in which `smtpfeeds up` keeps everything, and whose it is.

    DIR/
        lock                 held while `smtpfeeds up` runs
        sensor.toml          settings of the sensor, written at each start
        aggregator.toml      settings of the aggregator and of `smtpfeeds query --dir DIR`
        log/                 sensor.log, aggregator.log, each with one before it
        spool/               what the sensor heard and the aggregator has not taken yet
        postgres/            the private PostgreSQL
        feeds -> …           the published feeds, the newest generation

The settings files hold what the command line asks for. Any other setting can be
given in the environment, as for the programs themselves; those which tie the
parts together cannot, so that a variable exported for another site does not send this host's
events to another database.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from smtpfeeds_common.errors import SingleHostError

#: The one sensor's name; it stays the same when the host's name changes.
SENSOR: Final = "local"
#: In an empty folder that is the root of a file system.
_OF_A_FILE_SYSTEM: Final = frozenset({"lost+found"})
_HEADER: Final = (
    "# Written by `smtpfeeds up` at each start: changes made here are lost.\n"
    "# Settings that it has no option for: the environment, as SMTPFEEDS_{program}_<SETTING>.\n"
)

#: PostgreSQL writes a few small files, and a segment of its log of 16 MB where it has none to use.
_ROOM_BYTES: Final = 32 * 1024 * 1024

Value = str | int | bool | Iterable[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line asked for."""

    smtp: tuple[str, ...]
    trusted_proxies: tuple[str, ...] = ()
    origin_table: Path | None = None
    as_names: Path | None = None
    publish_every_s: int = 60
    publish_non_global: bool = False
    publish_exact_counts: bool = False


class Home:
    """One such folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.sensor_file = self.folder / "sensor.toml"
        self.aggregator_file = self.folder / "aggregator.toml"
        self.spools = self.folder / "spool"
        self.feeds = self.folder / "feeds"
        self._lock: IO[str] | None = None

        self.logs = self.folder / "log"

    def log(self, name: str) -> Path:
        """Where a program's log is."""
        return self.logs / f"{name}.log"

    def take(self) -> None:
        """Make the folder where it is missing, and hold it alone.

        Raises:
            SingleHostError: another `smtpfeeds up` has it, it is something else's, or it cannot be
                written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._check_ours()
            self.spools.mkdir(mode=0o700, exist_ok=True)
            lock = (self.folder / "lock").open("a+")
        except OSError as exc:
            raise SingleHostError(f"cannot use the folder {self.folder}: {exc.strerror}") from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            owner = _first_line(lock)
            lock.close()
            raise SingleHostError(
                f"{self.folder} is in use by another `smtpfeeds up` (process {owner}): "
                "stop that one, or give this one another --dir"
            ) from exc
        with contextlib.suppress(OSError):  # a full disk: the lock holds without the note
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
        self._lock = lock

    def _check_ours(self) -> None:
        """See that nothing else is in the folder than what earlier runs have put there."""
        names = {entry.name for entry in self.folder.iterdir()} - _OF_A_FILE_SYSTEM
        if "lock" in names and self.spools.is_dir():
            return
        # A run that was cut short in its first moment.
        if names - {"spool"}:
            raise SingleHostError(
                f"{self.folder} is not empty and was not created by `smtpfeeds up`: give another "
                f"--dir, or an empty folder"
            )

    def leave(self) -> None:
        """Let another have it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def is_full(self) -> bool:
        """Whether the disk has no room for a start of PostgreSQL."""
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize < _ROOM_BYTES

    def write_settings(self, wanted: Wanted, dsn: str) -> None:
        """Write both programs' settings files.

        Raises:
            SingleHostError: they cannot be written.
        """
        try:
            _write(self.sensor_file, "SENSOR", self.sensor_settings(wanted))
            _write(self.aggregator_file, "AGGREGATOR", self.aggregator_settings(wanted, dsn))
        except OSError as exc:
            raise SingleHostError(f"cannot write {exc.filename}: {exc.strerror}") from exc

    def sensor_settings(self, wanted: Wanted) -> dict[str, Value]:
        """The sensor's settings."""
        return {
            "name": SENSOR,
            "listen": wanted.smtp,
            "trusted_proxies": wanted.trusted_proxies,
            "spool_dir": str(self.spools),
            "broker": (),
            # A change of user, or a process of its own below it, would outlive a killed parent.
            "user": "",
            "workers": 1,
        }

    def aggregator_settings(self, wanted: Wanted, dsn: str) -> dict[str, Value]:
        """The aggregator's settings."""
        settings: dict[str, Value] = {
            "dsn": dsn,
            "broker": (f"spool:{self.spools}",),
            "feeds_dir": str(self.folder),
            "publish_interval_s": wanted.publish_every_s,
            "publish_non_global": wanted.publish_non_global,
            "publish_exact_counts": wanted.publish_exact_counts,
        }
        for name, path in (("origin_table", wanted.origin_table), ("as_names", wanted.as_names)):
            if path is not None:
                settings[name] = str(path.resolve())
        if wanted.origin_table is not None:
            settings["origin_index_dir"] = str(self.folder / "origin-index")
        return settings

    def environment(self, given: Mapping[str, str], wanted: Wanted) -> dict[str, str]:
        """The children's environment: ours, without what would send them elsewhere.

        libpq reads variables such as PGHOSTADDR, PGOPTIONS and PGSERVICE beside the DSN.
        """
        ours = {f"SMTPFEEDS_SENSOR_{name.upper()}" for name in self.sensor_settings(wanted)}
        ours |= {f"SMTPFEEDS_AGGREGATOR_{n.upper()}" for n in self.aggregator_settings(wanted, "")}
        return {
            name: value
            for name, value in given.items()
            if name not in ours and not name.startswith("PG")
        }


def toml_text(settings: Mapping[str, Value]) -> str:
    """Write settings as TOML."""
    return "".join(f"{name} = {_toml_value(value)}\n" for name, value in settings.items())


def _toml_value(value: Value) -> str:
    if isinstance(value, str):
        # A JSON string is a TOML basic string, DEL aside.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return "[" + ", ".join(_toml_value(item) for item in value) + "]"


def _write(path: Path, program: str, settings: Mapping[str, Value]) -> None:
    """Write aside and rename: a query that reads it at this moment sees a whole file."""
    aside = path.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()
    aside.touch(mode=0o600)
    aside.write_text(_HEADER.format(program=program) + "\n" + toml_text(settings), encoding="utf-8")
    aside.replace(path)


def _first_line(stream: IO[str]) -> str:
    stream.seek(0)
    return stream.readline().strip() or "unknown"
