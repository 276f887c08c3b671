"""Reports publication, last client and troubles to `systemctl status` and `smtpfeeds up`."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from smtpfeeds_common.systemd import notify_progress
from smtpfeeds_common.times import iso_utc

from .health import Health
from .ingest.last_client import LastClientNote
from .metrics import Metrics

#: Shortest time between two reports.
_EVERY_S: Final = 1.0
#: Bounds on the troubles in a report, because it must fit into one datagram.
_TROUBLES_MAX: Final = 4
_TROUBLE_LENGTH: Final = 200


class Progress:
    """Sends a report to the service manager when it has changed."""

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
        """Report if anything has changed; call it several times a second."""
        if self._clock() - self._reported_s < _EVERY_S:
            return
        values = self.values()
        if values != self._reported:
            self._reported, self._reported_s = values, self._clock()
            notify_progress(_status(values), values)

    def values(self) -> dict[str, Any]:
        """Return the values of a report."""
        newest = self._clients.newest
        return {
            "published_s": self._metrics.published_s,
            "troubles": [
                text[:_TROUBLE_LENGTH] for text in self._health.problems()[:_TROUBLES_MAX]
            ],
            "client": None if newest is None else newest._asdict(),
        }


def _status(values: dict[str, Any]) -> str:
    """Return the line for `systemctl status`, which names no client."""
    if values["troubles"]:
        return "; ".join(values["troubles"])
    if values["published_s"]:
        at = iso_utc(datetime.fromtimestamp(values["published_s"], UTC))
        return f"all is well; published at {at}"
    return "all is well; nothing published yet"
