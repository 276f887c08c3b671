"""A whole refresh, over loopback and from files, and the ways in which it can fail.

The module is long because all failures need the same archive, settings and table in use.
"""

import bz2
import gzip
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from origin_support import mrt
from origin_support.archive import BEFORE, RIB_PATH, Archive, serving
from origin_support.world import (
    NOW,
    broken_ribs,
    names_text,
    packed_rib,
    rows,
    settings,
    table_text,
)
from smtpfeeds_aggregator.datasets.child_process import ChildProgram
from smtpfeeds_aggregator.origin import OriginSource, OriginTable
from smtpfeeds_aggregator.origin.acquire.refresh import Outcome, refresh, schedule_of
from smtpfeeds_aggregator.origin.generation import directory_of
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_common.errors import OriginError
from smtpfeeds_common.times import iso_utc

TESTS = Path(__file__).parents[1]
ODD = {
    "empty-aspath", "no-aspath", "aspath-starts-with-set", "all-private-path",
    "addpath-subtype", "multicast-subtype", "generic-subtype",
}  # fmt: skip
BROKEN = broken_ribs()
RIB = packed_rib(rows())
#: The same Internet a day later: a few prefixes more.
LATER = packed_rib([*rows(), ("95.1.0.0/16", 77), ("95.2.0.0/16", 78)])


@pytest.fixture
def archive() -> Iterator[Archive]:
    with serving() as server:
        server.files[RIB_PATH] = RIB
        server.files["/asn.txt"] = names_text().encode()
        yield server


@pytest.fixture
def config(tmp_path: Path, archive: Archive) -> AggregatorSettings:
    return networked(tmp_path, archive)


