"""Publish on the common schedule while the aggregator runs.

The database's clock alone decides the scheduled times, the time of an edition and its expiry, so
aggregators with different clocks agree on them. A failed run leaves the last good generation in
place; it is counted, logged, and tried again before the next scheduled time. Only a stop ends the
loop. Each run has its own process (``process``); the loop starts none if another aggregator
publishes or has published.
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
from ..settings import AggregatorSettings
from ..store.connection import Connection, discard
from ..store.publication import PublicationStore
from .failures import REASONS, PublishKilled, PublishTimedOut, reason_of
from .generation import FeedsDirectory
from .grid import next_point, this_point
from .once import Published, is_left_to_another
from .sanity import SuspiciousFeeds
from .scheduled import Runner, connect_publisher
from .status import StatusFile, Success
from .stopping import PublishStopped

logger = logging.getLogger(__name__)

#: Pause after a failed run, unless the next scheduled time comes first.
RETRY_S: Final = 60.0
#: Pause while another process publishes this directory: it may be killed before it is done.
TAKE_OVER_S: Final = 5.0
#: Pause while the database's clock is in doubt.
DOUBT_S: Final = 5.0
#: How often the clock is read again: it may be set, or the host may sleep.
_LOOK_S: Final = 10.0


class PublishLoop:
    """Publishes below ``settings.feeds_dir``; call ``run`` in its own thread."""

    def __init__(
        self,
        settings: AggregatorSettings,
        runner: Runner,
        clock: DatabaseClock,
        metrics: Metrics,
        health: Health,
        *,
        connect: Callable[[AggregatorSettings], Connection] = connect_publisher,
    ) -> None:
        """Create the loop; metrics and health show each run.

        Args:
            settings: where and when to publish.
            runner: runs each publication.
            clock: judges the database's clock.
            metrics: counts the runs.
            health: shows why the last run failed.
            connect: opens a connection to find out whether a run is due.
        """
        self._settings, self._runner = settings, runner
        self._clock = clock
        self._metrics, self._health = metrics, health
        self._connect = connect
        self._directory = FeedsDirectory(Path(settings.feeds_dir))
        self._status = StatusFile(self._directory.path)
        self._waits_for_clock = False
        for reason in REASONS:
            metrics.publish_failures.labels(reason)

    def run(self, stop: threading.Event) -> None:
        """Publish at every scheduled time until stopped. It also publishes at once if the published
        edition is older than one interval, or there is none.
        """
        due_s = self._clock.now_s() if self._is_stale() else self._next_point()
        while not stop.is_set():
            # If the clock was set back, this must not wait for a day.
            due_s = min(due_s, self._next_point())
            wait_s = due_s - self._clock.now_s()
            if wait_s > 0:
                stop.wait(min(wait_s, _LOOK_S))
                continue
            due_s = self.publish(stop)

    def publish(self, stop: threading.Event | None = None) -> float:
        """Publish once, unless another process has since the last scheduled time.

        Returns:
            When to call this again, by the database's clock (seconds since 1970).
        """
        try:
            again_s = self._publish(stop or threading.Event())
        except PublishStopped as exc:
            logger.info(exc.message)
            return self._clock.now_s() + RETRY_S
        except ClockInDoubt as exc:
            self._wait_for_clock(exc)
            return self._clock.now_s() + DOUBT_S
        except (SuspiciousFeeds, PublishTimedOut) as exc:
            return self._count_refusal(exc)
        except SmtpfeedsError as exc:
            return self._count_failure(exc, exc.message)
        except Exception as exc:
            # A bug in publishing must not end ingest, which shares this process.
            logger.exception("publishing failed unexpectedly")
            return self._count_failure(exc, f"{type(exc).__name__}: {exc}")
        self._health.well("publish")
        self._waits_for_clock = False
        return again_s

    def _publish(self, stop: threading.Event) -> float:
        """Run a publication if one is due; return when to call this again."""
        connection = self._connect(self._settings)
        try:
            store = PublicationStore(connection)
            now = self._clock.check_publication(store.read_clock(self._clock.monotonic))
            point = datetime.fromtimestamp(this_point(now.timestamp(), self._interval_s), UTC)
            left = is_left_to_another(self._directory, store, point, now)
        finally:
            discard(connection)
        before = self._status.read().success
        try:
            published = None if left else self._runner.run(point, stop)
        except (PublishTimedOut, PublishKilled) as exc:
            success = self._status.read().success
            if success is None or success == before:
                raise
            return self._count_ended_late(success, exc)
        if published is None:
            return self._leave_to_another(point, now)
        self._count(published)
        return next_point(published.generated.timestamp(), self._interval_s)

    def _leave_to_another(self, point: datetime, now: datetime) -> float:
        """Handle a publication by another process; return when to check again."""
        again_s = next_point(now.timestamp(), self._interval_s)
        generated = self._directory.generated()
        if generated is None or generated < point:
            # It is about to publish, and may still be killed.
            return min(again_s, now.timestamp() + TAKE_OVER_S)
        self._metrics.publish_runs.labels("left to another").inc()
        self._metrics.publish_not_cleaned.set(self._status.not_cleaned() is not None)
        logger.info("published by another process")
        return again_s

    def _wait_for_clock(self, reason: ClockInDoubt) -> None:
        if not self._waits_for_clock:
            logger.warning("publishing waits", extra=fields(reason=reason.message))
            self._status.failed(reason.message, reason_of(reason))
        self._waits_for_clock = True

    def _count_failure(self, error: Exception, message: str) -> float:
        self._note(error, message)
        # Last, so that a reader of the count also finds the reason in status and health.
        self._metrics.publish_runs.labels("failed").inc()
        logger.error(
            "publishing failed, the last good feeds stay; tried again within a minute",
            extra=fields(reason=reason_of(error), error=message),
        )
        now_s = self._clock.now_s()
        return min(now_s + RETRY_S, next_point(now_s, self._interval_s))

    def _count_refusal(self, error: SuspiciousFeeds | PublishTimedOut) -> float:
        """Count a run that would end in the same way now; return the next scheduled time."""
        timed_out = isinstance(error, PublishTimedOut)
        self._note(error, error.message)
        self._metrics.publish_runs.labels("failed" if timed_out else "refused").inc()
        event = "publication took too long" if timed_out else "publication refused"
        logger.error(event, extra=fields(reason=error.message))
        return self._next_point()

    def _note(self, error: Exception, message: str) -> None:
        reason = reason_of(error)
        self._metrics.publish_failures.labels(reason).inc()
        self._metrics.publish_failed_at.set(self._clock.now_s())
        self._status.failed(message, reason)
        self._health.trouble("publish", message[:300])

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

    def _count_ended_late(self, success: Success, reason: SmtpfeedsError) -> float:
        """Count a run that was ended after its switch; return when to call this again."""
        metrics = self._metrics
        metrics.publish_runs.labels("published").inc()
        metrics.published_at.set(success.time.timestamp())
        metrics.publish_not_cleaned.set(self._status.not_cleaned() is not None)
        for feed, addresses in success.addresses.items():
            metrics.published_addresses.labels(feed).set(addresses)
        logger.warning(
            "feeds published, the process was ended afterwards; the next publication cleans up",
            extra=fields(generation=success.generation, reason=reason_of(reason)),
        )
        return next_point(success.time.timestamp(), self._interval_s)

    @property
    def _interval_s(self) -> int:
        return self._settings.publish_interval_s

    def _next_point(self) -> int:
        return next_point(self._clock.now_s(), self._interval_s)

    def _is_stale(self) -> bool:
        try:
            generated = self._directory.generated()
        except OSError:
            return True  # the run reports what is wrong with the directory
        if generated is None:
            return True
        age_s = self._clock.now_s() - generated.timestamp()
        return abs(age_s) > self._interval_s
