"""The names in RabbitMQ: one exchange, one queue of batches, one queue of refused messages.

The aggregator declares them; a sensor only publishes. The name of a sensor is also the name of its
broker account and part of its routing key, so sensor and aggregator both check it.
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

#: The form of a sensor's name, valid in Python and in ECMAScript, the language of the published
#: schema's patterns. Python's ``$`` also matches before a final newline; ECMAScript lacks ``\Z``.
SENSOR_NAME_PATTERN: Final = r"^[a-z0-9-]{1,63}$(?!\n)"
_SENSOR_NAME: Final = re.compile(SENSOR_NAME_PATTERN)


def check_sensor_name(name: str) -> str:
    """Return the name if it is valid.

    Raises:
        SettingsError: it is not 1 to 63 of a-z, 0-9 and hyphen.
    """
    if _SENSOR_NAME.search(name) is None:
        raise SettingsError(
            f"sensor name {name!r} is not allowed: use 1 to 63 of a-z, 0-9 and hyphen"
        )
    return name


def routing_key(sensor: str) -> str:
    """Return the routing key of a sensor's messages."""
    return f"observations.{sensor}"
