"""The results of the last runs, and the present run, in files beside the published directory.

All aggregators that publish a directory read the files, and `smtpfeeds publish status` reads them
without a database. A file that cannot be written or read never fails a run.

A run is active while its process has the lock of its file (flock(2)), which the kernel releases
however the process ends. So a killed process does not appear as running.
"""

import fcntl
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from smtpfeeds_common.logs import fields

logger = logging.getLogger(__name__)

_FILE: Final = ".publish-status.json"
_RUNNING: Final = ".publish-running.json"
#: Stored from the switch to the end of a run.
NOT_FINISHED: Final = (
    "the publication did not finish: old editions and stored origins are as they were before"
)
#: A reader holds the lock of the file for a moment, which is longer on a busy machine.
_LOCK_LIMIT_S: Final = 5.0
_TRY_AGAIN_S: Final = 0.01


class Running(msgspec.Struct, frozen=True):
    """A run that is active."""

    since: datetime
    by: str
    process_id: int
    #: Its time limit; None: it has no limit.
    timeout_s: float | None


class Success(msgspec.Struct, frozen=True):
    """A run that published."""

    time: datetime
    generation: str
    addresses: dict[str, int]
    left_out: dict[str, dict[str, int]]
    seconds: float
    #: The files that were not written, and why, by name.
    not_written: dict[str, str] = {}
    #: What was not cleaned up, and why; the next publication tries again.
    not_cleaned: str | None = None
    #: The host that published.
    by: str = msgspec.field(default_factory=socket.gethostname)


class Failure(msgspec.Struct, frozen=True):
    """A run that failed, and why."""

    time: datetime
    by: str
    reason: str
    #: Whether its numbers were suspicious: it fails again until they are plausible, or forced.
    #: The kind has this too, but version 0.1.0 reads this field, and writes no kind.
    refused: bool
    #: One word for the reason, as in the metrics (`failures.REASONS`).
    kind: str = "other"


class Status(msgspec.Struct, frozen=True):
    """The last success and failure; the failure is None once a later run has published."""

    success: Success | None = None
    failure: Failure | None = None
    #: The last failure before the last success.
    earlier_failure: Failure | None = None


class StatusFile:
    """The files of one directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _FILE
        self._running = directory / _RUNNING

    def read(self) -> Status:
        """Return the stored status; empty if there is no file, or it cannot be read."""
        with suppress(OSError, ValueError):
            return msgspec.json.decode(self._path.read_bytes(), type=Status)
        return Status()

    def not_cleaned(self) -> str | None:
        """Return what the last successful run did not clean up; it may still be running."""
        running = self.read_running()
        success = self.read().success
        if success is None or (running and success.not_cleaned == NOT_FINISHED):
            return None
        return success.not_cleaned

    def read_running(self) -> Running | None:
        """Return the present run; None if there is none, or it cannot be read."""
        with suppress(OSError, ValueError), self._running.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return msgspec.json.decode(file.read(), type=Running)
        return None

    @contextmanager
    def running(self, timeout_s: float | None) -> Iterator[None]:
        """Show that this process publishes; only the holder of the directory's lock calls it."""
        descriptor = None
        try:
            descriptor = os.open(self._running, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            _lock(descriptor)
            since = datetime.now(UTC)
            note = Running(since, socket.gethostname(), os.getpid(), timeout_s)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, msgspec.json.encode(note), 0)
        except OSError as exc:
            logger.warning("running publication not recorded", extra=fields(error=str(exc)))
        try:
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def published(self, success: Success) -> None:
        """Store a successful run."""
        before = self.read()
        self._write(Status(success, None, before.failure or before.earlier_failure))

    def failed(self, reason: str, kind: str = "other") -> None:
        """Store a failed run, with this host's time, because the database may be unavailable."""
        refused = kind == "refused"
        failure = Failure(datetime.now(UTC), socket.gethostname(), reason, refused, kind)
        before = self.read()
        self._write(Status(before.success, failure, before.earlier_failure))

    def _write(self, status: Status) -> None:
        aside = self._path.with_name(f"{_FILE}-{uuid.uuid4().hex}")
        try:
            try:
                aside.write_bytes(msgspec.json.encode(status))
                aside.replace(self._path)
            except OSError:
                aside.unlink(missing_ok=True)
                raise
        except OSError as exc:
            logger.warning("publish status not recorded", extra=fields(error=str(exc)))


def _lock(descriptor: int) -> None:
    """Take the lock of the file.

    Raises:
        OSError: another process holds it.
    """
    deadline_s = time.monotonic() + _LOCK_LIMIT_S
    while time.monotonic() < deadline_s:
        with suppress(BlockingIOError):
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(_TRY_AGAIN_S)
    return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
