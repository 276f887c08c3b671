"""Files are read back after they were written: every octet on disk must be right."""

import gzip
import hashlib
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import IO

import pytest

from publish_support import hostile_rows, make_feed
from smtpfeeds_aggregator.publish import generation_writer
from smtpfeeds_aggregator.publish import written as written_module
from smtpfeeds_aggregator.publish.check import check_feed
from smtpfeeds_aggregator.publish.files import FeedFile
from smtpfeeds_aggregator.publish.generation_writer import read_back
from smtpfeeds_aggregator.publish.stopping import KeepGoing, PublishStopped, go_on
from smtpfeeds_aggregator.publish.unchanged import share_unchanged
from smtpfeeds_aggregator.publish.written import (
    PlainAndCompressed,
    Written,
    check_written,
    write_checked,
    write_whole,
)
from smtpfeeds_common.errors import PublishError

TEXT = "".join(f"192.0.2.{number} row of a feed\n" for number in range(200))


def write(folder: Path) -> list[Written]:
    with PlainAndCompressed(folder, "some.txt") as output:
        for line in TEXT.splitlines(keepends=True):
            output.write(line.encode())
    return output.written("smtpgreet", 200)


def flip(path: Path, at: int, mask: int = 0x01) -> None:
    octets = bytearray(path.read_bytes())
    octets[at] ^= mask
    path.write_bytes(octets)


def test_description_of_both_files_matches_the_disk(tmp_path: Path) -> None:
    plain, small = written = write(tmp_path)
    check_written(tmp_path, written)
    assert (plain.name, small.name) == ("some.txt", "some.txt.gz")
    for file in (plain, small):
        octets = (tmp_path / file.name).read_bytes()
        assert (file.size, file.sha256) == (len(octets), hashlib.sha256(octets).hexdigest())
        assert (file.feed, file.addresses) == ("smtpgreet", 200)
    assert gzip.decompress((tmp_path / small.name).read_bytes()).decode() == TEXT
    assert (tmp_path / plain.name).read_text() == TEXT
    first = (tmp_path / small.name).read_bytes()
    (tmp_path / "again").mkdir()
    write(tmp_path / "again")
    assert (tmp_path / "again" / small.name).read_bytes() == first, "it has no time in it"


@pytest.mark.parametrize("name", ["some.txt", "some.txt.gz"])
def test_flipped_octet_is_refused_wherever_it_is(tmp_path: Path, name: str) -> None:
    written = write(tmp_path)
    size = (tmp_path / name).stat().st_size
    for at in range(0, size, size // 100):
        flip(tmp_path / name, at)
        with pytest.raises(PublishError, match=f"^{name}: what is on disk is not what was written"):
            check_written(tmp_path, written)
        flip(tmp_path / name, at)
    check_written(tmp_path, written)


def test_wrong_compressed_file_is_refused(tmp_path: Path) -> None:
    """The content is checked, not only that the disk has what was written."""
    plain, small = write(tmp_path)
    path = tmp_path / small.name
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    other = gzip.compress(TEXT.replace("row", "raw").encode())
    for octets, message in (
        (bytes(flipped), "cannot be decompressed"),
        (good[:-1], "cannot be decompressed"),
        (TEXT.encode(), "cannot be decompressed"),
        (other, "it does not hold what was written"),
        (good + other, "it does not hold what was written"),
        (b"", "it does not hold what was written"),
    ):
        path.write_bytes(octets)
        on_disk = replace(small, size=len(octets), sha256=hashlib.sha256(octets).hexdigest())
        with pytest.raises(PublishError, match=rf"^some\.txt\.gz: {message}"):
            check_written(tmp_path, [plain, on_disk])


def test_small_file_is_read_back_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the page, the manifest and the signatures."""
    assert write_whole(tmp_path, "good", b"octets").size == len(b"octets")
    check = written_module._check_octets

    def flip_and_check(folder: Path, file: Written, keep_going: KeepGoing) -> None:
        flip(folder / file.name, 3)
        check(folder, file, keep_going)

    monkeypatch.setattr(written_module, "_check_octets", flip_and_check)
    with pytest.raises(PublishError, match="index.html: what is on disk is not what was written"):
        write_whole(tmp_path, "index.html", b"octets")


@pytest.mark.parametrize("mask", [0x01, 0x80])
@pytest.mark.parametrize(
    "name", ["smtpgreet.txt", "smtpgreet-ipv6.txt", "smtpgreet.csv", "smtpgreet.ndjson"]
)
def test_flipped_octet_of_a_feeds_file_is_refused(tmp_path: Path, name: str, mask: int) -> None:
    """Also one that is no longer ASCII, which no parser of a format accepts."""
    files = make_feed(tmp_path, "smtpgreet", hostile_rows())
    size = (tmp_path / name).stat().st_size
    for at in (0, size // 3, size // 2, size - 60, size - 2, size - 1):
        flip(tmp_path / name, at, mask)
        with pytest.raises(PublishError, match=f"^{name}"):
            check_feed(tmp_path, files)
        flip(tmp_path / name, at, mask)
    check_feed(tmp_path, files)


def test_feeds_are_read_back_while_the_next_files_are_written(tmp_path: Path) -> None:
    files = make_feed(tmp_path, "smtpgreet", hostile_rows())
    with read_back(tmp_path, go_on) as check:
        check(files)
    flip(tmp_path / "smtpgreet.csv", 0)
    with (
        pytest.raises(PublishError, match=r"^smtpgreet\.csv"),
        read_back(tmp_path, go_on) as check,
    ):
        check(files)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_error_of_the_writer_ends_the_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """A check of millions of rows takes long, and Ctrl-C or a full disk need not wait for it."""
    started, ends = Event(), list[bool]()

    def endless_check(_folder: Path, _files: list[FeedFile], keep_going: KeepGoing) -> None:
        started.set()
        try:
            for _ in range(1_000):
                keep_going()
                Event().wait(0.01)
            ends.append(False)
        except PublishStopped:
            ends.append(True)

    def write() -> None:
        with read_back(tmp_path, go_on) as check:
            check([])
            check([])
            started.wait()
            raise error

    monkeypatch.setattr(generation_writer, "check_feed", endless_check)
    with pytest.raises(type(error)):
        write()
    assert ends == [True]


def test_file_that_its_format_cannot_read_is_refused(tmp_path: Path) -> None:
    def unreadable(stream: IO[bytes]) -> int:
        raise ValueError("not a bundle")

    with pytest.raises(PublishError, match="one: not a bundle; the generation is not published"):
        write_checked(tmp_path, "one", "smtpgreet", [("a\n", 1)], unreadable)


def test_file_that_lacks_an_entry_is_refused(tmp_path: Path) -> None:
    pieces = [("a\n", 1), ("b\n", 2)]
    with pytest.raises(PublishError, match="one: 2 entries on disk, 3 written"):
        write_checked(tmp_path, "one", "smtpgreet", pieces, lambda file: len(file.readlines()))


def test_stop_ends_the_comparison_with_the_edition_before(tmp_path: Path) -> None:
    """It ends at the next file, not after all files."""
    before, folder = tmp_path / "before", tmp_path / "now"
    for each in (before, folder):
        each.mkdir()
        files = [write_whole(each, name, b"as before") for name in ("one", "two", "three")]
    asked = 0

    def stop_at_the_second() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise PublishStopped

    with pytest.raises(PublishStopped):
        share_unchanged(folder, before, files, stop_at_the_second)
    shared = [file.name for file in files if (folder / file.name).samefile(before / file.name)]
    assert shared == ["one"]
