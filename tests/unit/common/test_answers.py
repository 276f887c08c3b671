"""Lists that commands print: five formats, chosen fields, tables that fit the terminal."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from smtpfeeds_common.answers import Form, Limited, format_options, write_records
from smtpfeeds_common.cells import width_of
from smtpfeeds_common.cli import main
from smtpfeeds_common.columns import Column, Record, csv_field, json_schema, select
from smtpfeeds_common.config_option import usual_config
from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.table import Look, Table, shorten

COLUMNS = (
    Column("address", least=20, middle=True),
    Column("hits", "integer", rank=1),
    Column("seen", "boolean"),
    Column("last_seen", "time", rank=2),
    Column("day", "date", rank=5),
    Column("name", least=10, rank=3),
    Column("tags", "texts", least=8, rank=4),
)
FIRST = {
    "address": "192.0.2.1",
    "hits": 12,
    "seen": True,
    "last_seen": datetime(2026, 11, 23, 15, 24, 31, tzinfo=UTC),
    "day": date(2026, 11, 23),
    "name": "=EVIL() \x1b[31m, Inc",
    "tags": ("bare_lf", "quit"),
}
SECOND = {
    "address": "2001:db8:1111:2222:3333:4444:5555:6666",
    "hits": None,
    "seen": False,
    "last_seen": None,
    "day": None,
    "name": "A name\twith a tab, longer than what fits",
    "tags": (),
}


@click.command()
@format_options(COLUMNS)
@click.option("--empty", is_flag=True)
def show(form: Form, *, empty: bool) -> None:
    write_records([] if empty else [FIRST, SECOND], form, "there is none")


def run(*args: str) -> Result:
    return CliRunner().invoke(show, args)


def test_json_ndjson_csv_and_tsv_hold_the_same() -> None:
    listed = json.loads(run("--json").stdout)
    assert listed[0]["last_seen"] == "2026-11-23T15:24:31Z"
    assert listed[0]["tags"] == ["bare_lf", "quit"]
    assert (listed[1]["hits"], listed[1]["day"]) == (None, None)
    assert [json.loads(line) for line in run("--format", "ndjson").stdout.splitlines()] == listed
    first, second = csv.DictReader(io.StringIO(run("--format", "csv").stdout))
    assert (first["name"], first["seen"]) == ("'=EVIL() \x1b[31m, Inc", "true")
    assert (second["hits"], second["last_seen"], second["tags"]) == ("NA", "NA", "")
    names, _, row = run("--format", "tsv").stdout.splitlines()
    assert names.split("\t") == [column.name for column in COLUMNS]
    assert row.split("\t")[5] == "A name\\twith a tab, longer than what fits"


def test_fields_choose_and_order_in_every_format() -> None:
    chosen = ("--fields", "hits, ADDRESS")
    assert json.loads(run("--json", *chosen).stdout)[0] == {"hits": 12, "address": "192.0.2.1"}
    assert run("--format", "csv", *chosen).stdout.splitlines()[:2] == [
        "hits,address",
        "12,192.0.2.1",
    ]
    assert run(*chosen).stdout.splitlines()[0].split() == ["hits", "address"]


@pytest.mark.parametrize("fields", ["adress", "", ",", "hits,nonsense"])
def test_field_that_is_none_is_named_with_what_there_is(fields: str) -> None:
    result = CliRunner().invoke(show, ["--fields", fields], standalone_mode=False)
    assert result.exception is not None
    assert "--fields" in str(result.exception)
    assert "address, hits" in str(result.exception)


@pytest.mark.parametrize(
    ("form", "stdout"),
    [("table", ""), ("json", "[]\n"), ("ndjson", ""), ("csv", "address,"), ("tsv", "address\t")],
)
def test_empty_list_is_said_and_exit_code_1(form: str, stdout: str) -> None:
    result = run("--empty", "--format", form)
    assert (result.exit_code, result.stderr) == (1, "there is none\n")
    assert result.stdout.startswith(stdout)
    assert bool(result.stdout) == bool(stdout)


def test_pipe_gets_every_column_whole_and_no_control_character() -> None:
    head, first, second = run().stdout.splitlines()
    assert head.split()[:2] == ["address", "hits"]
    assert "=EVIL() ?[31m, Inc" in first
    assert str(SECOND["address"]) in second
    assert "longer than what fits" in second


def table(width: int, *, colour: bool = False, shed: bool = True) -> tuple[list[str], list[str]]:
    new_table = Table(COLUMNS, Look(width, colour=colour), shed=shed)
    return list(new_table.lines([FIRST, SECOND])), [column.name for column in new_table.left_out]


def test_narrow_terminal_shortens_and_then_goes_without_the_least_important() -> None:
    assert table(40) == (
        [
            "address                       hits  seen",
            "192.0.2.1                       12  yes",
            "2001:db8:1111:2222…5555:6666     -  no",
        ],
        ["last_seen", "day", "name", "tags"],
    )
    assert table(80) == (
        [
            "address                 hits  seen  last seen UTC        name          tags",
            "192.0.2.1                 12  yes   2026-11-23 15:24:31  =EVIL() ?[3…  bare_lf…",
            "2001:db8:1111:…55:6666     -  no    -                    A name?with…",
        ],
        ["day"],
    )


@given(width=st.integers(20, 300))
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    lines, left_out = table(width)
    # Columns of rank 0 are never left out: 20 + 4, and a gap.
    assert max(map(len, lines)) <= max(width, 26)
    assert "address" not in left_out


@given(text=st.text(max_size=60), width=st.integers(1, 60), middle=st.booleans())
def test_shortened_text_fits_and_keeps_its_begin(text: str, width: int, middle: bool) -> None:
    short = shorten(text, width, "…", middle=middle)
    assert width_of(short) <= width
    assert short == text if width_of(text) <= width else "…" in short


def test_wide_characters_take_two_cells_and_combining_marks_none() -> None:
    assert [width_of(text) for text in ("AS", "日本", "カ\u3099", "e\u0301", "")] == [2, 4, 2, 1, 0]
    rows: list[Record] = [{"name": "日本語ネットワーク", "n": 1}, {"name": "a", "n": 22}]
    wide = Table((Column("name", least=8), Column("n", "integer")), Look(14))
    assert list(wide.lines(rows)) == ["name         n", "日本語ネ…    1", "a           22"]


def test_rows_beyond_the_sample_are_written_as_they_come() -> None:
    """A long table is never in memory as a whole."""
    taken = 0

    def rows() -> Iterator[dict[str, object]]:
        nonlocal taken
        for number in range(5_000):
            taken = number + 1
            yield {**FIRST, "hits": number}

    lines = Table(COLUMNS, Look(80)).lines(rows())
    next(lines)
    assert taken == 1_000
    assert sum(1 for _ in lines) == 5_000


@pytest.mark.parametrize(
    ("environ", "colour"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_terminal_has_colour_and_pipe_has_none(environ: dict[str, str], colour: bool) -> None:
    """The terminal is a real one with 60 columns."""
    code = (
        "from smtpfeeds_common.answers import Form, write_records\n"
        "from smtpfeeds_common.columns import Column\n"
        "columns = (Column('a', colour=lambda _: 'red'), Column('b' * 80, rank=1))\n"
        "write_records([{'a': 'x', 'b' * 80: 'y'}], Form('table', columns), '')"
    )
    env = {**os.environ, "COLUMNS": "60", "TERM": "xterm", "NO_COLOR": "", **environ}
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb") as read:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=follower, stderr=subprocess.PIPE, env=env,
            check=True, timeout=60,
        )  # fmt: skip
        os.close(follower)
        shown = os.read(read.fileno(), 10_000).decode()
    assert ("\x1b[31mx\x1b[0m" in shown) == colour
    assert ("\x1b" in shown) == colour
    assert "not shown at this width: bbbb" in done.stderr.decode()


@pytest.mark.parametrize(
    ("value", "text"),
    [("-1", "'-1"), (-1, "-1"), (True, "true"), (None, "NA"), (["a", "b"], "a b"), ("@x", "'@x")],
)
def test_csv_field(value: object, text: str) -> None:
    assert csv_field(value) == text


def test_schema_names_every_field() -> None:
    schema = json_schema(COLUMNS)
    assert schema["required"] == [column.name for column in COLUMNS]
    assert schema["properties"]["last_seen"] == {"type": ["string", "null"], "format": "date-time"}


def test_usual_places_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("aggregator.toml", "query.toml")
    monkeypatch.setenv("SMTPFEEDS_SETTINGS", str(tmp_path))
    assert usual_config(*names) is None
    (tmp_path / "query.toml").touch()
    assert usual_config(*names) == tmp_path / "query.toml"
    (tmp_path / "aggregator.toml").touch()
    assert usual_config(*names) == tmp_path / "aggregator.toml"
    monkeypatch.setenv("SMTPFEEDS_DIR", "/srv/demo")
    assert usual_config(*names) == Path("/srv/demo/aggregator.toml")


def test_a_limit_cuts_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    for limit, shown, is_more in ((None, 3, False), (2, 2, True), (3, 3, False), (4, 3, False)):
        limited = Limited(limit)
        assert len(list(limited.of([None, 0, ""]))) == shown
        limited.note()
        assert limited.is_more == is_more
    assert capsys.readouterr().err == "there are more rows than --limit 2\n"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("hits,nosuch", "--fields: there is no field 'nosuch'. The fields are: address, hits, "),
        ("adress", "'adress'. Did you mean address? The fields are: address, "),
        (" , ", "--fields: name at least one of address, "),
    ],
)
def test_a_wrong_field_names_the_nearest_and_all_others(names: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        select(COLUMNS, names)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["quer"],
            "no such command 'quer'. Did you mean `smtpfeeds query`? See `smtpfeeds --help`",
        ),
        (["zzz"], "no such command 'zzz'; see `smtpfeeds --help`"),
        (
            ["man", "--ouput"],
            "no such option '--ouput'. Did you mean '--output'? See `smtpfeeds man --help`",
        ),
    ],
)
def test_wrong_use_is_one_line_with_the_nearest_word(arguments: list[str], line: str) -> None:
    done = CliRunner().invoke(main, arguments, prog_name="smtpfeeds")
    assert (done.exit_code, done.stderr) == (2, f"smtpfeeds: {line}\n")
