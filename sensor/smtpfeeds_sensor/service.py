"""One sensor process: joins spool, recorder, connections, publisher and metrics; starts and stops.

Order of the start: listeners are open and privileges gone before the spool is
made, so that its files belong to the user that writes them; nothing is accepted
before the spool can be written. Order of a clean stop: no new clients, 421 to
those that are here, what was heard committed, the publisher ended; the spool
keeps the rest.
"""

import functools
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from smtpfeeds_common import __version__
from smtpfeeds_common.errors import SpoolError
from smtpfeeds_common.logs import fields
from smtpfeeds_common.spool import SUFFIX, Bounds, Spool, find_spools

from .counters import new_counters
from .delivery.deliverer import Delivery, DeliveryThread, Housekeeping
from .delivery.publisher import BrokerLink
from .delivery.recorder import Recorder
from .edge.arriving import Listener
from .edge.limits import Deadlines, Networks, SourceLimits
from .edge.listen import Opened, target_bits
from .edge.reactor import Reactor
from .edge.reception import Reception
from .metrics import MetricsServer
from .process.configuration import Credentials
from .settings import SensorSettings, host_name
from .smtp.dialogue import Rules
from .smtp.personas import Personas

logger = logging.getLogger(__name__)

_DAY_MS: Final = 86_400_000
_HOUR_MS: Final = 3_600_000
#: At a clean stop: how long clients have to take their 421, the publisher to end.
_FAREWELL_S: Final = 1.0
_PUBLISHER_END_S: Final = 2.0


def bounds(settings: SensorSettings) -> Bounds:
    """What the settings say a spool may hold."""
    return Bounds(
        max_bytes=settings.spool_max_mb * 1024 * 1024,
        memory_rows=settings.spool_memory_rows,
        retention_ms=settings.retention_days * _DAY_MS,
        replay_ms=settings.replay_hours * _HOUR_MS,
    )


def spool_path(settings: SensorSettings, worker: int = 0) -> Path:
    """The spool of a worker, 1 and up; 0 where there is but one process."""
    part = f".{worker}" if worker else ""
    return Path(settings.spool_dir) / f"{settings.name}{part}{SUFFIX}"


def left_over_spools(settings: SensorSettings) -> list[Path]:
    """This sensor's spools that none of its processes writes: there were more workers."""
    numbers = range(1, settings.workers + 1) if settings.workers > 1 else (0,)
    written = {spool_path(settings, number) for number in numbers}
    return [path for path in own_spools(settings) if path not in written]


def own_spools(settings: SensorSettings) -> list[Path]:
    """This sensor's spool files, one for each worker there ever was."""
    name = re.compile(re.escape(settings.name) + r"(\.\d+)?" + re.escape(SUFFIX))
    folder = Path(settings.spool_dir)
    return [path for path in find_spools(folder) if name.fullmatch(path.name)]


def make_personas(settings: SensorSettings) -> Personas:
    """The personas.

    Raises:
        SettingsError: one cannot be used.
    """
    return Personas(
        settings.persona,
        settings.personas,
        hostname=host_name(settings),
        policy_url=settings.policy_url,
        max_content_bytes=settings.max_content_bytes,
        offer_tls=settings.tls != "off",
    )