@pytest.fixture(scope="session")
def first_generation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a table in use, made once."""
    base = tmp_path_factory.mktemp("made")
    (base / "rib.20261121.0600.bz2").write_bytes(RIB)
    (base / "asn.txt").write_text(names_text())
    refresh(settings(base / "origins"), source=base, now=NOW - timedelta(hours=1))
    return base / "origins"


@pytest.fixture
def in_use(config: AggregatorSettings, first_generation: Path) -> AggregatorSettings:
    """Settings with a table in use, and a newer RIB in the archive."""
    shutil.copytree(first_generation, config.origin_dir, symlinks=True)
    return config


def networked(tmp_path: Path, archive: Archive, **changes: Any) -> AggregatorSettings:
    urls = {"origin_rib_urls": (archive.base,), "origin_names_urls": (archive.root + "/asn.txt",)}
    return settings(tmp_path / "origins", **(urls | changes))


def again(config: AggregatorSettings, **arguments: Any) -> Outcome:
    return refresh(config, now=NOW, **arguments)


def loaded(config: AggregatorSettings) -> OriginTable:
    source = OriginSource(config)
    source.load()
    return source.current


def packed(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


PROBES = [packed(p.partition("/")[0]) for p, _ in rows()[:80]] + [packed("16.0.5.5")]


def answers(config: AggregatorSettings) -> tuple[str, list[int | None]]:
    table = loaded(config)
    return table.generation, table.lookup_many(PROBES)


def failure(config: AggregatorSettings) -> str:
    return str(directory_of(config.origin_dir).status()["last_failure"]["reason"])


def test_a_rib_is_fetched_converted_checked_and_in_use(
    config: AggregatorSettings, archive: Archive
) -> None:
    progress: list[str] = []
    outcome = again(config, progress=progress.append)
    table = loaded(config)
    assert table.generation == outcome.generation
    assert (table.info.prefixes_ipv4, table.info.prefixes_ipv6) == (399, 121)
    assert table.info.source == archive.base + "/2026.11/RIBS/rib.20261122.0600.bz2"
    assert table.info.table_time is not None
    assert table.info.table_time.timestamp() == mrt.AT
    assert table.lookup(packed("16.0.9.9")) == 3333
    assert table.prefix(packed("16.0.9.9")) == "16.0.0.0/16"
    assert table.lookup(packed("2400:100::5")) == 15169
    assert table.lookup(packed("9.9.9.9")) is None
    assert table.name(77) == "NET77 - Network 77, Inc."
    assert table.names([77, 78, 19_999]) == {
        77: "NET77 - Network 77, Inc.",
        78: "NET78 - Network 78, Inc.",
    }
    assert any("writing the table" in line for line in progress)
    agents = {headers["User-Agent"] for _, headers in archive.requests}
    assert len(agents) == 1
    assert next(iter(agents)).startswith("smtpfeeds/")


def test_previous_month_is_used_if_the_newest_is_empty(
    config: AggregatorSettings, archive: Archive
) -> None:
    archive.files = {
        RIB_PATH.replace("2026.11", BEFORE).replace("20261122", "20261031"): RIB,
        "/asn.txt": archive.files["/asn.txt"],
    }
    assert "2026.10/RIBS/rib.20261031" in again(config).manifest["source"]


def test_the_same_rib_is_not_fetched_twice(config: AggregatorSettings, archive: Archive) -> None:
    first = again(config)
    archive.sent.clear()
    second = again(config)
    assert (second.unchanged, second.generation) == (True, first.generation)
    assert sum(archive.sent) < 1000, "a listing and a 304"
    assert "If-None-Match" in archive.requests[-1][1]


def test_a_new_rib_of_the_same_prefixes_changes_nothing(
    config: AggregatorSettings, archive: Archive
) -> None:
    first = again(config)
    archive.files[RIB_PATH.replace("0600", "0800")] = bz2.compress(mrt.dump(rows(), mrt.AT + 7200))
    second = again(config)
    assert (second.unchanged, second.generation) == (True, first.generation)


@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_a_broken_rib_leaves_the_table_in_use_and_its_reason(
    in_use: AggregatorSettings, archive: Archive, kind: str
) -> None:
    config = in_use
    before = answers(config)
    archive.files[RIB_PATH] = BROKEN[kind]
    with pytest.raises(OriginError) as refused:
        again(config)
    assert answers(config) == before
    assert failure(config) == refused.value.message
    assert "rib.20261122" in refused.value.message
    assert leftovers(config) == []


@pytest.mark.parametrize("kind", sorted(ODD))
def test_single_odd_records_can_be_allowed_and_then_are_counted(
    tmp_path: Path, archive: Archive, kind: str
) -> None:
    archive.files[RIB_PATH] = BROKEN[kind]
    outcome = again(networked(tmp_path, archive, origin_max_bad_records=1))
    assert outcome.manifest["conversion"]["bad_records"] == 1
    assert outcome.manifest["prefixes4"] == 399


def test_rib_of_which_nothing_can_be_read_says_how_many_records_and_why(tmp_path: Path) -> None:
    """A collector with ADD-PATH, also where so many bad records are allowed."""
    source = tmp_path / "rib.20261122.0600.bz2"
    paths = [mrt.segment(mrt.SEQUENCE, [3356, 15169])]
    addpath = b"".join(mrt.rib(f"16.{n}.0.0/16", paths, subtype=8) for n in range(7))
    no_path = mrt.rib("17.0.0.0/16", [None])
    source.write_bytes(bz2.compress(mrt.peer_index() + addpath + no_path))
    for allowed in (0, 1000):
        with pytest.raises(OriginError) as caught:
            refresh(
                settings(tmp_path / "origins", origin_max_bad_records=allowed),
                source=source,
                now=NOW,
            )
        assert (
            "8 records could not be read (7 of subtype 8 (RIB_IPV4_UNICAST_ADDPATH), which pyasn "
            "does not read, 1 without an AS path that gives an origin; the first is record 2)"
        ) in caught.value.message
    assert "has no usable prefix: 0 records were read" in caught.value.message


def test_ribs_of_ripe_ris_are_found_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mirror" / "rrc00" / "2026.11"
    folder.mkdir(parents=True)
    old = rows()[:-5]
    (folder / "bview.20261121.0000.gz").write_bytes(gzip.compress(mrt.dump(old)))
    (folder / "bview.20261122.0800.gz").write_bytes(gzip.compress(mrt.dump(rows())))
    (tmp_path / "mirror" / "rib.20261120.0600.bz2").write_bytes(packed_rib(old))
    outcome = refresh(settings(tmp_path / "origins"), source=tmp_path / "mirror", now=NOW)
    assert outcome.manifest["source"] == str(folder / "bview.20261122.0800.gz")


@pytest.mark.parametrize(
    ("mode", "word"),
    [
        ("half", "ended after"),
        ("too-long", "damaged"),
        ("html", "HTML"),
        ("redirect-loop", "loop"),
        ("redirect-away", "is not https"),
        ("redirect-file", "redirects"),
        ("error", "503"),
        ("stall", "stalled"),
        ("reset", "reset"),
        ("garbage", "could not be fetched"),
    ],
)
def test_a_misbehaving_server_leaves_the_table_in_use_and_its_reason(
    in_use: AggregatorSettings, archive: Archive, mode: str, word: str
) -> None:
    config = in_use
    before = answers(config)
    archive.files[RIB_PATH] = LATER
    archive.mode = mode
    with pytest.raises(OriginError, match=word):
        again(replace(config, origin_stall_timeout_s=1) if mode == "stall" else config)
    assert answers(config) == before
    assert word in failure(config)
    if mode in {"half", "reset"}:  # after the archive is repaired, the refresh succeeds
        archive.mode = "well"
        assert not again(config).unchanged


def test_endless_response_is_ended_by_time_and_by_size(tmp_path: Path, archive: Archive) -> None:
    config = networked(tmp_path, archive, origin_max_download_bytes=1_000_000)
    archive.mode = "drip"
    with pytest.raises(OriginError, match="longer than 2 s"):
        again(replace(config, origin_fetch_timeout_s=2))
    archive.mode = "endless"
    with pytest.raises(OriginError, match="exceeds the 1000000 bytes"):
        again(config)


def test_the_body_of_a_redirect_is_not_read(in_use: AggregatorSettings, archive: Archive) -> None:
    """It would be read into memory, and its length has no bound."""
    archive.files[RIB_PATH] = LATER
    archive.mode = "redirect-long"
    archive.sent.clear()
    with pytest.raises(OriginError, match="redirects in a loop"):
        again(in_use)
    assert sum(archive.sent) < 128 << 20, "the rest is in the kernel's buffers"


def test_interrupted_fetch_continues_where_it_ended(
    config: AggregatorSettings, archive: Archive
) -> None:
    archive.mode = "half"
    with pytest.raises(OriginError, match="the next fetch continues there"):
        again(config)
    archive.mode = "well"
    archive.sent.clear()
    again(config)
    assert "Range" in next(h for path, h in archive.requests[::-1] if path == RIB_PATH)
    assert len(RIB) - len(RIB) // 2 in archive.sent
    assert loaded(config).info.prefixes_ipv4 == 399


def test_rib_that_changed_meanwhile_is_fetched_from_the_beginning(
    config: AggregatorSettings, archive: Archive
) -> None:
    archive.mode = "half"
    with pytest.raises(OriginError):
        again(config)
    archive.mode = "well"
    archive.files[RIB_PATH] = LATER
    assert again(config).manifest["prefixes4"] == 401


def test_archives_are_tried_in_turn(tmp_path: Path, archive: Archive) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}/x"
    config = networked(tmp_path, archive, origin_rib_urls=(nowhere, archive.base))
    assert archive.base in again(config).manifest["source"]
    with pytest.raises(OriginError, match="refused"):
        again(networked(tmp_path, archive, origin_rib_urls=(nowhere,)))


@pytest.mark.parametrize(
    "bad", [b"<html>\nno\n</html>\n", b"1 ONE, US\n", names_text().encode()[:-9], b"", None]
)
def test_next_list_of_names_is_used_if_one_is_bad(
    tmp_path: Path, archive: Archive, bad: bytes | None
) -> None:
    if bad is not None:
        archive.files["/bad.txt"] = bad
    urls = (archive.root + "/bad.txt", archive.root + "/asn.txt")
    outcome = again(networked(tmp_path, archive, origin_names_urls=urls))
    assert (outcome.manifest["names"], outcome.manifest["names_source"]) == (500, urls[1])


def test_table_is_refreshed_without_a_usable_list_of_names(
    in_use: AggregatorSettings, archive: Archive
) -> None:
    config = in_use
    archive.files |= {RIB_PATH: LATER, "/asn.txt": b"<html>down</html>"}
    outcome = again(config)
    assert not outcome.unchanged
    assert loaded(config).name(77) == "NET77 - Network 77, Inc."


def test_failed_checks_refuse_a_table_unless_forced(
    in_use: AggregatorSettings, archive: Archive
) -> None:
    config = in_use
    before = answers(config)
    archive.files[RIB_PATH] = packed_rib(rows(200, 60, seed=2))
    with pytest.raises(OriginError, match="IPv4 prefixes, fewer than 300") as refused:
        again(config)
    assert "--force" in refused.value.message
    assert answers(config) == before
    outcome = again(config, force=True)
    assert loaded(config).generation == outcome.generation
    assert outcome.overridden
    assert outcome.manifest["overridden"] == outcome.overridden


def test_moved_origins_refuse_a_table(in_use: AggregatorSettings, archive: Archive) -> None:
    config = in_use
    moved = [(p, asn if asn in {3333, 15169} else asn + 7) for p, asn in rows()]
    archive.files[RIB_PATH] = packed_rib(moved)
    with pytest.raises(OriginError, match="another origin"):
        again(config)


def test_rollback_uses_the_previous_table_until_forced(
    config: AggregatorSettings, archive: Archive
) -> None:
    first = again(config)
    archive.files[RIB_PATH] = LATER
    second = refresh(config, now=NOW + timedelta(seconds=1))
    assert loaded(config).generation == second.generation
    assert directory_of(config.origin_dir).roll_back().name == first.generation
    assert loaded(config).generation == first.generation
    with pytest.raises(OriginError, match="rolled back"):
        refresh(config, now=NOW + timedelta(seconds=2))
    assert loaded(config).generation == first.generation
    refresh(config, now=NOW + timedelta(seconds=3), force=True)
    assert loaded(config).generation == second.generation
    directory_of(config.origin_dir).roll_back()
    with pytest.raises(OriginError, match="no older"):
        directory_of(config.origin_dir).roll_back()


def test_three_generations_are_kept(tmp_path: Path) -> None:
    config = settings(tmp_path / "origins")
    generations = []
    for number in range(5):
        table = tmp_path / "table.dat"
        table.write_text(table_text([*rows(), ("95.0.0.0/16", 100 + number)]))
        os.utime(table, (NOW.timestamp(), NOW.timestamp()))
        generations.append(
            refresh(config, source=table, now=NOW + timedelta(seconds=number)).generation
        )
    directory = directory_of(config.origin_dir)
    assert [generation.name for generation in directory.others()] == generations[3:1:-1]
    assert len(list((tmp_path / "origins" / "generations").iterdir())) == 3


def test_directory_is_filled_without_the_internet(tmp_path: Path) -> None:
    tree = tmp_path / "mirror" / "2026.11" / "RIBS"
    tree.mkdir(parents=True)
    (tree / "rib.20261121.0600.bz2").write_bytes(BROKEN["truncated"])
    (tree / "rib.20261122.0600.bz2").write_bytes(RIB)
    (tmp_path / "mirror" / "asn.txt").write_text(names_text())
    config = settings(tmp_path / "origins", origin_rib_urls=("http://127.0.0.1:1/",))
    outcome = again(config, source=tmp_path / "mirror")
    assert outcome.manifest["source"] == str(tree / "rib.20261122.0600.bz2")
    assert outcome.manifest["names"] == 500
    for nothing in (tmp_path / "origins" / "incoming", tmp_path / "missing"):
        with pytest.raises(OriginError, match=str(nothing)):
            again(config, source=nothing)
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "t.dat.gz").write_bytes(gzip.compress(table_text(rows()).encode()))
    os.utime(tmp_path / "flat" / "t.dat.gz", (NOW.timestamp(), NOW.timestamp()))
    assert again(config, source=tmp_path / "flat").unchanged, "the same prefixes, names kept"


def test_import_by_hand_does_not_change_the_schedule(
    in_use: AggregatorSettings, archive: Archive, tmp_path: Path
) -> None:
    """Neither a mistyped path nor a table from a file changes the time of the next fetch."""
    archive.files[RIB_PATH] = b"broken"
    with pytest.raises(OriginError):
        refresh(in_use, now=NOW)
    directory = directory_of(in_use.origin_dir)
    before = directory.status()
    assert (before["failures"], before["last_attempt"]) == (1, iso_utc(NOW))
    due = schedule_of(in_use).next_refresh(before, NOW)
    later = NOW + timedelta(minutes=10)
    with pytest.raises(OriginError, match="nope"):
        refresh(in_use, source=tmp_path / "nope", now=later)
    assert "nope" in failure(in_use)
    (tmp_path / "rib.bz2").write_bytes(RIB)
    refresh(in_use, source=tmp_path / "rib.bz2", now=later)
    after = directory.status()
    assert after["last_success"] == iso_utc(later)
    assert (after["failures"], after["last_attempt"]) == (1, iso_utc(NOW))
    assert schedule_of(in_use).next_refresh(after, NOW) == due


def test_refusal_on_a_private_network_names_the_setting(tmp_path: Path) -> None:
    table = tmp_path / "private.dat"
    table.write_text(table_text([("10.1.0.0/16", 64512), ("10.2.0.0/16", 4200000000)]))
    config = settings(tmp_path / "origins")
    with pytest.raises(OriginError, match="set origin_allow_reserved = true"):
        refresh(config, source=table, now=NOW)


def test_one_refresh_at_a_time(config: AggregatorSettings) -> None:
    with (
        directory_of(config.origin_dir).locked(),
        pytest.raises(OriginError, match="another refresh"),
    ):
        again(config)


def test_directory_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = settings(tmp_path / "file" / "origins")
    with pytest.raises(OriginError, match="origin_dir"):
        again(config, source=tmp_path)


def test_stop_ends_a_refresh_at_once(in_use: AggregatorSettings, archive: Archive) -> None:
    config = in_use
    before = answers(config)
    archive.mode = "drip"
    archive.files[RIB_PATH] = LATER
    stop = threading.Event()
    threading.Timer(0.7, stop.set).start()
    with pytest.raises(OriginError, match="stopped"):
        again(config, stop=stop)
    assert answers(config) == before


def leftovers(config: AggregatorSettings) -> list[str]:
    incoming = Path(config.origin_dir) / "incoming"
    return [path.name for path in incoming.iterdir() if path.is_dir()]


@pytest.mark.parametrize("limit", [100, 3_000, 6_000, 30_000])
def test_a_full_disk_leaves_the_table_in_use(
    in_use: AggregatorSettings, archive: Archive, limit: int
) -> None:
    """With a limit on file sizes, the fetched file, the table or the index does not fit."""
    config = in_use
    before = answers(config)
    archive.files[RIB_PATH] = LATER
    archive.files["/asn.txt"] = names_text(5000).encode()
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, was[1]))
    try:
        with pytest.raises(OriginError, match=r"File too large|cannot"):
            again(config, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
    assert answers(config) == before
    assert leftovers(config) == []
    assert not again(config).unchanged


KILLED = """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    from origin_support.world import NOW, settings
    from smtpfeeds_aggregator.datasets import directory, generations
    from smtpfeeds_aggregator.datasets.child_process import ChildProgram
    from smtpfeeds_aggregator.origin.acquire import refresh
    left = [{step}]
    def dies(function):
        def counted(*args, **kwargs):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return counted
    generations.os.fsync = dies(generations.os.fsync)
    directory.write_json = dies(directory.write_json)
    ChildProgram.run = dies(ChildProgram.run)
    for name in ("rename", "replace", "symlink_to"):
        setattr(Path, name, dies(getattr(Path, name)))
    config = settings(Path({directory!r}))
    refresh.refresh(config, source=Path({source!r}), now=NOW)
    print("whole")
