"""Run the recipes of the consumers' page, with the tools that are installed for tests."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest_support.fixtures import dsn  # noqa: F401 - a fixture
from publish_support import NOW, Origins
from smtpfeeds_aggregator.publish.once import publish_once
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_common.behaviours import Flags

# ruff: noqa: F811 - the fixture is imported by name and used by name

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "consumers.md"
GUESSER = Flags.AUTH | Flags.UNOFFERED


@pytest.fixture
def feeds(dsn: str, tmp_path: Path) -> Path:
    settings = AggregatorSettings(dsn=dsn, feeds_dir=str(tmp_path), publish_non_global=True)
    with connect(settings, "test", autocommit=True) as connection:
        assert publish_once(settings, Origins(), connection, now=NOW) is not None
        for number in range(3):
            connection.execute(
                "INSERT INTO observation (ip, feed, first_seen, last_seen, hits, flags)"
                " VALUES (%s, 'smtpgreet', %s, %s, 3, %s)",
                (f"192.0.2.{number}", NOW, NOW, GUESSER if number else 0),
            )
        assert publish_once(settings, Origins(), connection, now=NOW) is not None
    return tmp_path / "feeds"


def recipes() -> Iterator[str]:
    """Return the lines of the page that call jq."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if re.match(r" {4}jq ", line):
            yield line.strip()


def test_jq_reads_each_file_as_the_page_says(feeds: Path) -> None:
    answers = [
        subprocess.run(
            ["bash", "-c", recipe], cwd=feeds, check=True, capture_output=True, text=True
        ).stdout.splitlines()
        for recipe in recipes()
    ]
    guessers, new, added, days, files, bulk = answers
    assert guessers == ["192.0.2.1", "192.0.2.2"]
    assert [line.split("\t")[1] for line in new] == ["probe", "password-guess", "password-guess"]
    assert added == ["192.0.2.0", "192.0.2.1", "192.0.2.2"]
    assert days == ["2026-11-23"]
    assert {"smtpgreet.ndjson.gz", "misp/manifest.json", "archive/index.json"} < set(files)
    assert bulk == []
    lines = [json.loads(line) for line in (feeds / "bulk.ndjson").read_text().splitlines()]
    assert [line["index"]["_id"] for line in lines[::2]] == [
        f"smtpgreet {line['ipaddr']}" for line in lines[1::2]
    ]
