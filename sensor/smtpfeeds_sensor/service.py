"""Start and stop one sensor process: spool, recorder, connections, publisher and metrics.

Order of the start: listeners are open and privileges are given up before the spool is
created, so that its files belong to the user that writes them; nothing is accepted
before the spool can be written. Order of a clean stop: no new clients, 421 to
connected clients, events committed, the publisher ended; the spool
keeps the rest.

Each thread and each periodic call is watched here: a thread that ends is started again, and a
call that raises is called again at its next interval.
"""

import functools
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred

from smtpfeeds_common import __version__
from smtpfeeds_common.certificates import ExpiryNotes
from smtpfeeds_common.clock import Clock
from smtpfeeds_common.logs import fields
from smtpfeeds_common.spool import Spool
from smtpfeeds_common.supervision import reap_orphans

from .counters import new_counters
from .delivery.deliver import Delivery
from .delivery.housekeeping import Housekeeping
from .delivery.recorder import Recorder, Writing
from .delivery.spools import bounds, left_over_spools, spool_path
from .delivery.thread import DeliveryThread
from .edge.initiation import Listener
from .edge.limits import Deadlines, Networks, SourceLimits
from .edge.listen import Opened, count_addresses
from .edge.periodic import Periodic
from .edge.reactor import Reactor
from .edge.read_buffer import read_with_erasure
from .edge.reception import Reception
from .process.configuration import Credentials, read_expiries
from .process.progress import Values
from .settings import SensorSettings, host_name, read_public_addresses
from .smtp.dialogue import Rules
from .smtp.personas import Personas

if TYPE_CHECKING:
    from .delivery.publisher import BrokerLink
    from .metrics import MetricsServer

logger = logging.getLogger(__name__)

#: At a clean stop: the time for clients to read their 421, and for deliveries to end.
_FAREWELL_S: Final = 1.0
_DELIVERY_END_S: Final = 2.0
#: How often a clock in doubt is logged again.
_CLOCK_ALARM_S: Final = 300.0
_DAY_S: Final = 86_400.0


def make_personas(settings: SensorSettings) -> Personas:
    """Return the personas.

    Raises:
        SettingsError: a persona cannot be used.
    """
    return Personas(
        settings.persona,
        settings.personas,
        hostname=host_name(settings),
        policy_url=settings.policy_url,
        max_content_bytes=settings.max_content_bytes,
        offer_tls=settings.tls != "off",
        offer_auth=settings.offer_auth,
    )


