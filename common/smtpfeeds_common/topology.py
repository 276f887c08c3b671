"""The names in RabbitMQ: one exchange in, one queue for what is good, one for what is refused.

The aggregator declares them; a sensor only publishes. A sensor's name is its
account's name at the broker, and part of its routing key, so both ends check it.
"""

import re
from typing import Final

from .errors import SettingsError

EXCHANGE: Final = "smtpfeeds"
QUEUE: Final = "smtpfeeds.observations"
REFUSED_QUEUE: Final = "smtpfeeds.refused"
BINDING_KEY: Final = "observations.*"

#: Content type of a batch; the schema's version is in the body.
CONTENT_TYPE: Final = "application/json"

_SENSOR_NAME: Final = re.compile(r"[a-z0-9-]{1,63}")


def check_sensor_name(name: str) -> str:
    """Give the name back.

    Raises:
        SettingsError: not 1 to 63 of a-z, 0-9 and hyphen.
    """
    if _SENSOR_NAME.fullmatch(name) is None:
        raise SettingsError(
            f"sensor name {name!r} is not allowed: use 1 to 63 of a-z, 0-9 and hyphen"
        )
    return name


def is_sensor_name(name: str) -> bool:
    """Whether a name may be a sensor's."""
    return _SENSOR_NAME.fullmatch(name) is not None


def routing_key(sensor: str) -> str:
    """The routing key under which a sensor publishes."""
    return f"observations.{sensor}"
