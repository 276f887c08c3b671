"""Create the model of the page from a published window."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from smtpfeeds_common import __version__
from smtpfeeds_common.feeds import FEEDS, WINDOW_DAYS

from ...classification.explanations import CLASSES
from ...names import short_name
from ..columns import FeedColumns, Rows, Window
from ..entries import Frame
from ..gzip_file import COMPRESSED
from ..judgements import Judgements
from ..policy import ANSWERS
from ..written import Written
from .model import (
    ClassRow,
    FeedSummary,
    FileRow,
    Page,
    Point,
    PolicyItem,
    Ranking,
    RankingRow,
    Series,
)

#: Lines of a ranking.
_TOP: Final = 15
_HOUR: Final = timedelta(hours=1)
_DAY_S: Final = 86_400
#: By the end of a file's name, longer ones first: a description, and a line that loads it.
_LOADS: Final = {
    "-addresses.txt": ("addresses of some classes, one a line", "grep -v '^#' {name}"),
    ".txt": ("the classic text layout", "grep -v '^#' {name}"),
    # DuckDB samples the first rows for quotes, and these may have none.
    ".csv": ("CSV, all columns", """duckdb -c "FROM read_csv('{name}', quote = '\\"')\""""),
    "-changes.ndjson": ("what changed in a day", "jq -c 'select(.change == \"added\")' {name}"),
    ".ndjson": ("NDJSON, all columns", "jq -c 'select(.class != \"survey\")' {name}"),
    ".stix.json": ("a STIX 2.1 bundle", "jq '.objects | length' {name}"),
    ".intel": ("for Zeek's intelligence framework", 'redef Intel::read_files += {{ "{name}" }};'),
    "misp/manifest.json": ("a MISP feed: add the folder misp/ as a feed", ""),
    "archive/index.json": ("past editions, one a day", "jq -r '.days[].day' {name}"),
    ".json": ("one JSON document", "jq '.rows | length' {name}"),
}


def build_page(
    window: Window,
    judgements: Judgements,
    names: Mapping[int, str],
    frame: Frame,
    files: Sequence[Written],
    hours: Iterable[tuple[datetime, str, int]],
    public_key: str | None = None,
) -> Page:
    """Return the model of the page of a publication.

    Args:
        window: what is published.
        judgements: the classes of its addresses.
        names: cleaned AS names.
        frame: of any feed.
        files: all files in the manifest.
        hours: events by hour and feed.
        public_key: whose signature is beside the manifest, if there is one.
    """
    events: dict[str, Counter[datetime]] = {feed.name: Counter() for feed in FEEDS}
    for hour, name, count in hours:
        events[name][hour] += count
    every = np.arange(len(window))
    by_class = judgements.count(every)
    in_feeds = [judgements.count(columns.address) for columns in window.feeds]
    return Page(
        publisher=frame.publisher,
        contact=frame.contact,
        licence=frame.licence,
        version=__version__,
        generated_s=int(frame.generated.timestamp()),
        expires_s=int(frame.expires.timestamp()),
        window_start_s=int(frame.window_start.timestamp()),
        window_end_s=int(frame.window_end.timestamp()),
        addresses=len(window),
        feeds=tuple(
            _summary(window, columns, feed.name, feed.description, frame)
            for feed, columns in zip(FEEDS, window.feeds, strict=True)
        ),
        classes=tuple(
            ClassRow(cls, meaning, tuple(counts[cls] for counts in in_feeds), by_class[cls])
            for cls, meaning in CLASSES.items()
        ),
        hours=tuple(_by_hour(feed.name, events[feed.name], frame) for feed in FEEDS),
        days=tuple(
            _by_day(feed.name, columns, frame)
            for feed, columns in zip(FEEDS, window.feeds, strict=True)
        ),
        rankings=(_origins(window, names), _actors(judgements)),
        files=tuple(_file_rows(files)),
        policy=tuple(PolicyItem(*answer) for answer in ANSWERS.values()),
        public_key=public_key,
    )


def _summary(
    window: Window, columns: FeedColumns, name: str, description: str, frame: Frame
) -> FeedSummary:
    ipv4 = int((columns.address < len(window.ipv4)).sum())
    asns = np.unique(window.asn[columns.address])
    new = columns.first_s.astype(np.int64) > frame.generated.timestamp() - _DAY_S
    return FeedSummary(
        name,
        description,
        len(columns),
        ipv4,
        len(columns) - ipv4,
        int((asns != 0).sum()),
        int(new.sum()),
    )


def _by_hour(name: str, events: Mapping[datetime, int], frame: Frame) -> Series:
    first = frame.window_start.replace(minute=0, second=0, microsecond=0)
    hours = (first + number * _HOUR for number in range(WINDOW_DAYS * 24 + 1))
    return Series(name, tuple(Point(f"{hour:%d %b %H:00}", events.get(hour, 0)) for hour in hours))


def _by_day(name: str, columns: FeedColumns, frame: Frame) -> Series:
    today = int(frame.generated.timestamp()) // _DAY_S
    days, counts = np.unique(columns.last_s // _DAY_S, return_counts=True)
    by_day = dict(zip(days.tolist(), counts.tolist(), strict=True))
    points = (
        Point(
            f"{datetime.fromtimestamp(day * _DAY_S, UTC):%a %d %b}",
            by_day.get(day, 0),
        )
        for day in range(today - WINDOW_DAYS, today + 1)
    )
    return Series(name, tuple(points))


def _origins(window: Window, names: Mapping[int, str]) -> Ranking:
    asns, counts = np.unique(window.asn, return_counts=True)
    return Ranking(
        "Origin ASes",
        "AS",
        tuple(
            RankingRow(f"AS{asn} {short_name(names.get(asn, ''))}", f"AS{asn}", count)
            for asn, count in _most(asns, counts)
            if asn
        ),
    )


def _most(values: Rows, counts: Rows) -> list[tuple[int, int]]:
    """Return the most frequent values, most frequent first; of equals the smaller first."""
    order = np.lexsort((values, -counts))[: _TOP + 1]
    return list(zip(values[order].tolist(), counts[order].tolist(), strict=True))[:_TOP]


def _actors(judgements: Judgements) -> Ranking:
    counts: Counter[str] = Counter()
    of_kind = np.bincount(judgements.which, minlength=len(judgements.kinds)).tolist()
    for kind, count in zip(judgements.kinds, of_kind, strict=True):
        if kind.actor is not None:
            counts[kind.actor] += count
    return Ranking(
        "Actors of surveys",
        "Actor",
        tuple(RankingRow(actor, actor, count) for actor, count in counts.most_common(_TOP)),
    )


def _file_rows(files: Sequence[Written]) -> Iterator[FileRow]:
    """Return a row for each file that a reader would download alone."""
    for file in files:
        name, size = file.name, file.size
        plain = name.removesuffix(COMPRESSED)
        suffix = next((end for end in _LOADS if plain.endswith(end)), None)
        if suffix is None or ("/" in name and suffix != name):
            continue  # a part of the MISP feed or of the archive
        what, load = _LOADS[suffix]
        if name == plain:
            yield FileRow(name, size, what, load.format(name=name))
        else:
            yield FileRow(name, size, f"{what}, compressed", "")
