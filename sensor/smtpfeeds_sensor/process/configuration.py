"""The settings and the secrets that they name: read before root is given up, and again at SIGHUP.

A TLS key or a password that only root may read is read while the sensor is root. At SIGHUP it is
no longer: then a file that only root may read keeps what is in use, and the log says so. Workers
inherit what their parent has read last, also those that are started again later.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from typing import TYPE_CHECKING, Final

from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.logs import fields

from ..settings import SensorSettings, host_name

if TYPE_CHECKING:
    from ..delivery.publisher import Broker
    from ..edge.tls import TlsContext

logger = logging.getLogger(__name__)

#: Settings that a running sensor takes over; the others need a restart.
RELOADED: Final = frozenset(
    {
        "broker",
        "broker_ca_file",
        "broker_certificate_file",
        "broker_key_file",
        "broker_password",
        "broker_password_file",
        "ignore",
        "tls_certificate",
        "tls_key",
        "trusted_proxies",
    }
)
#: Settings whose files hold a secret.
SECRET_FILES: Final = ("tls_key", "broker_password_file", "broker_key_file")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the settings name and only the sensor may know."""

    #: None: STARTTLS is not offered.
    tls: "TlsContext | None"
    brokers: "Sequence[Broker]"


def read_credentials(settings: SensorSettings) -> Credentials:
    """Read certificates, keys and passwords.

    Raises:
        SettingsError: one of them cannot be used.
    """
    return Credentials(tls=_read_tls(settings), brokers=_read_brokers(settings))


def _read_tls(settings: SensorSettings) -> "TlsContext | None":
    if settings.tls == "off":
        return None
    from ..edge.tls import make_context  # pyOpenSSL is used here alone

    return make_context(settings, host_name(settings))


def _read_brokers(settings: SensorSettings) -> "Sequence[Broker]":
    if not settings.broker:
        return ()
    from ..delivery.publisher import read_brokers  # pika is used there alone

    return read_brokers(settings)


class Configuration:
    """What was read last."""

    def __init__(
        self,
        settings: SensorSettings,
        read: Callable[[], SensorSettings],
        *,
        stated: SensorSettings | None = None,
    ) -> None:
        """Read the credentials.

        Args:
            settings: those in use.
            read: reads the settings again.
            stated: as they were read, where those in use were fitted to this host.

        Raises:
            SettingsError: credentials cannot be used.
        """
        self.credentials = read_credentials(settings)
        self.settings = settings
        self._stated, self._read = stated or settings, read

    def read_again(self) -> bool:
        """Read all of it again; whether something of it can be used."""
        try:
            stated = self._read()
        except SettingsError as exc:
            logger.error(  # noqa: TRY400 - the message is the reason
                "settings cannot be read again; those in use stay",
                extra=fields(reason=exc.message),
            )
            return False
        settings = _take_over(self.settings, stated)
        credentials = self._credentials_again(settings)
        changed = _changed(self._stated, stated)
        if waiting := _changed(settings, stated) & changed:
            logger.warning(
                "these settings need a restart", extra=fields(settings=",".join(sorted(waiting)))
            )
        self._stated, self.settings, self.credentials = stated, settings, credentials
        logger.info(
            "settings and their files read again",
            extra=fields(changed=",".join(sorted(changed - waiting)) or "none"),
        )
        return True

    def _credentials_again(self, settings: SensorSettings) -> Credentials:
        """New ones, or those in use where only root can read them, or a file is half written."""
        tls, brokers = self.credentials.tls, self.credentials.brokers
        try:
            if settings.tls == "files":
                tls = _read_tls(settings)
            brokers = _read_brokers(settings)
        except SettingsError as exc:
            logger.error(  # noqa: TRY400 - the message is the reason
                "certificates and passwords cannot be read again; those in use stay",
                extra=fields(reason=exc.message),
            )
            return self.credentials
        return Credentials(tls, brokers)


def _take_over(current: SensorSettings, stated: SensorSettings) -> SensorSettings:
    """The current settings with what a running sensor takes over of those stated now."""
    names = set(RELOADED)
    if bool(current.broker) != bool(stated.broker):
        names.remove("broker")  # another way to deliver altogether
    return replace(current, **{name: getattr(stated, name) for name in names})


def _changed(before: SensorSettings, now: SensorSettings) -> set[str]:
    names = {each.name for each in dataclass_fields(SensorSettings)}
    return {name for name in names if getattr(before, name) != getattr(now, name)}
