"""Run the recipes of the consumers' page, with the tools that are installed for tests."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from ingest_support.fixtures import dsn  # noqa: F401 - a fixture
from pinned_packages import environment_with
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


def section(title: str) -> str:
    """Return the page's code below a heading, without its indentation."""
    text = PAGE.read_text(encoding="utf-8")
    (body,) = re.findall(
        rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE
    )
    if fenced := re.findall(r"^```python\n(.*?)^```", body, re.DOTALL | re.MULTILINE):
        return "\n".join(fenced)
    return "\n".join(line[4:] for line in body.splitlines() if line.startswith("    "))


def run_python(code: str, feeds: Path) -> list[str]:
    """Run code with the packages that only readers use, and return the lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=feeds,
        check=False,
        capture_output=True,
        text=True,
        env=environment_with("readers"),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_duckdb_answers_each_query_of_the_page(feeds: Path) -> None:
    queries = section("DuckDB").split(";")[:-1]
    code = "import duckdb\n" + "\n".join(
        f"print(duckdb.execute({query.strip()!r}).fetchall())" for query in queries
    )
    by_class, origins, archive = map(ast.literal_eval, run_python(code, feeds))
    assert by_class == [("password-guess", None, 2), ("probe", None, 1)]
    assert origins == [("NA", "NA", 3)]
    assert len(archive) == 1


def test_duckdb_reads_a_quoted_name_after_the_rows_that_it_samples(feeds: Path) -> None:
    """By the page's recipe, and by the line that a publication's own page shows."""
    path = feeds / "smtpgreet.csv"
    lines = path.read_text().splitlines(keepends=True)
    quoted = lines[1].replace("NA,NA,", '64500,"Commas, Inc, Ltd LLC",', 1)
    assert quoted != lines[1]
    path.unlink()  # it may be a hard link to the edition before
    path.write_text("".join([lines[0], *(lines[1:2] * 25_000), quoted]))
    page = unescape((feeds / "index.html").read_text("utf-8"))
    (shown,) = re.findall(r"<code>(duckdb .*smtpgreet\.csv.*)</code>", page)
    recipe = section("DuckDB").split(";")[1]
    code = "\n".join(
        f"print(len(duckdb.execute({query!r}).fetchall()))"
        for query in (shlex.split(shown)[-1], recipe)
    )
    assert run_python(f"import duckdb\n{code}", feeds) == ["25001", "2"]


def test_duckdb_reads_an_actor_after_the_rows_that_it_samples(feeds: Path) -> None:
    path = feeds / "smtpgreet.ndjson"
    line = path.read_text().splitlines(keepends=True)[0]
    assert '"actor":null' in line
    path.unlink()  # it may be a hard link to the edition before
    path.write_text(line * 25_000 + line.replace('"actor":null', '"actor":"example"'))
    query = section("DuckDB").split(";")[0]
    (rows,) = run_python(f"import duckdb\nprint(duckdb.execute({query!r}).fetchall())", feeds)
    assert ast.literal_eval(rows) == [("probe", None, 25_000), ("probe", "example", 1)]


def test_pandas_reads_both_files_as_the_page_says(feeds: Path) -> None:
    code = (
        section("pandas")
        + "\nprint(len(feed), feed.lastseen.dt.tz, csv.ASN.isna().sum(), *csv.ASname)"
    )
    assert run_python(code, feeds) == ["3 UTC 3 nan nan nan"]


def test_pymisp_and_stix2_read_their_files_as_the_page_says(feeds: Path) -> None:
    (event,) = run_python(section("MISP"), feeds)
    assert event.endswith(" 3")
    code = section("OpenCTI and other programs that read STIX") + "\nprint(len(bundle.objects))"
    assert run_python(code, feeds) == ["8"]


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
