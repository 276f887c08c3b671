"""Reports to systemd that a program is ready, alive or stopping; without systemd it does nothing.

The protocol is one datagram, https://www.freedesktop.org/software/systemd/man/sd_notify.html;
a library for it would be larger than this module.
"""

import json
import logging
import os
import socket
import time
from collections.abc import Mapping
from typing import Any, Final

from .logs import fields

logger = logging.getLogger(__name__)

#: A receiver that reads nothing must not hold up the program.
_LIMIT_S: Final = 1.0
#: The field with a program's progress, a JSON object.
PROGRESS: Final = "X_SMTPFEEDS_PROGRESS"


def is_notified(environ: Mapping[str, str] | None = None) -> bool:
    """Whether NOTIFY_SOCKET names a receiver."""
    return "NOTIFY_SOCKET" in (os.environ if environ is None else environ)


def notify(state: str, environ: Mapping[str, str] | None = None) -> None:
    """Send a state such as ``READY=1`` to the receiver that NOTIFY_SOCKET names, if any."""
    address = (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # the abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(_LIMIT_S)
            sender.sendto(state.encode(), address)
    except OSError as exc:
        logger.warning(
            "systemd not notified", extra=fields(state=state, reason=exc.strerror or str(exc))
        )


def notify_progress(status: str, values: Mapping[str, Any]) -> None:
    """Report progress: a line for `systemctl status`, and values for `smtpfeeds up`.

    systemd ignores fields whose names begin with X_.
    """
    notify(f"STATUS={status}\n{PROGRESS}={json.dumps(values)}")


def notify_reloading() -> None:
    """Report that the program reads its settings again; send ``READY=1`` afterwards."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_interval_s(environ: Mapping[str, str] | None = None) -> float | None:
    """Return how often to send ``WATCHDOG=1``: half of systemd's limit; None without a limit."""
    microseconds = (os.environ if environ is None else environ).get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isdigit() and int(microseconds) else None
