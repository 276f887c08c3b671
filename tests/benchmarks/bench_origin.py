"""Origin tables measured: conversion, load, look-ups, a swap's stall, re-annotation.

    SMTPFEEDS_ASN_DATA=DIR python tests/benchmarks/bench_origin.py

DIR holds `mrt/rib.full-1peer-1300k.gz`, `ipasn-scaled-1300k.dat.gz`,
`ipasn-20260822.dat.gz` and `asnames-20260715.json.gz`; without it, tables of the
same size are made up, or some thousand prefixes with BENCH_SHORT=1 (`sizes`).
Prints a table; BENCH_OUT names a file for the figures as JSON. Look-ups are compared,
on the same random addresses of which half are announced, with

* pyasn's bare loop (`for address in texts: tree.lookup(address)`), its text ready, and
* a sorted-array search as the limit: `bisect` over a list of numbers that is ready
  (first addresses of the ranges, as Python numbers), and one index, nothing else.

A stall is the longest time for which a thread that only wants the interpreter lock
every millisecond did not get it, less what it sees with nothing else running.
"""

import gzip
import os
import random
import resource
import socket
import statistics
import sys
import tempfile
import threading
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import report, stage
from benchmarks.sizes import size
from origin_support import mrt
from origin_support.world import rows, table_text
from smtpfeeds_aggregator.origin import OriginSource, OriginTable
from smtpfeeds_aggregator.origin.acquire.refresh import refresh
from smtpfeeds_aggregator.origin.generation import CHILD
from smtpfeeds_aggregator.origin.load import load_files
from smtpfeeds_aggregator.settings import AggregatorSettings

LOOKUPS = size(400_000, 5_000)
ROWS = size(1_000_000, 10_000)
SWAPS = size(6, 2)
RUNS = size(3, 1)
IDLE_S = size(3, 1)


def best(work: Callable[[], Any], runs: int = RUNS) -> float:
    """Seconds of the fastest of some runs: the others had company."""
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def made_up(folder: Path) -> dict[str, Path]:
    """Tables of the real ones' size, where no data is given."""
    table = rows(size(1_000_000, 6_000), size(250_000, 1_500))
    half = rows(size(600_000, 3_000), size(200_000, 1_000))
    paths = {"full": folder / "full.dat.gz", "other": folder / "other.dat.gz"}
    for path, prefixes in zip(paths.values(), (table, half), strict=True):
        path.write_bytes(gzip.compress(table_text(prefixes).encode(), 1))
    rib, names = folder / "rib.20261122.0600.gz", folder / "asn.txt"
    rib.write_bytes(gzip.compress(mrt.dump(table), 1))
    names.write_text("".join(f"{n} NET{n} - Network {n}, US\n" for n in range(2, 20_000)))
    return paths | {"rib": rib, "names": names}


def given(folder: Path) -> dict[str, Path]:
    """The tables of a folder of data."""
    return {
        "full": folder / "ipasn-scaled-1300k.dat.gz",
        "other": folder / "ipasn-20260822.dat.gz",
        "rib": folder / "mrt" / "rib.full-1peer-1300k.gz",
        "names": folder / "asnames-20260715.json.gz",
    }


