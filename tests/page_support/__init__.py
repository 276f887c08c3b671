"""Sample pages for tests, with simulated entries whose names contain markup."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from publish_support import HOSTILE_NAMES
from smtpfeeds_aggregator.classification.classes import Class, Judgement
from smtpfeeds_aggregator.classification.explanations import CLASSES
from smtpfeeds_aggregator.names import short_name
from smtpfeeds_aggregator.publish.page.model import (
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
from smtpfeeds_aggregator.publish.page.render import PAGE, STATIC, render, static_file
from smtpfeeds_aggregator.publish.page.search import SEARCH_DATA, SearchColumns, search_data
from smtpfeeds_common.addresses import sort_key


class SearchEntry(NamedTuple):
    """One address in the page's search."""

    packed: bytes
    asn: int
    name: str
    greet_s: int
    data_s: int
    first_s: int
    cls: str
    why: tuple[str, ...]
    actor: str | None
    marks: int
    sensors: int
    targets: int
    hits: int


#: 2026-11-23 11:00 UTC.
NOW_S = 1_795_431_600
HOUR_S = 3600
DAY_S = 24 * HOUR_S
#: Names that contain markup or could end a script.
HTML_NAMES = {**HOSTILE_NAMES, 64520: "<script>alert(1)</script>", 64521: "A&B </td>'\""}
WHY = {
    "survey": ("listed:shodan",),
    "relay-test": ("relay_probe", "message"),
    "password-guess": ("auth", "unoffered"),
    "mail-server": ("full_host_name", "quit", "extension", "message", "one_sensor"),
    "delivery": ("message",),
    "relay-check": ("recipient",),
    "probe": ("greet",),
}


def search_entries(count: int, seed: int = 1) -> list[SearchEntry]:
    """Create entries, five percent of them IPv6; the same seed gives the same entries."""
    dice = random.Random(seed)
    classes, weights = list(WHY), (5, 3, 20, 2, 15, 5, 50)
    asns = [*HTML_NAMES, *range(1, 2000)]
    entries: dict[bytes, SearchEntry] = {}
    while len(entries) < count:
        packed = dice.randbytes(16) if dice.random() < 0.05 else dice.randbytes(4)
        (cls,) = dice.choices(classes, weights)
        asn = dice.choice(asns)
        greet_s = NOW_S - dice.randrange(7 * 24 * HOUR_S)
        entries[packed] = SearchEntry(
            packed=packed,
            asn=asn,
            name=short_name(HTML_NAMES.get(asn, f"EXAMPLE-{asn}")),
            greet_s=greet_s,
            data_s=greet_s if cls in {"relay-test", "mail-server", "delivery"} else 0,
            first_s=greet_s - dice.randrange(20 * 24 * HOUR_S),
            cls=cls,
            why=WHY[cls],
            actor="shodan" if cls == "survey" else None,
            marks=dice.randrange(1, 128),
            sensors=dice.choice((1, 1, 1, 2, 3, 8)),
            targets=dice.choice((1, 1, 2, 16)),
            hits=dice.choice((1, 1, 2, 3, 12, 400)),
        )
    return list(entries.values())


def search_columns(entries: list[SearchEntry]) -> SearchColumns:
    """Convert entries to columns."""
    rows = sorted(entries, key=lambda entry: sort_key(entry.packed))
    four = [entry.packed for entry in rows if len(entry.packed) == 4]
    six = [entry.packed for entry in rows if len(entry.packed) == 16]
    kinds = list(dict.fromkeys(Judgement(Class(e.cls), e.why, e.actor) for e in rows))
    places = {kind: place for place, kind in enumerate(kinds)}

    def column(name: str) -> np.ndarray[Any, Any]:
        return np.array([getattr(entry, name) for entry in rows], np.int64)

    return SearchColumns(
        ipv4=np.array([int.from_bytes(packed) for packed in four], np.uint32),
        high=np.array([int.from_bytes(packed[:8]) for packed in six], np.uint64),
        low=np.array([int.from_bytes(packed[8:]) for packed in six], np.uint64),
        asn=column("asn"),
        names={entry.asn: entry.name for entry in rows},
        greet_s=column("greet_s"),
        data_s=column("data_s"),
        first_s=column("first_s"),
        judgement=np.array(
            [places[Judgement(Class(e.cls), e.why, e.actor)] for e in rows], np.intp
        ),
        judgements=tuple(kinds),
        days=column("marks"),
        sensors=column("sensors"),
        targets=column("targets"),
        hits=column("hits"),
    )


