"""Origins: which AS announces an address, and what that AS is called.

    in_use       the current table of a running program: loaded, watched, refreshed, swapped
    acquire/     a new table: the RIB fetched, converted, checked; the AS names cleaned
    load         an operator's files compiled and mapped
    generation   a table on disk: its files, its name
    child        the program of the child processes
    lookup       what ingest and publishing ask of a table, as protocols
    table/       pyasn's text, the compiled index, the table in memory

RIB or text -> table (text) -> index (file) -> `OriginTable`, mapped. Imports point down this
list. The only room that knows pyasn, and it does so in child processes alone, so that no
look-up, load or refresh stalls ingest. What is offered here is imported when asked for: the
children begin in half the time.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .in_use import OriginSource
    from .table.in_memory import EMPTY, OriginTable, TableInfo

__all__ = ["EMPTY", "OriginSource", "OriginTable", "TableInfo"]

_MODULES: Final = {"OriginSource": ".in_use"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(name)
    return getattr(importlib.import_module(_MODULES.get(name, ".table.in_memory"), __name__), name)
