"""Origins: which AS announces an address, and what that AS is called.

The only package that knows pyasn, and it does so in child processes alone: this
interface maps what they make, so that no look-up, load or refresh stalls ingest.
What is offered here is imported when asked for: the children begin in half the time.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .in_use import OriginSource
    from .table.in_memory import EMPTY, OriginInfo, OriginTable

__all__ = ["EMPTY", "OriginInfo", "OriginSource", "OriginTable"]

_MODULES: Final = {"OriginSource": ".in_use"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(name)
    return getattr(importlib.import_module(_MODULES.get(name, ".table.in_memory"), __name__), name)
