"""The folder in which `smtpfeeds up` keeps everything, and its lock.

    DIR/
        lock                 held while `smtpfeeds up` runs
        sensor.toml          settings of the sensor, written at each start
        aggregator.toml      settings of the aggregator and of `smtpfeeds query --dir DIR`
        log/                 sensor.log and aggregator.log, each with an earlier file
        spool/               events that the aggregator has not read yet
        postgres/            the private PostgreSQL
        feeds -> …           the published feeds, the newest generation

The settings files hold the options of the command line. The environment can give any other
setting, as for the programs themselves, but not those that connect the parts: a variable exported
for another site must not send this host's events to another database.
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

#: The name of the one sensor; it does not depend on the host's name.
SENSOR: Final = "local"
#: Entries of an empty folder that is the root of a file system.
_OF_A_FILE_SYSTEM: Final = frozenset({"lost+found"})
_HEADER: Final = (
    "# Written by `smtpfeeds up` at each start: changes made here are lost.\n"
    "# Set what it has no option for in the environment, as SMTPFEEDS_{program}_<SETTING>.\n"
)

#: What PostgreSQL needs to start: a few small files and, if none is left, a WAL segment of 16 MB.
_ROOM_BYTES: Final = 32 * 1024 * 1024

Value = str | int | bool | Iterable[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command line."""

    smtp: tuple[str, ...]
    trusted_proxies: tuple[str, ...] = ()
    origin_table: Path | None = None
    as_names: Path | None = None
    publish_every_s: int = 60
    publish_non_global: bool = False
    publish_exact_counts: bool = False


class Home:
    """The folder of one `smtpfeeds up`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.sensor_file = self.folder / "sensor.toml"
        self.aggregator_file = self.folder / "aggregator.toml"
        self.spools = self.folder / "spool"
        self.feeds = self.folder / "feeds"
        self._lock: IO[str] | None = None

        self.logs = self.folder / "log"

    def log(self, name: str) -> Path:
        """Return the path of a program's log."""
        return self.logs / f"{name}.log"

    def take(self) -> None:
        """Create the folder if it is missing, and lock it.

        Raises:
            SingleHostError: another `smtpfeeds up` uses the folder, it holds something else, or it
                cannot be written.
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
        with contextlib.suppress(OSError):  # on a full disk the lock holds without the process id
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
        self._lock = lock

    def _check_ours(self) -> None:
        """Check that the folder is empty or from an earlier run."""
        names = {entry.name for entry in self.folder.iterdir()} - _OF_A_FILE_SYSTEM
        if "lock" in names and self.spools.is_dir():
            return
        # A run that was killed before it created the lock leaves only the spool folder.
        if names - {"spool"}:
            raise SingleHostError(
                f"{self.folder} is not empty and was not created by `smtpfeeds up`: give another "
                f"--dir, or an empty folder"
            )

    def leave(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def is_full(self) -> bool:
        """Whether the disk lacks the space to start PostgreSQL."""
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize < _ROOM_BYTES

    def write_settings(self, options: Options, dsn: str) -> None:
        """Write the settings files of both programs.

        Raises:
            SingleHostError: they cannot be written.
        """
        try:
            _write(self.sensor_file, "SENSOR", self.sensor_settings(options))
            _write(self.aggregator_file, "AGGREGATOR", self.aggregator_settings(options, dsn))
        except OSError as exc:
            raise SingleHostError(f"cannot write {exc.filename}: {exc.strerror}") from exc

    def sensor_settings(self, options: Options) -> dict[str, Value]:
        """Return the sensor's settings."""
        return {
            "name": SENSOR,
            "listen": options.smtp,
            "trusted_proxies": options.trusted_proxies,
            "spool_dir": str(self.spools),
            "broker": (),
            # With another user or with workers, the sensor would not end with its parent.
            "user": "",
            "workers": 1,
        }

    def aggregator_settings(self, options: Options, dsn: str) -> dict[str, Value]:
        """Return the aggregator's settings."""
        settings: dict[str, Value] = {
            "dsn": dsn,
            "broker": (f"spool:{self.spools}",),
            "feeds_dir": str(self.folder),
            "publish_interval_s": options.publish_every_s,
            "publish_non_global": options.publish_non_global,
            "publish_exact_counts": options.publish_exact_counts,
        }
        for name, path in (("origin_table", options.origin_table), ("as_names", options.as_names)):
            if path is not None:
                settings[name] = str(path.resolve())
        if options.origin_table is not None:
            settings["origin_index_dir"] = str(self.folder / "origin-index")
        return settings

    def environment(self, inherited: Mapping[str, str], options: Options) -> dict[str, str]:
        """Return the children's environment, without variables that override the settings files.

        libpq also reads variables such as PGHOSTADDR, PGOPTIONS and PGSERVICE, which are left out.
        """
        ours = {f"SMTPFEEDS_SENSOR_{name.upper()}" for name in self.sensor_settings(options)}
        ours |= {f"SMTPFEEDS_AGGREGATOR_{n.upper()}" for n in self.aggregator_settings(options, "")}
        return {
            name: value
            for name, value in inherited.items()
            if name not in ours and not name.startswith("PG")
        }


def toml_text(settings: Mapping[str, Value]) -> str:
    """Write settings as TOML."""
    return "".join(f"{name} = {_toml_value(value)}\n" for name, value in settings.items())


def _toml_value(value: Value) -> str:
    if isinstance(value, str):
        # A JSON string is a TOML basic string, except for DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return "[" + ", ".join(_toml_value(item) for item in value) + "]"


def _write(path: Path, program: str, settings: Mapping[str, Value]) -> None:
    """Write another file and rename it, so that a query never reads a part of it."""
    aside = path.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()
    aside.touch(mode=0o600)
    aside.write_text(_HEADER.format(program=program) + "\n" + toml_text(settings), encoding="utf-8")
    aside.replace(path)


def _first_line(stream: IO[str]) -> str:
    stream.seek(0)
    return stream.readline().strip() or "unknown"
