"""Publishes on the common time grid, for as long as the aggregator runs.

The database's clock is the only one: it says when the grid's moments are, when an edition
was made and when it expires, so aggregators whose own clocks differ agree on all three. A run
that fails leaves the last good generation where it is, is counted and logged, and is tried
again before the grid's next moment. Only a stop ends the loop.
"""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from smtpfeeds_common.errors import SmtpfeedsError
from smtpfeeds_common.logs import fields

from ..clock.database import ClockInDoubt, DatabaseClock
from ..health import Health
from ..metrics import Metrics
from ..origin.lookup import CurrentLookup
from ..settings import AggregatorSettings
from ..store.connection import Connection, connect, discard
from ..store.publication import PublicationStore
from .generation import FeedsDirectory
from .grid import next_point, this_point
from .judgements import DatedLists, NoLists
from .once import Published, publish_once
from .sanity import SuspiciousFeeds
from .status import StatusFile
from .stopping import KeepGoing, PublishStopped, go_on, until

logger = logging.getLogger(__name__)

#: After a failed run, unless the grid's next moment comes first.
RETRY_S: Final = 60.0
#: While another process publishes this directory: it may die before it is done.
TAKE_OVER_S: Final = 5.0
#: While the database's clock is in doubt.
DOUBT_S: Final = 5.0
#: The clock is read again this often: it may be set, or the host sleep.
_LOOK_S: Final = 10.0


class PublishLoop:
    """Publishes below ``settings.feeds_dir``; ``run`` belongs in a thread of its own."""

    def __init__(
        self,
        settings: AggregatorSettings,
        origins: CurrentLookup,
        clock: DatabaseClock,
        metrics: Metrics,
        health: Health,
        *,
        lists: Callable[[], DatedLists] = NoLists,
        connect: Callable[[AggregatorSettings], Connection] | None = None,
    ) -> None:
        """Make a loop; each run, good or bad, is in the metrics and the health."""
        self._lists = lists
        self._settings = settings
        self._origins = origins
        self._clock = clock
        self._metrics, self._health = metrics, health
        self._connect = connect or _connect
        self._directory = FeedsDirectory(Path(settings.feeds_dir))
        self._status = StatusFile(self._directory.path)
        self._waits_for_clock = False

    def run(self, stop: threading.Event) -> None:
        """Publish at every moment of the grid until stopped.

        At once too, when what is published is older than one interval, or nothing is.
        """
        due_s = self._clock.now_s() if self._is_stale() else self._next_point()
        while not stop.is_set():
            wait_s = due_s - self._clock.now_s()
            if wait_s > 0:
                # A clock that was set back must not make this wait for a day.
                due_s = min(due_s, self._next_point())
                stop.wait(min(wait_s, _LOOK_S))
                continue
            due_s = self.publish(until(stop))

    def publish(self, keep_going: KeepGoing = go_on) -> float:
        """Publish once, unless another process has since the grid's last moment.

        Returns:
            When to call this again, by the database's clock (seconds since 1970).
        """
        now_s = self._clock.now_s()
        try:
            connection = self._connect(self._settings)
            try:
                store = PublicationStore(connection)
                now = self._clock.check_publication(store.read_clock(self._clock.monotonic))
                now_s = now.timestamp()
                point = datetime.fromtimestamp(this_point(now_s, self._interval_s), UTC)
                published = publish_once(
                    self._settings,
                    self._origins.current,
                    connection,
                    lists=self._lists(),
                    clock=self._clock,
                    unless_made_since=point,
                    keep_going=keep_going,
                )
            finally:
                discard(connection)
            again_s = self._finish(published, point, now)
        except PublishStopped as exc:
            logger.info(exc.message)
            return now_s + RETRY_S
        except ClockInDoubt as exc:
            self._wait_for_clock(exc)
            return now_s + DOUBT_S
        except SuspiciousFeeds as exc:
            return self._count_refusal(now_s, exc.message)
        except SmtpfeedsError as exc:
            return self._count_failure(now_s, exc.message)
        except Exception as exc:
            # A fault of ours in publishing must not end ingest, which shares this process.
            logger.exception("publishing failed unexpectedly")
            return self._count_failure(now_s, f"{type(exc).__name__}: {exc}")
        self._health.well("publish")
        self._waits_for_clock = False
        return again_s

    def _finish(self, published: Published | None, point: datetime, now: datetime) -> float:
        """Count what was published, here or by another; when there is more to do."""
        if published is not None:
            self._count(published)
            return next_point(published.generated.timestamp(), self._interval_s)
        again_s = next_point(now.timestamp(), self._interval_s)
        generated = self._directory.generated()
        if generated is None or generated < point:
            # Another process is about to publish, and may still die.
            return min(again_s, now.timestamp() + TAKE_OVER_S)
        self._metrics.publish_runs.labels("left to another").inc()
        noted = self._status.read().success
        self._metrics.publish_not_cleaned.set(noted is not None and noted.not_cleaned is not None)
        logger.info("published by another process")
        return again_s

    def _wait_for_clock(self, reason: ClockInDoubt) -> None:
        if not self._waits_for_clock:
            logger.warning("publishing waits", extra=fields(reason=reason.message))
            self._status.failed(reason.message)
        self._waits_for_clock = True

    def _count_failure(self, now_s: float, reason: str) -> float:
        self._metrics.publish_runs.labels("failed").inc()
        self._status.failed(reason)
        self._health.trouble("publish", reason[:300])
        logger.error(
            "publishing failed, the last good feeds stay; tried again within a minute",
            extra=fields(error=reason),
        )
        return min(now_s + RETRY_S, next_point(now_s, self._interval_s))

    def _count_refusal(self, now_s: float, reason: str) -> float:
        """Numbers that are not believed are looked at again at the grid's next moment."""
        self._metrics.publish_runs.labels("refused").inc()
        self._status.failed(reason, refused=True)
        self._health.trouble("publish", reason[:300])
        logger.error("publication refused", extra=fields(reason=reason))
        return next_point(now_s, self._interval_s)

    def _count(self, published: Published) -> None:
        metrics = self._metrics
        metrics.publish_runs.labels("published").inc()
        metrics.published_at.set(published.generated.timestamp())
        metrics.publish_not_cleaned.set(published.not_cleaned is not None)
        for feed, addresses in published.addresses.items():
            metrics.published_addresses.labels(feed).set(addresses)
        logger.info(
            "feeds published",
            extra=fields(
                generation=published.generation.name,
                **published.addresses,
                origins_changed=published.origins_changed,
                seconds=round(published.seconds, 2),
            ),
        )

    @property
    def _interval_s(self) -> int:
        return self._settings.publish_interval_s

    def _next_point(self) -> int:
        return next_point(self._clock.now_s(), self._interval_s)

    def _is_stale(self) -> bool:
        try:
            generated = self._directory.generated()
        except OSError:
            return True  # the run names what is wrong with the directory
        if generated is None:
            return True
        age_s = self._clock.now_s() - generated.timestamp()
        return abs(age_s) > self._interval_s


def _connect(settings: AggregatorSettings) -> Connection:
    # It reads and sorts the whole window in one statement.
    limit_s = 10 * settings.database_timeout_s
    return connect(settings, "publish", autocommit=True, limit_s=limit_s)
