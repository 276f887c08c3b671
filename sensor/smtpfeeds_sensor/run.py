"""Running a sensor: sockets, privileges, reactor; or workers, each a process of the same."""

import functools
import logging
import os
import resource
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from smtpfeeds_common.logs import fields
from smtpfeeds_common.signals import Signals
from smtpfeeds_common.spool import now_ms
from smtpfeeds_common.systemd import notify

from .edge import listen
from .edge.listen import Opened, Place
from .edge.reactor import Reactor
from .process.privileges import become, find_user, make_folder
from .process.readiness import announce
from .process.workers import open_for_workers, run_workers
from .service import SensorService, host_name, make_personas
from .settings import SensorSettings

logger = logging.getLogger(__name__)


def run_sensor(settings: SensorSettings) -> None:
    """Run until told to stop.

    Raises:
        SettingsError, SpoolError: it cannot start.
    """
    places = _places(settings)
    user = find_user(settings.user)
    _raise_file_limit(settings)
    sets = _open(settings, places)
    make_folder(Path(settings.spool_dir), user)
    if user is not None:
        become(user)
    ready = functools.partial(announce, settings, sets[0])
    if settings.workers > 1:
        signals = Signals().install()
        run_workers(sets, functools.partial(_run_worker, settings), ready, signals)
    else:
        run_process(settings, sets[0], ready)
    notify("STOPPING=1")


def _places(settings: SensorSettings) -> list[Place]:
    """Where to listen.

    Raises:
        SettingsError: the setting cannot be read.
    """
    stated = listen.parse_listen(settings.listen, listen.passed_sockets(os.environ) or 0)
    places = listen.without_absent_ipv6(stated)
    for place in set(stated) - set(places):
        logger.warning("not listened on: this kernel has no IPv6", extra=fields(address=place))
    return places


def _open(settings: SensorSettings, places: Sequence[Place]) -> list[list[Opened]]:
    """A set of sockets for each process."""
    if settings.workers > 1:
        return open_for_workers(settings, places)
    return [listen.open_sockets(places, backlog=settings.backlog, free=settings.listen_free)]


def _run_worker(
    settings: SensorSettings, opened: Sequence[Opened], number: int, ready: Callable[[], None]
) -> None:
    run_process(settings, opened, ready, worker=number)


def run_process(
    settings: SensorSettings,
    opened: Sequence[Opened],
    ready: Callable[[], None],
    *,
    worker: int = 0,
) -> None:
    """Run one process on listening sockets that are open.

    Args:
        settings: the sensor's.
        opened: the sockets.
        ready: called when it accepts.
        worker: its number, 0 where it is alone.
    """
    # Made here, not before a fork, and put where Twisted's own parts look for it.
    from twisted.internet.main import installReactor
    from twisted.logger import ILogObserver, STDLibLogObserver, globalLogBeginner

    from .edge.poll import SensorReactor

    made = SensorReactor()
    installReactor(made)
    reactor = cast("Reactor", made)
    observer = cast("ILogObserver", STDLibLogObserver())
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    service = SensorService(settings, opened, reactor, now_ms, worker=worker)
    service.start()
    # Once it runs: before that SIGTERM would end the process without a word.
    reactor.callWhenRunning(reactor.callLater, 0, ready)
    reactor.run()


def check_all(settings: SensorSettings) -> list[str]:
    """Check what can be without opening or starting anything.

    Returns:
        Remarks that do not keep it from starting.

    Raises:
        SettingsError: it could not start.
    """
    from .delivery.publisher import read_brokers
    from .edge.tls import make_context

    places = listen.parse_listen(settings.listen, listen.passed_sockets(os.environ))
    make_personas(settings)
    make_context(settings, host_name(settings))
    find_user(settings.user)
    read_brokers(settings)
    return _remarks(settings, len(places))


def _remarks(settings: SensorSettings, places: int) -> list[str]:
    remarks = []
    if listen.passed_sockets(os.environ) is None and any(
        text.startswith("systemd:") for text in settings.listen
    ):
        remarks.append("which sockets systemd passes is only known in its unit: not checked")
    if not settings.policy_url:
        remarks.append("policy_url is empty: a refused sender cannot read why")
    if os.geteuid() == 0 and not settings.user:
        remarks.append("no `user`: started as root the sensor stays root")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _files_wanted(settings, places)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        remarks.append(f"max_connections needs {wanted} open files; this host allows {hard}")
    if not settings.hostname and "." not in socket.getfqdn():
        remarks.append("hostname is empty and this host has no full name: the banner looks odd")
    return remarks


def _files_wanted(settings: SensorSettings, places: int = 16) -> int:
    return settings.max_connections + places + 128


def _raise_file_limit(settings: SensorSettings) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _files_wanted(settings, 4096)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < _files_wanted(settings):
            logger.warning(
                "fewer files may be open than max_connections needs",
                extra=fields(allowed=allowed, max_connections=settings.max_connections),
            )
