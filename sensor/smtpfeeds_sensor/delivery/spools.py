"""The spool files of a sensor, and their bounds."""

import re
from pathlib import Path
from typing import Final

from smtpfeeds_common.spool import SUFFIX, Bounds, find_spools

from ..settings import SensorSettings

_DAY_MS: Final = 86_400_000
_HOUR_MS: Final = 3_600_000


def bounds(settings: SensorSettings) -> Bounds:
    """Return the bounds of a spool in the settings."""
    return Bounds(
        max_bytes=settings.spool_max_mb * 1024 * 1024,
        memory_rows=settings.spool_memory_rows,
        retention_ms=settings.retention_days * _DAY_MS,
        replay_ms=settings.replay_hours * _HOUR_MS,
    )


def spool_path(settings: SensorSettings, worker: int = 0) -> Path:
    """Return the path of a worker's spool; workers count from 1, and 0 means a single process."""
    part = f".{worker}" if worker else ""
    return Path(settings.spool_dir) / f"{settings.name}{part}{SUFFIX}"


def written_spools(settings: SensorSettings) -> list[Path]:
    """Return the spools that this sensor's processes write with the present settings."""
    numbers = range(1, settings.workers + 1) if settings.workers > 1 else (0,)
    return [spool_path(settings, number) for number in numbers]


def own_spools(settings: SensorSettings) -> list[Path]:
    """Return this sensor's existing spool files, also those of former workers."""
    name = re.compile(re.escape(settings.name) + r"(\.\d+)?" + re.escape(SUFFIX))
    return [path for path in find_spools(Path(settings.spool_dir)) if name.fullmatch(path.name)]


def left_over_spools(settings: SensorSettings) -> list[Path]:
    """Return this sensor's spools that no process writes, because there were more workers."""
    written = set(written_spools(settings))
    return [path for path in own_spools(settings) if path not in written]
