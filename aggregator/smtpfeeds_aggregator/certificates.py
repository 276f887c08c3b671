"""Watches when the certificates in use expire: those in files, and the broker's.

Each connection reads the files again, so a renewed certificate needs no restart; this
watch only reads the dates and warns. ``broker`` is the certificate that the broker sent last.
"""

import time
from collections.abc import Mapping
from threading import Event
from typing import Final

from smtpfeeds_common.certificates import file_expiry

from .metrics import Metrics
from .settings import AggregatorSettings
from .store.dsn import parse_dsn

_LOOK_EVERY_S: Final = 5.0


def expiries(settings: AggregatorSettings) -> Mapping[str, float]:
    """Return when the certificates in files expire, in Unix time, by setting."""
    files: dict[str, str] = {}
    if settings.broker_ca_file:
        files["broker_ca_file"] = settings.broker_ca_file
    for name in ("dsn", "publish_dsn"):
        given = parse_dsn(getattr(settings, name))
        for key in ("sslrootcert", "sslcert"):
            # `system` names the operating system's certificates, not a file.
            if given.get(key) and given[key] != "system":
                files[f"{name} {key}"] = str(given[key])
    ends = {
        name: file_expiry(path, authorities=not name.endswith("sslcert"))
        for name, path in files.items()
    }
    return {name: expires_s for name, expires_s in ends.items() if expires_s is not None}


class CertificateWatch:
    """Checks the certificates in use until it is stopped."""

    def __init__(self, settings: AggregatorSettings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics

    def run(self, stop: Event) -> None:
        """Warn of certificates that expire soon, until `stop` is set."""
        while not stop.is_set():
            for name, expires_s in expiries(self._settings).items():
                self._metrics.note_certificate(name, expires_s)
            self._metrics.certificates.warn(time.time(), time.monotonic())
            stop.wait(_LOOK_EVERY_S)
