"""Why a publication failed: one word for status and metrics, and errors as messages.

A publication runs in a process of its own, so its error goes to the aggregator as the name of a
class and a text. The classes are listed here: what the aggregator does about a failure depends on
them, and a class that is missing would silently become its parent.

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


#: The first class that fits gives the word.
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
#: Every word that `reason_of` gives.
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
    """The word for an error."""
    return next((word for cls, word in _REASONS if isinstance(error, cls)), OTHER)


def name_of(error: SmtpfeedsError) -> str:
    """The name under which an error is carried to another process."""
    return next(cls.__name__ for cls in type(error).__mro__ if cls.__name__ in _CARRIED)


def carried(name: str, message: str) -> SmtpfeedsError:
    """The error that `name_of` named in the other process."""
    return _CARRIED.get(name, PublishError)(message)
