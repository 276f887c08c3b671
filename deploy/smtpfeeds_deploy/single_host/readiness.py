"""Receives a child's readiness and progress by sd_notify(3), without systemd.

A program sends ``READY=1`` to the datagram socket that NOTIFY_SOCKET names. Here that is a socket
in the abstract namespace. It has no file, so its path cannot be too long and no file is left over.
"""

import json
import secrets
import socket
from typing import Any, Final

from smtpfeeds_common.systemd import PROGRESS

_MAX_MESSAGE_BYTES: Final = 4_096


class Readiness:
    """Receives the reports of one child."""

    def __init__(self) -> None:
        self._name = f"smtpfeeds-{secrets.token_hex(16)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.bind("\0" + self._name)
        self._socket.setblocking(False)  # noqa: FBT003 - the socket's own signature
        self.ready = False
        #: Its last progress report.
        self.progress: dict[str, Any] = {}

    @property
    def address(self) -> str:
        """The value of NOTIFY_SOCKET; ``@`` stands for the abstract namespace."""
        return "@" + self._name

    def look(self) -> bool:
        """Read all waiting reports; return whether the child is ready."""
        while True:
            try:
                message = self._socket.recv(_MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return self.ready
            for line in message.split(b"\n"):
                name, _, value = line.partition(b"=")
                if line == b"READY=1":
                    self.ready = True
                elif name == PROGRESS.encode():
                    self.progress = _read(value)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _read(value: bytes) -> dict[str, Any]:
    """Read a JSON object; return an empty one for anything else, as another version may send."""
    try:
        values = json.loads(value)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
