"""Origins: which AS announces an address, and what that AS is called.

The only package that knows pyasn, and it does so in child processes alone: this
interface maps what they make, so that no look-up, load or refresh stalls ingest.
"""

from .source import OriginSource
from .table import EMPTY, OriginInfo, OriginTable

__all__ = ["EMPTY", "OriginInfo", "OriginSource", "OriginTable"]
