"""Parses, checks and describes PostgreSQL's connection string without its password.

It is separate because libpq's messages quote what it cannot parse, which may be part of
a password; this module has its own messages.
"""

import re
from typing import Any, Final

import psycopg
from psycopg import conninfo

from smtpfeeds_common.errors import DsnError

_URL: Final = re.compile(r"postgres(?:ql)?://")
_PORTS: Final = re.compile(r"[0-9]*(?:,[0-9]*)*")

_NO_URL: Final = "dsn: this is not a URL that PostgreSQL's library reads; "
_NO_STRING: Final = (
    "dsn: this is not a libpq connection string, such as host=db.example dbname=smtpfeeds "
    "user=smtpfeeds, or a URL; put a value with a space in single quotes, and write ' as \\' and "
    "\\ as \\\\ in a value"
)
_OR_A_FILE: Final = "; or leave the password to dsn_password_file, where nothing is escaped"


def parse_dsn(dsn: str) -> dict[str, Any]:
    """Return the parameters of a DSN, by libpq's names.

    Raises:
        DsnError: libpq cannot parse it, or would misread it; the message quotes none of it.
    """
    is_url = _URL.match(dsn)
    if is_url and _is_ambiguous(dsn[is_url.end() :]):
        raise DsnError(_parse_error(is_url=True))
    try:
        given = conninfo.conninfo_to_dict(dsn)
    except (psycopg.Error, UnicodeError):
        raise DsnError(_parse_error(is_url=is_url is not None)) from None
    if not _PORTS.fullmatch(str(given.get("port", ""))):
        raise DsnError(_parse_error(is_url=is_url is not None))
    return given


def _parse_error(*, is_url: bool) -> str:
    """Return the message about a DSN that libpq cannot parse."""
    if not is_url:
        return _NO_STRING + _OR_A_FILE
    from smtpfeeds_common.service_address import HOW_TO_ESCAPE

    return _NO_URL + HOW_TO_ESCAPE + _OR_A_FILE


def _is_ambiguous(rest: str) -> bool:
    """Whether libpq may take a part of the password for the host.

    libpq ends account and password at the first @ before the first slash.
    """
    authority, _, tail = rest.partition("/")
    if "@" in authority:
        return authority.count("@") > 1
    return "@" in tail.partition("?")[0]


def describe_dsn(given: dict[str, Any]) -> str:
    """Describe where a DSN leads, without its password."""
    return f"host {given.get('host', 'the local socket')}, database {given.get('dbname', '-')}"
