"""The table of a running program is noticed, swapped and kept; commands run beside it."""

import json
import logging
import re
import shutil
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from origin_support.archive import RIB_PATH, serving
from origin_support.world import KNOWN, names_text, packed_rib, rows, settings, table_text
from servers.processes import HANG_LIMIT_S, wait_until
from smtpfeeds_aggregator.origin import OriginSource, OriginTable
from smtpfeeds_aggregator.origin.acquire.refresh import refresh
from smtpfeeds_aggregator.origin.generation import directory_of
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_common.errors import OriginError, SettingsError

ONE = table_text(rows())
#: The same prefixes, every origin another one.
TWO = table_text([(prefix, asn + 40_000) for prefix, asn in rows()])
PROBES = [
    socket.inet_pton(socket.AF_INET6 if ":" in p else socket.AF_INET, p.partition("/")[0])
    for p, _ in rows()
]


def files(tmp_path: Path, text: str = ONE, **changes: object) -> AggregatorSettings:
    (tmp_path / "table.dat").write_text(text)
    (tmp_path / "asn.txt").write_text(names_text())
    return AggregatorSettings(
        origin_table=str(tmp_path / "table.dat"),
        as_names=str(tmp_path / "asn.txt"),
        **changes,  # type: ignore[arg-type]
    )


def put(path: Path, text: str) -> None:
    """Replace a file by a rename."""
    aside = path.with_name("aside")
    aside.write_text(text)
    aside.replace(path)


def errors(caplog: pytest.LogCaptureFixture) -> int:
    """Count the logged errors, independently of a level that another test has set."""
    return sum(record.levelno >= logging.ERROR for record in caplog.records)


def test_without_a_table_no_origin_is_known() -> None:
    source = OriginSource(AggregatorSettings())
    source.load()
    table = source.current
    assert table.lookup_many([b"\x08\x08\x08\x08", bytes(16)]) == [None, None]
    assert (table.name(15169), table.prefix(bytes(4)), table.generation) == (None, None, "none")
    assert table.info.prefixes == 0
    assert source.look_again() is False


def test_a_plain_table_and_names_are_loaded(tmp_path: Path) -> None:
    source = OriginSource(files(tmp_path))
    source.load()
    assert source.current.lookup(socket.inet_aton("16.0.1.1")) == 3333
    assert source.current.name(77) == "NET77 - Network 77, Inc."
    again = OriginSource(files(tmp_path))
    again.load()
    assert again.current.generation == source.current.generation, "same content, same name"


@pytest.mark.parametrize("wrong", ["missing", "folder", "empty", "comments", "cut", "names"])
def test_unusable_file_stops_the_start_and_is_named(tmp_path: Path, wrong: str) -> None:
    config = files(tmp_path)
    table = tmp_path / "table.dat"
    if wrong == "missing":
        table.unlink()
    elif wrong == "folder":
        table.unlink()
        table.mkdir()
    elif wrong == "names":
        (tmp_path / "asn.txt").write_text("<html>\n")
    else:
        table.write_text({"empty": "", "comments": "; a\n# b\n", "cut": ONE[:-1]}[wrong])
    with pytest.raises(OriginError, match=str(tmp_path)):
        OriginSource(config).load()


def test_changed_table_is_used_and_a_bad_one_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = OriginSource(files(tmp_path))
    source.load()
    first = source.current
    assert source.look_again() is False
    put(tmp_path / "table.dat", TWO)
    assert source.look_again() is True
    assert source.current.lookup(socket.inet_aton("16.0.1.1")) == 43_333
    assert first.lookup(socket.inet_aton("16.0.1.1")) == 3333, "who holds the old one keeps it"
    put(tmp_path / "table.dat", ONE[:-5])
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        assert [source.look_again() for _ in range(3)] == [False] * 3
    assert errors(caplog) == 1
    (tmp_path / "table.dat").unlink()
    caplog.clear()
    assert [source.look_again() for _ in range(3)] == [False] * 3
    assert errors(caplog) == 1
    assert source.current.lookup(socket.inet_aton("16.0.1.1")) == 43_333
    put(tmp_path / "table.dat", ONE)
    assert source.look_again() is True