class SensorService:
    """A sensor in one process."""

    def __init__(
        self,
        settings: SensorSettings,
        credentials: Credentials,
        opened: Sequence[Opened],
        reactor: Reactor,
        clock: Clock,
        *,
        worker: int = 0,
        report: Callable[[Values], object] | None = None,
    ) -> None:
        """Create all parts; ``start`` begins to accept clients.

        Args:
            settings: all settings.
            credentials: what they name.
            opened: the listening sockets.
            reactor: the process's.
            clock: the host's.
            worker: its number, 0 for a single process.
            report: called each second with the process's values.

        Raises:
            SettingsError: personas cannot be used.
            SpoolError: the spool cannot be created or is in use.
        """
        self._settings, self._credentials = settings, credentials
        self._opened, self._reactor, self._clock = opened, reactor, clock
        self._worker = worker
        self.count = new_counters()
        personas = make_personas(settings)
        self.spool = Spool(
            spool_path(settings, worker),
            sensor=settings.name,
            bounds=bounds(settings),
            boot=clock.read().boot,
        )
        clock.compare(self.spool.noted_ms)
        public = read_public_addresses(settings)
        self.recorder = Recorder(
            self.spool,
            reactor,
            clock,
            self.count,
            addresses=count_addresses([one.local for one in opened], public),
        )
        self.reception = Reception(
            reactor=reactor,
            recorder=self.recorder,
            personas=personas,
            rules=Rules(
                drain=settings.data_policy == "drain",
                offer_tls=credentials.tls is not None,
                banner_delayed=settings.banner_delay_s > 0,
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
            public_addresses=public,
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
        self._periodic = Periodic(reactor)
        self._deliveries: list[DeliveryThread] = []
        self._links: list[BrokerLink] = []
        self._report = report
        self._metrics: MetricsServer | None = None
        self._doubt_logged_s: float | None = None
        self._certificates = ExpiryNotes()

    def start(self) -> None:
        """Begin to accept clients."""
        every = self._periodic.every
        self._periodic.every_counted(1.0, self.reception.deadlines.advance, name="deadlines")
        every(_DAY_S, self.spool.begin_day, name="new day of IPv6 prefixes")
        if self._worker:
            every(1.0, functools.partial(self._stop_with, os.getppid()), name="watch on parent")
        if self._report is not None:
            every(1.0, self._report_progress, name="progress")
        self._note_state()  # before the first batch, which contains the version
        every(self._settings.state_interval_s, self._note_state, name="state")
        self._watch_clock()
        every(1.0, self._watch_clock, name="watch on clock")
        self._deliver()
        self._note_certificates()
        every(1.0, self._watch_certificates, name="watch on certificates")
        self._listen_for_metrics()
        every(1.0, self._watch_threads, name="watch on threads")
        every(1.0, _reap_orphans, name="orphans")
        for one in self._opened:
            factory = Listener(self.reception, one.local)
            port = self._reactor.adoptStreamPort(one.socket.fileno(), one.socket.family, factory)
            self._ports.append(read_with_erasure(port))
            one.socket.close()  # Twisted has a copy
        self._reactor.addSystemEventTrigger("before", "shutdown", self.stop)

    def every(self, interval_s: float, call: Callable[[], None]) -> None:
        """Call a function at an interval until the stop."""
        self._periodic.every(interval_s, call, name="watch on files")

    def take_over(self, settings: SensorSettings, credentials: Credentials) -> None:
        """Apply lists, certificates and passwords that were read again."""
        self.reception.trusted_proxies = Networks(settings.trusted_proxies)
        self.reception.ignore = Networks(settings.ignore)
        self.reception.tls_context = credentials.tls
        for link in self._links:
            link.take_over(credentials.brokers)
        self._settings = settings
        self._note_certificates()

    def _deliver(self) -> None:
        """Begin to deliver; the first process also delivers what former workers left."""
        paths = [self.spool.path]
        if self._worker <= 1:
            paths += left_over_spools(self._settings)
        for path in paths:
            self._deliveries.append(DeliveryThread(self._make_work(path), path))
            self._deliveries[-1].start()

    def _make_work(self, path: Path) -> Delivery | Housekeeping:
        settings = self._settings
        if not settings.broker:
            return Housekeeping(path, self.spool.bounds, self.count, self._clock)
        from .delivery.publisher import BrokerLink  # pika, if there is a broker

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

    def _listen_for_metrics(self) -> None:
        if self._settings.metrics_listen:
            from .metrics import MetricsServer

            self._metrics = MetricsServer(
                self._settings.metrics_listen,
                self._gauges,
                self.count,
                lambda: self._certificates.all,
                worker=self._worker,
            )

    # Periodic calls

    def _watch_threads(self) -> None:
        """Start threads again that ended by themselves; check a spool that is not delivered."""
        for delivery in self._deliveries:
            delivery.look_after()
        if self._deliveries and self._deliveries[0].reports_damage:
            self.recorder.check_file()
        if self._metrics is not None and not self._metrics.is_alive:
            logger.critical("metrics endpoint ended; it is started again")
            self._metrics.close()
            self._listen_for_metrics()

    def _watch_clock(self) -> None:
        """Log when the host's clock is in doubt, and when it is trusted again."""
        now_s, doubt = self._reactor.seconds(), self._clock.doubt
        if not doubt:
            if self._doubt_logged_s is not None:
                self._doubt_logged_s = None
                logger.info("clock is trusted again; events without a date get one")
        elif self._doubt_logged_s is None or now_s - self._doubt_logged_s >= _CLOCK_ALARM_S:
            self._doubt_logged_s = now_s
            logger.error(
                "clock in doubt; events are kept without a date, and nothing is sealed",
                extra=fields(reason=doubt),
            )

    def _note_certificates(self) -> None:
        """Record the expiry of certificates in files; ``take_over`` passes changed ones."""
        for name, expires_s in read_expiries(self._settings).items():
            self._certificates.note(name, expires_s)

    def _watch_certificates(self) -> None:
        """Log certificates that expire soon, including those that brokers show."""
        for link in self._links:
            self._certificates.note("broker", link.certificate_expires_s)
        utc_ms = self._clock.read().utc_ms
        if utc_ms is not None:
            self._certificates.warn(utc_ms / 1000, self._reactor.seconds())

    def _report_progress(self) -> None:
        outage = self.recorder.outage
        assert self._report is not None
        self._report(
            Values(
                self.count["greets"],
                self.count["datas"],
                len(self.reception.open),
                self.recorder.lost,
                outage,
                self.spool.unwritten if outage else 0,
            )
        )

    def _note_state(self) -> None:
        self.recorder.note_state(version=__version__, client_ms=self._client_ms())

    def _client_ms(self) -> int | None:
        """Return when the last client connected, in UTC; None while the clock is in doubt."""
        last_s, utc_ms = self.reception.last_client_s, self._clock.read().utc_ms
        if last_s is None or utc_ms is None:
            return None
        return utc_ms - int((self._reactor.seconds() - last_s) * 1000)

    def _gauges(self) -> dict[str, float]:
        return {
            "open_connections": len(self.reception.open),
            "open_sources": self.reception.limits.sources,
            "tls_connections": self.reception.in_tls,
            "spool_events_in_memory": self.spool.unwritten,
            "spool_in_outage": int(self.recorder.state is Writing.MEMORY),
            "clock_in_doubt": int(bool(self._clock.doubt)),
            **(self._deliveries[0].gauges() if self._deliveries else {}),
        }

    def _stop_with(self, parent: int) -> None:
        """Stop a worker whose parent has ended: nothing else would stop it."""
        if os.getppid() != parent:
            logger.error("the parent process is gone; stopping")
            self._reactor.stop()

    # The end

    def stop(self) -> "Deferred[None]":
        """Stop cleanly; the result fires when everything is closed."""
        logger.info("stopping", extra=fields(open_connections=len(self.reception.open)))
        self._periodic.stop()
        for port in self._ports:
            port.stopListening()
        for connection in list(self.reception.open):
            connection.stop()
        for delivery in self._deliveries:
            delivery.ask_to_stop()
        stopped: Deferred[None] = Deferred()
        self._farewell(stopped, self._reactor.seconds() + _FAREWELL_S)
        return stopped

    def _farewell(self, stopped: "Deferred[None]", until_s: float) -> None:
        if self.reception.open and self._reactor.seconds() < until_s:
            self._reactor.callLater(0.02, self._farewell, stopped, until_s)
            return
        try:
            self._close_all()
        except Exception:
            logger.exception("not everything could be closed; the spool is closed")
        self.recorder.finish(
            version=__version__,
            client_ms=self._client_ms(),
            then=functools.partial(self._stopped, stopped),
        )

    def _close_all(self) -> None:
        for connection in list(self.reception.open):
            connection.abort()
        for delivery in self._deliveries:
            delivery.join(_DELIVERY_END_S)
        if self._metrics is not None:
            self._metrics.close()

    def _stopped(self, stopped: "Deferred[None]") -> None:
        logger.info("stopped")
        if self._report is not None:
            self._report_progress()
        stopped.callback(None)


def _reap_orphans() -> None:
    """Reap orphans: as the first process of a container the sensor inherits them."""
    reap_orphans(())
