"""Every error an operator can be shown, in one tree.

    SmtpfeedsError
    ├── SettingsError        a setting is missing, unknown or out of range
    ├── AddressError         a text is not one host address
    ├── WireError            a message is not a batch of a schema this program reads
    ├── SpoolError
    │   ├── SpoolInUse       another process holds this spool
    │   ├── SpoolBusy        another connection holds the write lock just now
    │   ├── SpoolUnwritable  the file cannot take the events (disk full, read-only, bound reached)
    │   └── SpoolDamaged     the file is not a spool, or SQLite calls it malformed
    ├── BrokerError
    │   ├── BrokerUnavailable  no connection, or it broke
    │   ├── BrokerRefused      the broker refuses all that is published (rights, exchange, queue)
    │   └── BatchTooLarge      the broker refuses this one batch for its size
    ├── DatabaseError
    │   ├── DatabaseUnavailable  no connection, read-only, out of connections or space
    │   ├── SchemaMismatch       the schema is newer or older than this program
    │   └── BadRows              the database refuses the data itself (SQLSTATE class 21, 22, 23)
    ├── DatasetError         a data set cannot be fetched, read or put in use
    │   ├── OriginError      an origin table or a list of AS names
    │   └── ListsError       the lists of scanners and mailers
    ├── PublishError         a generation could not be published; the last good one stays
    ├── NotVerified          published files are not what a manifest or a signature says
    ├── FleetError           an account, a certificate or the broker's management cannot be used
    └── SingleHostError      the private PostgreSQL or a child process of `smtpfeeds up`

A class's docstring is its message where none is given. A message says what is
wrong, where, and what to do. Hostile input is no error: it is counted and answered.

Exit codes of a command: 0 done or found; 1 nothing found, or the answer is no; 2 wrong
use; 3 one of these errors. ``command_end`` has the rest.
"""

from typing import Final

#: Exit code of a command that could not do what it was asked.
FAILED: Final = 3


class SmtpfeedsError(Exception):
    """Something went wrong in smtpfeeds."""

    #: Exit code of the command that ends with this error.
    exit_code = FAILED

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)

    @property
    def message(self) -> str:
        """What the operator reads."""
        return str(self.args[0])


class SettingsError(SmtpfeedsError):
    """A setting is missing, unknown or out of range."""

    exit_code = 2


class AddressError(SmtpfeedsError):
    """This is not one IPv4 or IPv6 host address."""


class WireError(SmtpfeedsError):
    """This message is not a batch of a schema that this program reads."""

    def __init__(self, message: str | None = None, *, code: str = "not_a_batch") -> None:
        """``code``: one of the few words by which the centre counts what it refuses."""
        super().__init__(message)
        self.code = code


class SpoolError(SmtpfeedsError):
    """The spool cannot be used."""


class SpoolInUse(SpoolError):
    """Another process holds this spool."""


class SpoolBusy(SpoolError):
    """Another connection holds the spool's write lock."""


class SpoolUnwritable(SpoolError):
    """The spool file cannot take the events."""


class SpoolDamaged(SpoolError):
    """The spool file is damaged, or is no spool."""


class BrokerError(SmtpfeedsError):
    """The broker cannot be used."""


class BrokerUnavailable(BrokerError):
    """There is no connection to the broker."""


class BrokerRefused(BrokerError):
    """The broker refuses what is published."""


class BatchTooLarge(BrokerError):
    """The broker refuses this batch for its size."""


class DatabaseError(SmtpfeedsError):
    """The database cannot be used."""


class DatabaseUnavailable(DatabaseError):
    """There is no usable connection to the database."""


class SchemaMismatch(DatabaseError):
    """The database's schema is not this program's; run `smtpfeeds aggregator migrate`."""


class BadRows(DatabaseError):
    """The database refuses the data of a batch."""


class DatasetError(SmtpfeedsError):
    """A data set cannot be fetched, read or put in use."""


class OriginError(DatasetError):
    """The origin table or the list of AS names cannot be used."""


class ListsError(DatasetError):
    """The lists of scanners and mailers cannot be used."""


class PublishError(SmtpfeedsError):
    """The feeds could not be published; the last good ones stay."""


class NotVerified(SmtpfeedsError):
    """The published files are not what their manifest or its signature says."""

    #: The answer is no.
    exit_code = 1


class FleetError(SmtpfeedsError):
    """An account, a certificate or the broker's management API cannot be used."""


class SingleHostError(SmtpfeedsError):
    """The private PostgreSQL or one of the programs could not be run."""
