"""Tells systemd that the service is ready, alive or stopping; says nothing elsewhere.

The protocol is one datagram: https://www.freedesktop.org/software/systemd/man/sd_notify.html
"""

import contextlib
import os
import socket
from collections.abc import Mapping


def notify(state: str, environ: Mapping[str, str] | None = None) -> None:
    """Send a state such as ``READY=1``; nothing happens where nobody listens."""
    address = (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), address)


def watchdog_interval_s(environ: Mapping[str, str] | None = None) -> float | None:
    """How often to say WATCHDOG=1: half of what systemd waits; None where it does not watch."""
    microseconds = (os.environ if environ is None else environ).get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isdigit() and int(microseconds) else None