"""


def test_kill_9_at_each_step_leaves_a_complete_table_in_use(
    tmp_path: Path, first_generation: Path
) -> None:
    """The process dies once at each child, sync, rename and link."""
    source = tmp_path / "rib.20261122.0600.bz2"
    before = answers(settings(first_generation))
    source.write_bytes(LATER)
    generations, whole, step = set(), False, 0
    while not whole:
        step += 1
        assert step < 40
        directory = tmp_path / "origins"
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(first_generation, directory, symlinks=True)
        script = KILLED.format(
            tests=str(TESTS), step=step, directory=str(directory), source=str(source)
        )
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            capture_output=True,
            text=True,
            check=False,
        )
        whole = "whole" in done.stdout
        assert whole or done.returncode == -signal.SIGKILL, done.stderr
        config = settings(directory)
        generation, origins = answers(config)
        generations.add(generation)
        assert origins == before[1]
        if step % 6 == 0:  # and the next refresh succeeds
            refresh(config, source=source, now=NOW + timedelta(seconds=1))
            assert leftovers(config) == []
    assert len(generations) == 2
    assert step > 10


def test_a_child_that_dies_leaves_the_table_in_use(
    in_use: AggregatorSettings, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child is killed, as the kernel kills one that uses too much memory."""
    config = in_use
    before = answers(config)
    archive.files[RIB_PATH] = LATER
    real = subprocess.Popen

    def killed(command: list[str], **options: Any) -> Any:
        child = real(command, **options)
        if "convert" in command:
            child.kill()
        return child

    monkeypatch.setattr(subprocess, "Popen", killed)
    with pytest.raises(OriginError, match="-9"):
        again(config)
    assert answers(config) == before


