"""What crosses the wire, and what both the sensor and the aggregator need."""

from typing import Final

__version__: Final = "0.2.0"
