"""Where each list comes from, and what happens if a place fails."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from smtpfeeds_aggregator.classification.lists.model import AddressList
from smtpfeeds_aggregator.classification.lists.sources import (
    Fetch,
    Place,
    Reader,
    Source,
    State,
    read_lists,
    sources_of,
    write_lists,
)
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_common.errors import DatasetError, ListsError, SettingsError

TODAY = date(2026, 11, 25)
YESTERDAY = TODAY - timedelta(days=1)


class Archive:
    """Answers URLs: with content, an error, or nothing new for a known tag."""

    def __init__(self, **content: bytes) -> None:
        self.content = content
        self.asked: list[str] = []

    def fetch(self, url: str, known: Mapping[str, str]) -> tuple[bytes | None, dict[str, str]]:
        self.asked.append(url)
        raw = self.content.get(url.rpartition("/")[2])
        if raw is None:
            raise DatasetError(f"{url}: the server answers 404 Not Found")
        tag = str(hash(raw))
        return (None, {}) if known.get("etag") == tag else (raw, {"etag": tag})


def read(
    *sources: Source,
    fetch: Fetch | None = None,
    before: State | None = None,
    today: date = TODAY,
    force: bool = False,
) -> State:
    known = {each.name: each for each in before.lists} if before else {}
    return Reader(known, today, fetch=fetch, force=force).read(sources)


def from_url(name: str, archive: str = "https://a.example") -> Source:
    return Source(name, (Place("url", f"{archive}/{name}", archive),))


def only(state: State) -> AddressList:
    (one,) = state.lists
    return one


def test_packaged_lists_are_used_without_settings() -> None:
    state = read(*sources_of(AggregatorSettings()))
    actors = {each.actor for each in state.lists}
    assert {"shodan", "censys", "shadowserver", "smtp-sending-ips"} <= actors
    assert state.refused == {}
    by_name = {each.name: each for each in state.lists}
    dated, serial = by_name["google-gmail-sending-ips"], by_name["shodan-scanning"]
    assert (dated.day_from, serial.day_from) == ("version", "package")
    assert serial.day == max(each.day for each in state.lists), "as old as the package"
    assert serial.source.startswith("pymispwarninglists ")
    assert read(*sources_of(AggregatorSettings(lists_packaged=False))).lists == []


def test_fetched_list_is_used_and_the_packaged_one_if_fetching_fails() -> None:
    config = AggregatorSettings(lists_dir="/x", lists_misp_url="https://misp.example/lists/")
    (source,) = [each for each in sources_of(config) if each.name == "shodan-scanning"]
    assert [place.how for place in source.places] == ["url", "package"]
    newer = json.dumps({"type": "cidr", "version": 20261120, "list": ["8.8.8.8"]}).encode()
    archive = Archive(**{"list.json": newer})
    fetched = read(source, fetch=archive.fetch)
    assert (only(fetched).day, only(fetched).day_from) == (date(2026, 11, 20), "version")
    assert only(fetched).source == "https://misp.example/lists/shodan-scanning/list.json"
    failed = read(source, fetch=Archive().fetch)
    assert only(failed).source.startswith("pymispwarninglists ")
    assert "404" in failed.refused["https://misp.example/lists/shodan-scanning/list.json"]


def test_fetched_list_stays_if_a_later_fetch_fails_or_is_skipped() -> None:
    source = from_url("a_v4")
    first = read(source, fetch=Archive(a_v4=b"8.8.8.8\n").fetch, today=YESTERDAY)
    failed = read(source, fetch=Archive().fetch, before=first)
    assert only(failed).prefixes == only(first).prefixes
    assert "404" in only(failed).refused
    assert only(failed).day == YESTERDAY, "it ages all the same"
    offline = read(source, before=first)
    assert (offline.lists, offline.refused) == (first.lists, {})
    assert offline.generation == first.generation
    healed = read(source, fetch=Archive(a_v4=b"8.8.8.8\n").fetch, before=failed)
    assert only(healed).refused == ""


def test_list_without_a_date_is_as_old_as_its_last_change() -> None:
    source = from_url("a_v4")
    first = read(source, fetch=Archive(a_v4=b"8.8.8.8\n").fetch, today=YESTERDAY)
    assert (only(first).day, only(first).day_from) == (YESTERDAY, "changed")
    same = read(source, fetch=Archive(a_v4=b"8.8.8.8\n").fetch, before=first)
    assert only(same).day == YESTERDAY
    # Another tag for the same content is not a change.
    stripped = State([AddressList.from_json({**only(first).as_json(), "fetched": {
        "sha256": dict(only(first).fetched)["sha256"], "etag": "other"}})])  # fmt: skip
    again = read(source, fetch=Archive(a_v4=b"8.8.8.8\n").fetch, before=stripped)
    assert only(again).day == YESTERDAY
    changed = read(source, fetch=Archive(a_v4=b"8.8.8.9\n").fetch, before=first)
    assert only(changed).day == TODAY


@pytest.mark.parametrize("bad", [b"<html>\n", b"8.8.8.8", b"10.0.0.1\n", b"8.0.0.0/8\n", b""])
def test_bad_version_of_a_list_affects_only_that_list(bad: bytes) -> None:
    sources = [from_url("a_v4"), from_url("b_v4")]
    many = "".join(f"8.8.8.{n}\n" for n in range(30)).encode()
    first = read(*sources, fetch=Archive(a_v4=many, b_v4=b"9.9.9.9\n").fetch)
    state = read(*sources, fetch=Archive(a_v4=bad, b_v4=b"9.9.9.8\n").fetch, before=first)
    a, b = state.lists
    assert (a.prefixes, bool(a.refused)) == (first.lists[0].prefixes, True)
    assert [str(prefix) for prefix in b.prefixes] == ["9.9.9.8/32"]
    assert list(state.refused) == ["https://a.example/a_v4"]


def test_archive_that_fails_repeatedly_is_not_asked_for_other_lists() -> None:
    archive = Archive()
    sources = [from_url(f"l{n}_v4") for n in range(9)]
    other = Source("z", (Place("url", "https://b.example/z", "https://b.example"),))
    archive.content = {"z": b"8.8.8.8\n"}
    state = read(*sources, other, fetch=archive.fetch)
    assert len(archive.asked) == 3 + 1
    assert state.refused["https://a.example"].endswith("6 further lists are not tried")
    assert len(state.refused) == 4
    assert (only(state).name, state.answered) == ("z", 1)


def test_single_missing_list_does_not_stop_the_archive() -> None:
    archive = Archive(**{f"l{n}_v4": b"8.8.8.8\n" for n in range(0, 9, 2)})
    state = read(*(from_url(f"l{n}_v4") for n in range(9)), fetch=archive.fetch)
    assert (len(state.lists), len(state.refused)) == (5, 4)


def test_file_of_the_operator_has_precedence(tmp_path: Path) -> None:
    own = tmp_path / "shodan-scanning.txt"
    own.write_text("# actor: us\n# home: example.org\n# date: 2026-11-01\n8.8.8.8\n")
    config = AggregatorSettings(lists_files=(str(own),))
    state = read(*sources_of(config))
    (one,) = [each for each in state.lists if each.name == "shodan-scanning"]
    assert (one.actor, one.home, one.day, one.day_from) == (
        "us", "example.org", date(2026, 11, 1), "stated",
    )  # fmt: skip
    own.write_text("# kind: mailer\n8.8.8.8\n")
    os.utime(own, (0, datetime(2026, 10, 5, 12, tzinfo=UTC).timestamp()))
    (one,) = [each for each in read(*sources_of(config)).lists if each.name == "shodan-scanning"]
    assert (one.kind, one.actor) == ("mailer", "shodan-scanning")
    assert (one.day, one.day_from) == (date(2026, 10, 5), "changed")


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="two files have the name own"):
        sources_of(AggregatorSettings(lists_files=("/a/own.txt", "/b/own.json")))
    with pytest.raises(SettingsError, match="lists_dir"):
        sources_of(AggregatorSettings(lists_urls=("https://example.org/x.txt",)))


def test_last_part_of_a_url_is_the_name_of_the_list() -> None:
    config = AggregatorSettings(
        lists_dir="/x",
        lists_packaged=False,
        lists_urls=("https://example.org/lists/own/list.json", "https://example.org/more.txt?x=1"),
    )
    assert [source.name for source in sources_of(config)] == ["more", "own"]


def test_generation_name_follows_from_the_lists(tmp_path: Path) -> None:
    source = from_url("a_v4")
    first = read(source, fetch=Archive(a_v4=b"8.8.8.8\n8.8.8.9\n").fetch)
    same = read(source, fetch=Archive(a_v4=b"8.8.8.9\n8.8.8.8\n# x\n").fetch)
    other = read(source, fetch=Archive(a_v4=b"8.8.8.8\n").fetch)
    assert first.generation == same.generation != other.generation
    write_lists(first, tmp_path / "lists.json")
    assert list(read_lists(tmp_path / "lists.json")) == first.lists
    (tmp_path / "lists.json").write_text('{"lists": [{}]}')
    with pytest.raises(ListsError, match=r"lists\.json"):
        read_lists(tmp_path / "lists.json")


def test_source_is_unchanged_in_a_child_process() -> None:
    config = AggregatorSettings(lists_dir="/x", lists_openfilters_url="https://example.org/cidr")
    sources = sources_of(config)
    assert [Source.from_json(json.loads(json.dumps(s.as_json()))) for s in sources] == sources