class SensorService:
    """A sensor in one process."""

    def __init__(
        self,
        settings: SensorSettings,
        credentials: Credentials,
        opened: Sequence[Opened],
        reactor: Reactor,
        clock: Callable[[], int],
        *,
        worker: int = 0,
    ) -> None:
        """Make all parts; nothing is accepted before ``start``.

        Raises:
            SettingsError: personas cannot be used.
            SpoolError: the spool cannot be made or is in use.
        """
        self._settings, self._credentials = settings, credentials
        self._opened, self._reactor, self._clock = opened, reactor, clock
        self._worker = worker
        self.count = new_counters()
        personas = make_personas(settings)
        self.spool = Spool(
            spool_path(settings, worker), sensor=settings.name, bounds=bounds(settings)
        )
        self.count["spool_replaced"] += self.spool.set_aside is not None
        self.recorder = Recorder(self.spool, reactor, clock, self.count, sensor=settings.name)
        self.reception = Reception(
            reactor=reactor,
            recorder=self.recorder,
            personas=personas,
            rules=Rules(
                drain=settings.data_policy == "drain",
                offer_tls=credentials.tls is not None,
                max_line_bytes=settings.max_line_bytes,
                max_content_bytes=settings.max_content_bytes,
                max_commands=settings.max_commands,
                max_unknown_commands=settings.max_unknown_commands,
            ),
            count=self.count,
            limits=SourceLimits(
                per_source=settings.max_connections_per_source,
                per_second=settings.max_accepts_per_s,
            ),
            deadlines=Deadlines(),
            targets=target_bits(one.local for one in opened if one.local is not None),
            trusted_proxies=Networks(settings.trusted_proxies),
            ignore=Networks(settings.ignore),
            idle_timeout_s=settings.idle_timeout_s,
            session_timeout_s=settings.session_timeout_s,
            banner_delay_s=settings.banner_delay_s,
            max_connections=settings.max_connections,
            max_unsent_bytes=settings.max_unsent_bytes,
            max_tls_connections=settings.max_tls_connections,
            tls_context=credentials.tls,
        )
        self._ports: list[Any] = []
        self._loops: list[LoopingCall] = []
        self._deliveries: list[DeliveryThread] = []
        self._links: list[BrokerLink] = []
        self._metrics: MetricsServer | None = None

    def start(self) -> None:
        """Begin to accept."""
        self._every(1.0, self._tick, count=True)
        if self._worker:
            self._every(1.0, functools.partial(self._stop_with, os.getppid()))
        self._note_state()  # before the first batch: it says which version sealed it
        self._every(self._settings.state_interval_s, self._note_state)
        self._deliver()
        if self._settings.metrics_listen:
            self._metrics = MetricsServer(
                self._settings.metrics_listen, self._gauges, self.count, worker=self._worker
            )
        for one in self._opened:
            factory = Listener(self.reception, one.local)
            self._ports.append(
                self._reactor.adoptStreamPort(one.socket.fileno(), one.socket.family, factory)
            )
            one.socket.close()  # Twisted has a copy
        self._reactor.addSystemEventTrigger("before", "shutdown", self.stop)

    def take_over(self, settings: SensorSettings, credentials: Credentials) -> None:
        """Go on with lists, certificates and passwords that were read again."""
        self.reception.trusted_proxies = Networks(settings.trusted_proxies)
        self.reception.ignore = Networks(settings.ignore)
        self.reception.tls_context = credentials.tls
        for link in self._links:
            link.take_over(credentials.brokers)

    def _deliver(self) -> None:
        """Begin to deliver; the first process also what other workers left."""
        paths = [self.spool.path]
        if self._worker <= 1:
            paths += left_over_spools(self._settings)
        for path in paths:
            self._deliveries.append(DeliveryThread(self._make_delivery(path)))
            self._deliveries[-1].start()

    def _make_delivery(self, path: Path) -> Delivery | Housekeeping:
        settings = self._settings
        if not settings.broker:
            return Housekeeping(path, self.spool.bounds, self.count, self._clock)
        link = BrokerLink(
            self._credentials.brokers,
            sensor=settings.name,
            confirm_timeout_s=settings.confirm_timeout_s,
        )
        self._links.append(link)
        return Delivery(
            path,
            link,
            self.count,
            self._clock,
            bounds=self.spool.bounds,
            seal_interval_s=settings.seal_interval_s,
            alive_interval_s=settings.alive_interval_s,
            backoff_max_s=settings.backoff_max_s,
        )

    def _every(self, interval_s: float, call: Callable[..., None], *, count: bool = False) -> None:
        guarded = functools.partial(_go_on, call)
        loop = LoopingCall.withCount(guarded) if count else LoopingCall(guarded)
        loop.clock = self._reactor  # type: ignore[assignment] # zope's interface
        loop.start(interval_s, now=False)
        self._loops.append(loop)

    def _tick(self, ticks: int) -> None:
        self.reception.deadlines.advance(ticks)

    def _note_state(self) -> None:
        self.recorder.note_state(version=__version__)

    def _gauges(self) -> dict[str, float]:
        return {
            "open_connections": len(self.reception.open),
            "open_sources": self.reception.limits.sources,
            "tls_connections": self.reception.in_tls,
            "spool_events_in_memory": self.spool.unwritten,
            "spool_in_outage": int(self.recorder.in_outage),
            **(self._deliveries[0].gauges() if self._deliveries else {}),
        }

    def _stop_with(self, parent: int) -> None:
        """A worker whose parent is gone has nobody to tell it to stop."""
        if os.getppid() != parent:
            logger.error("the parent process is gone; stopping")
            self._reactor.stop()

    def stop(self) -> "Deferred[None]":
        """Stop cleanly; fires when all is closed."""
        logger.info("stopping", extra=fields(open_connections=len(self.reception.open)))
        for loop in self._loops:
            if loop.running:
                loop.stop()
        for port in self._ports:
            port.stopListening()
        for connection in list(self.reception.open):
            connection.stop()
        for delivery in self._deliveries:
            delivery.ask_to_stop()
        stopped: Deferred[None] = Deferred()
        self._farewell(stopped, self._reactor.seconds() + _FAREWELL_S)
        return stopped

    def _farewell(self, stopped: "Deferred[None]", until: float) -> None:
        if self.reception.open and self._reactor.seconds() < until:
            self._reactor.callLater(0.02, self._farewell, stopped, until)
            return
        for connection in list(self.reception.open):
            connection.abort()
        for delivery in self._deliveries:
            delivery.join(_PUBLISHER_END_S)
        if self._metrics is not None:
            self._metrics.close()
        self._close_spool()
        stopped.callback(None)

    def _close_spool(self) -> None:
        try:
            self.recorder.flush()
            self.spool.note_state(
                version=__version__, counters=dict(self.count), now_ms=self._clock()
            )
        except SpoolError as exc:
            logger.error(  # noqa: TRY400 - the reason is said, a traceback adds nothing
                "events in memory are lost: the spool cannot be written",
                extra=fields(reason=exc.message, events=self.spool.unwritten),
            )
        self.spool.close()
        logger.info("stopped")


def _go_on(call: Callable[..., None], *arguments: int) -> None:
    """Call what is called again and again: Twisted ends a loop at the first error."""
    try:
        call(*arguments)
    except Exception:
        logger.exception("a periodic call failed; it is called again")
