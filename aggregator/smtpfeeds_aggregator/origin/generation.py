"""An origin table on disk: its files, its name, and how its index is checked and mapped.

    DIR/generations/…/table.dat.gz  names.json.gz  origin.index  manifest.json

`datasets.directory` manages the generations; this module knows the files of one.
"""

from pathlib import Path
from typing import Any, Final

from smtpfeeds_common.errors import OriginError

from ..datasets.child_process import ChildProgram
from ..datasets.directory import DatasetDirectory, Generation, Kind
from ..datasets.schedule import parse_time
from .table.in_memory import OriginTable, TableInfo
from .table.index import OriginIndex

TABLE: Final = "table.dat.gz"
NAMES: Final = "names.json.gz"
INDEX: Final = "origin.index"
#: Digits of each SHA-256 in a generation's name: 48 bits suffice for a handful of tables.
_SHA_DIGITS: Final = 12

KIND: Final = Kind("origin table", "origin_dir", "smtpfeeds origin", OriginError)
CHILD: Final = ChildProgram("smtpfeeds_aggregator.origin.child", KIND.noun, OriginError)


def directory_of(origin_dir: str) -> DatasetDirectory:
    """Return the directory of origin tables that the setting names."""
    return DatasetDirectory(KIND, Path(origin_dir))


def generation_name(table_sha: str, names_sha: str) -> str:
    """Return the stable name of a table and its AS names."""
    return f"{table_sha[:_SHA_DIGITS]}-{names_sha[:_SHA_DIGITS] or 'nonames'}"


def open_table(generation: Generation) -> OriginTable:
    """Check a generation's index against the manifest, and map it.

    Raises:
        OriginError: the index is damaged, or of another version or machine.
    """
    return open_index(generation.check(INDEX))


def open_index(path: Path) -> OriginTable:
    """Map an index file; check only its header and size.

    Raises:
        OriginError: the index is of another version or machine, or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return table_of(OriginIndex(stream.fileno(), name=str(path)))
    except OSError as exc:
        raise OriginError(f"cannot read {path}: {exc.strerror}") from exc


def table_of(index: OriginIndex) -> OriginTable:
    """Return the table of an index, described by the facts in it."""
    facts: dict[str, Any] = index.facts
    try:
        info = TableInfo(
            source=facts["source"],
            table_time=parse_time(facts["table_time"]),
            prefixes_ipv4=facts["prefixes4"],
            prefixes_ipv6=facts["prefixes6"],
            origins=facts["origins"],
            names=facts["names"],
            bad_lines=facts["bad_lines"],
        )
        return OriginTable(index, facts["generation"], info)
    except (KeyError, TypeError, ValueError) as exc:
        raise OriginError(f"an origin index lacks facts about its table: {exc}") from exc
