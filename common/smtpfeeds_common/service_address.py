"""Reads and prints the address of a service: ``amqps://ACCOUNT:PASSWORD@HOST:PORT/VHOST?OPTIONS``.

It is separate because general URL parsers quote what they cannot parse, which may be a password
that contains ``/``, ``#`` or ``?``. This module quotes no part of an address that it cannot parse,
and never prints a password.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote

from .errors import SettingsError
from .host_port import HostPort

#: The ports of AMQP 0-9-1, by scheme.
BROKER_PORTS: Final[Mapping[str, int]] = {"amqp": 5672, "amqps": 5671}

#: How to escape the characters that delimit parts of an address.
HOW_TO_ESCAPE: Final = (
    "in an account or a password write % as %25, / as %2F, ? as %3F, # as %23, @ as %40, : as %3A "
    "and a comma as %2C"
)

_SCHEME: Final = re.compile(r"([a-z]+)://")
#: The character that ends the part with account, host and port (RFC 3986 section 3.2).
_AUTHORITY_END: Final = re.compile(r"[/?#]")
_HOST_PORT: Final = re.compile(
    r"(?:\[(?P<literal>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<name>[\w.-]+))(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """A parsed address; its text leaves out the password."""

    scheme: str
    host: str
    port: int
    #: None if the address has none.
    account: str | None
    password: str | None = field(repr=False)
    #: Unchanged from the address: the path with its slash; the query without its question mark.
    path: str
    query: str = field(repr=False)

    @property
    def host_port(self) -> str:
        """``host:port``, with brackets around an IPv6 address."""
        return str(HostPort(self.host, self.port))

    @property
    def vhost(self) -> str:
        """The virtual host of a broker; ``/`` if the address names none."""
        return unquote(self.path.removeprefix("/")) or "/"

    @property
    def without_account(self) -> str:
        """The whole address for a library, without account and password."""
        return f"{self.scheme}://{self._from_host_on}"

    def with_account(self, account: str) -> str:
        """Return the whole address with this account and no password."""
        return f"{self.scheme}://{quote(account, safe='')}@{self._from_host_on}"

    @property
    def _from_host_on(self) -> str:
        query = f"?{self.query}" if self.query else ""
        return f"{self.host_port}{self.path}{query}"

    def __str__(self) -> str:
        account = "" if self.account is None else f"{quote(self.account, safe='')}@"
        return f"{self.scheme}://{account}{self.host_port}{self.path}"


def parse_address(url: str, ports: Mapping[str, int], *, name: str) -> ServiceAddress:
    """Parse an address.

    Args:
        url: the address.
        ports: the default port of each scheme that it may have.
        name: the name of the address in an error message.

    Raises:
        SettingsError: it cannot be parsed; the message says how to write it and quotes none of it.
    """
    scheme = _SCHEME.match(url)
    address = scheme and _parse(url[scheme.end() :], scheme[1], ports)
    if not address:
        forms = " or ".join(f"{each}://ACCOUNT@HOST" for each in ports)
        raise SettingsError(f"{name} is not {forms}; {HOW_TO_ESCAPE}")
    return address


def parse_brokers(urls: tuple[str, ...]) -> list[ServiceAddress]:
    """Parse the addresses of the setting ``broker``.

    Raises:
        SettingsError: one cannot be parsed.
    """
    return [
        parse_address(url, BROKER_PORTS, name=f"broker: address {number} of {len(urls)}")
        for number, url in enumerate(urls, 1)
    ]


def _parse(rest: str, scheme: str, ports: Mapping[str, int]) -> ServiceAddress | None:
    """Parse the address after ``scheme://``; None if it cannot be parsed."""
    end = _AUTHORITY_END.search(rest)
    authority, tail = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    path, _, query = tail.partition("?")
    userinfo, at, host_port = authority.rpartition("@")
    host = _HOST_PORT.fullmatch(host_port)
    # An @ or a # after the host means that an unescaped character in the password ended it early.
    ambiguous = "@" in tail or "#" in tail or not rest.isprintable() or " " in rest
    if scheme not in ports or host is None or ambiguous or path.rstrip("/").count("/") > 1:
        return None
    port = int(host["port"] or ports[scheme])
    if not 0 < port < 65_536:
        return None
    account, colon, password = userinfo.partition(":")
    try:
        return ServiceAddress(
            scheme,
            host["literal"] or host["name"],
            port,
            unquote(account, errors="strict") if at and account else None,
            unquote(password, errors="strict") if colon else None,
            path.rstrip("/"),
            query,
        )
    except UnicodeDecodeError:
        return None
