"""How a child reports that it is ready, and how it goes: sd_notify(3), without systemd.

A program that runs under systemd sends ``READY=1`` to the datagram socket that
NOTIFY_SOCKET names. We give it one of our own, in the abstract namespace: it
has no file, so no path is too long and none is left behind.
"""

import json
import secrets
import socket
from typing import Any, Final

from smtpfeeds_common.systemd import PROGRESS

_MAX_MESSAGE_BYTES: Final = 4_096


class Readiness:
    """Receives what one child reports."""

    def __init__(self) -> None:
        self._name = f"smtpfeeds-{secrets.token_hex(16)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.bind("\0" + self._name)
        self._socket.setblocking(False)  # noqa: FBT003 - the socket's own signature
        self.ready = False
        #: What it last reported of its progress.
        self.progress: dict[str, Any] = {}

    @property
    def address(self) -> str:
        """The value of NOTIFY_SOCKET; ``@`` stands for the abstract namespace."""
        return "@" + self._name

    def look(self) -> bool:
        """Take what has come; whether the child is ready."""
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
    """The child is ours, but may be of another version: what is no object is nothing."""
    try:
        values = json.loads(value)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
