"""`smtpfeeds publish`, and editions whose numbers are not trusted, with a real PostgreSQL."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ingest_support.fixtures import dsn  # noqa: F401 - fixtures
from publish_support import Origins, RunHere
from smtpfeeds_aggregator.cli.publish import publish
from smtpfeeds_aggregator.clock.database import DatabaseClock
from smtpfeeds_aggregator.health import Health
from smtpfeeds_aggregator.metrics import Metrics
from smtpfeeds_aggregator.publish.once import publish_once
from smtpfeeds_aggregator.publish.sanity import SuspiciousFeeds
from smtpfeeds_aggregator.publish.scheduled import connect_publisher
from smtpfeeds_aggregator.publish.service import PublishLoop
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.store.connection import Connection, connect
from smtpfeeds_common.errors import DatabaseUnavailable

# ruff: noqa: F811 - fixtures are imported by name and used by name


@pytest.fixture
def settings(dsn: str, tmp_path: Path) -> AggregatorSettings:
    return AggregatorSettings(dsn=dsn, feeds_dir=str(tmp_path / "www"), publish_non_global=True)


@pytest.fixture
def connection(settings: AggregatorSettings) -> Iterator[Connection]:
    with connect(settings, "test", autocommit=True) as connection:
        yield connection


@pytest.fixture
def config(settings: AggregatorSettings, tmp_path: Path) -> Path:
    file = tmp_path / "aggregator.toml"
    lines = (
        f"dsn = {json.dumps(settings.dsn)}",
        f"feeds_dir = {json.dumps(settings.feeds_dir)}",
        "publish_non_global = true",
    )
    file.write_text("\n".join(lines) + "\n")
    return file


def observe(connection: Connection, addresses: int, feed: str = "smtpgreet") -> None:
    connection.execute(
        "INSERT INTO observation SELECT '192.0.2.0'::inet + n, %s, now(), now(), 1, 0, NULL"
        " FROM generate_series(1, %s) AS n ON CONFLICT DO NOTHING",
        (feed, addresses),
    )


def current(settings: AggregatorSettings) -> Path:
    return (Path(settings.feeds_dir) / "feeds/current").readlink()


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(publish, [str(argument) for argument in arguments])


def status(config: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads(
        run("status", "--config", config, "--format", "json").output
    )
    return document


def publishing(
    settings: AggregatorSettings,
    metrics: Metrics,
    health: Health | None = None,
    connect: Callable[[AggregatorSettings], Connection] = connect_publisher,
) -> PublishLoop:
    clock = DatabaseClock()
    runner = RunHere(settings, Origins(), clock)
    return PublishLoop(settings, runner, clock, metrics, health or Health(), connect=connect)


def test_feed_that_became_empty_is_refused_until_forced(
    settings: AggregatorSettings, connection: Connection, config: Path
) -> None:
    observe(connection, 120)
    publish_once(settings, Origins(), connection)
    good = current(settings)
    connection.execute("DELETE FROM observation")
    refused = run("now", "--config", config)
    assert isinstance(refused.exception, SuspiciousFeeds)
    assert refused.exception.exit_code == 3
    assert "smtpgreet: no address, after 120" in refused.exception.message
    assert current(settings) == good
    failure = status(config)["last_failure"]
    assert isinstance(failure, dict)
    assert failure["refused"] is True
    text = run("status", "--config", config)
    assert text.exit_code == 1
    assert "refused: smtpgreet: no address, after 120" in text.output
    forced = run("now", "--force", "--config", config)
    assert forced.exit_code == 0, forced.output
    assert current(settings) != good
    assert status(config)["last_failure"] is None


@pytest.mark.parametrize(("before", "after"), [(200, 99), (100, 1101)])
def test_drop_and_rise_beyond_the_settings_are_refused(
    settings: AggregatorSettings, connection: Connection, before: int, after: int
) -> None:
    observe(connection, before)
    publish_once(settings, Origins(), connection)
    connection.execute("DELETE FROM observation")
    observe(connection, after)
    with pytest.raises(SuspiciousFeeds, match=f"{after} addresses after {before}"):
        publish_once(settings, Origins(), connection)
    lenient = replace(settings, publish_max_drop_percent=51, publish_max_rise_percent=1001)
    assert publish_once(lenient, Origins(), connection) is not None


def test_small_or_old_edition_is_not_compared(
    settings: AggregatorSettings, connection: Connection
) -> None:
    observe(connection, 99)
    assert publish_once(settings, Origins(), connection) is not None
    connection.execute("DELETE FROM observation")
    assert publish_once(settings, Origins(), connection) is not None
    observe(connection, 150)
    assert publish_once(settings, Origins(), connection) is not None
    later = datetime.now(UTC) + timedelta(days=8)
    published = publish_once(settings, Origins(), connection, now=later)
    assert published is not None
    assert published.addresses == {"smtpgreet": 0, "smtpdata": 0}


def test_excluded_addresses_do_not_count_as_a_drop(
    settings: AggregatorSettings, connection: Connection
) -> None:
    observe(connection, 120)
    publish_once(settings, Origins(), connection)
    connection.execute("INSERT INTO exclusion (prefix, reason) VALUES ('192.0.2.0/24', 'asked')")
    for _ in range(2):
        published = publish_once(settings, Origins(), connection)
        assert published is not None
        assert published.addresses["smtpgreet"] == 0


def test_aggregator_counts_a_refusal_and_tries_at_the_next_scheduled_time(
    settings: AggregatorSettings, connection: Connection, config: Path
) -> None:
    observe(connection, 120)
    publish_once(settings, Origins(), connection)
    connection.execute("DELETE FROM observation")
    manifest = Path(settings.feeds_dir) / "feeds/manifest.json"
    document = json.loads(manifest.read_text())
    earlier = datetime.now(UTC) - timedelta(days=1)
    manifest.write_text(json.dumps({**document, "generated": f"{earlier:%Y-%m-%dT%H:%M:%SZ}"}))
    metrics, health = Metrics(), Health()
    loop = publishing(settings, metrics, health)
    good, begun_s = current(settings), datetime.now(UTC).timestamp()
    again_s = loop.publish()
    assert begun_s < again_s
    assert again_s % settings.publish_interval_s == 0
    labels = {"result": "refused"}
    assert metrics.registry.get_sample_value("smtpfeeds_publish_runs", labels) == 1
    assert health.problems()[0].startswith("publish: smtpgreet: no address, after 120")
    assert current(settings) == good


def test_status_shows_the_last_and_the_next_publication(
    settings: AggregatorSettings, connection: Connection, config: Path
) -> None:
    nothing = run("status", "--config", config)
    assert nothing.exit_code == 1
    observe(connection, 3)
    connection.execute("INSERT INTO exclusion (prefix, reason) VALUES ('192.0.2.1/32', 'asked')")
    result = run("now", "--config", config, "--format", "json")
    assert result.exit_code == 0, result.output
    report = status(config)
    assert report["generation"] == json.loads(result.output)["generation"] == current(settings).name
    assert report["addresses"] == {"smtpgreet": 2, "smtpdata": 0}
    assert report["left_out"] == {
        "smtpgreet": {"not_global": 0, "excluded": 1},
        "smtpdata": {"not_global": 0, "excluded": 0},
    }
    assert report["published_by"]
    manifest = json.loads((Path(settings.feeds_dir) / "feeds/manifest.json").read_text())
    assert manifest["list_generation"] not in {None, "none"}, "the lists in use are used"
    assert str(report["published"]) < str(report["next"]) <= str(report["expires"])
    served = {path.name for path in Path(settings.feeds_dir, "feeds").iterdir()}
    assert not [name for name in served if "status" in name]


def test_failed_run_is_recorded_while_the_database_is_unavailable(
    settings: AggregatorSettings, connection: Connection, config: Path
) -> None:
    publish_once(settings, Origins(), connection)

    def away(_: AggregatorSettings) -> Connection:
        raise DatabaseUnavailable("gone for a moment")

    loop = publishing(settings, Metrics(), connect=away)
    loop.publish()
    failure = status(config)["last_failure"]
    assert isinstance(failure, dict)
    assert (failure["refused"], failure["reason"]) == (False, "gone for a moment")
    nobody = "host=/nowhere dbname=smtpfeeds"
    config.write_text(config.read_text().replace(settings.dsn, nobody))
    by_hand = run("now", "--config", config)
    assert isinstance(by_hand.exception, DatabaseUnavailable)
    failure = status(config)["last_failure"]
    assert isinstance(failure, dict)
    assert failure["kind"] == "database"
    assert by_hand.exception.message == f"{failure['reason']} (dsn from {config})"


def test_generation_that_cannot_be_removed_is_shown_until_it_is(
    settings: AggregatorSettings,
    connection: Connection,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An excluded or forgotten address would still be served from there."""
    metrics = Metrics()
    loop = publishing(settings, metrics)
    rename = Path.rename

    def only_there(self: Path, target: Path) -> Path:
        if self.parent.name == "generations":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    def generations() -> set[str]:
        return {path.name for path in Path(settings.feeds_dir, "feeds/generations").iterdir()}

    def metric() -> float | None:
        return metrics.registry.get_sample_value("smtpfeeds_publish_not_cleaned")

    observe(connection, 3)
    assert run("now", "--config", config).exit_code == 0
    old = current(settings).name
    connection.execute("INSERT INTO exclusion (prefix, reason) VALUES ('192.0.2.1/32', 'asked')")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", only_there)
        result = run("now", "--config", config)
        loop.publish()
    reason = (
        "addresses that are excluded now may still be in files of past editions: "
        f"cannot remove {old} in {Path(settings.feeds_dir, 'feeds/generations')}"
    )
    assert (result.exit_code, f"not cleaned up: {reason}; the next " in result.output) == (0, True)
    shown = run("status", "--config", config, "--format", "json")
    assert (shown.exit_code, json.loads(shown.stdout)["not_cleaned"]) == (1, reason)
    assert metric() == 1
    assert old in generations()
    assert "192.0.2.1 " not in Path(settings.feeds_dir, "feeds/smtpgreet.txt").read_text()
    again = run("now", "--config", config, "--format", "json")
    assert json.loads(again.stdout)["not_cleaned"] is None
    assert run("status", "--config", config).exit_code == 0
    with monkeypatch.context() as later:
        # No run has noted a failure since: the aggregator is away, or its disk is full.
        later.setattr("time.time", functools.partial(float, time.time() + 2 * 86_400))
        shown = run("status", "--config", config, "--format", "json")
    assert shown.exit_code == 1
    assert "no newer edition" in json.loads(shown.stdout)["overdue"]
    assert status(config)["not_cleaned"] is None
    assert generations() == {current(settings).name}
    loop.publish()
    assert metric() == 0
