"""Lists over HTTP, in generations, in a running program, and by command."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from origin_support.archive import Archive, serving
from smtpfeeds_aggregator.classification.lists.in_use import ListSource
from smtpfeeds_aggregator.classification.lists.refresh import Outcome, directory_of, refresh
from smtpfeeds_aggregator.classification.lists.table import ListTable
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.errors import ListsError

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SHODAN = "/cidr/shodan_v4.txt"
MISP = "/misp/lists/shodan-scanning/list.json"


def text_list(*hosts: int) -> bytes:
    return "".join(f"8.8.8.{host}\n" for host in hosts).encode()


def misp_list(*entries: str, version: int = 20261120) -> bytes:
    return json.dumps({"type": "cidr", "version": version, "list": entries}).encode()


@pytest.fixture
def archive() -> Iterator[Archive]:
    with serving() as archive:
        archive.files[SHODAN] = text_list(*range(30))
        archive.files[MISP] = misp_list("9.9.9.0/28")
        yield archive


@pytest.fixture
def config(archive: Archive, tmp_path: Path) -> AggregatorSettings:
    return AggregatorSettings(
        lists_dir=str(tmp_path / "lists"),
        lists_packaged=False,
        lists_urls=(archive.root + SHODAN, archive.root + MISP),
    )


def listed(table: ListTable, address: str) -> list[str]:
    return [match.list.name for match in table.find(pack_address(address))]


def loaded(config: AggregatorSettings) -> ListTable:
    source = ListSource(config)
    source.load()
    return source.current


def again(config: AggregatorSettings, days: int = 0, **more: Any) -> Outcome:
    return refresh(config, now=NOW + timedelta(days=days), **more)


def test_lists_are_fetched_and_put_in_use(config: AggregatorSettings) -> None:
    outcome = again(config)
    assert (outcome.unchanged, outcome.lists, outcome.entries) == (False, 2, 31)
    table = loaded(config)
    assert table.generation == outcome.generation
    assert listed(table, "8.8.8.7") == ["shodan_v4"]
    assert listed(table, "9.9.9.7") == ["shodan-scanning"]
    days = {each.name: each.day.isoformat() for each in table.lists}
    assert days == {"shodan_v4": "2026-11-25", "shodan-scanning": "2026-11-20"}


def test_unchanged_list_is_not_sent_again(config: AggregatorSettings, archive: Archive) -> None:
    first = again(config)
    archive.sent.clear()
    second = again(config, days=1)
    assert (second.unchanged, second.generation) == (True, first.generation)
    assert archive.sent == [0, 0], "both answered 304"
    assert loaded(config).lists[1].day.isoformat() == "2026-11-25"


def test_refused_list_stays_as_it_was_and_the_others_go_on(
    config: AggregatorSettings, archive: Archive
) -> None:
    again(config)
    archive.files[SHODAN] = b"<html>Sorry</html>\n"
    archive.files[MISP] = misp_list("9.9.9.0/27", version=20261124)
    outcome = again(config, days=1)
    assert list(outcome.refused) == [archive.root + SHODAN]
    table = loaded(config)
    assert listed(table, "8.8.8.7") == ["shodan_v4"]
    assert listed(table, "9.9.9.31") == ["shodan-scanning"]
    status = directory_of(config.lists_dir).status()
    assert "HTML" in status["refused"][archive.root + SHODAN]
    archive.files[SHODAN] = text_list(1)
    assert again(config, days=2).refused == {}
    assert directory_of(config.lists_dir).status()["refused"] == {}


def test_growth_needs_force(config: AggregatorSettings, archive: Archive) -> None:
    again(config)
    archive.files[SHODAN] = "".join(f"8.9.{n >> 8}.{n & 255}\n" for n in range(1001)).encode()
    assert "--force" in next(iter(again(config, days=1).refused.values()))
    assert again(config, days=1, force=True).entries == 1002


def test_failure_of_all_archives_is_retried_sooner(
    config: AggregatorSettings, archive: Archive
) -> None:
    again(config)
    before = loaded(config).generation
    archive.files.clear()
    with pytest.raises(ListsError, match="no source of lists answers"):
        again(config, days=1)
    assert loaded(config).generation == before
    status = directory_of(config.lists_dir).status()
    assert (status["failures"], "404" in status["last_failure"]["reason"]) == (1, True)
    again(config, days=1, fetch=False)
    assert directory_of(config.lists_dir).status()["failures"] == 1, "its own schedule"


def test_rolled_back_lists_are_not_taken_again_unless_forced(
    config: AggregatorSettings, archive: Archive
) -> None:
    first = again(config)
    archive.files[SHODAN] = text_list(200)
    second = again(config, days=1)
    directory = directory_of(config.lists_dir)
    assert directory.roll_back().name == first.generation
    assert listed(loaded(config), "8.8.8.7") == ["shodan_v4"]
    with pytest.raises(ListsError, match="rolled back"):
        again(config, days=1)
    assert again(config, days=1, force=True).generation == second.generation
    assert directory.roll_back().name == first.generation
    with pytest.raises(ListsError, match="no older set of lists"):
        directory.roll_back()


def test_packaged_lists_are_in_use_before_anything_is_fetched(tmp_path: Path) -> None:
    table = loaded(AggregatorSettings(lists_dir=str(tmp_path / "lists")))
    assert len(table.lists) > 25
    assert not (tmp_path / "lists").exists()


def test_previous_generation_is_used_if_the_current_one_is_damaged(
    config: AggregatorSettings, archive: Archive
) -> None:
    first = again(config)
    archive.files[SHODAN] = text_list(200)
    again(config, days=1)
    current = directory_of(config.lists_dir).current()
    assert current is not None
    (current.path / "lists.json").write_text("{}")
    assert loaded(config).generation == first.generation


def test_running_program_uses_a_new_generation(
    config: AggregatorSettings, archive: Archive
) -> None:
    again(config)
    source = ListSource(config)
    source.load()
    held = source.current
    assert source.look_again() is False
    archive.files[SHODAN] = text_list(200)
    again(config, days=1)
    assert source.look_again() is True
    assert listed(source.current, "8.8.8.200") == ["shodan_v4"]
    assert listed(held, "8.8.8.7") == ["shodan_v4"], "who holds the old table keeps it whole"


def test_running_program_refreshes_on_its_schedule(config: AggregatorSettings) -> None:
    source = ListSource(config)
    source.load()
    at = datetime.now(UTC)
    assert source.refresh_if_due(now=at) is False
    assert source.refresh_if_due(now=at + timedelta(minutes=2)) is True
    assert listed(source.current, "8.8.8.7") == ["shodan_v4"]
    assert source.refresh_if_due(now=at + timedelta(minutes=3)) is False


@pytest.mark.parametrize("kept", [True, False])
def test_changed_file_of_an_operator_is_used_unless_it_is_bad(tmp_path: Path, kept: bool) -> None:
    """With a directory the list becomes a generation, without one it is in memory."""
    own = tmp_path / "ours.txt"
    own.write_text("8.8.8.8\n")
    config = AggregatorSettings(
        lists_packaged=False,
        lists_files=(str(own),),
        lists_dir=str(tmp_path / "lists") if kept else "",
    )
    source = ListSource(config)
    source.load()
    assert listed(source.current, "8.8.8.8") == ["ours"]
    source.look_again()
    own.write_text("8.8.8.8\n9.9.9.9\n")
    assert source.look_again() is True
    assert listed(source.current, "9.9.9.9") == ["ours"]
    own.write_text("<html>\n")
    source.look_again()
    source.look_again()
    assert listed(source.current, "9.9.9.9") == ["ours"]
    assert source.look_again() is False
    own.write_text("8.8.4.4\n")
    assert source.look_again() is True
    assert listed(source.current, "8.8.4.4") == ["ours"]


def test_bad_file_of_an_operator_is_refused_at_the_start(tmp_path: Path) -> None:
    own = tmp_path / "ours.txt"
    own.write_text("8.0.0.0/8\n")
    with pytest.raises(ListsError, match=r"ours\.txt: 8\.0\.0\.0/8 is wider"):
        loaded(AggregatorSettings(lists_files=(str(own),)))


def test_stop_ends_a_refresh(config: AggregatorSettings) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(ListsError, match="stopped"):
        again(config, stop=stop)


def cli(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "smtpfeeds_common.cli", "lists", *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_commands_show_refresh_roll_back_and_look_up(
    config: AggregatorSettings, archive: Archive, tmp_path: Path
) -> None:
    settings = tmp_path / "aggregator.toml"
    settings.write_text(
        f'lists_dir = "{config.lists_dir}"\nlists_packaged = false\n'
        f"lists_urls = {json.dumps(config.lists_urls)}\n"
    )
    where = ("--config", str(settings))
    assert cli("status", *where).returncode == 1
    done = cli("refresh", *where)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(": 2 lists, 31 entries\n")
    archive.files[SHODAN] = text_list(200)
    refreshed = json.loads(cli("refresh", "--format", "json", "--quiet", *where).stdout)
    assert (refreshed["entries"], refreshed["unchanged"]) == (2, False)
    status = json.loads(cli("status", "--format", "json", *where).stdout)
    assert status["generation"] == refreshed["generation"]
    assert {each["list"]: each["entries"] for each in status["lists"]} == {
        "shodan-scanning": 1,
        "shodan_v4": 1,
    }
    rows = json.loads(cli("lookup", "8.8.8.200", "9.9.9.3", "--format", "json", *where).stdout)
    assert [(row["address"], row["actor"], row["prefix"]) for row in rows] == [
        ("8.8.8.200", "shodan", "8.8.8.200/32"),
        ("9.9.9.3", "shodan", "9.9.9.0/28"),
    ]
    piped = cli("lookup", "-", "--format", "ndjson", *where, text="8.8.8.200\nnonsense\n1.1.1.1\n")
    assert json.loads(piped.stdout)["list"] == "shodan_v4"
    assert "nonsense" in piped.stderr
    assert cli("lookup", "1.1.1.1", *where).returncode == 1
    assert cli("lookup", "nonsense", *where).returncode == 2
    back = json.loads(cli("rollback", "--format", "json", *where).stdout)
    assert (back["entries"], back["generation"]) == (31, status["older_generations"][0])
    assert "shodan_v4" in cli("status", *where).stdout
    assert cli("rollback", "--config", "/dev/null").returncode == 2
