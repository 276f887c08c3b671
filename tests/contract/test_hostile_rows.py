"""Every reader gets every row of a publication, with AS names that break careless parsers.

Some thousand rows here; `make readers` publishes a million and prints what each reader takes.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from contract.hostile_readers import FEED
from contract.test_intelmq import intelmq_python
from ingest_support.fixtures import dsn
from pinned_packages import environment_with
from publish_support import HOSTILE_NAMES, NOW, Origins
from smtpfeeds_aggregator.names import clean_name, short_name
from smtpfeeds_aggregator.publish.columns import Rows
from smtpfeeds_aggregator.publish.once import publish_once
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_common.addresses import format_address

__all__ = ["dsn", "intelmq_python"]

RUNNER: Final = Path(__file__).with_name("hostile_readers.py")
FEW: Final = 170
MILLION: Final = 1_000_000
#: The bounds of the formats: a STIX bundle is not written above its own, MISP leaves out the rest.
STIX_ROWS: Final = 100_000
MISP_ROWS: Final = 20_000
FIRST_IPV4: Final = 11 << 24
FIRST_IPV6: Final = 0x2001_0DB8 << 96
STEP: Final = 15
#: An address's number, modulo this: its AS among the hostile ones, or none.
KINDS: Final = len(HOSTILE_NAMES) + 1
FIRST_ASN: Final = min(HOSTILE_NAMES)
JQ: Final = r'[.ASN // "NA", .ASname // "NA", .ipaddr] | "\(.[0])\t\(.[1])\t\(.[2])"'
FILL: Final = """
INSERT INTO observation (ip, feed, first_seen, last_seen, hits, asn)
SELECT CASE WHEN i %% 6 = 0 THEN inet '2001:db8::' + i ELSE inet '11.0.0.0' + i * %(step)s END,
       %(feed)s, %(now)s, %(now)s, i %% 9 + 1,
       NULLIF(CASE WHEN i %% 6 = 0 THEN i ELSE %(first)s + i * %(step)s END %% %(kinds)s,
              %(kinds)s - 1) + %(asn)s
FROM generate_series(0::bigint, %(count)s - 1) AS i
"""


class ManyOrigins(Origins):
    """Gives each address an AS by its number, without a table."""

    def lookup_columns(self, ipv4: Rows, high: Rows, low: Rows) -> Rows:
        kinds = np.concatenate([ipv4.astype(np.uint64), low.astype(np.uint64)]) % KINDS
        asns: Rows = np.where(kinds == KINDS - 1, 0, FIRST_ASN + kinds).astype(np.uint32)
        return asns


def origin_of(number: int) -> tuple[str, str]:
    """Return ASN and name of an address, as each file has them."""
    kind = number % KINDS
    if kind == KINDS - 1:
        return "NA", "NA"
    name = HOSTILE_NAMES[FIRST_ASN + kind]
    return str(FIRST_ASN + kind), short_name(clean_name(name, has_country=False))


def expected_rows(count: int) -> Iterator[tuple[str, str, str]]:
    """Yield ASN, name and address of each row, computed apart from the publication."""
    for i in range(count):
        number = FIRST_IPV6 + i if i % 6 == 0 else FIRST_IPV4 + i * STEP
        packed = number.to_bytes(16 if i % 6 == 0 else 4)
        yield *origin_of(i if i % 6 == 0 else number), format_address(packed)


def publish(dsn: str, folder: Path, count: int) -> Path:
    """Publish rows; returns the folder that readers see."""
    settings = AggregatorSettings(dsn=dsn, feeds_dir=str(folder), publish_non_global=True)
    with connect(settings, "test", autocommit=True) as connection:
        connection.execute(
            FILL,
            {"step": STEP, "feed": FEED, "now": NOW, "first": FIRST_IPV4, "kinds": KINDS}
            | {"asn": FIRST_ASN, "count": count},
        )
        assert publish_once(settings, ManyOrigins(), connection, now=NOW) is not None
    return folder / "feeds" / "current"


def read(reader: str, folder: Path, answer: Path, python: Path | None = None) -> list[str]:
    """Read with one program, in its own process, and print what it took; returns sorted rows."""
    took = ""
    if reader == "jq":
        with answer.open("wb") as stream:
            command = ["jq", "-r", JQ, str(folder / f"{FEED}.ndjson")]
            subprocess.run(command, check=True, stdout=stream)
    else:
        done = subprocess.run(
            [python or sys.executable, "-W", "ignore", RUNNER, reader, folder, answer],
            check=False,
            capture_output=True,
            text=True,
            env=None if python else environment_with("readers"),
        )
        assert done.returncode == 0, f"{reader}: {done.stdout}{done.stderr}"
        figures = json.loads(answer.with_name(f"{answer.name}.json").read_text())
        took = f"{figures['seconds']:8.1f} s {figures['peak_mb']:7.0f} MB"
    rows = answer.read_text(encoding="utf-8").split("\n")
    assert rows.pop() == ""
    print(f"{reader:16} {len(rows):>9,} rows {took}", flush=True)
    return sorted(rows)


def differences(rows: list[str], expected: list[str]) -> list[object]:
    """Return the first rows that differ, and both counts if they do."""
    pairs = zip(rows, expected, strict=False)
    differ: list[object] = list(itertools.islice((pair for pair in pairs if pair[0] != pair[1]), 5))
    return differ or ([] if len(rows) == len(expected) else [len(rows), len(expected)])


def check(dsn: str, tmp_path: Path, intelmq: Path, count: int) -> None:
    """Publish rows, and compare what every reader gets of them with what they are."""
    folder = publish(dsn, tmp_path / "www", count)
    whole = sorted("\t".join(each) for each in expected_rows(count))
    readers = [
        *("verified", "csv", "ndjson", "jq"),
        *("pandas_csv", "pandas_ndjson", "duckdb_csv", "duckdb_ndjson"),
    ]
    if count <= STIX_ROWS:
        readers.append("stix")
    else:
        manifest = json.loads((folder / "manifest.json").read_text())
        assert f"{FEED}.stix.json" in manifest["not_written"]
    for reader in readers:
        assert differences(read(reader, folder, tmp_path / reader), whole) == [], reader
    events = read("intelmq", folder, tmp_path / "intelmq", intelmq)
    # IntelMQ keeps a name's first word.
    words = ((asn, name.split()[0], address) for asn, name, address in expected_rows(count))
    assert differences(events, sorted("\t".join(each) for each in words)) == []
    attributes = read("pymisp", folder, tmp_path / "pymisp")
    assert len(attributes) == min(count, MISP_ROWS)
    addresses = {f"NA\tNA\t{address}" for _, _, address in expected_rows(count)}
    assert len(addresses.intersection(attributes)) == min(count, MISP_ROWS)


@pytest.mark.timeout(600)  # the first run installs the readers
def test_every_reader_gets_every_row(dsn: str, tmp_path: Path, intelmq_python: Path) -> None:
    check(dsn, tmp_path, intelmq_python, FEW)


@pytest.mark.large
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("count", [STIX_ROWS, MILLION])
def test_every_reader_gets_a_million_rows(
    count: int, dsn: str, tmp_path: Path, intelmq_python: Path
) -> None:
    check(dsn, tmp_path, intelmq_python, count)
