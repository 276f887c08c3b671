"""How it goes, for `systemctl status` and `smtpfeeds up`: publication, last client, troubles."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from smtpfeeds_common.systemd import notify_progress
from smtpfeeds_common.times import iso_utc

from .health import Health
from .ingest.last_client import LastClientNote
from .metrics import Metrics

#: At most so often, and only what has changed.
_EVERY_S: Final = 1.0
#: Of a trouble: a datagram must stay small.
_TROUBLES_MAX: Final = 4
_TROUBLE_LENGTH: Final = 200


class Progress:
    """Reports to those that are notified."""

    def __init__(
        self,
        metrics: Metrics,
        health: Health,
        clients: LastClientNote,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics, self._health, self._clients, self._clock = metrics, health, clients, clock
        self._reported: dict[str, Any] = {}
        self._reported_s = float("-inf")

    def report(self) -> None:
        """Report what has changed; to be called several times a second."""
        if self._clock() - self._reported_s < _EVERY_S:
            return
        values = self.values()
        if values != self._reported:
            self._reported, self._reported_s = values, self._clock()
            notify_progress(_status(values), values)

    def values(self) -> dict[str, Any]:
        """What is reported."""
        newest = self._clients.newest
        return {
            "published_s": self._metrics.published_s,
            "troubles": [
                text[:_TROUBLE_LENGTH] for text in self._health.problems()[:_TROUBLES_MAX]
            ],
            "client": None if newest is None else newest._asdict(),
        }


def _status(values: dict[str, Any]) -> str:
    """The line for `systemctl status`: no client is in it."""
    if values["troubles"]:
        return "; ".join(values["troubles"])
    if values["published_s"]:
        at = iso_utc(datetime.fromtimestamp(values["published_s"], UTC))
        return f"all is well; published at {at}"
    return "all is well; nothing published yet"