def sample_page(entries: list[SearchEntry], total: int | None = None) -> Page:
    """Create the page of these entries; ``total`` is the address count of a larger feed."""
    greets = entries
    datas = [entry for entry in entries if entry.data_s]
    in_feeds = [Counter(entry.cls for entry in feed) for feed in (greets, datas)]
    origins = Counter((entry.asn, entry.name) for entry in entries).most_common(10)
    return Page(
        publisher="Example Observatory",
        contact="feeds@example.org",
        licence="CC BY 4.0",
        version="0.2.0",
        generated_s=NOW_S,
        expires_s=NOW_S + 2 * HOUR_S,
        window_start_s=NOW_S - 7 * 24 * HOUR_S,
        window_end_s=NOW_S,
        addresses=len(entries) if total is None else total,
        feeds=(
            _summary("smtpgreet", "addresses that said HELO or EHLO", greets),
            _summary("smtpdata", "addresses that went on to DATA", datas),
        ),
        classes=tuple(
            ClassRow(cls, meaning, tuple(counts[cls] for counts in in_feeds), in_feeds[0][cls])
            for cls, meaning in CLASSES.items()
        ),
        hours=(_hours("smtpgreet", greets), _hours("smtpdata", datas)),
        days=(_days("smtpgreet", greets), _days("smtpdata", datas)),
        rankings=(
            Ranking(
                "Origin ASes",
                "AS",
                tuple(RankingRow(f"AS{asn} {name}", f"AS{asn}", n) for (asn, name), n in origins),
            ),
            Ranking("Actors of surveys", "Actor", tuple(_actors(entries))),
        ),
        files=(
            FileRow(
                "smtpgreet.txt", 1_204_551, "the classic text layout", "grep -v '^#' smtpgreet.txt"
            ),
            FileRow("smtpgreet.csv.gz", 402_118, "CSV, all columns, compressed", ""),
            FileRow(
                "smtpgreet-changes.ndjson",
                81_220,
                "what changed in a day",
                "jq -c 'select(.change == \"added\")' smtpgreet-changes.ndjson",
            ),
            FileRow("misp/manifest.json", 912, "a MISP feed: add the folder misp/ as a feed", ""),
        ),
        policy=(
            PolicyItem("What lists an address?", "A HELO or EHLO to a sensor."),
            PolicyItem("How does it leave?", "Seven days after its last event."),
        ),
    )


def write_sample(folder: Path, entries: list[SearchEntry], total: int | None = None) -> Path:
    """Write a page with all its files, and return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PAGE).write_bytes(render(sample_page(entries, total)))
    (folder / SEARCH_DATA).write_bytes(search_data(search_columns(entries)))
    for name in STATIC:
        (folder / name).write_bytes(static_file(name))
    return folder / PAGE


def _summary(name: str, description: str, entries: list[SearchEntry]) -> FeedSummary:
    ipv4 = sum(len(entry.packed) == 4 for entry in entries)
    new = sum(entry.first_s > NOW_S - 24 * HOUR_S for entry in entries)
    asns = len({entry.asn for entry in entries})
    return FeedSummary(name, description, len(entries), ipv4, len(entries) - ipv4, asns, new)


def _hours(name: str, entries: list[SearchEntry]) -> Series:
    seen = Counter(entry.greet_s // HOUR_S for entry in entries)
    hours = range(NOW_S // HOUR_S - 168, NOW_S // HOUR_S)
    labels = [f"{_utc(hour * HOUR_S):%d %b %H:00}" for hour in hours]
    points = tuple(Point(label, seen[hour]) for label, hour in zip(labels, hours, strict=True))
    return Series(name, points)


def _days(name: str, entries: list[SearchEntry]) -> Series:
    seen = Counter(entry.greet_s // DAY_S for entry in entries)
    days = range(NOW_S // DAY_S - 7, NOW_S // DAY_S + 1)
    return Series(name, tuple(Point(f"{_utc(day * DAY_S):%a %d %b}", seen[day]) for day in days))


def _actors(entries: list[SearchEntry]) -> list[RankingRow]:
    counts = Counter(entry.actor for entry in entries if entry.actor is not None)
    return [RankingRow(actor, actor, number) for actor, number in counts.most_common()]


def _utc(epoch_s: int) -> datetime:
    return datetime.fromtimestamp(epoch_s, UTC)
