"""STIX, Zeek, addresses and JSON are readable for their consumers, whatever the name of an AS."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import pytest

from publish_support import NOW, Seen, frame_of, hostile_rows, rows_of
from smtpfeeds_aggregator.publish import documents
from smtpfeeds_aggregator.publish.documents import write_documents
from smtpfeeds_aggregator.publish.formats import stix
from smtpfeeds_aggregator.publish.stopping import go_on
from smtpfeeds_common.behaviours import Flags
from smtpfeeds_common.errors import PublishError

ALL = ("stix", "json", "intel", "addresses")
GUESSER = Flags.AUTH | Flags.UNOFFERED
SEEN = [*hostile_rows(), Seen("192.0.2.250", 64496, flags=GUESSER, hits=2_000_000_000)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, SEEN)
    return tmp_path


def write(
    folder: Path, seen: list[Seen], formats: tuple[str, ...] = ALL, **frame: Any
) -> dict[str, str]:
    about = replace(frame_of("smtpgreet"), **frame)
    documents, too_large = write_documents(
        folder, rows_of("smtpgreet", seen), about, formats, go_on
    )
    assert sorted(file.name for file in documents) == sorted(path.name for path in folder.iterdir())
    return too_large


def bundle(folder: Path) -> list[dict[str, Any]]:
    objects: list[dict[str, Any]] = json.loads((folder / "smtpgreet.stix.json").read_text())[
        "objects"
    ]
    return objects


def observed(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return observations by address."""
    by_id = {each["id"]: each for each in objects}
    return {
        by_id[each["object_refs"][0]]["value"]: each
        for each in objects
        if each["type"] == "observed-data"
    }


def test_setting_selects_the_documents(folder: Path, tmp_path_factory: Any) -> None:
    for path in folder.glob("*.gz"):
        assert gzip.decompress(path.read_bytes()) == path.with_suffix("").read_bytes()
    one = tmp_path_factory.mktemp("one")
    write(one, SEEN, ("txt", "intel"))
    assert {path.name for path in one.iterdir()} == {"smtpgreet.intel", "smtpgreet.intel.gz"}
    empty = tmp_path_factory.mktemp("empty")
    write(empty, [])
    assert [each["type"] for each in bundle(empty)] == ["identity", "marking-definition"]
    assert json.loads((empty / "smtpgreet.json").read_text())["rows"] == []


def test_stix_has_observations_and_no_indicators(folder: Path) -> None:
    objects = bundle(folder)
    kinds = {each["type"] for each in objects}
    assert kinds == {
        *("observed-data", "ipv4-addr", "ipv6-addr", "autonomous-system"),
        *("identity", "marking-definition"),
    }
    assert len({each["id"] for each in objects}) == len(objects)
    observables = observed(objects)
    assert len(observables) == len(SEEN)
    guesser = observables["192.0.2.250"]
    assert guesser["labels"] == ["smtpgreet", "password-guess"]
    assert guesser["number_observed"] == 999_999_999
    assert guesser["created"] == "2026-11-23T00:00:00.000Z"
    assert guesser["modified"] == "2026-11-23T10:58:30.000Z"
    assert guesser["last_observed"] == "2026-11-23T10:58:30Z"
    assert min(each["number_observed"] for each in observables.values()) >= 1
    known = {each["id"] for each in objects}
    for each in observables.values():
        assert {*each["object_refs"], each["created_by_ref"]} <= known
        assert each["object_marking_refs"] == [
            "marking-definition--94868c89-83c2-464b-929b-a1a8aa3c8487"
        ]


