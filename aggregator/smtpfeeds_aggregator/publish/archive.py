"""The archive: one edition of each UTC day, with its own retention.

    archive/index.json                          which days there are
    archive/2026-11-23/smtpgreet.ndjson.gz      the last edition of that day

The archive is in every generation, by hard links, so that manifest and SHA256SUMS cover it and one
switch changes it with the rest. A past day changes only if an address was excluded or forgotten.
"""

import csv
import logging
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from smtpfeeds_common.errors import PublishError
from smtpfeeds_common.logs import fields

from .formats import csv_file as csv_format
from .formats import ndjson as ndjson_format
from .formats.ndjson import iso
from .gzip_file import COMPRESSED, DAMAGED, compressed, decompressed
from .layout import is_there, link_or_copy
from .stopping import KeepGoing, guarded
from .withdrawn import Withdrawn
from .written import HashedFile, Written, check_compressed, write_whole

logger = logging.getLogger(__name__)

FOLDER: Final = "archive"
INDEX: Final = f"{FOLDER}/index.json"
#: Increased if a field of the index changes its meaning or is removed.
VERSION: Final = 1
#: The first of these formats that is published is archived; names as in the setting.
ARCHIVED: Final = {"ndjson": ndjson_format.SUFFIX, "csv": csv_format.SUFFIX}


class ArchivedFile(msgspec.Struct, frozen=True):
    """One file of a past day."""

    feed: str
    addresses: int
    bytes: int
    sha256: str


class Day(msgspec.Struct, frozen=True):
    """A day; paths of `files` are relative to the folder of the index."""

    day: date
    generated: str
    files: dict[str, ArchivedFile]


class Index(msgspec.Struct, frozen=True):
    """The archived days, newest first."""

    version: int
    days: list[Day]


def write_archive(
    folder: Path,
    before: Path | None,
    files: Iterable[Written],
    now: datetime,
    *,
    days: int,
    withdrawn: Withdrawn,
    keep_going: KeepGoing,
) -> list[Written]:
    """Write the archive of a generation.

    Args:
        folder: the folder of the generation.
        before: the previous generation, if any.
        files: the files with the rows of this generation.
        now: the time of the generation.
        days: how many days are kept, including today.
        withdrawn: the addresses that are no longer published.
        keep_going: called now and then.
    """
    (folder / FOLDER).mkdir()
    today = now.date()
    kept = [
        _carried(folder, before, day, withdrawn, keep_going)
        for day in _days(before)
        if today - timedelta(days=days) < day.day < today
    ]
    kept = [day for day in kept if day.files]
    kept.append(_archived(folder, files, now))
    kept.sort(key=lambda day: day.day, reverse=True)
    octets = msgspec.json.format(msgspec.json.encode(Index(VERSION, kept)), indent=2) + b"\n"
    return [
        write_whole(folder, INDEX, octets),
        *(
            Written(f"{FOLDER}/{name}", file.bytes, file.sha256, file.feed, file.addresses)
            for day in kept
            for name, file in day.files.items()
        ),
    ]


def _days(before: Path | None) -> list[Day]:
    if before is None or not is_there(before / INDEX):
        return []
    try:
        return msgspec.json.decode((before / INDEX).read_bytes(), type=Index).days
    except ValueError as exc:
        # The kept generations still contain it.
        logger.warning("archive begins again: its index is damaged", extra=fields(error=str(exc)))
        return []


def _archived(folder: Path, files: Iterable[Written], now: datetime) -> Day:
    """Return today's entry: hard links to this edition's files, until there is a later edition."""
    day, entries = now.date(), {}
    (folder / FOLDER / day.isoformat()).mkdir()
    for file in _largest(files):
        assert file.feed is not None
        assert file.addresses is not None
        name = f"{day}/{file.name}"
        link_or_copy(folder / file.name, folder / FOLDER / name)
        entries[name] = ArchivedFile(file.feed, file.addresses, file.size, file.sha256)
    return Day(day, iso(now), entries)


def _largest(files: Iterable[Written]) -> list[Written]:
    """Return the compressed file with all columns of each feed."""
    files = list(files)
    for suffix in ARCHIVED.values():
        if matches := [file for file in files if file.name.endswith(suffix + COMPRESSED)]:
            return matches
    return []


def _carried(
    folder: Path, before: Path | None, day: Day, withdrawn: Withdrawn, keep_going: KeepGoing
) -> Day:
    """Return a day of the previous generation: the same files, or cleaned ones."""
    assert before is not None
    keep_going()
    (folder / FOLDER / day.day.isoformat()).mkdir()
    entries = {}
    for name, file in day.files.items():
        path = f"{FOLDER}/{name}"
        if not is_there(before / path):
            # An operator has deleted it, because it was damaged.
            logger.warning("archive continues without a file", extra=fields(file=before / path))
            continue
        entries[name] = (
            _cleaned(folder, before, path, file, withdrawn, keep_going)
            if withdrawn.is_new
            else file
        )
        if not (folder / path).exists():
            link_or_copy(before / path, folder / path)
    return Day(day.day, day.generated, entries)


def _cleaned(
    folder: Path,
    before: Path,
    name: str,
    file: ArchivedFile,
    withdrawn: Withdrawn,
    keep_going: KeepGoing,
) -> ArchivedFile:
    """Write a cleaned file; nothing if no address is removed."""
    is_csv = name.endswith(csv_format.SUFFIX + COMPRESSED)
    address_of = _csv_address if is_csv else _ndjson_address
    gone, inside = 0, sha256()
    target = folder / name
    try:
        with decompressed(before / name) as lines, target.open("xb") as stream:
            hashed = HashedFile(stream)
            with compressed(hashed) as output:
                for number, line in enumerate(guarded(lines, keep_going)):
                    if not (is_csv and number == 0) and withdrawn.holds(address_of(line)):
                        gone += 1
                    else:
                        inside.update(line)
                        output.write(line)
    except DAMAGED as exc:
        raise PublishError(
            f"{before / name} is damaged ({exc}), so addresses that are excluded now cannot be "
            "removed from it; the last good feeds stay. Replace it with an undamaged copy, or "
            "delete it: the archive then continues without it"
        ) from exc
    if not gone:
        target.unlink()
        return file
    written = Written(name, hashed.size, hashed.sha256)
    check_compressed(folder, written, inside.hexdigest(), keep_going)
    return ArchivedFile(file.feed, file.addresses - gone, written.size, written.sha256)


class _Address(msgspec.Struct):
    ipaddr: str


def _ndjson_address(line: bytes) -> str:
    return _DECODER.decode(line).ipaddr


def _csv_address(line: bytes) -> str:
    return next(csv.reader([line.decode("ascii")]))[csv_format.COLUMNS.index("ipaddr")]


_DECODER: Final = msgspec.json.Decoder(_Address)