def addresses(table: OriginTable, count: int) -> list[bytes]:
    """Random IPv4 addresses, half of them announced, as are sensors' clients mostly."""
    chance = random.Random(7)
    some = [chance.randbytes(4) for _ in range(count * 4)]
    known = [a for a, asn in zip(some, table.lookup_many(some), strict=True) if asn]
    sample = known[: count // 2]
    sample += some[: count - len(sample)]
    chance.shuffle(sample)
    return sample


def convert(paths: dict[str, Path], folder: Path) -> dict[str, float]:
    """Conversion in its child process, and the most memory it took."""
    begun = time.perf_counter()
    counts = CHILD.run(
        "convert",
        {
            "source": str(paths["rib"]),
            "out": str(folder / "converted.dat.gz"),
            "max_bytes": 1 << 40,
            "allow_reserved": False,
        },
        timeout_s=3600,
    )
    spent = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {
        "convert_records": counts["records"],
        "convert_s": spent,
        "convert_records_per_s": counts["records"] / spent,
        "convert_peak_mb": peak,
    }


def lookups(table: OriginTable, paths: dict[str, Path]) -> dict[str, float]:
    """Bulk look-ups against pyasn's loop and against a search in a sorted array."""
    from pyasn import pyasn

    asked = addresses(table, LOOKUPS)
    texts = [socket.inet_ntop(socket.AF_INET, a) for a in asked]
    with gzip.open(paths["full"], "rt") as stream:
        tree = pyasn(None, ipasn_string=stream.read())
    index = table._index
    assert index is not None
    starts, asns = list(index._start4), array("I", index._asn4)
    numbers = [int.from_bytes(a) for a in asked]

    def bare_pyasn() -> None:
        for text in texts:
            tree.lookup(text)

    def sorted_array() -> list[int]:
        return [asns[bisect_right(starts, number) - 1] for number in numbers]

    origins = table.lookup_many(asked)
    assert origins == [tree.lookup(text)[0] for text in texts], "all three agree"
    assert origins == [asn or None for asn in sorted_array()]
    ours = LOOKUPS / best(lambda: table.lookup_many(asked), 5)
    theirs, limit = LOOKUPS / best(bare_pyasn), LOOKUPS / best(sorted_array)
    chance = random.Random(8)
    six = [a[:8] + chance.randbytes(8) for a in table.starts6(50_000)] * 4
    ours6 = len(six) / best(lambda: table.lookup_many(six))
    texts6 = [socket.inet_ntop(socket.AF_INET6, a) for a in six]
    theirs6 = len(six) / best(lambda: [tree.lookup(text) for text in texts6], 1)
    return {
        "lookups_per_s": ours,
        "pyasn_lookups_per_s": theirs,
        "sorted_array_lookups_per_s": limit,
        "lookup_vs_pyasn": ours / theirs,
        "lookup_vs_limit": ours / limit,
        "lookups_ipv6_per_s": ours6,
        "lookup_ipv6_vs_pyasn": ours6 / theirs6,
    }


class Pulse(threading.Thread):
    """Wants the interpreter lock each millisecond, and notes how late it gets it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stop = threading.Event()
        self.late_ms: list[float] = []

    def run(self) -> None:
        last = time.perf_counter()
        while not self.stop.is_set():
            time.sleep(0.001)
            now = time.perf_counter()
            self.late_ms.append((now - last) * 1000 - 1)
            last = now

    def finish(self) -> list[float]:
        self.stop.set()
        self.join()
        return self.late_ms


def stalls(work: Callable[[], None]) -> list[float]:
    """How late a pulse was while some work was done."""
    pulse = Pulse()
    pulse.start()
    work()
    return pulse.finish()


def swaps(paths: dict[str, Path], folder: Path) -> dict[str, float]:
    """Swaps between two large tables in a directory, as a running aggregator does them."""
    config = AggregatorSettings(origin_dir=str(folder / "origins"), as_names=str(paths["names"]))
    outcomes = [
        refresh(config, source=paths[key], force=True, names=paths["names"])
        for key in ("full", "other")
    ]
    source = OriginSource(config)
    source.load()
    current = Path(config.origin_dir) / "current"
    links = [path.name for path in sorted((current.parent / "generations").iterdir())]
    spent: list[float] = []

    def swap() -> None:
        for number in range(SWAPS):
            aside = current.with_name("aside")
            aside.symlink_to(f"generations/{links[number % 2]}")
            aside.rename(current)
            begun = time.perf_counter()
            assert source.look_again()
            spent.append(time.perf_counter() - begun)
            assert source.current.generation == outcomes[number % 2].generation

    def from_file() -> None:
        load_files(paths["full"], paths["names"], timeout_s=600)

    def by_pyasn_in_a_thread() -> None:
        from pyasn import pyasn

        with gzip.open(paths["full"], "rt") as stream:
            pyasn(None, ipasn_string=stream.read())

    idle = stalls(lambda: time.sleep(IDLE_S))
    late = stalls(swap)
    begun = time.perf_counter()
    late_file = stalls(from_file)
    load_s = time.perf_counter() - begun
    return {
        "swap_stall_ms": max(0.0, max(late) - max(idle)),
        "swap_longest_wait_ms": max(late),
        "idle_longest_wait_ms": max(idle),
        "swap_s": statistics.median(spent),
        "load_from_file_s": load_s,
        "load_from_file_longest_wait_ms": max(late_file),
        "pyasn_in_thread_longest_wait_ms": max(stalls(by_pyasn_in_a_thread)),
    }


def reannotate(table: OriginTable, other: OriginTable) -> dict[str, float]:
    """Look a million rows up in a new table and find those whose origin is another one."""
    chance = random.Random(9)
    sample = [chance.randbytes(4) for _ in range(ROWS * 9 // 10)]
    sample += [b"\x2a\x02" + chance.randbytes(14) for _ in range(ROWS - len(sample))]
    stored = other.lookup_many(sample)
    changed: list[int] = []

    def work() -> None:
        changed.append(0)
        for at in range(0, ROWS, 5000):
            origins = table.lookup_many(sample[at : at + 5000])
            changed[-1] += sum(map(int.__ne__, map(int, (asn or 0 for asn in origins)),
                                   (asn or 0 for asn in stored[at : at + 5000])))  # fmt: skip

    spent = best(work)
    return {"reannotate_rows_per_s": ROWS / spent, "reannotate_changed": changed[-1]}


def main() -> None:
    """Measure, print, and write the figures where BENCH_OUT says."""
    data = os.environ.get("SMTPFEEDS_ASN_DATA")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = given(Path(data)) if data else made_up(folder)
        stage("conversion of a table")
        figures: dict[str, float] = convert(paths, folder)
        stage("loading two tables")
        base = AggregatorSettings(as_names=str(paths["names"]))
        tables = []
        for key in ("full", "other"):
            source = OriginSource(replace(base, origin_table=str(paths[key])))
            source.load()
            tables.append(source.current)
        figures |= {"prefixes": tables[0].info.prefixes}
        stage("look-ups")
        figures |= lookups(tables[0], paths)
        stage("origins again by another table")
        figures |= reannotate(tables[0], tables[1])
        stage("swaps")
        figures |= swaps(paths, folder)
        figures["refresh_peak_mb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    report(figures)


if __name__ == "__main__":
    main()
