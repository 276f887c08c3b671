"""Read a published folder with the program of one consumer, in a process of its own.

    hostile_readers.py READER FOLDER ROWS

Writes each row that the reader got to ROWS, as `ASN<tab>AS name<tab>address`, and to ROWS.json the
time and the most resident memory that it took. The readers are used as docs/how-to/consumers.md
shows; those that are not in this interpreter are imported from PYTHONPATH.
"""

import csv
import json
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# pyright: reportMissingImports=false
# pandas, DuckDB and IntelMQ are in environments of their own.

#: Lines of a text file that IntelMQ gets at once, as its collectors split large files.
_PIECE_LINES = 20_000
FEED = "smtpgreet"


def row(asn: Any, name: Any, address: str) -> str:
    """Return a line; no origin and no name are `NA`, whatever the format calls them."""
    return f"{asn or 'NA'}\t{name or 'NA'}\t{address}"


def read_csv(folder: Path) -> Iterator[str]:
    """Python's csv module, which refuses what is not well-formed."""
    with (folder / f"{FEED}.csv").open(encoding="utf-8", newline="") as stream:
        for each in csv.DictReader(stream, strict=True):
            yield row(each["ASN"], each["ASname"], each["ipaddr"])


def read_ndjson(folder: Path) -> Iterator[str]:
    """Python's json module, line by line."""
    with (folder / f"{FEED}.ndjson").open(encoding="utf-8") as stream:
        for each in map(json.loads, stream):
            yield row(each["ASN"], each["ASname"], each["ipaddr"])


def read_pandas_csv(folder: Path) -> Iterator[str]:
    """pandas, from the compressed CSV."""
    import pandas as pd

    frame = pd.read_csv(
        folder / f"{FEED}.csv.gz", keep_default_na=False, na_values=["NA"], dtype={"ASN": "Int64"}
    )
    return _of_pandas(frame)


def read_pandas_ndjson(folder: Path) -> Iterator[str]:
    """pandas, from the compressed NDJSON."""
    import pandas as pd

    return _of_pandas(
        pd.read_json(folder / f"{FEED}.ndjson.gz", lines=True, dtype={"ASN": "Int64"})
    )


def _of_pandas(frame: Any) -> Iterator[str]:
    import pandas as pd

    for asn, name, address in zip(frame["ASN"], frame["ASname"], frame["ipaddr"], strict=True):
        yield row(None if pd.isna(asn) else asn, None if pd.isna(name) else name, address)


def read_duckdb_csv(folder: Path) -> Iterator[str]:
    """DuckDB, with the quote named: the rows that it samples may have none."""
    return _of_duckdb(f"read_csv('{folder}/{FEED}.csv', quote = '\"')")


def read_duckdb_ndjson(folder: Path) -> Iterator[str]:
    """DuckDB, with types from all rows: the first ones may have no origin."""
    return _of_duckdb(f"read_ndjson('{folder}/{FEED}.ndjson', sample_size = -1)")


def _of_duckdb(table: str) -> Iterator[str]:
    import duckdb

    answer = duckdb.connect().execute(f"SELECT ASN, ASname, ipaddr FROM {table}")
    while rows := answer.fetchmany(10_000):
        for each in rows:
            yield row(*each)


def read_intelmq(folder: Path) -> Iterator[str]:
    """IntelMQ's parser of Dataplane.org's text files; it keeps the first word of a name."""
    from intelmq_parser import events_of

    lines = (folder / f"{FEED}.txt").read_bytes().splitlines(keepends=True)
    for at in range(0, len(lines), _PIECE_LINES):
        for event in events_of(b"".join(lines[at : at + _PIECE_LINES])):
            yield row(event.get("source.asn"), event.get("source.as_name"), event["source.ip"])


def read_pymisp(folder: Path) -> Iterator[str]:
    """pymisp: its events have addresses, and no origins."""
    import pymisp

    for path in sorted((folder / "misp").glob("*-*.json")):
        event = pymisp.MISPEvent(strict_validation=True)
        event.load_file(path)
        if f" {FEED} " in f" {event.info} ":
            for each in event.attributes:
                yield row(None, None, each.value)


def read_stix(folder: Path) -> Iterator[str]:
    """OASIS's validator, then its library; a bundle that the validator refuses has no rows."""
    import stix2
    import stix2validator

    path = folder / f"{FEED}.stix.json"
    options = stix2validator.ValidationOptions(version="2.1", disabled="uuid-check", strict=True)
    verdict: Any = stix2validator.validate_file(str(path), options)
    if not verdict.is_valid:
        sys.exit("the validator refuses the bundle")
    bundle: Any = stix2.parse(path.read_text("ascii"))
    objects = {each["id"]: each for each in bundle.objects}
    for each in objects.values():
        if each["type"] == "observed-data":
            address, *origins = (objects[ref] for ref in each["object_refs"])
            origin = origins[0] if origins else {}
            yield row(origin.get("number"), origin.get("name"), address["value"])


def read_verified(folder: Path) -> Iterator[str]:
    """Our verifier, before the rows of the NDJSON."""
    from smtpfeeds_aggregator.publish.verify import open_edition

    open_edition(folder, None, now=datetime.min.replace(tzinfo=UTC)).verify_all()
    return read_ndjson(folder)


READERS = {
    name.removeprefix("read_"): reader
    for name, reader in list(globals().items())
    if name.startswith("read_")
}


def main() -> None:
    """Read with one reader."""
    name, folder, rows = sys.argv[1:]
    begun = time.monotonic()
    with Path(rows).open("w", encoding="utf-8") as stream:
        stream.writelines(f"{each}\n" for each in READERS[name](Path(folder)))
    status = Path("/proc/self/status").read_text()
    (peak_kib,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    took = {"seconds": time.monotonic() - begun, "peak_mb": int(peak_kib) / 1e3}
    Path(f"{rows}.json").write_text(json.dumps(took))


if __name__ == "__main__":
    main()
