"""The commands that query the database, as an operator types them.

The module is long because all commands use the same rows, which are created once.
"""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ingest_support.fixtures import Run, connection, dsn, run  # noqa: F401 - fixtures
from origin_support import world
from publish_support import Info, Origins
from servers.postgres import database_name
from smtpfeeds_aggregator.classification.lists.model import AddressList, parse_prefix
from smtpfeeds_aggregator.classification.lists.table import ListTable
from smtpfeeds_aggregator.cli.database import connected
from smtpfeeds_aggregator.origin.acquire.refresh import refresh
from smtpfeeds_aggregator.publish.formats import csv_file as csv_format
from smtpfeeds_aggregator.publish.once import publish_once
from smtpfeeds_aggregator.query import feed as feed_now
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.store import query as query_store
from smtpfeeds_aggregator.store.connection import Connection, connect
from smtpfeeds_aggregator.store.listed import ListedEntry, ListedRange, store_lists
from smtpfeeds_aggregator.store.publication import PublicationStore
from smtpfeeds_aggregator.store.sql import queries
from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.cli import main
from smtpfeeds_common.feeds import FEED_NAMES
from smtpfeeds_common.times import iso_utc

# ruff: noqa: F811 - fixtures are imported by name and used by name

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
#: A fixed time, not "80m": the suite may come here long after this module was imported.
LATELY = (NOW - 80 * MINUTE).isoformat()


def see(
    connection: Connection,
    ip: str,
    feed: str = "smtpgreet",
    sensor: str = "sensor-1",
    *,
    first: datetime = NOW - 2 * HOUR,
    last: datetime = NOW - HOUR,
    hits: int = 2,
    flags: int = 0,
) -> None:
    connection.execute(
        "INSERT INTO sighting VALUES (%s, %s, %s, %s, %s, %s, %s, 1)",
        (ip, feed, sensor, first, last, hits, flags),
    )


def fold(connection: Connection) -> None:
    """Compute `observation` from `sighting`, as ingest does."""
    connection.execute(
        "INSERT INTO observation SELECT s.ip, f.feed, min(first_seen), max(last_seen),"
        " coalesce(sum(hits) FILTER (WHERE s.feed = f.feed), 0),"
        " coalesce(bit_or(flags) FILTER (WHERE s.feed = f.feed), 0)"
        " FROM sighting s JOIN (VALUES ('smtpgreet', 'smtpgreet'), ('smtpgreet', 'smtpdata'),"
        " ('smtpdata', 'smtpdata')) f (feed, source) ON s.feed = f.source GROUP BY 1, 2"
    )


@pytest.fixture
def seen(connection: Connection) -> None:
    see(connection, "192.0.2.1")
    see(connection, "192.0.2.1", sensor="sensor-2", first=NOW - 3 * HOUR, flags=1)
    see(connection, "192.0.2.1", "smtpdata", last=NOW - HOUR - timedelta(minutes=1))
    see(connection, "192.0.2.77", first=NOW - 20 * DAY, last=NOW - 10 * DAY)
    see(connection, "198.51.100.1", last=NOW - 90 * timedelta(minutes=1))
    see(connection, "2001:db8::5")
    fold(connection)
    connection.execute("UPDATE observation SET asn = 64496 WHERE ip = '198.51.100.1'")
    connection.execute("INSERT INTO autonomous_system VALUES (64496, 'EXAMPLE-AS, Inc')")
    entry = ListedEntry("scanner", "scan-co", f"{NOW:%Y-%m-%d}", False, "scans", "198.51.100.0/28")
    listed = ListedRange(pack_address("198.51.100.0"), pack_address("198.51.100.15"), (entry,))
    assert store_lists(connection, "one", [listed])


def test_address_that_came_after_a_publication_has_the_class_and_actor_of_its_lists(
    run: Run, connection: Connection, dsn: str, tmp_path: Path
) -> None:
    settings = AggregatorSettings(dsn=dsn, feeds_dir=str(tmp_path / "www"), publish_non_global=True)

    def publish(generation: str, prefix: str) -> None:
        listed = AddressList(
            "scans", "scanner", "scan-co", "", "test", NOW.date(), "stated", (parse_prefix(prefix),)
        )
        publish_once(
            settings, Origins(), connection, lists=ListTable([listed], generation), now=NOW
        )

    def judged(ip: str) -> tuple[str, list[str], str | None]:
        (row,) = json.loads(run("query", ip, "--json").stdout)
        return row["class"], row["why"], row["actor"]

    survey = ("survey", ["listed:scan-co"], "scan-co")
    see(connection, "198.51.100.1")
    fold(connection)
    assert judged("198.51.100.1") == ("probe", ["greet"], None), "no lists were published yet"
    publish("one", "198.51.100.0/28")
    see(connection, "198.51.100.2")
    see(connection, "198.51.100.77")
    connection.execute("TRUNCATE observation")
    fold(connection)
    assert judged("198.51.100.1") == judged("198.51.100.2") == survey
    assert found(run("query", "--all", "--actor", "scan-co", "--json")) == [
        ("198.51.100.1", "smtpgreet"),
        ("198.51.100.2", "smtpgreet"),
    ]
    assert "actor       scan-co\n" in run("query", "198.51.100.2").stdout
    assert judged("198.51.100.77") == ("probe", ["greet"], None)
    publish("two", "198.51.100.64/28")
    assert judged("198.51.100.2") == ("probe", ["greet"], None)
    assert judged("198.51.100.77") == survey


