"""The reasons of a failed publication: one word for status and metrics, and the errors.

A publication runs in its own process, so its error goes to the aggregator as the name of a class
and a text. The classes are listed here, because the aggregator's reaction depends on them: a
missing class would silently become its parent.

    PublishError
    ├── SuspiciousFeeds    the numbers are too far from those of the previous edition (``sanity``)
    ├── PublishStopped     the program stops (``stopping``)
    ├── PublishTimedOut    it took longer than ``publish_timeout_s``
    ├── PublishKilled      a signal ended its process
    ├── DiskFull           no space, or the quota is used up
    └── LockLost           the lock of the directory went with its session
"""

from typing import Final

from smtpfeeds_common.errors import (
    BadRows,
    DatabaseError,
    DatabaseUnavailable,
    DatasetError,
    ListsError,
    OriginError,
    PublishError,
    SchemaMismatch,
    SettingsError,
    SmtpfeedsError,
)

from ..clock.database import ClockInDoubt
from ..store.errors import DatabaseRefused, DatabaseUnsuitable
from .sanity import SuspiciousFeeds
from .stopping import PublishStopped


class PublishTimedOut(PublishError):
    """The publication took longer than publish_timeout_s and was ended."""


class PublishKilled(PublishError):
    """A signal ended the process that publishes."""


class DiskFull(PublishError):
    """There is no space for the feeds."""


class LockLost(PublishError):
    """The lock of the feeds directory was lost; nothing was published."""


#: The first matching class gives the word.
_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (SuspiciousFeeds, "refused"),
    (PublishTimedOut, "timed_out"),
    (PublishKilled, "killed"),
    (DiskFull, "disk_full"),
    (LockLost, "lock_lost"),
    (ClockInDoubt, "clock_in_doubt"),
    (DatabaseError, "database"),
    (DatasetError, "data_set"),
)
OTHER: Final = "other"
#: Every word that `reason_of` returns.
REASONS: Final = (*(word for _, word in _REASONS), OTHER)

_CARRIED: Final[dict[str, type[SmtpfeedsError]]] = {
    each.__name__: each
    for each in (
        *(SuspiciousFeeds, PublishStopped, DiskFull, LockLost, PublishError),
        *(ClockInDoubt, DatabaseRefused, DatabaseUnsuitable, DatabaseUnavailable),
        *(SchemaMismatch, BadRows, DatabaseError),
        *(OriginError, ListsError, DatasetError, SettingsError, SmtpfeedsError),
    )
}


def reason_of(error: Exception) -> str:
    """Return the word for an error."""
    return next((word for cls, word in _REASONS if isinstance(error, cls)), OTHER)


def name_of(error: SmtpfeedsError) -> str:
    """Return the name of an error in a message to another process."""
    return next(cls.__name__ for cls in type(error).__mro__ if cls.__name__ in _CARRIED)


def carried(name: str, message: str) -> SmtpfeedsError:
    """Return the error for a name from `name_of` in the other process."""
    return _CARRIED.get(name, PublishError)(message)
