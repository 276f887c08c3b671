"""Origins: which AS announces an address, and the name of that AS.

    in_use       loads, watches, refreshes and swaps the current table of a running program
    acquire/     makes a new table: fetches, converts and checks a RIB; cleans AS names
    load         compiles an operator's files and maps the index
    generation   a table on disk: its files, its name
    child        the program of the child processes
    lookup       protocols that ingest and publishing need of a table
    table/       pyasn's text, the compiled index, the table in memory

RIB or text -> table (text) -> index (file) -> `OriginTable`, mapped. Imports point down this
list. Only this package imports pyasn, and only in child processes, so that no look-up, load or
refresh delays ingest. The names below are imported on first use, because the child processes
then start in half the time.
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
