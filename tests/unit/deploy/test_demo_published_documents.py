"""The demo's check of hashes, changes and archive finds faults in them."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from smtpfeeds_deploy.simulation.ledger import Bracket, Recorded
from smtpfeeds_deploy.simulation.published import PublishedRow, Rows
from smtpfeeds_deploy.simulation.published_documents import folder_disagreements

FEED = "smtpgreet"
ROW = PublishedRow(None, "NA", Recorded(None, Bracket(0, 999), None, None), None, "probe")
FEEDS: dict[str, Rows] = {FEED: {(FEED, "192.0.2.1"): ROW}}


def change(kind: str, address: str, cls: str | None) -> str:
    return json.dumps({"change": kind, "ipaddr": address, "category": FEED, "class": cls}) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    day = tmp_path / "archive" / "2026-11-23"
    day.mkdir(parents=True)
    archived = gzip.compress(json.dumps({"category": FEED, "ipaddr": "192.0.2.1"}).encode() + b"\n")
    (day / f"{FEED}.ndjson.gz").write_bytes(archived)
    files = {f"2026-11-23/{FEED}.ndjson.gz": {"addresses": 1, "feed": FEED}}
    index = {"days": [{"day": "2026-11-23", "files": files}]}
    (tmp_path / "archive" / "index.json").write_text(json.dumps(index))
    write_changes(tmp_path, change("added", "192.0.2.1", "probe") + change("gone", "::1", None))
    (tmp_path / "manifest.json").write_text(json.dumps({"files": {}}))
    write_sums(tmp_path)
    return tmp_path


def write_changes(folder: Path, text: str) -> None:
    (folder / f"{FEED}-changes.ndjson").write_text(text)
    (folder / f"{FEED}-changes.ndjson.gz").write_bytes(gzip.compress(text.encode()))


def write_sums(folder: Path) -> None:
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


def test_good_folder_agrees(folder: Path) -> None:
    assert folder_disagreements(folder, FEEDS) == []


def test_changed_missing_and_additional_files_are_reported(folder: Path) -> None:
    (folder / "archive" / "index.json").write_text('{"days": []}')
    (folder / "manifest.json").unlink()
    (folder / "more").touch()
    (folder / "manifest.json").write_text('{"files": {}} ')
    assert folder_disagreements(folder, FEEDS) == [
        "more: in SHA256SUMS or on disk, not in both",
        "archive/index.json: not what SHA256SUMS says",
        "manifest.json: not what SHA256SUMS says",
        "archive: it has no day",
    ]


@pytest.mark.parametrize(
    ("kind", "address", "cls"),
    [
        ("added", "192.0.2.1", "delivery"),  # another class
        ("added", "192.0.2.2", "probe"),  # not in the feed
        ("gone", "192.0.2.1", None),  # it is in the feed
    ],
)
def test_change_that_the_feed_does_not_show_is_reported(
    folder: Path, kind: str, address: str, cls: str | None
) -> None:
    write_changes(folder, change(kind, address, cls))
    write_sums(folder)
    assert folder_disagreements(folder, FEEDS) == [
        f"{FEED}-changes.ndjson: {kind} {address} disagrees with the feed"
    ]


def test_archived_address_that_the_feed_never_had_is_reported(folder: Path) -> None:
    assert folder_disagreements(folder, {FEED: {}})[-1] == (
        f"archive/2026-11-23/{FEED}.ndjson.gz: 192.0.2.1 is not in the feed"
    )