def test_children_run_with_their_checks_under_python_o(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyasn's reader checks by `assert`: -O and PYTHONOPTIMIZE must not reach it."""
    source = tmp_path / "rib.20261122.0600.bz2"
    source.write_bytes(BROKEN["addpath-subtype"])
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    monkeypatch.setenv("SMTPFEEDS_AGGREGATOR_ORIGIN_MAX_BAD_RECORDS", "0")
    done = subprocess.run(
        [
            *(sys.executable, "-OO", "-m", "smtpfeeds_common.cli", "origin", "refresh"),
            *("--origin-dir", str(tmp_path / "origins"), "--from", str(source)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "1 records could not be read" in done.stderr
    child = subprocess.run(
        [sys.executable, "-O", "-m", "smtpfeeds_aggregator.origin.child", "convert", "{}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONOPTIMIZE": ""},
    )
    assert json.loads(child.stdout)["error"].startswith("python -O")


def test_damaged_index_is_compiled_again_or_the_previous_table_is_used(
    config: AggregatorSettings, archive: Archive
) -> None:
    first = again(config)
    archive.files[RIB_PATH] = LATER
    second = refresh(config, now=NOW + timedelta(seconds=1))
    current = Path(config.origin_dir) / "current"
    index = bytearray((current / "origin.index").read_bytes())
    index[5000] ^= 1
    (current / "origin.index").write_bytes(index)
    assert loaded(config).generation == second.generation, "made again from its table"
    assert loaded(config).lookup(packed("95.1.2.3")) == 77
    assert loaded(config).name(77) == "NET77 - Network 77, Inc."
    (current / "table.dat.gz").write_bytes(b"damaged")
    assert loaded(config).generation == first.generation
    assert loaded(config).lookup(packed("95.1.2.3")) is None


def test_archive_without_updates_is_logged_once_the_table_is_old(
    in_use: AggregatorSettings, archive: Archive
) -> None:
    again(in_use)
    with pytest.raises(OriginError, match="nothing newer"):
        refresh(in_use, now=NOW + timedelta(days=20))
    assert "still updated" in failure(in_use)


def test_partial_files_of_other_ribs_are_deleted(
    config: AggregatorSettings, archive: Archive
) -> None:
    archive.mode = "half"
    with pytest.raises(OriginError):
        again(config)
    archive.files[RIB_PATH.replace("0600", "0800")] = LATER
    again(config)
    assert list((Path(config.origin_dir) / "incoming").glob("fetched-*")) == []


def test_a_child_ends_with_its_parent() -> None:
    """This holds if the parent is killed, because its end of the pipe is closed."""
    arguments = {"url": "http://127.0.0.1:1/", "target": "/nowhere"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        arguments["url"] = f"http://127.0.0.1:{server.getsockname()[1]}/"
        more = {"user_agent": "test", "max_bytes": 10, "stall_s": 60}
        command = [sys.executable, "-m", "smtpfeeds_aggregator.origin.child", "fetch"]
        child = subprocess.Popen(
            [*command, json.dumps(arguments | more)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        connection, _ = server.accept()
        with connection:
            assert child.stdin is not None
            child.stdin.close()
            assert child.wait(60) == 3


def test_child_that_closes_its_output_and_continues_is_ended_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "silent.py").write_text(
        "import os, time\nos.close(1)\nos.close(2)\ntime.sleep(600)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    program = ChildProgram("silent", "origin table", OriginError)
    with pytest.raises(OriginError, match="longer than 1 s: the process was ended"):
        program.run("build", {}, timeout_s=1)


def test_two_generations_of_one_second_keep_their_order(tmp_path: Path) -> None:
    config = settings(tmp_path / "origins")
    table = tmp_path / "table.dat"
    generations = []
    for number in range(3):
        table.write_text(table_text([*rows(), ("95.0.0.0/16", 100 + number // 2)]))
        os.utime(table, (NOW.timestamp(), NOW.timestamp()))
        generations.append(again(config, source=table, force=True).generation)
    directory = directory_of(config.origin_dir)
    assert len(list((tmp_path / "origins" / "generations").iterdir())) == 3
    assert loaded(config).generation == generations[2]
    assert [generation.name for generation in directory.others()] == generations[1::-1]