def test_twenty_swaps_under_load_and_each_batch_agrees_with_one_generation(
    tmp_path: Path,
) -> None:
    source = OriginSource(files(tmp_path, origin_watch_s=1))
    source.load()
    by_generation = {source.current.generation: source.current.lookup_many(PROBES)}
    stop, swapped = threading.Event(), threading.Event()
    disagreed: list[str] = []
    counts = [0, 0]

    def ingest(worker: int) -> None:
        while not stop.is_set():
            table = source.current
            origins = table.lookup_many(PROBES)
            expected = by_generation.setdefault(table.generation, origins)
            if origins != expected or table.lookup_many(PROBES) != expected:
                disagreed.append(table.generation)
            counts[worker] += 1

    workers = [threading.Thread(target=ingest, args=(n,)) for n in range(2)]
    for worker in workers:
        worker.start()
    try:
        for swap in range(20):
            put(tmp_path / "table.dat", TWO if swap % 2 == 0 else ONE)
            assert source.look_again() is True
            swapped.set()
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert disagreed == []
    assert len(by_generation) == 2
    assert min(counts) > 20


def test_run_notices_new_tables_until_it_is_stopped(tmp_path: Path) -> None:
    source = OriginSource(files(tmp_path, origin_watch_s=1))
    source.load()
    before = source.current.generation
    stop = threading.Event()
    thread = threading.Thread(target=source.run, args=(stop,))
    thread.start()
    put(tmp_path / "table.dat", TWO)
    try:
        wait_until(lambda: source.current.generation != before, what="the new table is in use")
    finally:
        stop.set()
        thread.join(HANG_LIMIT_S)
    assert not thread.is_alive()


def test_program_starts_with_an_empty_directory_and_uses_its_first_table(tmp_path: Path) -> None:
    config = settings(tmp_path / "origins")
    source = OriginSource(config)
    source.load()
    assert source.current.generation == "none"
    table = tmp_path / "t.dat"
    table.write_text(ONE)
    outcome = refresh(config, source=table)
    assert source.look_again() is True
    assert source.current.generation == outcome.generation


def test_schedule_refreshes_once_and_keeps_the_reason_of_a_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving() as archive:
        archive.files[RIB_PATH] = packed_rib(rows())
        config = settings(
            tmp_path / "origins", origin_rib_urls=(archive.base,), origin_refresh_jitter_s=0
        )
        source = OriginSource(config)
        now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
        source._begun = now - timedelta(minutes=5)
        assert source.refresh_if_due(now=now) is True
        assert source.current.info.prefixes_ipv4 == 399
        assert source.refresh_if_due(now=now + timedelta(hours=1)) is False
        archive.mode = "error"
        archive.files[RIB_PATH] = packed_rib(rows(420))
        with caplog.at_level(logging.ERROR):
            assert source.refresh_if_due(now=now + timedelta(days=1)) is True
        assert "503" in directory_of(str(tmp_path / "origins")).status()["last_failure"]["reason"]
        assert errors(caplog) == 1
        assert source.current.info.prefixes_ipv4 == 399


def test_a_wrong_known_answer_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="ADDRESS=ASN"):
        OriginSource(settings(tmp_path, origin_known_answers=("x",)))


