"""Run a sensor: sockets, privileges and reactor, or several worker processes.

Everything is imported before root is given up: the user that the sensor becomes may not be able to
read the program's own files.
"""

import functools
import logging
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from twisted.internet.main import installReactor
from twisted.logger import ILogObserver, STDLibLogObserver, globalLogBeginner

from smtpfeeds_common.clock import Clock
from smtpfeeds_common.logs import fields
from smtpfeeds_common.signals import Signals
from smtpfeeds_common.systemd import is_notified, notify, notify_reloading
from smtpfeeds_common.users import become, find_user

from .edge import listen
from .edge.listen import Opened, Place
from .edge.poll import SensorReactor
from .edge.reactor import Reactor
from .edge.refused_by_kernel import RefusedByKernel
from .process.configuration import LOOK_EVERY_S, Configuration
from .process.descriptors import fit
from .process.folder import make_folder
from .process.modules import import_used
from .process.progress import Progress, Values, WorkersProgress
from .process.readiness import announce
from .process.workers import open_for_workers, run_workers
from .service import SensorService
from .settings import SensorSettings

logger = logging.getLogger(__name__)


def run_sensor(stated: SensorSettings, read: Callable[[], SensorSettings]) -> None:
    """Run until a signal requests a stop.

    Args:
        stated: the settings.
        read: reads the settings again, at SIGHUP.

    Raises:
        SettingsError, SpoolError: the sensor cannot start.
    """
    import_used(stated)
    places = _places(stated)
    user = find_user(stated.user)
    settings = fit(stated, len(places))
    configuration = Configuration(settings, read, stated=stated)
    sets = _open(settings, places)
    make_folder(Path(settings.spool_dir), user)
    if user is not None:
        become(user)
    ready = functools.partial(announce, settings, sets[0])
    if settings.workers > 1:
        progress = WorkersProgress()
        run_workers(
            sets,
            functools.partial(_run_worker, configuration, progress),
            ready,
            Signals().install(),
            functools.partial(_reload_parent, configuration),
            functools.partial(_look, configuration, progress),
        )
        progress.read()
    else:
        run_process(configuration, sets[0], ready, report=_report_of_one(Progress()))
    notify("STOPPING=1")


def _places(settings: SensorSettings) -> list[Place]:
    """Return the addresses to listen on.

    Raises:
        SettingsError: the setting is not valid.
    """
    stated = listen.parse_listen(settings.listen, listen.passed_sockets(os.environ) or 0)
    listen.check_overlap(stated, settings)
    places = listen.without_absent_ipv6(stated)
    for place in set(stated) - set(places):
        logger.warning("not listened on: this kernel has no IPv6", extra=fields(address=place))
    return places


def _open(settings: SensorSettings, places: Sequence[Place]) -> list[list[Opened]]:
    """Open a set of sockets for each process."""
    if settings.workers > 1:
        return open_for_workers(settings, places)
    return [listen.open_sockets(places, backlog=settings.backlog, free=settings.listen_free)]


def _run_worker(
    configuration: Configuration,
    progress: WorkersProgress,
    opened: Sequence[Opened],
    number: int,
    ready: Callable[[], None],
) -> None:
    report = functools.partial(progress.write, number)
    run_process(configuration, opened, ready, worker=number, report=report)


def _look(configuration: Configuration, progress: WorkersProgress) -> None:
    """Do what the parent of workers does several times a second."""
    configuration.read_changed_files()
    progress.read()


def _report_of_one(progress: Progress) -> Callable[[Values], None]:
    return lambda values: progress.report([values])


def run_process(
    configuration: Configuration,
    opened: Sequence[Opened],
    ready: Callable[[], None],
    *,
    worker: int = 0,
    report: Callable[[Values], object],
) -> None:
    """Run one process on listening sockets that are open.

    Args:
        configuration: the settings and what they name.
        opened: the sockets.
        ready: called when it accepts.
        worker: its number, 0 for a single process.
        report: called each second with the process's values, if a service manager is notified.
    """
    # Created here, after any fork, and installed where Twisted expects it.
    twisted_reactor = SensorReactor()
    installReactor(twisted_reactor)
    reactor = cast("Reactor", twisted_reactor)
    service = SensorService(
        configuration.settings,
        configuration.credentials,
        opened,
        reactor,
        Clock(steady_s=configuration.settings.clock_steady_s),
        worker=worker,
        report=report if is_notified() else None,
    )
    observers = [
        cast("ILogObserver", STDLibLogObserver()),
        cast("ILogObserver", RefusedByKernel(service.count)),
    ]
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False)
    reload = functools.partial(_reload, configuration, service, worker)
    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(reload))
    service.start()
    service.every(LOOK_EVERY_S, functools.partial(_look_at_files, configuration, service))
    # Only once the reactor runs: before that SIGTERM ends the process at once.
    reactor.callWhenRunning(reactor.callLater, 0, ready)
    reactor.run()


def _reload(configuration: Configuration, service: SensorService, worker: int) -> None:
    """Read settings and secrets again, and apply them."""
    if not worker:  # the parent reports it for workers
        notify_reloading()
    if configuration.read_again():
        service.take_over(configuration.settings, configuration.credentials)
    if not worker:
        notify("READY=1")


def _look_at_files(configuration: Configuration, service: SensorService) -> None:
    if configuration.read_changed_files():
        service.take_over(configuration.settings, configuration.credentials)


def _reload_parent(configuration: Configuration) -> bool:
    """Read them again in the parent, which starts later workers with them."""
    notify_reloading()
    good = configuration.read_again()
    notify("READY=1")
    return good
