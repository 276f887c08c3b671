"""IntelMQ's published Dataplane parser reads our files without an error."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pinned_packages import pinned_environment
from publish_support import HOSTILE_NAMES, hostile_rows, make_feed
from smtpfeeds_aggregator.names import clean_name, short_name
from smtpfeeds_common.addresses import normalise_address

RUNNER = Path(__file__).with_name("intelmq_parser.py")


@pytest.fixture(scope="session")
def intelmq_python() -> Path:
    """Return the interpreter of an environment with IntelMQ."""
    return pinned_environment("intelmq")


def run(python: Path, answer: Path, *files: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # The warning is about its own import of pkg_resources.
        [python, "-W", "ignore::UserWarning", RUNNER, answer, *files],
        capture_output=True,
        text=True,
        check=False,
    )


def parse(python: Path, folder: Path, *names: str) -> list[list[dict[str, Any]]]:
    answer = folder / "answer.json"
    done = run(python, answer, *(folder / name for name in names))
    assert done.returncode == 0, done.stdout + done.stderr
    document: list[list[dict[str, Any]]] = json.loads(answer.read_text())
    return document


@pytest.mark.timeout(600)  # the first run installs the environment
@pytest.mark.parametrize("feed", ["smtpgreet", "smtpdata"])
def test_intelmq_creates_one_event_for_each_row(
    feed: str, intelmq_python: Path, tmp_path: Path
) -> None:
    """Address, ASN, name and time arrive unchanged, also for hostile names."""
    rows = hostile_rows(feed)
    make_feed(tmp_path, feed, rows)
    whole, ipv4, ipv6 = parse(
        intelmq_python, tmp_path, f"{feed}.txt", f"{feed}-ipv4.txt", f"{feed}-ipv6.txt"
    )
    got = {event["source.ip"]: event for event in whole}
    assert len(whole) == len(got) == len(rows)
    for row in rows:
        event = got[normalise_address(row.ip)]
        assert event.get("source.asn") == row.asn
        assert event["time.source"] == row.last_seen.strftime("%Y-%m-%dT%H:%M:%S+00:00")
        assert event["protocol.application"] == "smtp"
        # IntelMQ keeps a name's first word.
        name = short_name(clean_name(HOSTILE_NAMES.get(row.asn or 0, ""), has_country=False))
        assert event.get("source.as_name") == (None if name == "NA" else name.split()[0])
    assert [event["source.ip"] for event in ipv4] == [ip for ip in got if ":" not in ip]
    assert [event["source.ip"] for event in ipv6] == [ip for ip in got if ":" in ip]


@pytest.mark.timeout(600)
def test_runner_fails_if_the_parser_fails(intelmq_python: Path, tmp_path: Path) -> None:
    """The test above can fail: a row that IntelMQ refuses makes the runner fail."""
    bad = tmp_path / "bad.txt"
    bad.write_text("174 | COGENT | 192.0.2.1 | 2026-11-23 10:00:00 | smtpgreet\n")
    done = run(intelmq_python, tmp_path / "answer.json", bad)
    assert done.returncode != 0
    assert "refuses 1 lines" in done.stderr
