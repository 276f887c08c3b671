"""Finds the newest RIB or table, and AS names, in a local directory.

For hosts without Internet access: a mirror of the archive's tree, or files in a folder.
"""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from smtpfeeds_common.errors import OriginError

from . import route_views

#: A mirror of a collector's months has a few thousand files.
_MAX_ENTRIES: Final = 100_000
_NAMES: Final = ("asn*.txt", "asn*.txt.gz", "asnames*.json", "asnames*.json.gz", "autnums.html")
_TABLES: Final = ("*.dat", "*.dat.gz")


def find(source: Path) -> tuple[Path, Path | None]:
    """Return the RIB or table to use, and the AS names in the same directory.

    Raises:
        OriginError: there is no RIB and no table.
    """
    if source.is_file():
        return source, None
    if not source.is_dir():
        raise OriginError(f"there is no file or directory {source}: check --from")
    names = _newest(path for pattern in _NAMES for path in source.glob(pattern))
    ribs = {
        path.name: path
        for path in itertools.islice(source.rglob("*"), _MAX_ENTRIES)
        if route_views.rib_time(path.name) and path.is_file()
    }
    if ribs:
        return ribs[max(ribs, key=lambda name: (route_views.rib_time(name), name))], names
    table = _newest(path for pattern in _TABLES for path in source.glob(pattern))
    if table is None:
        raise OriginError(
            f"{source} has no RIB (rib.YYYYMMDD.HHMM.bz2, bview.YYYYMMDD.HHMM.gz) and no pyasn "
            "table (*.dat, *.dat.gz): check --from"
        )
    return table, names


def _newest(paths: Iterable[Path]) -> Path | None:
    present = [path for path in paths if path.is_file()]
    return max(present, key=lambda path: (path.stat().st_mtime, path.name), default=None)
