"""Announce that the sensor accepts clients, and where: to its log, a file and systemd."""

import contextlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from smtpfeeds_common.logs import fields
from smtpfeeds_common.systemd import notify

from ..edge.listen import Opened
from ..settings import SensorSettings

logger = logging.getLogger(__name__)

#: The log names at most this many addresses, and counts the others.
_LOGGED: Final = 8


def announce(settings: SensorSettings, opened: Sequence[Opened]) -> None:
    """Announce that the sensor accepts clients.

    The file is ``<name>.listening`` beside the spool; it also has ports that the kernel chose.
    """
    where = [one.where for one in opened]
    path = Path(settings.spool_dir) / f"{settings.name}.listening"
    try:
        _write(path, json.dumps({"pid": os.getpid(), "addresses": where}) + "\n")
    except OSError as exc:
        # The disk is full: the sensor still answers, and records in memory.
        logger.error(  # noqa: TRY400 - the reason says it
            "listening addresses not written", extra=fields(file=path, reason=exc.strerror)
        )
    logged = where
    if len(where) > _LOGGED:
        logged = [*where[: _LOGGED - 1], f"and {len(where) - _LOGGED + 1} more"]
    logger.info("listening", extra=fields(addresses=",".join(logged)))
    notify("READY=1")


def _write(path: Path, text: str) -> None:
    """Write a file atomically; on a full disk, overwrite the file of an earlier run."""
    fresh = path.with_suffix(".listening-new")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        with path.open("r+", encoding="utf-8") as stream:
            stream.write(text)
            stream.truncate()
