"""Origins with real, full-sized tables from the folder that SMTPFEEDS_ASN_DATA names."""

import bz2
import gzip
import os
import random
import shutil
import socket
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

import pytest

from origin_support.archive import serving
from origin_support.world import settings
from smtpfeeds_aggregator.origin import OriginSource, OriginTable
from smtpfeeds_aggregator.origin.acquire.convert import read_source
from smtpfeeds_aggregator.origin.acquire.refresh import refresh
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_common.errors import OriginError

pytestmark = [pytest.mark.large, pytest.mark.timeout(1800)]

KNOWN = {"8.8.8.8": 15169, "1.1.1.1": 13335, "2001:4860:4860::8888": 15169, "193.0.6.139": 3333}
#: A day after the synthetic RIBs.
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def data() -> Path:
    folder = os.environ.get("SMTPFEEDS_ASN_DATA")
    assert folder, "set SMTPFEEDS_ASN_DATA to the folder with the large tables"
    return Path(folder).absolute()


def packed(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def load(data: Path, name: str, *, as_names: str = "") -> OriginTable:
    source = OriginSource(AggregatorSettings(origin_table=str(data / name), as_names=as_names))
    source.load()
    return source.current


@pytest.fixture(scope="module")
def real(data: Path) -> OriginTable:
    return load(data, "ipasn-20260822.dat.gz", as_names=str(data / "asnames-20260715.json.gz"))


def independent(path: Path) -> Iterator[tuple[str, int]]:
    """Read the table's lines without the project's code or pyasn."""
    with gzip.open(path, "rt") as stream:
        for line in stream:
            if line[0] not in ";#\n":
                prefix, asn = line.split("\t")
                yield prefix, int(asn)


def test_random_addresses_agree_with_an_independent_reading(data: Path, real: OriginTable) -> None:
    """10,000 addresses, half of them in known prefixes, are looked up in dicts by prefix length."""
    table: dict[tuple[int, int, int], int] = {}
    starts: list[tuple[int, int]] = []
    for prefix, asn in independent(data / "ipasn-20260822.dat.gz"):
        net = ip_network(prefix)
        table[net.version, int(net.network_address), net.prefixlen] = asn
        starts.append((net.version, int(net.network_address)))
    chance = random.Random(11)
    sample = [(4, chance.getrandbits(32)) for _ in range(3000)]
    sample += [(6, (2 << 124) | chance.getrandbits(124)) for _ in range(2000)]
    sample += [
        (version, number + chance.getrandbits(7 if version == 4 else 70))
        for version, number in chance.sample(starts, 5000)
    ]
    asked = [number.to_bytes(4 if version == 4 else 16) for version, number in sample]
    for (version, number), origins in zip(sample, real.lookup_many(asked), strict=True):
        bits = 32 if version == 4 else 128
        expected = next(
            (
                origin
                for length in range(bits, 0, -1)
                if (
                    origin := table.get(
                        (version, number >> (bits - length) << (bits - length), length)
                    )
                )
            ),
            None,
        )
        assert origins == expected


def test_both_large_tables_know_the_known_answers(data: Path, real: OriginTable) -> None:
    full = load(data, "ipasn-scaled-1300k.dat.gz")
    assert (real.info.prefixes_ipv4, real.info.prefixes_ipv6) == (608_459, 219_474)
    assert (full.info.prefixes_ipv4, full.info.prefixes_ipv6) == (1_050_000, 250_000)
    for text, asn in KNOWN.items():
        assert (real.lookup(packed(text)), full.lookup(packed(text))) == (asn, asn)
    assert real.name(15169) == "Google"
    starts = sorted(int.from_bytes(packed(p.partition("/")[0])) for p, _ in independent(
        data / "ipasn-20260822.dat.gz") if ":" not in p)  # fmt: skip
    assert bisect_right(starts, 1 << 31) > 1000


@pytest.mark.parametrize(
    ("name", "ipv4", "ipv6"),
    [
        ("rib.routeviews-20140523-part.bz2", 2998, 0),
        ("rib.routeviews4-20151101-part.bz2", 0, 2999),
        ("rib.small.bz2", 1528, 550),
    ],
)
def test_ribs_convert_to_exactly_their_prefixes(
    data: Path, name: str, ipv4: int, ipv6: int
) -> None:
    """The result has as many prefixes as pyasn's own conversion, with the same origins."""
    from pyasn import mrtx

    path = data / "mrt" / name
    converted = read_source(path, max_bytes=1 << 40, progress=lambda _: None)
    mine = {
        f"{ip_network((start, length))}": asn
        for table in (converted.ipv4, converted.ipv6)
        for start, length, asn in table
        if length
    }
    theirs = {
        str(ip_network(prefix)): min(origin) if isinstance(origin, set) else origin
        for prefix, origin in mrtx.parse_mrt_file(str(path)).items()
    }
    assert mine == theirs
    assert (sum(":" not in p for p in mine), sum(":" in p for p in mine)) == (ipv4, ipv6)
    assert converted.bad == 0


def small_settings(tmp_path: Path, **changes: object) -> AggregatorSettings:
    return settings(
        tmp_path / "origins",
        **{
            "origin_min_prefixes_ipv4": 1000,
            "origin_min_prefixes_ipv6": 400,
            "origin_known_answers": (),
            **changes,
        },
    )


def test_the_archive_with_an_empty_newest_month_serves_a_table(data: Path, tmp_path: Path) -> None:
    with serving() as archive:
        for path in (data / "mrt" / "www").rglob("rib.*"):
            archive.files["/" + str(path.relative_to(data / "mrt" / "www"))] = path.read_bytes()
        archive.files["/asn.txt"] = gzip.decompress((data / "asn-20221111.txt.gz").read_bytes())
        outcome = refresh(
            small_settings(
                tmp_path,
                origin_rib_urls=(archive.base,),
                origin_names_urls=(archive.root + "/asn.txt",),
                origin_max_age_days=300,
            ),
            now=datetime(2026, 9, 3, tzinfo=UTC),
        )
    assert outcome.manifest["source"].endswith("2026.08/RIBS/rib.20260822.0600.bz2")
    assert outcome.manifest["names"] > 109_000
    conversion = outcome.manifest["conversion"]
    assert (conversion["read4"], conversion["read6"]) == (1528, 550)


def test_each_of_the_broken_ribs_leaves_the_table_in_use(data: Path, tmp_path: Path) -> None:
    config = small_settings(tmp_path)
    source = tmp_path / "rib.20260101.0600.bz2"
    shutil.copyfile(data / "mrt" / "rib.small.bz2", source)
    refresh(config, source=source, now=NOW)
    running = OriginSource(config)
    running.load()
    sample = [packed("198.18.3.1"), *(bytes([n, 1, 2, 3]) for n in range(256))]
    before = running.current.generation, running.current.lookup_many(sample)
    kinds = sorted((data / "mrt" / "bad").iterdir())
    assert len(kinds) == 16
    for path in kinds:
        with pytest.raises(OriginError, match=path.name):
            refresh(config, source=path, now=NOW)
        running.look_again()
        fresh = OriginSource(config)
        fresh.load()
        for current in (running.current, fresh.current):
            assert (current.generation, current.lookup_many(sample)) == before


def test_a_full_rib_is_refreshed_within_its_bounds(data: Path, tmp_path: Path) -> None:
    """Bounds and known answers are the defaults; only the clock is set to the RIB's time."""
    config = AggregatorSettings(
        origin_dir=str(tmp_path / "origins"), as_names=str(data / "asnames-20260715.json.gz")
    )
    outcome = refresh(config, source=data / "mrt" / "rib.full-1peer-1300k.gz", now=NOW)
    assert outcome.overridden == ()
    conversion = outcome.manifest["conversion"]
    assert (conversion["read4"], conversion["read6"]) == (1_050_000, 250_000)
    shrunk = bz2.decompress((data / "mrt" / "rib.small.bz2").read_bytes())
    (tmp_path / "rib.20260101.0800").write_bytes(shrunk)
    with pytest.raises(OriginError, match="fewer than"):
        refresh(config, source=tmp_path / "rib.20260101.0800", now=NOW)


def test_twenty_swaps_between_full_tables_under_load(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every batch of look-ups agrees with one generation; the test prints their times."""
    config = AggregatorSettings(origin_dir=str(tmp_path / "origins"))
    generations = [
        refresh(config, source=data / name, force=True).generation
        for name in ("ipasn-20260822.dat.gz", "ipasn-scaled-1300k.dat.gz")
    ]
    source = OriginSource(config)
    source.load()
    current = tmp_path / "origins" / "current"
    links = [path.name for path in sorted((tmp_path / "origins" / "generations").iterdir())]
    chance = random.Random(12)
    batch = [chance.randbytes(4) for _ in range(4000)] + [
        b"\x2a\x02" + chance.randbytes(14) for _ in range(1000)
    ]
    answers: dict[str, list[int | None]] = {}
    spent: list[float] = []
    wrong: list[str] = []
    stop = threading.Event()

    def ingest() -> None:
        while not stop.is_set():
            begun = time.perf_counter()
            table = source.current
            origins = table.lookup_many(batch)
            spent.append(time.perf_counter() - begun)
            if answers.setdefault(table.generation, origins) != origins:
                wrong.append(table.generation)

    worker = threading.Thread(target=ingest)
    worker.start()
    try:
        for number in range(20):
            aside = current.with_name("aside")
            aside.symlink_to(f"generations/{links[number % 2]}")
            aside.rename(current)
            assert source.look_again() is True
    finally:
        stop.set()
        worker.join()
    assert wrong == []
    assert set(answers) == set(generations)
    spent.sort()
    with capsys.disabled():
        print(
            f"\n{len(spent)} batches of 5,000: median {spent[len(spent) // 2] * 1000:.1f} ms, "
            f"99 % {spent[len(spent) * 99 // 100] * 1000:.1f} ms, longest {spent[-1] * 1000:.1f} ms"
        )
