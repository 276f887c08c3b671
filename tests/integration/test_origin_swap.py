"""Tables are swapped under a running aggregator: ingest never fails, each set uses one table."""

from __future__ import annotations

import csv
import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest_support import (
    DAY_MS,
    delivery_of,
    greet,
    made_batch,
    now_ms,
    settings_of,
    settled_clock,
)
from ingest_support.fixtures import dsn  # noqa: F401 - a fixture
from origin_support.world import rows, table_text
from origin_support.world import settings as origin_settings
from smtpfeeds_aggregator.ingest.check import check
from smtpfeeds_aggregator.ingest.fold import fold
from smtpfeeds_aggregator.origin import OriginSource, OriginTable
from smtpfeeds_aggregator.origin.acquire.refresh import refresh
from smtpfeeds_aggregator.publish.once import publish_once
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.store.bounds import Bounds
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_aggregator.store.ingest import IngestStore
from smtpfeeds_aggregator.store.rows import BatchKey, Folded
from smtpfeeds_common.addresses import pack_address

# ruff: noqa: F811 - a fixture is imported by name and used by name

BATCH_ROWS = 200


class Ingest(threading.Thread):
    """Applies batches of simulated clients as fast as it can, with the current table."""

    def __init__(self, dsn: str, source: OriginSource, address: Callable[[], str]) -> None:
        super().__init__()
        config = settings_of(dsn)
        self.store = IngestStore(
            lambda: connect(config, "test", autocommit=True),
            clock=settled_clock(),
            retention=timedelta(days=30),
            bounds=Bounds(),
        )
        self.source, self.address = source, address
        self.stop = threading.Event()
        self.whole = False
        self.spent: list[float] = []

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                begun = time.perf_counter()
                self._batch()
                self.spent.append(time.perf_counter() - begun)
            self.whole = True
        finally:
            self.store.close()

    def _batch(self) -> None:
        batch = made_batch(*[greet(self.address()) for _ in range(BATCH_ROWS)], spool=uuid.uuid4())
        checked, table = check(delivery_of(batch)), self.source.current

        def refold(keys: frozenset[BatchKey], today: int) -> Folded:
            return fold([checked] if checked.key in keys else [], table, today)

        self.store.apply(fold([checked], table, now_ms() // DAY_MS), refold)


def agrees(feeds: Path, tables: dict[str, OriginTable]) -> int:
    """Check a published set against the one generation its manifest names; count its rows."""
    document = json.loads((feeds / "manifest.json").read_text())["origin_generation"]
    with (feeds / "smtpgreet.csv").open(newline="") as stream:
        lines = [line for line in stream if not line.startswith("#")]
    published = list(csv.reader(lines))[1:]
    expected = tables[document].lookup_many([pack_address(row[2]) for row in published])
    for row, asn in zip(published, expected, strict=True):
        assert row[0] == ("NA" if asn is None else str(asn)), (document, row)
    return len(published)


def swap_under_load(
    config: AggregatorSettings, source: OriginSource, address: Callable[[], str], swaps: int
) -> Ingest:
    """Swaps while clients are ingested, a publication after each; returns the ingest."""
    current = Path(config.origin_dir) / "current"
    links = sorted(path.name for path in (current.parent / "generations").iterdir())
    source.load()
    tables = {source.current.generation: source.current}
    ingest = Ingest(config.dsn, source, address)
    ingest.start()
    counts = []
    try:
        while len(ingest.spent) < 3 and ingest.is_alive():
            time.sleep(0.05)
        with connect(config, "test", autocommit=True) as connection:
            for number in range(swaps):
                aside = current.with_name("aside")
                aside.symlink_to(f"generations/{links[number % 2]}")
                aside.rename(current)
                assert source.look_again() is True
                table = source.current
                tables[table.generation] = table
                now = datetime.now(UTC) + timedelta(minutes=number)
                assert publish_once(config, table, connection, now=now) is not None
                counts.append(agrees(Path(config.feeds_dir) / "feeds", tables))
                assert ingest.is_alive()
    finally:
        ingest.stop.set()
        ingest.join()
    assert ingest.whole, "no batch failed"
    assert len(tables) == 2
    assert counts[-1] >= counts[0] > 0
    return ingest


def configured(dsn: str, tmp_path: Path) -> AggregatorSettings:
    base = origin_settings(tmp_path / "origins")
    return AggregatorSettings(
        dsn=dsn,
        origin_dir=base.origin_dir,
        feeds_dir=str(tmp_path / "www"),
        publish_non_global=True,
        generations_kept=2,
    )


def test_each_publication_agrees_with_one_generation_through_swaps_under_load(
    dsn: str, tmp_path: Path
) -> None:
    """Nothing fails, and all rows of a set come from the table that its manifest names."""
    prefixes = rows()
    for number, shift in enumerate((0, 20_000)):
        path = tmp_path / "t.dat"
        path.write_text(table_text([(prefix, asn + shift) for prefix, asn in prefixes]))
        refresh(
            origin_settings(tmp_path / "origins"),
            source=path,
            force=True,
            now=datetime.now(UTC) + timedelta(seconds=number),
        )
    config, chance = configured(dsn, tmp_path), random.Random(4)

    def address() -> str:
        prefix = chance.choice(prefixes[::12])[0].partition("/")[0]
        if ":" in prefix:
            return prefix + f"{chance.randrange(1, 9):x}"
        return prefix.rpartition(".")[0] + f".{chance.randrange(9)}"

    ingest = swap_under_load(config, OriginSource(config), address, 6)
    assert len(ingest.spent) > 5


@pytest.mark.large
@pytest.mark.timeout(1800)
def test_each_publication_agrees_with_one_generation_between_full_tables(
    dsn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same between a table of 828 thousand prefixes and one of 1.3 million, with figures."""
    folder = os.environ.get("SMTPFEEDS_ASN_DATA")
    assert folder, "set SMTPFEEDS_ASN_DATA to the folder with the large tables"
    config, chance = configured(dsn, tmp_path), random.Random(4)
    for name in ("ipasn-20260822.dat.gz", "ipasn-scaled-1300k.dat.gz"):
        refresh(config, source=Path(folder) / name, force=True)

    def address() -> str:
        return socket.inet_ntop(socket.AF_INET, chance.randbytes(4))

    ingest = swap_under_load(config, OriginSource(config), address, 20)
    spent = sorted(ingest.spent)
    with capsys.disabled():
        print(
            f"\n{len(spent)} batches of {BATCH_ROWS} rows"
            f": median {spent[len(spent) // 2] * 1000:.0f} ms"
            f", 99 % {spent[len(spent) * 99 // 100] * 1000:.0f} ms"
            f", longest {spent[-1] * 1000:.0f} ms"
        )
