"""Deliver the spool of a renamed sensor with its own account."""

import dataclasses
import threading
from pathlib import Path
from typing import Final

from smtpfeeds_common.clock import Clock
from smtpfeeds_common.errors import BrokerUnavailable, SettingsError, SpoolError
from smtpfeeds_common.service_address import parse_brokers
from smtpfeeds_common.spool import read_status

from ..counters import new_counters
from ..settings import SensorSettings
from .deliver import Delivery
from .publisher import BrokerLink
from .state import State

#: Short, because nothing else waits.
_SEAL_INTERVAL_S: Final = 0.05
_WORKING: Final = {State.STARTING, State.DELIVERING}


def deliver_under_its_name(
    settings: SensorSettings, path: Path, sensor: str, password_file: Path | None
) -> None:
    """Deliver a whole spool to this sensor's brokers, with the account of the spool's sensor.

    Raises:
        SettingsError: there is no broker, or no password.
        BrokerUnavailable, SpoolError: a part could not be delivered; delivered batches are not sent
        again.
    """
    delivery = Delivery(
        path,
        BrokerLink.of_settings(settings_of(settings, sensor, password_file)),
        new_counters(),
        Clock(steady_s=settings.clock_steady_s),
        seal_interval_s=_SEAL_INTERVAL_S,
        alive_interval_s=settings.alive_interval_s,
    )
    try:
        while not _is_empty(path):
            wait_s = delivery.step()
            if delivery.state is State.NO_SPOOL:
                raise SpoolError(f"{path.name}: {delivery.reason}")
            if delivery.state not in _WORKING:
                raise BrokerUnavailable(f"{path.name}: {delivery.state.value}: {delivery.reason}")
            delivery.idle(wait_s, threading.Event())
    finally:
        delivery.close()


def settings_of(
    settings: SensorSettings, sensor: str, password_file: Path | None
) -> SensorSettings:
    """Return this sensor's settings with another name and that account's password.

    Raises:
        SettingsError: there is no broker, or no password.
    """
    if not settings.broker:
        raise SettingsError(
            "there is no broker: the aggregator of this host delivers every spool in the folder"
        )
    if password_file is None:
        raise SettingsError(f"give the password of the account {sensor!r} by --password-file")
    return dataclasses.replace(
        settings,
        name=sensor,
        broker=tuple(each.with_account(sensor) for each in parse_brokers(settings.broker)),
        broker_password="",
        broker_password_file=str(password_file),
    )


def _is_empty(path: Path) -> bool:
    status = read_status(path)
    return not (sum(status.rows.values()) or status.undated or status.batches_waiting)