@pytest.fixture(scope="module")
def origins_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("cli")
    (base / "rib.20261122.0600.bz2").write_bytes(packed_rib(rows()))
    (base / "asn.txt").write_text(names_text())
    refresh(settings(base / "origins"), source=base, now=datetime(2026, 11, 23, tzinfo=UTC))
    return base


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the commands of the child processes that are started."""
    started: list[str] = []
    real = subprocess.Popen

    def noted(command: list[str], **options: Any) -> Any:
        started.append(command[-2])
        return real(command, **options)

    monkeypatch.setattr(subprocess, "Popen", noted)
    return started


def loaded(config: AggregatorSettings) -> OriginTable:
    source = OriginSource(config)
    source.load()
    return source.current


def test_kept_index_is_used_while_table_and_names_are_the_same(
    tmp_path: Path, children: list[str]
) -> None:
    config = files(tmp_path, origin_index_dir=str(tmp_path / "index"))
    first, second = loaded(config), loaded(config)
    assert children == ["compile"]
    assert (second.generation, second.info) == (first.generation, first.info)
    assert second.lookup_many(PROBES) == first.lookup_many(PROBES)
    put(tmp_path / "table.dat", TWO)
    third = loaded(config)
    assert children == ["compile", "compile"]
    assert third.lookup(PROBES[0]) == (first.lookup(PROBES[0]) or 0) + 40_000
    (kept,) = (tmp_path / "index").iterdir()
    assert kept.name.startswith(third.generation)
    assert first.lookup(PROBES[0]) == rows()[0][1], "a table in use outlives its file"


def test_damaged_index_is_compiled_again(tmp_path: Path, children: list[str]) -> None:
    config = files(tmp_path, origin_index_dir=str(tmp_path / "index"))
    answers = loaded(config).lookup_many(PROBES)
    (kept,) = (tmp_path / "index").iterdir()
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 0xFF
    kept.write_bytes(content)
    assert loaded(config).lookup_many(PROBES) == answers
    assert children == ["compile", "compile"]
    assert loaded(config).lookup_many(PROBES) == answers
    assert children == ["compile", "compile"]


def test_index_that_cannot_be_kept_is_compiled_in_memory(
    tmp_path: Path, children: list[str]
) -> None:
    (tmp_path / "index").write_text("a file, not a folder")
    config = files(tmp_path, origin_index_dir=str(tmp_path / "index"))
    assert loaded(config).lookup(PROBES[0]) == rows()[0][1]
    assert loaded(config).lookup(PROBES[0]) == rows()[0][1]
    assert children == ["compile", "compile"]


def test_failed_compilation_keeps_nothing(tmp_path: Path) -> None:
    config = files(tmp_path, "no table\n", origin_index_dir=str(tmp_path / "index"))
    with pytest.raises(OriginError):
        loaded(config)
    assert list((tmp_path / "index").iterdir()) == []


def cli(*arguments: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "smtpfeeds_common.cli", "origin", *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_lookup_prints_asn_prefix_name_and_generation(origins_folder: Path) -> None:
    where = ["--origin-dir", str(origins_folder / "origins")]
    done = cli(
        "lookup", *where, "16.0.5.5", "::ffff:16.0.5.5", "9.9.9.9", "2400:100::1", "--format", "tsv"
    )
    names, *lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert names == ["address", "asn", "prefix", "name", "generation"]
    assert done.returncode == 0
    assert [line[:3] for line in lines] == [
        ["16.0.5.5", "3333", "16.0.0.0/16"],
        ["16.0.5.5", "3333", "16.0.0.0/16"],
        ["9.9.9.9", "NA", "NA"],
        ["2400:100::1", "15169", "2400:100::/32"],
    ]
    listed = json.loads(cli("lookup", *where, "16.0.5.5", "--json").stdout)
    assert listed[0].keys() == {"address", "asn", "prefix", "name", "generation"}
    assert listed[0]["generation"] == lines[0][4]


def test_lookup_without_an_origin_exits_1_and_wrong_use_2(origins_folder: Path) -> None:
    where = ["--origin-dir", str(origins_folder / "origins")]
    unknown = cli("lookup", *where, "9.9.9.9")
    assert (unknown.returncode, unknown.stderr) == (1, "no origin is known\n")
    assert cli("lookup", *where).returncode == 2
    assert cli("lookup", *where, "--format", "xml", "1.1.1.1").returncode == 2
    nowhere = cli("lookup", "1.1.1.1")
    assert nowhere.returncode == 2
    assert "origin_dir" in nowhere.stderr
    odd = cli("lookup", *where, "192.0.2.300", "example.net", "--json")
    assert (odd.returncode, odd.stdout) == (2, "[]\n")
    assert "'example.net' is not an IPv4 or IPv6 address" in odd.stderr
    assert cli("lookup", *where, "192.0.2.300", "16.0.5.5").returncode == 0
    assert cli("lookup", *where, "192.0.2.300", "9.9.9.9").returncode == 1
    gone = cli("lookup", "--origin-table", str(origins_folder / "gone"), "16.0.5.5")
    assert gone.returncode == 3


def test_folder_of_a_single_host_names_the_table(origins_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "aggregator.toml").write_text(f'origin_dir = "{origins_folder / "origins"}"\n')
    done = cli("lookup", "--dir", str(tmp_path), "16.0.5.5")
    assert done.stdout.splitlines()[1].split()[:2] == ["16.0.5.5", "3333"]
    twice = cli("status", "--dir", str(tmp_path), "--config", str(tmp_path / "aggregator.toml"))
    assert twice.returncode == 2
    other = cli("status", "--dir", str(origins_folder))
    assert (other.returncode, "it has no aggregator.toml" in other.stderr) == (2, True)


def test_lookup_from_a_pipe_skips_lines_that_are_not_addresses(origins_folder: Path) -> None:
    lines = ["16.0.0.1", "", "rubbish", "\x00", "x" * 500, "é", "16.0.0.2 ", "fe80::1%eth0"]
    done = cli(
        "lookup", "--origin-dir", str(origins_folder / "origins"), "--format", "ndjson", "-",
        text="\n".join(lines) + "\n",
    )  # fmt: skip
    assert [json.loads(line)["address"] for line in done.stdout.splitlines()] == [
        "16.0.0.1", "16.0.0.2",
    ]  # fmt: skip
    assert "rubbish" in done.stderr


def test_twenty_thousand_addresses_are_looked_up_from_a_pipe(origins_folder: Path) -> None:
    text = "".join(f"16.0.{n // 256 % 256}.{n % 256}\n" for n in range(20_000))
    done = cli(
        "lookup", "--origin-dir", str(origins_folder / "origins"), "-", "--format", "tsv", text=text
    )
    assert done.stdout.count("\t3333\t") == 20_000


def test_status_refresh_and_rollback_by_command(origins_folder: Path, tmp_path: Path) -> None:
    directory = tmp_path / "origins"
    shutil.copytree(origins_folder / "origins", directory, symlinks=True)
    config = tmp_path / "aggregator.toml"
    config.write_text(
        f'origin_dir = "{directory}"\n'
        "origin_min_prefixes_ipv4 = 300\norigin_min_prefixes_ipv6 = 100\n"
        f"origin_min_origins = 300\norigin_known_answers = {list(KNOWN)}\n"
    )
    given = ["--config", str(config)]
    before = json.loads(cli("status", *given, "--json").stdout)
    assert (before["prefixes_ipv4"], before["prefixes_ipv6"]) == (399, 121)
    table = tmp_path / "t.dat"
    table.write_text(table_text([*rows(), ("95.0.0.0/16", 5)]))
    done = cli("refresh", *given, "--from", str(table))
    assert done.returncode == 0
    assert "400 IPv4 and 121 IPv6 prefixes" in done.stdout
    assert re.search(r", of \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", done.stdout)
    assert "compiling" in done.stderr
    table.write_text(table_text(rows(100, 10)))
    refused = cli("refresh", *given, "--from", str(table))
    assert refused.returncode == 3
    assert "fewer than 300" in refused.stderr
    shown = cli("status", *given)
    assert "fewer than 300" in shown.stdout
    assert before["generation"] in shown.stdout, "the older one"
    assert "in use again" in cli("rollback", *given).stdout
    assert json.loads(cli("status", *given, "--json").stdout)["generation"] == before["generation"]


def test_commands_work_for_an_ordinary_user_who_may_only_read(origins_folder: Path) -> None:
    directory = origins_folder / "origins"
    for path in [*directory.rglob("*"), directory]:
        if not path.is_symlink():
            assert path.stat().st_mode & 0o004, path
