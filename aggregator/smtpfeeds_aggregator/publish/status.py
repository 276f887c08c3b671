"""The outcomes of the last runs, in a file beside the published directory.

All aggregators that publish a directory see the file, and `smtpfeeds publish status` reads it
when the database is away too. A file that cannot be written or read never fails a run.
"""

import logging
import socket
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from smtpfeeds_common.logs import fields

logger = logging.getLogger(__name__)

_FILE: Final = ".publish-status.json"


class Success(msgspec.Struct, frozen=True):
    """A run that published."""

    time: datetime
    generation: str
    addresses: dict[str, int]
    left_out: dict[str, dict[str, int]]
    seconds: float
    #: By name, files that were not written, and why.
    not_written: dict[str, str] = {}
    #: What is not cleaned up after publishing, and why: the next publication tries again.
    not_cleaned: str | None = None
    #: The host that published.
    by: str = msgspec.field(default_factory=socket.gethostname)


class Failure(msgspec.Struct, frozen=True):
    """A run that did not, and why."""

    time: datetime
    by: str
    reason: str
    #: Whether its numbers were not believed: it fails again until they are, or are forced.
    refused: bool


class Status(msgspec.Struct, frozen=True):
    """The last run of each kind; the failure is None once a later run has published."""

    success: Success | None = None
    failure: Failure | None = None


class StatusFile:
    """The file of one directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _FILE

    def read(self) -> Status:
        """What is noted; empty if there is no file, or it cannot be read."""
        with suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(self._path.read_bytes(), type=Status)
        return Status()

    def published(self, success: Success) -> None:
        """Note a run that published."""
        self._write(Status(success))

    def failed(self, reason: str, *, refused: bool = False) -> None:
        """Note a run that failed; by this host's clock, because the database may be away."""
        failure = Failure(datetime.now(UTC), socket.gethostname(), reason, refused)
        self._write(Status(self.read().success, failure))

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
            logger.warning("publish status not noted", extra=fields(error=str(exc)))
