"""Every error that an operator can see, in one tree.

    SmtpfeedsError
    ├── SettingsError        a setting is missing, unknown or out of range
    │   └── DsnError         the connection string of the database cannot be used
    ├── AddressError         the text is not one host address
    ├── WireError            the message is not a batch of a schema that this program reads
    ├── SpoolError
    │   ├── SpoolInUse       another process holds this spool
    │   ├── SpoolBusy        another connection holds the write lock
    │   ├── SpoolUnwritable  the file cannot be written (disk full, read-only, bound reached)
    │   └── SpoolDamaged     the file is not a spool, or SQLite reports it malformed
    ├── BrokerError
    │   ├── BrokerUnavailable  there is no connection, or it broke
    │   ├── BrokerRefused      the broker refuses every message (rights, exchange, queue)
    │   └── BatchTooLarge      the broker refuses this batch for its size
    ├── DatabaseError
    │   ├── DatabaseUnavailable  no connection, read-only, or out of connections or space
    │   ├── SchemaMismatch       the schema is newer or older than this program
    │   └── BadRows              the database refuses the data (SQLSTATE class 21, 22, 23)
    ├── DatasetError         a data set cannot be fetched, read or put in use
    │   ├── OriginError      an origin table or a list of AS names
    │   └── ListsError       the lists of scanners and mailers
    ├── PublishError         a generation could not be published; the last good one stays
    ├── NotVerified          published files do not match their manifest or its signature
    ├── FleetError           an account, a certificate or the broker's management cannot be used
    └── SingleHostError      the private PostgreSQL or a child process of `smtpfeeds up`

The docstring of a class is its default message. A message says what is wrong, where, and what to
do. Hostile input is not an error: sensors count and answer it.

Exit codes of a command: 0 done or found; 1 nothing found, or the answer is no; 2 wrong use;
3 one of these errors. ``command_end`` describes the others.
"""

from typing import Final

#: Exit code of a command that failed.
FAILED: Final = 3


class SmtpfeedsError(Exception):
    """Something went wrong in smtpfeeds."""

    #: Exit code of the command that ends with this error.
    exit_code = FAILED

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)

    @property
    def message(self) -> str:
        """The text for the operator."""
        return str(self.args[0])


class SettingsError(SmtpfeedsError):
    """A setting is missing, unknown or out of range."""

    # A message about a setting's value begins with its name: `listen: …`. `settings.located` puts
    # the file or the variable before it.
    exit_code = 2

    @property
    def setting(self) -> str:
        """What the message begins with: the setting's name, if it is about a value."""
        return self.message.partition(":")[0]


class DsnError(SettingsError):
    """The connection string of the database cannot be parsed or used."""


class AddressError(SmtpfeedsError):
    """This is not one IPv4 or IPv6 host address."""


class WireError(SmtpfeedsError):
    """This message is not a batch of a schema that this program reads."""

    def __init__(self, message: str | None = None, *, code: str = "not_a_batch") -> None:
        """``code``: the reason under which the aggregator counts the refused message."""
        super().__init__(message)
        self.code = code


class SpoolError(SmtpfeedsError):
    """The spool cannot be used."""


class SpoolInUse(SpoolError):
    """Another process holds this spool."""


class SpoolBusy(SpoolError):
    """Another connection holds the spool's write lock."""


class SpoolUnwritable(SpoolError):
    """The spool file cannot be written."""


class SpoolDamaged(SpoolError):
    """The spool file is damaged, or is not a spool."""


class BrokerError(SmtpfeedsError):
    """The broker cannot be used."""


class BrokerUnavailable(BrokerError):
    """There is no connection to the broker."""


class BrokerRefused(BrokerError):
    """The broker refuses every message."""


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
    """The published files do not match their manifest or its signature."""

    #: The answer is no.
    exit_code = 1


class FleetError(SmtpfeedsError):
    """An account, a certificate or the broker's management API cannot be used."""


class SingleHostError(SmtpfeedsError):
    """The private PostgreSQL or one of the programs cannot be run."""
