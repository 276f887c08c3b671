"""Compute how many open files a sensor needs, and raise the limit.

Each address is a socket in every worker, and the parent of workers keeps all of them so that one
can be started again without root. A limit that is too low for the sockets refuses the start; one
that is too low for the connections lowers ``max_connections``, so that clients get a reply.
"""

import logging
import resource
from dataclasses import replace
from typing import Final

from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.logs import fields

from ..settings import SensorSettings

logger = logging.getLogger(__name__)

#: For spool, log, reactor, broker, metrics, and short-lived files of libraries.
OTHERS: Final = 128


def sockets_needed(settings: SensorSettings, places: int) -> int:
    """Return the largest number of listening sockets in one process: the parent's, with workers."""
    return places * settings.workers


def files_needed(settings: SensorSettings, places: int) -> int:
    """Return the largest number of open files in one process."""
    return OTHERS + max(
        sockets_needed(settings, places),
        places + settings.max_connections,
    )


def raise_limit(wanted: int) -> int:
    """Raise this process's limit on open files, if allowed.

    Returns:
        The limit now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _allows(soft, wanted):
        return wanted
    # Root may pass the hard limit; without that right, or past the kernel's own, this fails.
    for limit in ((wanted, wanted if not _allows(hard, wanted) else hard), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        except (ValueError, OSError):
            continue
        return limit[0]
    return soft


def hard_limit() -> int | None:
    """Return the hard limit on open files; None: unlimited."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if hard == resource.RLIM_INFINITY else hard


def fit(settings: SensorSettings, places: int) -> SensorSettings:
    """Raise the limit on open files, and fit the settings to what it allows.

    Raises:
        SettingsError: not even the listening sockets can be opened.
    """
    allowed = raise_limit(files_needed(settings, places))
    sockets = sockets_needed(settings, places)
    room = allowed - OTHERS - places
    if allowed < sockets + OTHERS or room < 1:
        raise SettingsError(
            f"listen: {places} addresses for {settings.workers} workers need {sockets + OTHERS} "
            f"open files, and this process may open {allowed}: raise LimitNOFILE in the unit, "
            f'listen on "*:25", or run fewer workers'
        )
    if settings.max_connections <= room:
        return settings
    logger.warning(
        "max_connections is lowered: more need more open files than this process may have",
        extra=fields(
            max_connections=room, wanted=settings.max_connections, open_files_allowed=allowed
        ),
    )
    return replace(settings, max_connections=room)


def _allows(limit: int, wanted: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= wanted
