"""The child process that fetches and converts RIBs, reads AS names and compiles an index.

It is a separate process because pyasn holds the interpreter lock while it loads a table, checks
its input only by `assert`, and can crash in C. `generation.CHILD` starts it.
"""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from smtpfeeds_common.errors import OriginError

from ..datasets.child_process import Command, fetch_file, report_progress, serve

if TYPE_CHECKING:
    from .table.prefixes import PrefixTable

#: On this many addresses pyasn and the compiled index must agree.
COMPARED_ADDRESSES: Final = 20_000


def compile_table(arguments: dict[str, Any]) -> dict[str, Any]:
    """Compile a table and its names into an index, in the file that the parent opened.

    Args:
        arguments: `table` and `names` (paths; names may be empty), the descriptor `fd`, and
            `facts` to store in the index.
    """
    from .acquire.as_names import read_names
    from .table.compile import compile_sections
    from .table.index import OriginIndex, write_index
    from .table.radix import Trees, disagreements, read_prefixes
    from .table.text import TableCounts, read_parts

    table, counts = Path(arguments["table"]), TableCounts()
    report_progress("loading the table into pyasn")
    trees = Trees(str(table))
    ipv4, ipv6 = read_prefixes(trees.load(read_parts(table, counts)), str(table))
    names: dict[int, str] = {}
    if arguments["names"]:
        cleaned = bool(arguments.get("names_cleaned"))
        names = read_names(Path(arguments["names"]), cleaned=cleaned)
    report_progress("compiling the index")
    sections, split = compile_sections(ipv4, ipv6, names)
    facts: dict[str, Any] = arguments["facts"] | {
        "prefixes4": len(ipv4),
        "prefixes6": len(ipv6),
        "origins": len(ipv4.origins() | ipv6.origins()),
        "names": len(names),
        "bad_lines": counts.bad_lines + trees.refused,
        "first_bad": counts.first_bad,
        "split4": split,
    }
    sample = list(comparison_sample(ipv4, ipv6, COMPARED_ADDRESSES))
    del ipv4, ipv6, names
    with os.fdopen(os.dup(arguments["fd"]), "r+b") as out:
        write_index(out, sections, facts)
        index = OriginIndex(out.fileno(), name="the new index")
    del sections
    report_progress("comparing the index with pyasn")
    again = Trees(str(table)).load(read_parts(table, TableCounts()))
    wrong = next(disagreements(again, index, sample), None)
    if wrong:
        raise OriginError(f"the index compiled from {table} disagrees with pyasn: {wrong}")
    return facts


def convert_source(arguments: dict[str, Any]) -> dict[str, Any]:
    """Convert a RIB or a table to a filtered table; return the counts.

    Args:
        arguments: `source`, `out`, `max_bytes`, `allow_reserved`.
    """
    from .acquire.convert import read_source, write_table

    converted = read_source(
        Path(arguments["source"]),
        max_bytes=arguments["max_bytes"],
        progress=report_progress,
    )
    report_progress(
        f"writing the table: {len(converted.ipv4):,} + {len(converted.ipv6):,} prefixes"
    )
    return write_table(
        converted, Path(arguments["out"]), allow_reserved=arguments["allow_reserved"]
    )


def clean_names(arguments: dict[str, Any]) -> dict[str, Any]:
    """Read, clean and write a list of AS names; return their count."""
    from .acquire.as_names import read_names, write_names

    names = read_names(Path(arguments["source"]))
    write_names(names, Path(arguments["out"]))
    return {"names": len(names)}


def no_names(arguments: dict[str, Any]) -> dict[str, Any]:
    """Write an empty list, for a table without AS names."""
    from .acquire.as_names import write_names

    write_names({}, Path(arguments["out"]))
    return {"names": 0}


def comparison_sample(ipv4: "PrefixTable", ipv6: "PrefixTable", count: int) -> Iterator[bytes]:
    """Yield addresses at and beside the edges of prefixes, and random ones."""
    chance = random.Random(1)  # noqa: S311 - a sample, no secret
    for prefixes in (ipv4, ipv6):
        bits = prefixes.bits
        octets = bits // 8
        for start, length, _ in prefixes.sample(chance, count // 10):
            end = start + (1 << (bits - length))
            for number in (start - 1, start, end - 1, end):
                if 0 <= number < 1 << bits and number >> 32 != 0xFFFF:
                    yield number.to_bytes(octets)
        for _ in range(count // 10):
            packed = chance.randbytes(octets)
            yield packed if octets == 4 else b"\x20" + packed[1:]


COMMANDS: Final[dict[str, Command]] = {
    "compile": compile_table,
    "fetch": fetch_file,
    "convert": convert_source,
    "names": clean_names,
    "no_names": no_names,
}


if __name__ == "__main__":
    sys.exit(serve(COMMANDS, "origin table"))
