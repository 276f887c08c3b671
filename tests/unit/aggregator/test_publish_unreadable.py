"""What was published before and cannot be read does not count as removed: publishing fails."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from smtpfeeds_aggregator.publish import archive, misp_feed
from smtpfeeds_aggregator.publish.generation import FeedsDirectory
from smtpfeeds_aggregator.publish.withdrawn import Withdrawn

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def unreadable(path: Path) -> None:
    """Put a link to itself there, which nobody can read, not even root."""
    path.parent.mkdir(parents=True)
    path.symlink_to(path.name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "new"
    folder.mkdir()
    return folder


def test_archive_does_not_begin_again_if_its_index_cannot_be_read(
    tmp_path: Path, folder: Path
) -> None:
    before = tmp_path / "before"
    unreadable(before / archive.INDEX)
    with pytest.raises(OSError, match="symbolic links"):
        archive.write_archive(
            folder,
            before,
            [],
            NOW,
            days=30,
            withdrawn=Withdrawn(tmp_path, []),
            keep_going=lambda: None,
        )


def test_misp_feed_does_not_begin_again_if_its_index_cannot_be_read(
    tmp_path: Path, folder: Path
) -> None:
    before = tmp_path / "before"
    unreadable(before / misp_feed.FOLDER / "index.json")
    with pytest.raises(OSError, match="symbolic links"):
        misp_feed.MispFeed(folder, before, "us", NOW, days=30, withdrawn=Withdrawn(tmp_path, []))


def test_generation_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    generations = tmp_path / "feeds" / "generations"
    unreadable(generations / "20261126T120000Z")
    (tmp_path / "feeds" / "current").symlink_to("generations/20261126T120000Z")
    with pytest.raises(OSError, match="symbolic links"):
        FeedsDirectory(tmp_path).current()


def test_damaged_index_of_the_archive_does_not_stop_a_publication(
    tmp_path: Path, folder: Path
) -> None:
    index = tmp_path / "before" / archive.INDEX
    index.parent.mkdir(parents=True)
    index.write_bytes(b'{"version":1,"days":[{"day":"2026-11-25","generated":"\xff","files":{}}]}')
    archive.write_archive(
        folder,
        tmp_path / "before",
        [],
        NOW,
        days=30,
        withdrawn=Withdrawn(tmp_path, []),
        keep_going=lambda: None,
    )
    assert (folder / archive.INDEX).read_bytes().count(b'"day"') == 1


def test_damaged_note_of_exclusions_means_that_none_is_applied(tmp_path: Path) -> None:
    Withdrawn(tmp_path, ["192.0.2.0/24"]).note()
    note = tmp_path / ".exclusions-applied.json"
    assert not Withdrawn(tmp_path, ["192.0.2.0/24"]).is_new
    note.write_bytes(note.read_bytes().replace(b".", b"\xff"))
    assert Withdrawn(tmp_path, ["192.0.2.0/24"]).is_new
