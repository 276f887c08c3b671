"""Translates PostgreSQL's errors for the rest of the program.

Nothing outside of ``store`` handles psycopg's errors; callers see

    DatabaseUnavailable      keep the batches and try again
    ├── DatabaseTimeout      try again with less at a time
    ├── DatabaseRefused      while running, try again; at a start, end with the message
    │   └── DatabaseUnsuitable
    ├── MissingPrivilege     the role may not do this
    └── TransactionConflict  run the same transaction again at once
    BadRows                  this data will never be accepted
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Final

import psycopg
from psycopg import errors

from smtpfeeds_common.errors import BadRows, DatabaseError, DatabaseUnavailable

from .limited import ServerSilent

#: SQLSTATE classes: cardinality violation, data exception, integrity constraint violation.
_BAD_DATA: Final = ("21", "22", "23")
#: serialization_failure, deadlock_detected.
_CONFLICTS: Final = ("40001", "40P01")
#: A line that ends with punctuation needs no semicolon after it.
_PUNCTUATED: Final = re.compile("([.,:;?!]);(?= )")
#: insufficient_privilege.
_NO_PRIVILEGE: Final = "42501"
#: query_canceled, by ``statement_timeout`` or by an administrator.
_CANCELED: Final = "57014"


class TransactionConflict(DatabaseUnavailable):
    """PostgreSQL chose this transaction to give way to another; run it again."""


class DatabaseTimeout(DatabaseUnavailable):
    """The database did not do in time what it was asked."""


class DatabaseRefused(DatabaseUnavailable):
    """The server is there and refuses this account, or it has no such database."""


class MissingPrivilege(DatabaseUnavailable):
    """The database role lacks a privilege."""


class DatabaseUnsuitable(DatabaseRefused):
    """The database, or a pooler in front of it, is set up in a way that cannot be used."""


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """Translate psycopg's errors.

    Raises:
        BadRows: the database refuses the data.
        TransactionConflict: the same transaction may succeed when it runs again.
        DatabaseTimeout: the database took too long.
        DatabaseUnavailable: anything else; the data is not the cause.
    """
    try:
        yield
    except psycopg.Error as exc:
        raise translate(exc) from exc
    except UnicodeEncodeError as exc:
        # psycopg encodes texts as UTF-8; an argument of the command line may not be UTF-8.
        raise BadRows("the database refuses the data: a text is not UTF-8") from exc


@contextlib.contextmanager
def session_errors() -> Iterator[None]:
    """Translate errors as ``database_errors`` does, while a session is set up without data.

    Raises:
        DatabaseUnavailable: also when the server refuses a setting with an error about data.
    """
    try:
        with database_errors():
            yield
    except BadRows as exc:
        raise DatabaseUnavailable(f"the session cannot be set up: {exc.message}") from exc


def translate(exc: psycopg.Error) -> DatabaseError:
    """Return the translation of an error of psycopg."""
    state = exc.sqlstate or ""
    text = one_line(exc)
    if state[:2] in _BAD_DATA or (not state and isinstance(exc, errors.DataError)):
        return BadRows(f"the database refuses the data: {text} (SQLSTATE {state or 'none'})")
    if state in _CONFLICTS:
        return TransactionConflict(f"conflict with another transaction: {text}")
    silent = _timeout_of(exc)
    if silent is not None or state == _CANCELED:
        return DatabaseTimeout(f"the database takes too long: {silent or text}")
    if state == _NO_PRIVILEGE:
        return MissingPrivilege(
            f"the database role may not do this: {text}; use the role that owns the tables, or "
            "grant it with `smtpfeeds aggregator roles grant`"
        )
    return DatabaseUnavailable(f"the database cannot be used now: {text or type(exc).__name__}")


def _timeout_of(exc: BaseException | None) -> ServerSilent | None:
    """Return the timeout that led to an error, because the clean-up may raise another error."""
    while exc is not None and not isinstance(exc, ServerSilent):
        exc = exc.__cause__ or exc.__context__
    return exc


def one_line(exc: BaseException) -> str:
    """Return an error's text in one line; libpq puts each sentence on its own line."""
    lines = [" ".join(line.split()) for line in str(exc).splitlines()]
    text = "; ".join(line for line in lines if line)
    return _PUNCTUATED.sub(r"\1", text)
