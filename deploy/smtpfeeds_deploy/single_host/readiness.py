"""How a child says that it is ready: sd_notify(3), without systemd.

A program that runs under systemd sends ``READY=1`` to the datagram socket that
NOTIFY_SOCKET names. We give it one of our own, in the abstract namespace: it
has no file, so no path is too long and none is left behind.
"""

import secrets
import socket
from typing import Final

_MAX_MESSAGE_BYTES: Final = 4_096


class Readiness:
    """Listens for one child's ``READY=1``."""

    def __init__(self) -> None:
        self._name = f"smtpfeeds-{secrets.token_hex(16)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.bind("\0" + self._name)
        self._socket.setblocking(False)  # noqa: FBT003 - the socket's own signature
        self.ready = False

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
            if b"READY=1" in message.split(b"\n"):
                self.ready = True

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