def test_stix_identifier_follows_from_publisher_feed_address_and_day(
    folder: Path, tmp_path_factory: Any
) -> None:
    """`created` stays for one identifier, and an address has the standard identifier of STIX."""
    before = observed(bundle(folder))["192.0.2.250"]

    def again(name: str, seen: Seen, **frame: Any) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp(name)
        write(folder, [seen], ("stix",), **frame)
        return observed(bundle(folder))["192.0.2.250"]

    address = Seen("192.0.2.250", last_seen=NOW - timedelta(hours=2))
    same_day = again("same", address, generated=NOW + timedelta(hours=5))
    assert (same_day["id"], same_day["created"]) == (before["id"], before["created"])
    assert same_day["modified"] != before["modified"]
    earlier = again("earlier", replace(address, last_seen=NOW - timedelta(days=1)))
    assert earlier["created"] == "2026-11-22T00:00:00.000Z"
    others = [earlier, again("other", address, publisher="Somebody Else")]
    assert len({before["id"], *(each["id"] for each in others)}) == 3
    namespace = UUID("00abedb4-aa42-466c-9c01-fed23315a9b7")
    own = "ipv4-addr--" + str(uuid5(namespace, '{"value":"192.0.2.250"}'))
    assert before["object_refs"][0] == own


def test_stix_has_each_origin_once_whatever_the_chunks(
    folder: Path, tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "_CHUNK_ROWS", 3)
    cut = tmp_path_factory.mktemp("cut")
    write(cut, SEEN)
    for path in folder.iterdir():
        assert (cut / path.name).read_bytes() == path.read_bytes()


def test_stix_is_not_written_if_it_would_be_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(documents._DOCUMENTS, "stix", (stix, len(SEEN) - 1))
    assert write(tmp_path, SEEN, ("stix",)) == {
        "smtpgreet.stix.json": f"{len(SEEN)} entries; it is written up to {len(SEEN) - 1}"
    }


def test_zeek_reads_the_fields_that_it_names(folder: Path) -> None:
    """Zeek's ASCII reader expects a first line of names, tabs, and all fields in each line."""
    lines = (folder / "smtpgreet.intel").read_text(encoding="ascii").splitlines()
    names = lines[0].split("\t")
    assert names[0] == "#fields"
    rows = [
        dict(zip(names[1:], line.split("\t"), strict=True))
        for line in lines
        if not line.startswith("#")
    ]
    assert len(rows) == len(SEEN)
    for row in rows:
        assert str(ip_address(row["indicator"])) == row["indicator"]
        assert row["indicator_type"] == "Intel::ADDR"
        assert row["meta.do_notice"] == "F"
        assert row["meta.source"] == "smtpgreet"


def test_addresses_file_has_three_classes_and_a_warning(folder: Path) -> None:
    text = (folder / "smtpgreet-addresses.txt").read_text(encoding="ascii")
    rows = [line for line in text.splitlines() if not line.startswith("#")]
    assert rows == ["192.0.2.250"]
    assert "not a block list" in text
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert "192.0.2" not in "".join(comments)


def test_json_has_the_rows_of_the_ndjson(folder: Path) -> None:
    document = json.loads((folder / "smtpgreet.json").read_text())
    assert document["feed"] == "smtpgreet"
    assert document["generated"] == "2026-11-23T10:59:30Z"
    assert len(document["rows"]) == len(SEEN)
    assert {row["category"] for row in document["rows"]} == {"smtpgreet"}


@pytest.mark.parametrize("publisher", ['a "quoted" \\ name', "Zürich 🐻", "\x00\n"])
def test_settings_cannot_break_a_document(tmp_path: Path, publisher: str) -> None:
    write(tmp_path, SEEN, ALL, publisher=publisher, contact=publisher)
    names = [each["name"] for each in bundle(tmp_path) if each["type"] == "identity"]
    assert names == [publisher]


@pytest.mark.parametrize("form", ALL)
def test_damaged_document_is_not_published(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file has one row more than was written, or a truncated row."""
    document = documents._DOCUMENTS[form][0]
    real = document.rows
    monkeypatch.setattr(document, "rows", lambda *given: [*real(*given), "cut"])
    with pytest.raises(PublishError, match=f"smtpgreet{document.SUFFIX}"):
        write(tmp_path, SEEN, (form,))
