"""Import only the modules that the settings need.

A sensor is for hosts with 512 MB. pyOpenSSL and cryptography need 10 MB, pika and prometheus_client
2 MB each. This module must not import Twisted, which imports pyOpenSSL if it is installed.
"""

import importlib
import sys
from types import ModuleType
from typing import Final, cast

from smtpfeeds_common.errors import SettingsError

from ..settings import SensorSettings

#: The extra with the packages for STARTTLS.
TLS_EXTRA: Final = "sensor-tls"


def leave_out_unused(settings: SensorSettings) -> None:
    """Prevent the import of pyOpenSSL if STARTTLS is off; call it before importing Twisted.

    ``None`` in ``sys.modules`` makes an import fail as if the package were not installed: Twisted
    then does without. Whether there is TLS changes only with a restart.
    """
    if settings.tls == "off":
        cast("dict[str, ModuleType | None]", sys.modules).setdefault("OpenSSL", None)


def import_used(settings: SensorSettings) -> None:
    """Import modules that are used later, while the program's files are certainly readable.

    The user that the sensor becomes may not be able to read them.

    Raises:
        SettingsError: STARTTLS is on, and its packages are not installed.
    """
    if settings.tls != "off":
        try:
            importlib.import_module("smtpfeeds_sensor.edge.tls")
        except ModuleNotFoundError as exc:
            from smtpfeeds_common.extras import how_to_install

            raise SettingsError(
                f'tls: "{settings.tls}" needs the package {exc.name!r}, which is not installed; '
                + how_to_install(TLS_EXTRA)
            ) from exc
    if settings.broker:
        importlib.import_module("smtpfeeds_sensor.delivery.publisher")
    if settings.metrics_listen:
        importlib.import_module("smtpfeeds_sensor.metrics")
