"""What a terminal of 80 and of 120 columns shows: compared with stored screens.

    UPDATE_SCREENS=1 pytest tests/contract/test_screens.py

writes them again; then look at them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from smtpfeeds_aggregator.cli.address_columns import ADDRESS, ANSWER
from smtpfeeds_aggregator.cli.sensors import _SENSORS
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


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    ("name", "columns", "records"),
    [
        ("addresses", ADDRESS, ADDRESSES),
        ("answers", ANSWER, ANSWERS),
        ("sensors", _SENSORS, SENSORS),
    ],
)
def test_screen(
    name: str, columns: Sequence[Column], records: list[dict[str, Any]], width: int
) -> None:
    table = Table(columns, Look(width))
    lines = list(table.lines(records))
    left_out = ",".join(column.name for column in table.left_out)
    text = "\n".join([*lines, f"(not shown: {left_out or 'nothing'})"]) + "\n"
    assert max(map(len, lines)) <= width
    file = GOLDEN / f"{name}-{width}.txt"
    if os.environ.get("UPDATE_SCREENS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")