def found(result: Result) -> list[tuple[str, str]]:
    assert result.exit_code == 0, result.output
    return [(row["ipaddr"], row["category"]) for row in json.loads(result.stdout)]


@pytest.mark.usefixtures("seen")
class TestQuery:
    @pytest.mark.parametrize(
        ("terms", "expected"),
        [
            (["192.0.2.1"], ["192.0.2.1 smtpdata", "192.0.2.1 smtpgreet"]),
            (["::ffff:192.0.2.77"], ["192.0.2.77 smtpgreet"]),
            (["192.0.2.0/26", "--feed", "smtpgreet"], ["192.0.2.1 smtpgreet"]),
            (["2001:DB8::/32"], ["2001:db8::5 smtpgreet"]),
            (["::/0"], ["2001:db8::5 smtpgreet"]),
            (["AS64496"], ["198.51.100.1 smtpgreet"]),
            (["64496", "198.51.100.0/24"], ["198.51.100.1 smtpgreet"]),  # each row once
            (["198.51.100.0/24", "as64496"], ["198.51.100.1 smtpgreet"]),
            (["0.0.0.0/0", "--since", LATELY, "--feed", "smtpgreet"], ["192.0.2.1 smtpgreet"]),
            (["--all", "--until", "7d"], ["192.0.2.77 smtpgreet"]),
            (["--all", "--until", (NOW - 7 * DAY).isoformat()], ["192.0.2.77 smtpgreet"]),
            (["--all", "--limit", "1"], ["192.0.2.1 smtpdata"]),
            (["--all", "--feed", "smtpdata"], ["192.0.2.1 smtpdata"]),
            (["192.0.2.70-192.0.2.80"], ["192.0.2.77 smtpgreet"]),
            (["192.0.2[.]77"], ["192.0.2.77 smtpgreet"]),
            (["hxxp://[2001:db8::5]/"], ["2001:db8::5 smtpgreet"]),
            (["example-as"], ["198.51.100.1 smtpgreet"]),  # a part of the AS name
            (["mple-AS, inc"], ["198.51.100.1 smtpgreet"]),
            (["scan-co"], ["198.51.100.1 smtpgreet"]),  # an actor of the lists
            (["--all", "--actor", "SCAN-CO"], ["198.51.100.1 smtpgreet"]),
            (["--all", "--class", "survey"], ["198.51.100.1 smtpgreet"]),
            (
                ["192.0.2.0/24", "--class", "survey", "--class", "probe", "--sensor", "sensor-2"],
                ["192.0.2.1 smtpgreet"],
            ),
            (["--all", "--family", "6"], ["2001:db8::5 smtpgreet"]),
            (["--all", "--min-sensors", "2"], ["192.0.2.1 smtpgreet"]),
            (["--all", "--min-hits", "4"], ["192.0.2.1 smtpgreet"]),
            (["192.0.2.0/24", "--feed", "smtpgreet", "--new"], ["192.0.2.1 smtpgreet"]),
            (
                ["192.0.2.0/24", "--feed", "smtpgreet", "--first-since", "1d"],
                ["192.0.2.1 smtpgreet"],
            ),
            (["192.0.2.0/24", "--sort", "-lastseen", "--limit", "1"], ["192.0.2.1 smtpgreet"]),
            (
                ["192.0.2.0/24", "--sort", "lastseen", "--limit", "2"],
                ["192.0.2.77 smtpgreet", "192.0.2.1 smtpdata"],
            ),
            (
                ["192.0.2.77", "192.0.2.0/25"],
                ["192.0.2.77 smtpgreet", "192.0.2.1 smtpdata", "192.0.2.1 smtpgreet"],
            ),
        ],
    )
    def test_finds(self, terms: list[str], expected: list[str], run: Run) -> None:
        result = run("query", *terms, "--json")
        assert [" ".join(row) for row in found(result)] == expected

    def test_row_has_the_feeds_columns_and_more(self, run: Run) -> None:
        (row,) = json.loads(run("query", "192.0.2.1", "--feed", "smtpgreet", "--json").stdout)
        # Near midnight these are two days, and neither must be today.
        days = {(NOW.date() - (NOW - hours * HOUR).date()).days for hours in (1, 3)}
        assert row == {
            "ASN": None,
            "ASname": None,
            "ipaddr": "192.0.2.1",
            "lastseen": f"{NOW - HOUR:%Y-%m-%d %H:%M:%S}",
            "category": "smtpgreet",
            "first_seen": f"{NOW - 3 * HOUR:%Y-%m-%d %H:%M:%S}",
            "hits": 4,
            "sensors": 2,
            "tags": ["bare_lf"],
            "class": "probe",
            "why": ["greet"],
            "actor": None,
            "days_seen": len(days),
            "days": "".join("#" if back in days else "." for back in range(6, -1, -1)),
            "targets": 2,
            "new": True,
        }

    def test_formats(self, run: Run) -> None:
        text = run("query", "AS64496", "--format", "text").stdout
        time = f"{NOW - 90 * timedelta(minutes=1):%Y-%m-%d %H:%M:%S}"
        wanted = "%-11s  |  %-30s  |  %-15s  |  %s  |  %s\n"
        assert text == wanted % ("64496", "EXAMPLE-AS, Inc", "198.51.100.1", time, "smtpgreet")
        (row,) = csv.DictReader(io.StringIO(run("query", "AS64496", "--format", "csv").stdout))
        assert (row["ASname"], row["hits"]) == ("EXAMPLE-AS, Inc", "2")
        lines = run("query", "--all", "--format", "ndjson").stdout.splitlines()
        assert len([json.loads(line) for line in lines]) == 5
        table = run("query", "AS64496").stdout
        assert table.splitlines()[0].split()[:2] == ["address", "class"]
        assert table.splitlines()[1].split()[:2] == ["198.51.100.1", "survey"]
        assert table.isascii()  # no box, no colour
        per_feed = run("query", "AS64496", "--per", "feed").stdout
        assert per_feed.splitlines()[1].split()[:2] == ["198.51.100.1", "smtpgreet"]

    def test_both_feeds_of_an_address_stand_side_by_side(self, run: Run) -> None:
        (row,) = json.loads(run("query", "192.0.2.1", "--per", "address", "--json").stdout)
        assert (row["greet"], row["data"], row["sensors"]) == (4, 2, 2)
        assert row["first_seen"] == iso_utc(NOW - 3 * HOUR)
        assert row["last_seen"] == iso_utc(NOW - HOUR)
        everything = run(
            "query", "--all", "--fields", "address,data", "--format", "csv", "--per", "address"
        )
        assert everything.stdout.splitlines() == [
            "address,data", "192.0.2.1,2", "192.0.2.77,NA", "198.51.100.1,NA", "2001:db8::5,NA",
        ]  # fmt: skip

    def test_count(self, run: Run) -> None:
        assert run("query", "--all", "--count").stdout == "4\n"
        assert run("query", "--all", "--count", "--per", "feed").stdout == "5\n"
        none = run("query", "203.0.113.0/24", "--count")
        assert (none.exit_code, none.stdout) == (1, "0\n")

    def test_what_is_not_seen_is_named(self, run: Run) -> None:
        result = run(
            "query", "192.0.2.1", "203.0.113.7", "192.0.2.1", "AS64499", "nobody", "--json"
        )
        assert result.exit_code == 0
        assert result.stderr == "not seen: 203.0.113.7, AS64499, nobody\n"

    def test_a_range_around_a_term_before_it_is_seen(self, run: Run) -> None:
        result = run("query", "192.0.2.1", "192.0.2.0/30", "192.0.2.8/30", "--json")
        assert result.stderr == "not seen: 192.0.2.8/30\n"

    def test_a_range_that_ends_in_mapped_addresses_is_asked(
        self, run: Run, connection: Connection
    ) -> None:
        see(connection, "::5")
        connection.execute("TRUNCATE observation")
        fold(connection)
        for term in ("::/80", "::/0"):
            assert (
                "\n::5," in run("query", term, "--format", "csv", "--fields", "ipaddr,hits").stdout
            )

    def test_one_answer_for_each_term_that_is_read(self, run: Run, tmp_path: Path) -> None:
        text = (
            "203.0.113.7\n192.0.2.1\n\n# a comment\n192.0.2.300\n192.0.2[.]1\nAS64496\n"
            "192.0.2.0/24\n"
        )
        result = run("query", "-", "--json", input=text)
        assert result.exit_code == 0
        rows = json.loads(result.stdout)
        assert [(row["term"], row["seen"], row["addresses"]) for row in rows] == [
            ("203.0.113.7", False, 0),
            ("192.0.2.1", True, 1),
            ("192.0.2[.]1", True, 1),
            ("AS64496", True, 1),
            ("192.0.2.0/24", True, 2),
        ]
        assert (rows[1]["class"], rows[1]["greet"], rows[1]["data"]) == ("probe", 4, 2)
        assert (rows[4]["class"], rows[4]["greet"]) == (None, 6)
        assert "standard input, line 5: '192.0.2.300' is not an address" in result.stderr
        (tmp_path / "terms").write_text(text)
        assert json.loads(run("query", "--file", str(tmp_path / "terms"), "--json").stdout) == rows
        assert run("query", "-", "--count", input=text).stdout == "4\n"
        empty = run("query", "-", "--json", input="\n")
        assert (empty.exit_code, empty.stdout) == (1, "[]\n")
        assert run("query", "-", input="203.0.113.7\n").exit_code == 1
        assert run("query", "-", input="nonsense:\n").exit_code == 2

    def test_card_of_one_address(self, run: Run, connection: Connection) -> None:
        connection.execute(
            "INSERT INTO sensor (name, addresses) VALUES ('sensor-1', 16), ('sensor-2', 0)"
        )
        card = run("query", "192.0.2.1").stdout
        for words in (
            "192.0.2.1\norigin      none is known\n",
            "class       probe: greets, and does little else\nwhy         greet: it greeted\n",
            "smtpgreet   4 events, 2 sensors, last ",
            "smtpdata    2 events, 1 sensor, last ",
            "sensor-1: 2 greet, 2 data, at 1 of its 16 addresses lately",
            "lists       none contains it\n",
            "published   no: not publicly routable (documentation (TEST-NET-1), RFC 5737)\n",
        ):
            assert words in card
        listed = run("query", "198.51.100.1").stdout
        assert "origin      AS64496 EXAMPLE-AS, Inc\n" in listed
        assert "lists       scans (scan-co), scanner: 198.51.100.0/28, of " in listed
        assert "actor       scan-co\n" in listed
        see(connection, "9.9.9.9")
        see(connection, "9.9.9.10", first=NOW - 20 * DAY, last=NOW - 10 * DAY)
        connection.execute("TRUNCATE observation")
        fold(connection)
        assert "published   yes, in smtpgreet\n" in run("query", "9.9.9.9").stdout
        assert "published   no: too old" in run("query", "9.9.9.10").stdout
        connection.execute("INSERT INTO exclusion VALUES ('9.9.9.0/24', 'ours')")
        assert "published   no: 9.9.9.0/24 is excluded: ours\n" in run("query", "9.9.9.9").stdout
        assert run("query", "203.0.113.7").exit_code == 1

    def test_card_names_the_prefix_that_is_announced(
        self, run: Run, connection: Connection, tmp_path: Path
    ) -> None:
        origins = world.settings(tmp_path / "origins")
        table = tmp_path / "table.dat"
        table.write_text(world.table_text([*world.rows(), ("9.9.8.0/23", 19281)]))
        refresh(origins, source=table, now=datetime.now(UTC))
        config = tmp_path / "aggregator.toml"
        config.write_text(f"origin_dir = {origins.origin_dir!r}\n")
        see(connection, "9.9.9.9")
        see(connection, "9.9.9.10")
        connection.execute("TRUNCATE observation")
        fold(connection)
        connection.execute("UPDATE observation SET asn = 19281 WHERE ip = '9.9.9.9'")
        connection.execute("UPDATE observation SET asn = 3333 WHERE ip = '9.9.9.10'")
        ask = ("--config", str(config))
        assert "origin      AS19281, announces 9.9.8.0/23\n" in run("query", "9.9.9.9", *ask).stdout
        # The table has another origin now, so its prefix is not shown.
        assert "origin      AS3333\n" in run("query", "9.9.9.10", *ask).stdout
        (tmp_path / "origins" / "current").resolve().joinpath("origin.index").write_bytes(b"x")
        damaged = run("query", "9.9.9.9", *ask)
        assert "origin      AS19281\n" in damaged.stdout
        assert "note: the announced prefix is not shown: " in damaged.stderr

    def test_nothing_found_is_a_message_and_exit_code_1(self, run: Run) -> None:
        result = run("query", "203.0.113.7")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "not seen: 203.0.113.7" in result.stderr
        result = run("query", "203.0.113.7", "203.0.113.8")
        assert "nothing found for 203.0.113.7, 203.0.113.8" in result.stderr
        result = run("query", "203.0.113.7", "--json")
        assert (result.exit_code, json.loads(result.stdout)) == (1, [])
        result = run("query", "203.0.113.7", "--format", "csv")
        assert (result.exit_code, result.stdout) == (1, ",".join(csv_format.COLUMNS) + "\n")

    @pytest.mark.parametrize(
        "args",
        [
            ["192.0.2.300"],
            [],  # an empty list of addresses does not select everything
            ["--all", "192.0.2.1"],
            ["-", "--sort", "hits"],
            ["-", "192.0.2.1"],
            ["-", "-"],
            ["--all", "--sort", "hits,ASN"],
            ["192.0.2.1", "--fields", "hts"],
            ["--all", "--sort", "hts"],
            ["--all", "--format", "text", "--per", "address"],
            ["AS0"],
            ["4294967296"],
            ["--all", "--since", "yesterday"],
            ["--all", "--feed", "smtphelo"],
            ["--all", "--limit", "0"],
            ["--all", "--format", "xml"],
            ["--dsn", "host=x", "--dir", "/nowhere"],
            ["--all", "--since", "1h", "--until", "1d"],
        ],
    )
    def test_wrong_use_is_exit_code_2(self, args: list[str], run: Run) -> None:
        result = run("query", *args)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr

    def test_limit_says_that_there_is_more(self, run: Run) -> None:
        cut = ("query", "--all", "--json", "--limit")
        assert "there are more rows than --limit 2" in run(*cut, "2").stderr
        assert run(*cut, "5").stderr == ""

    def test_prefix_with_host_bits_is_answered_with_a_hint(self, run: Run) -> None:
        result = run("query", "192.0.2.200/24", "--json")
        assert len(found(result)) == 3
        assert "is taken as 192.0.2.0/24" in result.stderr

    def test_pages_have_every_row_once(
        self, run: Run, connection: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        everything = found(run("query", "--all", "--json"))
        assert len(everything) == 5
        connection.execute("UPDATE observation SET asn = 64496")
        for name, value in (
            ("PAGE_ROWS", 2), ("ROWS_OF_WIDE_RANGE", 3), ("RANGES_AT_ONCE", 2),
            ("WIDE_RANGES_AT_ONCE", 2), ("KEYS_MAX", 2),
        ):  # fmt: skip
            monkeypatch.setattr(query_store, name, value)
        assert found(run("query", "--all", "--json")) == everything
        assert found(run("query", "AS64496", "--json")) == everything
        halves = ("::/0", "0.0.0.0/1", "192.0.2.0/24", "128.0.0.0/1")
        assert found(run("query", *halves, "--json")) == [everything[-1], *everything[:-1]]
        singles = ["192.0.2.1", "192.0.2.77", "198.51.100.1", "2001:db8::5"]
        assert found(run("query", *singles, "--json")) == everything

    def test_command_that_only_asks_cannot_write_and_has_a_limit(self, dsn: str) -> None:
        settings = AggregatorSettings(dsn=dsn, database_timeout_s=10)
        with connected(settings) as connection:
            assert connection.limit_s == 10
            assert connection.execute("SHOW transaction_read_only").fetchone() == ("on",)
            assert connection.execute("SHOW statement_timeout").fetchone() == ("8s",)


def test_ranges_are_index_ranges_whatever_the_table_holds(connection: Connection) -> None:
    """A thousand terms read only index keys, and no whole table."""
    connection.execute(
        "INSERT INTO observation SELECT '10.0.0.0'::inet + g, 'smtpgreet', now(), now(), 1"
        " FROM generate_series(1, 20000) g"
    )
    connection.execute("ANALYZE observation, sighting, listed_range")
    sql = "EXPLAIN " + queries("query.sql")["rows_of_ranges"].split("\n", 3)[3]
    plan = connection.execute(
        sql.encode(),
        {
            "lows": [f"10.0.{n // 256}.{n % 256}" for n in range(1000)],
            "highs": [f"10.0.{n // 256}.{n % 256}" for n in range(1000)],
            "after_feed": "", "feeds": ["smtpgreet"], "since": None,
            "until": None, "first_since": None, "min_hits": 0, "family": None, "sensor": None,
            "rows": 2, "week": 2970, "window": NOW,
        },
    ).fetchall()  # fmt: skip
    text = "\n".join(line for (line,) in plan)
    assert "observation_pkey" in text
    # A row comparison would replace the lower bound and scan from the first row.
    assert ">= t.low)" in text
    assert "ROW(" not in text
    assert "Seq Scan on observation" not in text
    # A hashed subquery reads every row of smtpdata, by an index or not; OFFSET 0 prevents it.
    assert "hashed SubPlan" not in text
    assert "Index Cond: ((ip = every.ip) AND (feed = 'smtpdata'::text))" in text


class TestDatabaseChoice:
    def test_folder_of_a_single_host(
        self, dsn: str, connection: Connection, tmp_path: Path
    ) -> None:
        see(connection, "192.0.2.1")
        fold(connection)
        (tmp_path / "aggregator.toml").write_text(f"dsn = {json.dumps(dsn)}\n")
        for option, value in (("--dir", tmp_path), ("--config", tmp_path / "aggregator.toml")):
            result = CliRunner().invoke(main, ["query", "192.0.2.1", option, str(value), "--json"])
            assert len(found(result)) == 1

    def test_none_is_wrong_use(self) -> None:
        result = CliRunner().invoke(
            main, ["query", "192.0.2.1"], env={"SMTPFEEDS_AGGREGATOR_DSN": ""}
        )
        assert result.exit_code == 2
        assert "which database" in result.stderr

    def test_folder_of_something_else_is_wrong_use(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(main, ["query", "192.0.2.1", "--dir", str(tmp_path)])
        assert result.exit_code == 2
        assert "it has no aggregator.toml" in result.stderr

    def test_folder_whose_database_is_not_running_says_what_to_run(self, tmp_path: Path) -> None:
        (tmp_path / "aggregator.toml").write_text(f'dsn = "host={tmp_path} dbname=smtpfeeds"\n')
        result = CliRunner().invoke(main, ["query", "192.0.2.1", "--dir", str(tmp_path)])
        assert result.exit_code == 3
        assert f"is `smtpfeeds up --dir {tmp_path}` running?" in result.stderr

    def test_database_without_schema_says_what_to_run(self, database: str) -> None:
        result = CliRunner().invoke(main, ["query", "192.0.2.1", "--dsn", database])
        assert result.exit_code == 3
        assert "smtpfeeds aggregator migrate" in result.stderr


@pytest.mark.usefixtures("seen")
class TestFeed:
    def test_list_counts_the_window(self, run: Run) -> None:
        greet, data = json.loads(run("feed", "list", "--json").stdout)
        assert (greet["feed"], greet["addresses"]) == ("smtpgreet", 3)
        assert (data["feed"], data["addresses"]) == ("smtpdata", 1)
        assert data["newest"] == iso_utc(NOW - HOUR - timedelta(minutes=1))

    def test_show_prints_what_would_be_published(
        self, run: Run, connection: Connection, dsn: str, tmp_path: Path
    ) -> None:
        settings = AggregatorSettings(dsn=dsn, feeds_dir=str(tmp_path), publish_non_global=True)
        publish_once(settings, Origins(info=Info(prefixes=0)), connection)
        lines = (tmp_path / "feeds" / "smtpgreet.txt").read_text().splitlines(keepends=True)
        published = [line for line in lines if not line.startswith("#")]
        config = tmp_path / "aggregator.toml"
        config.write_text("publish_non_global = true\n")
        args = ("feed", "show", "smtpgreet", "--config", str(config), "--format", "text")
        assert run(*args).stdout == "".join(published)
        assert len(published) == 3

    def test_answers_from_published_files_are_those_of_the_database(
        self, run: Run, connection: Connection, dsn: str, tmp_path: Path
    ) -> None:
        settings = AggregatorSettings(
            dsn=dsn, feeds_dir=str(tmp_path), publish_non_global=True, publish_exact_counts=True
        )
        publish_once(settings, Origins(info=Info(prefixes=0)), connection)
        config, log = tmp_path / "aggregator.toml", tmp_path / "mail.log"
        terms = tmp_path / "terms"
        config.write_text("publish_non_global = true\npublish_exact_counts = true\n")
        terms.write_text("198.51.100.0/24\n192.0.2.9\n192.0.2.1\nAS64496\nexample\n")
        log.write_text("connect from unknown[192.0.2.1]\n198.51.100.9\nclient=2001:DB8::5\n")
        published = ("--from", str(tmp_path / "feeds"))
        for command, rows in (
            (("feed", "show", "smtpgreet", "--format", "csv"), 4),
            (("feed", "show", "smtpgreet", "--since", LATELY, "--format", "csv"), 3),
            (("feed", "show", "smtpdata", "--format", "text"), 1),
            (("query", "192.0.2.0/24", "--since", "7d", "--format", "csv"), 3),
            (("query", "192.0.2.1", "192.0.2.0/26", "as64496", "2001:db8::/32"), 4),
            (("query", "--since", "7d", "--all", "--per", "address", "--json"), 5),
            (("query", "EXAMPLE", "--min-hits", "2", "--family", "4", "--format", "text"), 1),
            (("query", "--file", str(terms), "--since", "7d", "--format", "csv"), 6),
            (("query", "--since", "7d", "--all", "--new", "--count"), 1),
            (("filter", "--annotate", str(log)), 2),
            (("filter", str(log)), 2),
            (("filter", "--feed", "smtpdata", "--invert", str(log)), 2),
            (("filter", "--summary", "--format", "json", str(log)), 4),
        ):
            stored = run(*command, "--config", str(config))
            assert run(*command, *published).stdout == stored.stdout
            assert stored.stdout.count("\n") == rows, stored.stdout
        (day,) = (path for path in (tmp_path / "feeds" / "archive").iterdir() if path.is_dir())
        assert run("feed", "diff", str(day), str(tmp_path / "feeds")).exit_code == 1
        assert run("query", "192.0.2.1", "--count", "--from", str(day)).stdout == "1\n"
        card = run("query", "198.51.100.1", *published).stdout
        for words in (
            "198.51.100.1\norigin      AS64496 EXAMPLE-AS, Inc\n",
            "sensors     published files do not name them\n",
            "lists       published files name an actor, not the lists\n",
            "published   yes, in smtpgreet, made 20",
        ):
            assert words in card
        assert run("query", "203.0.113.7", *published).exit_code == 1
        # The addresses alone come from the shorter rows of CSV.
        matching = run("filter", str(log), *published).stdout
        for path in (tmp_path / "feeds" / "current").glob("*.ndjson*"):
            path.unlink()
        assert run("filter", str(log), *published).stdout == matching
        assert run("filter", "--annotate", str(log), *published).exit_code == 2

    def test_statistics_are_made_by_a_publication(
        self,
        run: Run,
        connection: Connection,
        dsn: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Stored statistics equal those counted now and those counted from the published files."""
        assert "--live counts" in run("stats").stderr
        settings = AggregatorSettings(
            dsn=dsn, feeds_dir=str(tmp_path), publish_non_global=True, publish_exact_counts=True
        )
        connection.execute(
            "INSERT INTO activity VALUES (date_trunc('hour', now()), 'smtpgreet', 'sensor-1', 7),"
            " (date_trunc('hour', now()), 'smtpdata', 'sensor-1', 2)"
        )
        publish_once(settings, Origins(info=Info(prefixes=0)), connection)
        config = tmp_path / "aggregator.toml"
        config.write_text("publish_non_global = true\npublish_exact_counts = true\n")
        every = ("stats", "--format", "ndjson")
        stored = run(*every).stdout.splitlines()
        live = run(*every, "--live", "--config", str(config)).stdout.splitlines()
        # Midnight may fall between the two.
        assert [row for row in live if '"by":"day"' not in row] == [
            row for row in stored if '"by":"day"' not in row
        ]
        files = run(*every, "--from", str(tmp_path / "feeds")).stdout.splitlines()
        rows = [json.loads(line) for line in stored]
        assert files == [
            line
            for line, row in zip(stored, rows, strict=True)
            if row["by"] not in {"hour", "sensor"}
        ]
        by_key = {(row["by"], row["key"]): row for row in rows}
        assert by_key["feed", "smtpgreet"]["smtpgreet"] == 3
        assert by_key["asn", "64496"] == {
            "by": "asn",
            "key": "64496",
            "name": "EXAMPLE-AS, Inc",
            "smtpgreet": 1,
            "smtpdata": 0,
            "new": 1,
            "greet_events": 2,
            "data_events": 0,
        }
        assert by_key["sensor", "sensor-1"]["greet_events"] == 7
        assert sum(row["data_events"] for row in rows if row["by"] == "hour") == 2
        assert by_key["prefix", "192.0.2.0/24"]["smtpdata"] == 1
        assert by_key["prefix", "2001:db8::/48"]["smtpgreet"] == 1
        overview = run("stats")
        assert "sensors: 0 alive" in overview.stdout
        assert "smtpgreet  " in overview.stdout
        limited = run("stats", "--by", "prefix", "--limit", "1", "--format", "csv")
        assert (limited.stdout.count("\n"), "--limit 1" in limited.stderr) == (2, True)
        assert run("stats", "--by", "hour", "--from", str(tmp_path / "feeds")).exit_code == 2
        assert "in a terminal" in run("stats", "--watch").stderr

        def interrupt(seconds: float) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("smtpfeeds_aggregator.cli.stats._is_terminal", lambda: True)
        monkeypatch.setattr("smtpfeeds_aggregator.cli.stats.time.sleep", interrupt)
        watched = run("stats", "--watch")
        assert watched.exit_code == 130
        assert watched.stdout.startswith("\x1b[H\x1b[Jedition of ")

    def test_show_leaves_out_what_is_not_published(self, run: Run, tmp_path: Path) -> None:
        log = tmp_path / "mail.log"
        log.write_text("192.0.2.1\n2001:db8::5\n")
        filtered = run("filter", str(log))
        assert (filtered.exit_code, filtered.stdout) == (1, "")
        assert "no address in the feeds matches these options" in filtered.stderr
        result = run("feed", "show", "smtpgreet")
        assert result.exit_code == 1
        assert "smtpgreet is empty; left out: 3 not publicly routable" in result.stderr

    @pytest.mark.parametrize("options", [[], ["--until", (NOW - 30 * MINUTE).isoformat()]])
    def test_first_rows_are_those_of_the_whole(
        self,
        run: Run,
        connection: Connection,
        monkeypatch: pytest.MonkeyPatch,
        options: list[str],
    ) -> None:
        """The order is that of publication: without rows that are left out."""
        for n in range(60):
            see(connection, f"9.9.{n % 7}.{n}", first=NOW - DAY, last=NOW - n * MINUTE)
            see(connection, f"2620:fe::{n:x}", "smtpdata", first=NOW - 9 * DAY)
            see(connection, f"10.0.0.{n}")
        connection.execute("TRUNCATE observation")
        fold(connection)
        connection.execute(
            "UPDATE observation SET asn = nullif((ip - '0.0.0.0'::inet) %% 5, 0)"
            " WHERE family(ip) = 4 AND feed = %s",
            ("smtpgreet",),
        )
        for feed in FEED_NAMES:
            show = ["feed", "show", feed, *options, "--format", "csv"]
            lines = run(*show).stdout.splitlines()
            for spare in (0, 1_000):
                monkeypatch.setattr(feed_now, "_SPARE", spare)
                for limit in (1, 30, 500):
                    limited = run(*show, "--limit", str(limit))
                    assert limited.stdout.splitlines() == lines[: limit + 1]
                    cut = f"more rows than --limit {limit}" in limited.stderr
                    assert cut == (limit < len(lines) - 1)

    def test_first_rows_need_no_copy_of_the_feeds(
        self, dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection.execute(
            "INSERT INTO observation SELECT '9.0.0.0'::inet + g, 'smtpgreet', now(), now(), 1"
            " FROM generate_series(1, 5000) g"
        )
        store = PublicationStore(connection)
        copied: list[int] = []
        copy_window = store.copy_window

        def spy(since: datetime, until: datetime | None, week: int, only: list[str]) -> object:
            copied.append(len(only))
            return copy_window(since, until, week, only)

        monkeypatch.setattr(store, "copy_window", spy)
        wanted = feed_now.FeedSelection(feed="smtpgreet", rows=11)
        rows, _ = feed_now.FeedNow(AggregatorSettings(dsn=dsn), store, wanted).rows()
        assert [row.address for row in rows][:2] == ["9.0.0.1", "9.0.0.2"]
        assert copied == [11 + feed_now._SPARE]

    def test_times_in_place_of_the_window(self, run: Run, tmp_path: Path) -> None:
        config = tmp_path / "aggregator.toml"
        config.write_text("publish_non_global = true\n")
        show = ("feed", "show", "smtpgreet", "--config", str(config), "--json")
        assert len(found(run(*show, "--since", "30d"))) == 4
        assert found(run(*show, "--since", "30d", "--until", "7d")) == [("192.0.2.77", "smtpgreet")]


class TestSensors:
    def test_list_says_who_is_alive(self, run: Run, connection: Connection) -> None:
        connection.execute(
            "INSERT INTO sensor (name, heard_at, sealed_at, version, drops) VALUES"
            " ('a-alive', now(), now() + interval '30 seconds', '0.1.0', 0),"
            " ('b-silent', %s, %s, '0.0.9', 4), ('c-new', NULL, NULL, '', 0)",
            (NOW - DAY, NOW - DAY),
        )
        connection.execute(
            "INSERT INTO activity VALUES (%s, 'smtpgreet', 'a-alive', 5),"
            " (%s, 'smtpdata', 'a-alive', 3), (%s, 'smtpdata', 'a-alive', 100)",
            (NOW - HOUR, NOW - HOUR, NOW - 3 * DAY),
        )
        alive, silent, new = json.loads(run("sensors", "--json").stdout)
        assert alive["alive"] is True
        assert alive["silent_since"] is None
        assert (alive["events_24h"], alive["events"], alive["skew_s"]) == (8, 108, 30.0)
        assert silent["alive"] is False
        assert silent["silent_since"] == iso_utc(NOW - DAY)
        assert (silent["version"], silent["drops"]) == ("0.0.9", 4)
        assert (new["alive"], new["last_heard"]) == (False, None)
        assert run("sensors", "list", "--json").stdout == run("sensors", "--json").stdout
        head, row, *_ = run("sensors").stdout.splitlines()
        assert row.split()[:3] == ["a-alive", "alive", "yes"]
        assert [one["state"] for one in (alive, silent, new)] == ["alive", "silent", "enrolled"]
        assert "last heard UTC" in head
        # CSV says what is not known, and what is true, as the feeds' own does.
        rows = csv.DictReader(io.StringIO(run("sensors", "--format", "csv").stdout))
        answers = [(row["alive"], row["last_heard"], row["version"]) for row in rows][1:]
        assert answers == [("false", iso_utc(NOW - DAY), "0.0.9"), ("false", "NA", "NA")]

    def test_absurd_counts_of_one_sensor_hide_no_other(
        self, run: Run, connection: Connection
    ) -> None:
        """Three hours at the bound of a counter do not fit into their sum's type."""
        connection.execute("INSERT INTO sensor (name) VALUES ('absurd'), ('good')")
        connection.execute(
            "INSERT INTO activity SELECT now() - n * interval '1 hour', 'smtpgreet', 'absurd',"
            " 4611686018427387903 FROM generate_series(1, 3) n"
        )
        absurd, good = json.loads(run("sensors", "--json").stdout)
        assert absurd["events"] == absurd["events_24h"] == 2**62 - 1
        assert good["sensor"] == "good"

    def test_none_is_exit_code_1(self, run: Run) -> None:
        result = run("sensors")
        assert (result.exit_code, result.stderr) == (1, "no sensor has reported yet\n")
        result = run("sensors", "--format", "csv")
        assert result.exit_code == 1
        assert result.stdout.startswith("sensor,state,alive,silent_since,last_heard,")


def test_output_to_a_pipe_is_plain(dsn: str, connection: Connection) -> None:
    """The real program, its output a pipe, a terminal's variables set."""
    see(connection, "192.0.2.1")
    fold(connection)
    done = subprocess.run(
        [sys.executable, "-m", "smtpfeeds_common.cli", "query", "192.0.2.1"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "SMTPFEEDS_AGGREGATOR_DSN": dsn, "TERM": "xterm-256color"},
    )
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout
    assert done.stdout.startswith("192.0.2.1\norigin ")
    assert done.stderr == ""


@pytest.mark.parametrize("form", ["table", "json", "ndjson", "csv", "text"])
@pytest.mark.parametrize("asked", ["query --all --per feed", "feed show smtpgreet"])
def test_reader_that_closes_the_pipe_early_is_not_an_error(
    dsn: str, connection: Connection, asked: str, form: str
) -> None:
    """`… | head -1` of a long answer, as monitoring scripts write it."""
    connection.execute(
        "INSERT INTO observation SELECT '9.0.0.0'::inet + g, 'smtpgreet', now(), now(), 1"
        " FROM generate_series(1, 3000) g"
    )
    command = f'set -o pipefail; "$1" -m smtpfeeds_common.cli {asked} --format {form} | head -1'
    done = subprocess.run(
        ["bash", "-c", command, "bash", sys.executable],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SMTPFEEDS_AGGREGATOR_DSN": dsn},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1


def test_ctrl_c_ends_a_waiting_query_without_a_traceback(dsn: str, connection: Connection) -> None:
    """The server is in the middle of a statement, which it would be for a minute."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"
    )
    # Tests that run in the background of a shell start with the signal ignored, and so would this.
    program = ["env", "--default-signal=INT", "--"]
    program += [sys.executable, "-m", "smtpfeeds_common.cli", "query", "192.0.2.1", "--dsn", dsn]
    with (
        connect(AggregatorSettings(dsn=dsn), "watch", autocommit=True) as watch,
        connection.transaction(),
    ):
        connection.execute("LOCK TABLE observation IN ACCESS EXCLUSIVE MODE")
        asking_now = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while watch.execute(waiting, (database_name(dsn),)).fetchone() == (0,):
            assert asking_now.poll() is None
        asking_now.send_signal(signal.SIGINT)
        output = asking_now.communicate(timeout=60)
    assert (asking_now.returncode, output) == (130, (b"", b""))
