"""Read settings and the secrets that they name: before root is given up, and again at SIGHUP.

Certificates, keys and passwords are also read again when their files change: a program that renews
a certificate does not have to signal the sensor. Each process checks the files for itself.

The sensor reads a TLS key or a password that only root may read while it is root. Later it cannot:
then it keeps what is in use, and the log says so. Workers inherit what their parent read last, also
those that are started later.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

from smtpfeeds_common.certificates import file_expiry
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
#: Settings whose files hold certificates.
_CERTIFICATES: Final = ("broker_ca_file", "broker_certificate_file", "tls_certificate")
#: How often a process checks whether a file has changed.
LOOK_EVERY_S: Final = 2.0
#: A certificate that is made at start lasts 397 days.
_MAKE_AGAIN_S: Final = 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """The secrets that the settings name."""

    #: None: STARTTLS is not offered.
    tls: "TlsContext | None"
    brokers: "Sequence[Broker]"


def read_credentials(settings: SensorSettings) -> Credentials:
    """Read certificates, keys and passwords.

    Raises:
        SettingsError: one of them cannot be used.
    """
    return Credentials(tls=_read_tls(settings), brokers=_read_brokers(settings))


def read_expiries(settings: SensorSettings) -> dict[str, float]:
    """Return the expiry of certificates in files, by setting, in Unix time."""
    ends = {
        name: file_expiry(path, authorities=name == "broker_ca_file")
        for name, path in _files(settings).items()
        if name in _CERTIFICATES
    }
    return {name: expires_s for name, expires_s in ends.items() if expires_s is not None}


def _files(settings: SensorSettings) -> dict[str, str]:
    """Return the files of certificates and secrets in use, by setting."""
    named = {name: getattr(settings, name) for name in (*_CERTIFICATES, *SECRET_FILES)}
    unused = set()
    if settings.tls != "files":
        unused |= {"tls_certificate", "tls_key"}
    if not settings.broker:
        unused |= {name for name in named if name.startswith("broker")}
    return {name: path for name, path in named.items() if path and name not in unused}


def _signatures(settings: SensorSettings) -> Mapping[str, tuple[int, ...] | None]:
    """Return values that change with a file's content or permissions, or with a symlink's target.

    Permissions count: a file that was renewed unreadable is read once its owner is set.
    """
    signatures: dict[str, tuple[int, ...] | None] = {}
    for name, path in _files(settings).items():
        try:
            state = Path(path).stat()
        except OSError:
            signatures[name] = None
        else:
            content = (state.st_mtime_ns, state.st_ino, state.st_size)
            signatures[name] = (*content, state.st_mode, state.st_uid, state.st_gid)
    return signatures


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
    """The settings and secrets that were read last."""

    def __init__(
        self,
        settings: SensorSettings,
        read: Callable[[], SensorSettings],
        *,
        stated: SensorSettings | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the credentials.

        Args:
            settings: those in use.
            read: reads the settings again.
            stated: the settings as read, before they were fitted to this host.
            monotonic: seconds that never go back.

        Raises:
            SettingsError: credentials cannot be used.
        """
        self._seen = _signatures(settings)
        self.credentials = read_credentials(settings)
        self.settings = settings
        self._stated, self._read = stated or settings, read
        self._monotonic = monotonic
        self._looked_s = self._made_s = monotonic()

    def read_again(self) -> bool:
        """Read everything again; return whether anything can be used."""
        try:
            stated = self._read()
        except SettingsError as exc:
            logger.error(  # noqa: TRY400 - the message is the reason
                "settings cannot be read again; those in use stay",
                extra=fields(reason=exc.message),
            )
            return False
        settings = _take_over(self.settings, stated)
        self._seen = _signatures(settings)
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

    def read_changed_files(self) -> bool:
        """Read certificates and secrets again if a file has changed; return whether there are new
        ones.

        It does nothing before the next check is due.
        """
        now_s = self._monotonic()
        if now_s - self._looked_s < LOOK_EVERY_S:
            return False
        self._looked_s = now_s
        if self.settings.tls == "made" and now_s - self._made_s >= _MAKE_AGAIN_S:
            self._made_s = now_s
            self.credentials = replace(self.credentials, tls=_read_tls(self.settings))
            return True
        seen = _signatures(self.settings)
        changed = {name for name in seen if seen[name] != self._seen.get(name)}
        if not changed:
            return False
        self._seen, before = seen, self.credentials
        self.credentials = self._credentials_again(self.settings)
        if self.credentials is before:
            return False
        logger.info(
            "certificates and passwords read again", extra=fields(changed=",".join(sorted(changed)))
        )
        return True

    def _credentials_again(self, settings: SensorSettings) -> Credentials:
        """Return new ones, or those in use if only root can read the files or one is incomplete."""
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
    """Return the current settings with the new values that a running sensor can apply."""
    names = set(RELOADED)
    if bool(current.broker) != bool(stated.broker):
        names.remove("broker")  # this changes the kind of delivery
    return replace(current, **{name: getattr(stated, name) for name in names})


def _changed(before: SensorSettings, now: SensorSettings) -> set[str]:
    names = {each.name for each in dataclass_fields(SensorSettings)}
    return {name for name in names if getattr(before, name) != getattr(now, name)}
