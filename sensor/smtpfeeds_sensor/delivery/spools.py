"""Which spool files are a sensor's, and what its settings let them hold."""

import re
from pathlib import Path
from typing import Final

from smtpfeeds_common.spool import SUFFIX, Bounds, find_spools

from ..settings import SensorSettings

_DAY_MS: Final = 86_400_000
_HOUR_MS: Final = 3_600_000


def bounds(settings: SensorSettings) -> Bounds:
    """What the settings let a spool hold."""
    return Bounds(
        max_bytes=settings.spool_max_mb * 1024 * 1024,
        memory_rows=settings.spool_memory_rows,
        retention_ms=settings.retention_days * _DAY_MS,
        replay_ms=settings.replay_hours * _HOUR_MS,
    )


def spool_path(settings: SensorSettings, worker: int = 0) -> Path:
    """The spool of a worker, 1 and up; 0 where there is but one process."""
    part = f".{worker}" if worker else ""
    return Path(settings.spool_dir) / f"{settings.name}{part}{SUFFIX}"


def written_spools(settings: SensorSettings) -> list[Path]:
    """The spools that a process of this sensor writes, as its settings are now."""
    numbers = range(1, settings.workers + 1) if settings.workers > 1 else (0,)
    return [spool_path(settings, number) for number in numbers]


def own_spools(settings: SensorSettings) -> list[Path]:
    """This sensor's spool files, one for each worker there ever was."""
    name = re.compile(re.escape(settings.name) + r"(\.\d+)?" + re.escape(SUFFIX))
    return [path for path in find_spools(Path(settings.spool_dir)) if name.fullmatch(path.name)]


def left_over_spools(settings: SensorSettings) -> list[Path]:
    """This sensor's spools that none of its processes writes: there were more workers."""
    written = set(written_spools(settings))
    return [path for path in own_spools(settings) if path not in written]
