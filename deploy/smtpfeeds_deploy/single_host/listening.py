"""Reads the addresses that a sensor listens on, from the file that it writes beside its spool."""

import json
from pathlib import Path

from smtpfeeds_common.errors import SettingsError, SingleHostError
from smtpfeeds_common.host_port import HostPort, parse_host_port

from .home import SENSOR


def listening(spools: Path, sensor: str = SENSOR) -> list[HostPort]:
    """Read addresses and ports, in the order of the sensor's setting ``listen``.

    Raises:
        SingleHostError: the sensor has not written the file.
    """
    path = spools / f"{sensor}.listening"
    try:
        addresses = json.loads(path.read_text(encoding="utf-8"))["addresses"]
        return [parse_host_port(text) for text in addresses]
    except (OSError, ValueError, LookupError, TypeError, SettingsError) as exc:
        raise SingleHostError(f"the sensor has not written its addresses to {path}") from exc
