"""Reads and writes HOST:PORT, with brackets around an IPv6 address (RFC 3986 section 3.2.2).

The host may also be ``*``, a name or a prefix with its length. This module only checks the form;
the caller checks which hosts its setting allows.
"""

from typing import Final, NamedTuple

from .errors import SettingsError

MAX_PORT: Final = 65_535


class HostPort(NamedTuple):
    """A host and a port; an IPv6 address is without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_host_port(text: str, *, setting: str = "", example: str = "192.0.2.1:25") -> HostPort:
    """Read ``HOST:PORT``.

    Args:
        text: the value to read.
        setting: the name of its setting, for the error message.
        example: a correct value, for the error message.

    Raises:
        SettingsError: no host, no port from 0 to 65535, or an IPv6 address without brackets.
    """
    where = f"{setting}: {text!r}" if setting else repr(text)
    host, colon, port = text.rpartition(":")
    # isdecimal alone also accepts the digits of other scripts.
    if not (colon and port.isascii() and port.isdecimal() and int(port) <= MAX_PORT):
        raise SettingsError(f'{where} lacks a port from 0 to {MAX_PORT}; write "{example}"')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise SettingsError(f"{where}: write an IPv6 address in brackets, [{host}]:{port}")
    if not host or "[" in host or "]" in host:
        raise SettingsError(f'{where} lacks a host; write "{example}"')
    return HostPort(host, int(port))
