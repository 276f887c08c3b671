"""What a sensor announces once it accepts: where it listens, to its log, a file and systemd."""

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

#: More addresses than these are only counted in the log.
_LOGGED: Final = 8


def announce(settings: SensorSettings, opened: Sequence[Opened]) -> None:
    """Announce that the sensor accepts.

    The file is ``<name>.listening`` beside the spool; ports that the kernel chose are in it.
    """
    where = [one.where for one in opened]
    path = Path(settings.spool_dir) / f"{settings.name}.listening"
    try:
        _write(path, json.dumps({"pid": os.getpid(), "addresses": where}) + "\n")
    except OSError as exc:
        # The disk is full: the sensor answers all the same, from memory.
        logger.error(  # noqa: TRY400 - the reason says it
            "listening addresses not written", extra=fields(file=path, reason=exc.strerror)
        )
    logged = where
    if len(where) > _LOGGED:
        logged = [*where[: _LOGGED - 1], f"and {len(where) - _LOGGED + 1} more"]
    logger.info("listening", extra=fields(addresses=",".join(logged)))
    notify("READY=1")


def _write(path: Path, text: str) -> None:
    """Write a file whole; on a full disk into the room that the file of an earlier run has."""
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
