"""What a sensor announces once it accepts: where it listens, to its log, a file and systemd."""

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
    fresh = path.with_suffix(".listening-new")
    fresh.write_text(json.dumps({"pid": os.getpid(), "addresses": where}) + "\n", encoding="utf-8")
    fresh.replace(path)
    logged = where
    if len(where) > _LOGGED:
        logged = [*where[: _LOGGED - 1], f"and {len(where) - _LOGGED + 1} more"]
    logger.info("listening", extra=fields(addresses=",".join(logged)))
    notify("READY=1")
