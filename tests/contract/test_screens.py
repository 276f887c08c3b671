"""Compare the output on terminals of 80 and 120 columns with stored screens.

    UPDATE_SCREENS=1 pytest tests/contract/test_screens.py

writes them again; then check them by eye.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from smtpfeeds_aggregator.classification.classes import Class, Judgement
from smtpfeeds_aggregator.cli import card, feed_diff
from smtpfeeds_aggregator.cli import filter as filter_command
from smtpfeeds_aggregator.cli.address_columns import ADDRESS, ANSWER
from smtpfeeds_aggregator.cli.sensors import _SENSORS
from smtpfeeds_aggregator.publish.statistics import Statistic, Summary
from smtpfeeds_aggregator.query import overview
from smtpfeeds_aggregator.query.overview import Alive
from smtpfeeds_aggregator.query.rows import FeedRow
from smtpfeeds_aggregator.store.query import SensorSighting
from smtpfeeds_common.columns import Column
from smtpfeeds_common.table import Look, Table

GOLDEN = Path(__file__).parent / "golden" / "screens"
TIME = datetime(2026, 11, 23, 14, 54, 50, tzinfo=UTC)


def known(**more: Any) -> dict[str, Any]:
    return {
        "class": "password-guess", "last_seen": TIME, "days": "..##.##", "greet": 1234, "data": 7,
        "sensors": 12, "ASN": 64496, "ASname": "EXAMPLE-AS, Sample Cloud of Somewhere, Inc.",
        "actor": None, "why": ("auth_again", "many_sensors"), "first_seen": TIME, "new": False,
    } | more  # fmt: skip


ADDRESSES = [
    {"address": "192.0.2.1", **known()},
    {
        "address": "2001:db8:1111:2222:3333:4444:5555:6666",
        **known(data=None, actor="shodan", ASN=None, ASname=None, **{"class": "survey"}),
    },
    {"address": "198.51.100.255", **known(greet=40_000, ASname="B", new=True)},
]
ANSWERS = [
    {"term": "192.0.2[.]1", "seen": True, "addresses": 1, **known()},
    {"term": "hxxp://203.0.113.7/a/path?of=some&length", "seen": False, "addresses": 0}
    | {column.name: None for column in ANSWER[3:]},
]
SENSORS = [
    {
        "sensor": "sensor-1", "state": "alive", "alive": True, "silent_since": None,
        "last_heard": TIME, "version": "0.2.0", "epoch": 1, "events_24h": 120_345,
        "events": 9_876_543, "skew_s": -0.3, "spool_depth": 0, "drops": 0, "past_bucket_24h": 0,
        "refused_24h": 0, "flood": None,
    },
    {
        "sensor": "a-sensor-with-a-name-that-is-as-long-as-names-may-be-in-this-00",
        "state": "silent", "alive": False, "silent_since": TIME, "last_heard": TIME,
        "version": "0.1.0", "epoch": 3, "events_24h": 0, "events": 12, "skew_s": 3600.5,
        "spool_depth": 12, "drops": 4, "past_bucket_24h": 77, "refused_24h": 5,
        "flood": "120/s not_a_batch",
    },
]  # fmt: skip

LONG_NAME = "EXAMPLE-AS, Sample Cloud of Somewhere, Inc."
SUMMARY: list[dict[str, Any]] = [
    {
        "lines": 12_345, "ipaddr": "192.0.2.1", "class": "password-guess",
        "feeds": ("smtpgreet", "smtpdata"), "lastseen": "2026-11-23 14:54:50", "days": "..##.##",
        "hits": 1234, "ASN": 64496, "ASname": LONG_NAME, "actor": None,
        "first_seen": "2026-11-14 14:54:50", "sensors": 12, "why": ("auth_again", "many_sensors"),
        "tags": ("auth", "bare_lf"), "new": False,
    },
    {
        "lines": 1, "ipaddr": "2001:db8:1111:2222:3333:4444:5555:6666", "class": "survey",
        "feeds": ("smtpgreet",), "lastseen": "2026-11-23 14:54:50", "days": "......#", "hits": 1,
        "ASN": None, "ASname": None, "actor": "a-long-name-of-a-scanner",
        "first_seen": "2026-11-23 14:54:50", "sensors": 1, "why": ("listed:a-long-name",),
        "tags": (), "new": True,
    },
]  # fmt: skip
CHANGES: list[dict[str, Any]] = [
    {
        "change": "added", "ipaddr": "2001:db8:1111:2222:3333:4444:5555:6666",
        "category": "smtpdata", "class": "delivery", "class_before": None,
        "lastseen": "2026-11-23 14:54:50", "ASN": 64496, "ASname": LONG_NAME,
    },
    {
        "change": "class", "ipaddr": "192.0.2.1", "category": "smtpgreet",
        "class": "password-guess", "class_before": "probe", "lastseen": "2026-11-23 14:54:50",
        "ASN": 4_200_000_000, "ASname": "B",
    },
    {
        "change": "gone", "ipaddr": "198.51.100.255", "category": "smtpgreet", "class": None,
        "class_before": "mail-server", "lastseen": "2026-11-16 00:00:00", "ASN": None,
        "ASname": None,
    },
]  # fmt: skip


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    ("name", "columns", "records"),
    [
        ("addresses", ADDRESS, ADDRESSES),
        ("answers", ANSWER, ANSWERS),
        ("sensors", _SENSORS, SENSORS),
        ("filter-summary", filter_command._COLUMNS, SUMMARY),
        ("feed-diff", feed_diff._CHANGES, CHANGES),
    ],
)
def test_screen(
    name: str, columns: Sequence[Column], records: list[dict[str, Any]], width: int
) -> None:
    table = Table(columns, Look(width))
    lines = list(table.lines(records))
    left_out = ",".join(column.name for column in table.left_out)
    compare(name, [*lines, f"(not shown: {left_out or 'nothing'})"], width)


def row(feed: str, **more: Any) -> FeedRow:
    start = FeedRow(
        ip="2001:db8:1111:2222:3333:4444:5555:6666",
        packed=bytes(16),
        feed=feed,
        first_s=int(TIME.timestamp()) - 9 * 86_400,
        last_s=int(TIME.timestamp()),
        hits=1234,
        sensors=12,
        targets=7,
        flags=0,
        days=0b1011011,
        new=False,
        asn=64496,
        name="EXAMPLE-AS, Sample Cloud of Somewhere and of many other places, Incorporated",
        judgement=Judgement(Class.SURVEY, ("listed:scan-co", "many_sensors"), "scan-co"),
        entries=[["scanner", "scan-co", "2026-11-20", False, "scans", "2001:db8:1111::/48"]],
    )
    return start._replace(**more)


def seen_by(name: str, **more: Any) -> SensorSighting:
    start = SensorSighting(name, "smtpgreet", 40, TIME, TIME, targets=3, addresses=16)
    return start._replace(**more)


@pytest.mark.parametrize("width", [80, 120])
def test_card(width: int) -> None:
    rows = [row("smtpgreet"), row("smtpdata", hits=1, sensors=1)]
    sensors = [
        seen_by("sensor-1"),
        seen_by("sensor-1", feed="smtpdata", hits=1),
        seen_by("a-sensor-with-a-name-that-is-as-long-as-names-may-be-in-this-00", addresses=0),
    ]
    lines = [
        *card._origin(rows[0], "2001:db8:1000::/36", ("0123456789ab-cdef01234567", TIME)),
        *card._behaviours(rows),
        *card._sensors(sensors),
        *card._lists(rows[0], TIME.date()),
        ("published", "no: 2001:db8:1111::/48 is excluded: its owner asked for it"),
    ]
    compare("card", [rows[0].ip, *card._wrapped(lines, width)], width)


@pytest.mark.parametrize("width", [80, 120])
def test_stats(width: int) -> None:
    def statistic(by: str, key: str, name: str | None = None, **counts: int) -> Statistic:
        kinds = ("smtpgreet", "smtpdata", "new", "greet_events", "data_events")
        return Statistic(by, key, name, *(counts.get(kind) for kind in kinds))

    hours = [
        statistic("hour", f"{TIME - timedelta(hours=back):%Y-%m-%dT%H:00Z}",
                  greet_events=(back * 37) % 101, data_events=(back % 24) // 8)
        for back in range(168)
    ]  # fmt: skip
    rows = [
        statistic("feed", "smtpgreet", smtpgreet=66_000, new=1200, greet_events=1_234_567),
        statistic("feed", "smtpdata", smtpdata=9_000, new=80, data_events=45_678),
        statistic("class", "password-guess", smtpgreet=40_000, smtpdata=8_000, new=900),
        statistic("class", "survey", smtpgreet=26_000, smtpdata=1_000, new=300),
        statistic("asn", "64496", "EXAMPLE-AS, Sample Cloud of Somewhere and of many other places",
                  smtpgreet=12_000, smtpdata=3, new=1),
        statistic("asn", "4294967295", "B", smtpgreet=1, smtpdata=0, new=0),
        statistic("actor", "scan-co", smtpgreet=900, smtpdata=0, new=12),
        statistic("prefix", "2001:db8:1111:2222::/64", smtpgreet=60, smtpdata=60, new=60),
        *hours,
    ]  # fmt: skip
    summary = Summary(TIME, TIME + timedelta(hours=2), rows)
    alive = Alive(12, ("edge-1", "edge-2", "edge-3", "edge-4"))
    lines = overview.lines(summary, alive, Look(width), TIME + timedelta(hours=3))
    compare("stats", list(lines), width)


def compare(name: str, lines: list[str], width: int) -> None:
    """Compare a screen with the stored one."""
    text = "\n".join(lines) + "\n"
    assert max(len(line) for line in lines if not line.startswith("(not shown")) <= width
    file = GOLDEN / f"{name}-{width}.txt"
    if os.environ.get("UPDATE_SCREENS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")
