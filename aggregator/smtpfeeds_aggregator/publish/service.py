"""Publishes on the common time grid, for as long as the aggregator runs.

A run that fails leaves the last good generation where it is, is counted and
logged, and is tried again before the grid's next moment; nothing ends the loop
but being told to stop.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from smtpfeeds_common.errors import SmtpfeedsError
from smtpfeeds_common.logs import fields

from ..health import Health
from ..metrics import Metrics
from ..origin.lookup import CurrentLookup
from ..settings import AggregatorSettings
from ..store.connection import Connection, connect, discard
from .generation import FeedsDirectory
from .grid import next_point
from .once import Published, publish_once
from .stopping import KeepGoing, PublishStopped, go_on, until

logger = logging.getLogger(__name__)

#: After a failed run, unless the grid's next moment comes first.
RETRY_S: Final = 60
#: While another process publishes this directory: it may die before it is done.
TAKE_OVER_S: Final = 5
#: The wall clock is looked at again this often: it may be set, or the host sleep.
_LOOK_S: Final = 10.0


class PublishLoop:
    """Publishes below ``settings.feeds_dir``; ``run`` belongs in a thread of its own."""

    def __init__(
        self,
        settings: AggregatorSettings,
        origins: CurrentLookup,
        metrics: Metrics,
        health: Health,
        *,
        clock: Callable[[], float] = time.time,
        connect: Callable[[AggregatorSettings], Connection] | None = None,
    ) -> None:
        """Make a loop; each run, good or bad, is in the metrics and the health."""
        self._settings = settings
        self._origins = origins
        self._metrics, self._health = metrics, health
        self._clock = clock
        self._connect = connect or _connect

    def run(self, stop: threading.Event) -> None:
        """Publish at every moment of the grid until told to stop.

        At once too, when what is published is older than one interval, or nothing is.
        """
        interval_s = self._settings.publish_interval_s
        due_s = self._clock() if self._is_stale() else next_point(self._clock(), interval_s)
        while not stop.is_set():
            wait_s = due_s - self._clock()
            if wait_s > 0:
                # A clock that was set back must not make this wait for a day.
                due_s = min(due_s, next_point(self._clock(), interval_s))
                stop.wait(min(wait_s, _LOOK_S))
                continue
            again_s = self.publish(until(stop))
            due_s = next_point(self._clock(), interval_s)
            if again_s is not None:
                due_s = min(due_s, self._clock() + again_s)

    def publish(self, keep_going: KeepGoing = go_on) -> float | None:
        """Publish once, unless another process has in this interval.

        Returns:
            None where this interval's generation is there; else when to look again, in seconds.
        """
        try:
            interval = self._since_grid_point()
            published = self.publish_once(interval, keep_going)
            self._health.well("publish")
            if published is None:
                return self._leave_to_another(interval[0])
        except PublishStopped as exc:
            logger.info(exc.message)
            return RETRY_S
        except SmtpfeedsError as exc:
            self._count_failure(exc.message)
            return RETRY_S
        except Exception as exc:
            # A fault of ours in publishing must not end ingest, which shares this process.
            logger.exception("publishing failed unexpectedly")
            self._count_failure(f"{type(exc).__name__}: {exc}")
            return RETRY_S
        return None

    def _leave_to_another(self, since: datetime) -> float | None:
        """Another has published, or is about to and may still die."""
        generated = FeedsDirectory(Path(self._settings.feeds_dir)).generated()
        if generated is None or generated < since:
            return TAKE_OVER_S
        self._metrics.publish_runs.labels("left to another").inc()
        logger.info("published by another process")
        return None

    def _count_failure(self, reason: str) -> None:
        self._metrics.publish_runs.labels("failed").inc()
        self._health.trouble("publish", reason[:300])
        logger.error(
            "publishing failed, the last good feeds stay; tried again within a minute",
            extra=fields(error=reason),
        )

    def publish_once(
        self,
        unless_made_in: tuple[datetime, datetime] | None = None,
        keep_going: KeepGoing = go_on,
    ) -> Published | None:
        """Publish one generation, on a connection of its own.

        Raises:
            PublishError, DatabaseError: as `publish.once.publish_once`.
        """
        connection = self._connect(self._settings)
        try:
            published = publish_once(
                self._settings,
                self._origins.current,
                connection,
                unless_made_in=unless_made_in,
                keep_going=keep_going,
            )
        finally:
            discard(connection)
        if published is not None:
            self._count(published)
        return published

    def _count(self, published: Published) -> None:
        metrics = self._metrics
        metrics.publish_runs.labels("published").inc()
        metrics.published_at.set(self._clock())
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

    def _since_grid_point(self) -> tuple[datetime, datetime]:
        """From the grid's last moment to now: one generation in it is enough for all.

        One from the future, made under a wrong clock, is not.
        """
        now_s = int(self._clock())
        point_s = now_s - now_s % 86_400 % self._settings.publish_interval_s
        return datetime.fromtimestamp(point_s, UTC), datetime.fromtimestamp(self._clock(), UTC)

    def _is_stale(self) -> bool:
        try:
            generated = FeedsDirectory(Path(self._settings.feeds_dir)).generated()
        except OSError:
            return True  # the run says what is wrong with the directory
        if generated is None:
            return True
        age_s = self._clock() - generated.timestamp()
        return abs(age_s) > self._settings.publish_interval_s


def _connect(settings: AggregatorSettings) -> Connection:
    # It reads and sorts the whole window in one statement.
    limit_s = 10 * settings.database_timeout_s
    return connect(settings, "publish", autocommit=True, limit_s=limit_s)
