"""Rows are read back as columns, with the same result as one by one."""

import hashlib
from pathlib import Path

import pytest

from publish_support import Seen, make_feed
from smtpfeeds_aggregator.publish.check_rows import FamilyRows, RowReader
from smtpfeeds_aggregator.publish.files import FeedFile
from smtpfeeds_common.errors import PublishError

ROWS = [
    Seen("1.10.100.250", 64496),
    Seen("0.0.0.0", 64496),
    Seen("255.255.255.255", 64499),
    Seen("2001:db8::1", 64499),
    Seen("2001:db8:1234:5678:9abc:def0:1234:5678", 4_294_967_294),
]


@pytest.fixture(scope="module")
def main_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeedFile, bytes]:
    """Return a feed's main file, and the lines of its rows."""
    folder: Path = tmp_path_factory.mktemp("feed")
    file = make_feed(folder, "smtpgreet", ROWS)[0]
    lines = (folder / file.name).read_bytes().splitlines(keepends=True)
    return file, b"".join(line for line in lines if not line.startswith(b"#"))


def reader_of(file: FeedFile) -> RowReader:
    return RowReader(file, {size: FamilyRows(hashlib.sha256()) for size in (4, 16)})


def outcome(file: FeedFile, block: bytes) -> object:
    """Return the result of reading a block: the last key and each family's rows, or the error."""
    families = {size: FamilyRows(hashlib.sha256()) for size in (4, 16)}
    reader = RowReader(file, families)
    try:
        reader.read(block)
    except PublishError as exc:
        return exc.message
    return reader._before, [(f.rows, f.asns, f.digest.hexdigest()) for f in families.values()]


def test_good_rows_are_read_as_columns(main_file: tuple[FeedFile, bytes]) -> None:
    file, block = main_file
    reader = reader_of(file)
    reader._keys_of_lines = None  # type: ignore[assignment,method-assign] # not to be called
    reader.read(block)
    assert reader.rows == len(ROWS)


def test_changed_octet_is_judged_like_line_by_line(
    main_file: tuple[FeedFile, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every octet is replaced by digits, separators and line ends."""
    file, block = main_file
    spoilt = [
        block[:at] + bytes([octet]) + block[at + 1 :]
        for at in range(len(block))
        for octet in b"0159.: |a#\n\r\x80"
    ]
    spoilt += [block[:at] + block[at + 1 :] for at in range(len(block))]
    as_columns = [outcome(file, each) for each in spoilt]

    # No line ends: nothing can be read as columns.
    monkeypatch.setattr("smtpfeeds_aggregator.publish.check_rows._LF", 256)
    as_lines = [outcome(file, each) for each in spoilt]
    assert as_columns == as_lines
    assert sum(isinstance(each, str) for each in as_lines) > len(spoilt) // 2
