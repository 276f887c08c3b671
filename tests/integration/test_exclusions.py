"""`smtpfeeds exclude` and `smtpfeeds forget`, on a real database."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from ingest_support.fixtures import Run, connection, dsn, run  # noqa: F401 - fixtures
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.store.connection import Connection
from smtpfeeds_aggregator.store.exclusions import SLICE_ADDRESSES, ExclusionStore
from smtpfeeds_common.addresses import parse_network

# ruff: noqa: F811 - fixtures are imported by name and used by name

NOW = datetime.now(UTC).replace(microsecond=0)


def see(connection: Connection, *ips: str) -> None:
    """Store each address in two feeds and by two sensors."""
    connection.execute(
        b"INSERT INTO observation (ip, feed, first_seen, last_seen, hits)"
        b" SELECT ip::inet, feed, now(), now(), 2 FROM unnest(%(ips)s::text[]) AS i (ip),"
        b" unnest(ARRAY['smtpgreet', 'smtpdata']) AS f (feed)",
        {"ips": list(ips)},
    )
    connection.execute(
        b"INSERT INTO sighting (ip, feed, sensor, first_seen, last_seen, hits)"
        b" SELECT ip, feed, sensor, first_seen, last_seen, 1 FROM observation,"
        b" unnest(ARRAY['sensor-1', 'sensor-2']) AS s (sensor) WHERE ip = ANY(%(ips)s::inet[])",
        {"ips": list(ips)},
    )


def stored(connection: Connection, table: bytes) -> list[str]:
    rows = connection.execute(b"SELECT DISTINCT host(ip), ip FROM " + table + b" ORDER BY ip")
    return [row[0] for row in rows.fetchall()]


def exclusions(run: Run) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = json.loads(run("exclude", "list", "--json").stdout)
    return listed


def test_an_exclusion_is_added_listed_and_removed(run: Run, connection: Connection) -> None:
    see(connection, "192.0.2.1", "198.51.100.1")
    before = datetime.now(UTC).replace(microsecond=0)
    added = run("exclude", "add", "192.0.2.0/24", "--why", "our own", "--until", "30d")
    assert added.exit_code == 0
    assert added.stdout.startswith("192.0.2.0/24 is not published until ")
    assert "(1 of its addresses are stored)" in added.stdout
    (listed,) = exclusions(run)
    assert (listed["prefix"], listed["reason"], listed["in_force"]) == (
        "192.0.2.0/24",
        "our own",
        True,
    )
    until = datetime.fromisoformat(str(listed["until"]))
    assert before <= until - timedelta(days=30) <= datetime.now(UTC)
    assert run("exclude", "remove", "192.0.2.0/24").exit_code == 0
    assert run("exclude", "list", "--json").exit_code == 1
    again = run("exclude", "remove", "192.0.2.0/24")
    assert (again.exit_code, again.stdout) == (1, "")
    assert "192.0.2.0/24 has no exclusion of its own" in again.stderr


def test_shorter_prefix_that_still_excludes_is_named(run: Run) -> None:
    for prefix in ("192.0.2.0/24", "192.0.0.0/16", "2001:db8::/32"):
        assert run("exclude", "add", prefix, "--why", "x").exit_code == 0
    removed = run("exclude", "remove", "192.0.2.0/24")
    assert removed.stdout == "192.0.2.0/24 is no longer excluded; 192.0.0.0/16 still excludes it\n"
    assert run("exclude", "add", "192.0.0.0/12", "--why", "x").exit_code == 0
    again = run("exclude", "remove", "192.0.2.7")
    own, others = "192.0.2.7/32 has no exclusion of its own", "192.0.0.0/16, 192.0.0.0/12"
    assert f"{own}; {others} still exclude it" in again.stderr


@pytest.mark.parametrize("prefix", ["0.0.0.0/0", "64.0.0.0/7", "::/0", "2000::/3"])
def test_prefix_of_many_organisations_is_excluded_only_after_a_question(
    run: Run, prefix: str
) -> None:
    words = ("exclude", "add", prefix, "--why", "x")
    for answer in ("", "n\n"):
        asked = run(*words, input=answer)
        assert (asked.exit_code, asked.stdout) == (1, "")
        assert f"Publish nothing of {prefix}, with 0 stored addresses? [y/N]: " in asked.stderr
        assert ("\nsmtpfeeds: not confirmed; --yes confirms it; nothing" in asked.stderr) == (
            not answer
        )
        assert run("exclude", "list", "--json").exit_code == 1
    assert run(*words, input="y\n").exit_code == 0
    assert run(*words, "--yes").exit_code == 0
    for network in ("10.0.0.0/8", "2002::/16"):
        assert run("exclude", "add", network, "--why", "x").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("add", "192.0.2.1/24", "--why", "x"),
            "is an address inside a prefix: write 192.0.2.0/24, or 192.0.2.1 for",
        ),
        (("add", "nonsense", "--why", "x"), "is neither an address nor a prefix"),
        (("add", "192.0.2.1", "--why", "x", "--until", "2020-01-01"), "is in the past"),
        (("add", "192.0.2.1", "--why", "x", "--until", "999999999w"), "too far away"),
        (("add", "192.0.2.1"), "--why"),
        (("add", "192.0.2.1", "--why", " "), "'--why': write a reason"),
    ],
)
def test_wrong_use_is_named(run: Run, arguments: tuple[str, ...], message: str) -> None:
    result = run("exclude", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_forget_deletes_every_row_of_a_prefix_and_nothing_else(
    run: Run, connection: Connection
) -> None:
    see(connection, "192.0.2.0", "192.0.2.255", "192.0.1.255", "192.0.3.0", "2001:db8::1")
    result = run("forget", "192.0.2.0/24", "--yes")
    assert result.exit_code == 0
    assert "2 addresses deleted (4 rows of feeds, 8 sightings)" in result.stdout
    assert "; published files change with the next publication, at once with " in result.stdout
    assert result.stdout.endswith("`smtpfeeds publish now`\n")
    for table in (b"observation", b"sighting"):
        assert stored(connection, table) == ["192.0.1.255", "192.0.3.0", "2001:db8::1"]
    # Events from a spool or a replay that arrive later are stored and not published.
    (listed,) = exclusions(run)
    until = datetime.fromisoformat(str(listed["until"]))
    assert until > NOW + timedelta(days=AggregatorSettings().retention_days + 7)


def test_forget_asks_first(run: Run, connection: Connection) -> None:
    see(connection, "192.0.2.1")
    result = run("forget", "192.0.2.1", input="n\n")
    assert result.exit_code == 1
    assert stored(connection, b"observation") == ["192.0.2.1"]
    assert run("exclude", "list", "--json").exit_code == 1


def test_large_prefix_is_deleted_in_slices_and_a_second_run_changes_nothing(
    connection: Connection,
) -> None:
    many = [f"2001:db8::{number:x}" for number in range(SLICE_ADDRESSES + 10)]
    see(connection, *many, "2001:db9::1")
    store = ExclusionStore(connection)
    prefix, until = parse_network("2001:db8::/32"), NOW + timedelta(days=40)
    seen: list[int] = []
    forgotten = store.forget(prefix, "asked", until, seen.append)
    assert (forgotten.addresses, forgotten.observations) == (len(many), 2 * len(many))
    assert seen == [SLICE_ADDRESSES, len(many)]
    assert store.forget(prefix, "asked", until).addresses == 0
    assert stored(connection, b"observation") == ["2001:db9::1"]


def test_forget_keeps_a_longer_exclusion_and_its_reason(run: Run, connection: Connection) -> None:
    store = ExclusionStore(connection)
    prefix = parse_network("192.0.2.0/24")
    store.add(prefix, "our own", None)
    store.forget(prefix, "asked", NOW + timedelta(days=40))
    (kept,) = store.all()
    assert (kept.reason, kept.until) == ("our own", None)
    # The command tells when the exclusion really ends.
    assert "not published from now on" in run("forget", "192.0.2.0/24", "--yes").output
    store.add(prefix, "asked", NOW + timedelta(days=1))
    store.forget(prefix, "forgotten", NOW + timedelta(days=40))
    (longer,) = store.all()
    assert longer.until == NOW + timedelta(days=40)
