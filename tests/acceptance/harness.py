"""Support of the acceptance tests: real programs, real clients, and checks afterwards.

The programs run as an operator runs them, by the `smtpfeeds` command and settings files; what they
recorded is read from the database and from the published files, apart from their own code.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from faults.databases import read_all
from faults.reckoning import Entry, judge
from faults.shown import BY_KIND, target_of
from servers.processes import NoReport
from smtpfeeds_common.supervision import State, stop_all
from smtpfeeds_deploy.simulation.ledger import (
    Bracket,
    Key,
    Recorded,
    Session,
    activity_disagreements,
    data_without_greet,
    disagreements,
    expected_rows,
    expected_sightings,
    troubles,
)
from smtpfeeds_deploy.simulation.published import feed_disagreements, read_feed
from smtpfeeds_deploy.simulation.simulate import Target, Visit, simulate
from smtpfeeds_deploy.single_host.bounded_log import BoundedLog
from smtpfeeds_deploy.single_host.home import Value, toml_text
from smtpfeeds_deploy.single_host.listening import listening
from smtpfeeds_deploy.single_host.programs import Program

FEEDS = ("smtpgreet", "smtpdata")
READY_LIMIT_S = 120.0
AGREE_LIMIT_S = 120.0
STOP_LIMIT_S = 60.0


def clean_environment() -> dict[str, str]:
    """Return the environment without settings of smtpfeeds."""
    return {name: text for name, text in os.environ.items() if not name.startswith("SMTPFEEDS_")}


def wait_for(condition: Callable[[], bool], what: str, limit_s: float = READY_LIMIT_S) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        time.sleep(0.1)


@dataclass
class Site:
    """The programs of one test, in one folder; they are stopped when the test ends."""

    folder: Path
    programs: list[Program] = field(default_factory=list)

    def settings(self, name: str, values: Mapping[str, Value]) -> Path:
        path = self.folder / f"{name}.toml"
        path.write_text(toml_text(values), encoding="utf-8")
        return path

    def start(self, name: str, *arguments: str) -> Program:
        """Start `smtpfeeds ARGUMENTS…` and wait until it says that it is ready."""
        program = self.program(name, *arguments)
        program.start()

        def is_ready() -> bool:
            program.look()
            ended = program.state is State.DOWN
            assert not ended, f"{name} ended with {program.exit_code}:\n{program.last_lines()}"
            return program.state is State.RUNNING

        wait_for(is_ready, f"{name} is ready")
        return program

    def program(self, name: str, *arguments: str) -> Program:
        log = BoundedLog(self.folder / "log" / f"{name}.log")
        program = Program(name, arguments, log, clean_environment(), NoReport())
        self.programs.append(program)
        return program

    def run(self, name: str, *arguments: str) -> None:
        """Run `smtpfeeds ARGUMENTS…` to its end; it must succeed."""
        program = self.program(name, *arguments)
        program.start()

        def has_ended() -> bool:
            program.look()
            return program.state is State.DOWN

        wait_for(has_ended, f"{name} has ended")
        assert program.exit_code == 0, program.last_lines()

    def migrate(self, config: Path) -> None:
        self.run("migrate", "aggregator", "migrate", "--config", str(config))

    def sensor(self, name: str, **values: Value) -> list[Target]:
        """Start a sensor on both loopback addresses; return where it listens."""
        spools = self.folder / f"spool-{name}" if "spool_dir" not in values else None
        settings: dict[str, Value] = {
            "name": name,
            "listen": ["127.0.0.1:0", "[::1]:0"],
            "spool_dir": str(spools),
            **values,
        }
        config = self.settings(f"sensor-{name}", settings)
        self.start(name, "sensor", "run", "--config", str(config))
        folder = Path(str(settings["spool_dir"]))
        return [Target(host, port, name) for host, port in listening(folder, name)]

    def stop(self) -> list[str]:
        """Stop in the reverse order; return the names of programs that had to be killed."""
        killed = stop_all(reversed(self.programs), STOP_LIMIT_S)
        self.programs.clear()
        return [program.name for program in killed]

    def logs(self) -> str:
        """Return the end of every log, for the message of a failed test."""
        return "\n\n".join(
            f"--- {path.name}\n{BoundedLog(path).tail()}"
            for path in sorted(self.folder.glob("log/*.log"))
        )


def run_clients(visits: Iterable[Visit], *, parallel: int = 32) -> list[Session]:
    """Make the visits; every client must get the expected answers."""
    sessions = asyncio.run(simulate(list(visits), parallel=parallel))
    assert troubles(sessions) == []
    return sessions


@dataclass(frozen=True)
class Truth:
    """The rows that must be recorded and published."""

    sessions: Sequence[Session]
    origins: Mapping[str, int | None]
    names: Mapping[int, str]

    def database(self, dsn: str) -> list[str]:
        """Describe each difference between the database and what the clients did."""
        with psycopg.connect(dsn) as connection:
            return [
                *self._observations(connection),
                *self._sightings(connection),
                *self._activity(connection),
            ]

    def behaviours(self, dsn: str) -> list[str]:
        """Describe each difference of behaviours, days and targets, for default answers."""
        entries = []
        for each in self.sessions:
            shown = BY_KIND[each.kind].whole
            entry = Entry(
                each.source,
                each.sensor,
                tuple(each.events),
                target=target_of(each.target),
                flags=shown,
                answered_flags={event.feed: shown for event in each.events},
            )
            entries.append(entry)
        return judge(entries, read_all(dsn)).differences

    def _observations(self, connection: psycopg.Connection) -> list[str]:
        rows = connection.execute(
            "SELECT feed, host(ip), (extract(epoch FROM first_seen) * 1000)::bigint,"
            " (extract(epoch FROM last_seen) * 1000)::bigint, hits, asn FROM observation"
        ).fetchall()
        recorded: dict[Key, Recorded] = {
            (feed, ip): Recorded(Bracket(first, first), Bracket(last, last), hits, None)
            for feed, ip, first, last, hits, _ in rows
        }
        differences = disagreements(expected_rows(self.sessions), recorded)
        differences += data_without_greet(recorded)
        differences += [
            f"{feed} {ip}: AS{asn} stored, not AS{self.origins.get(ip)}"
            for feed, ip, *_, asn in rows
            if asn != self.origins.get(ip)
        ]
        return differences

    def _sightings(self, connection: psycopg.Connection) -> list[str]:
        rows = connection.execute(
            "SELECT feed, host(ip), sensor, (extract(epoch FROM first_seen) * 1000)::bigint,"
            " (extract(epoch FROM last_seen) * 1000)::bigint, hits,"
            " bit_count(targets::bit(64)) FROM sighting"
        ).fetchall()
        recorded: dict[Key, Recorded] = {
            (feed, ip, sensor): Recorded(Bracket(first, first), Bracket(last, last), hits, None)
            for feed, ip, sensor, first, last, hits, _ in rows
        }
        expected = expected_sightings(self.sessions)
        differences = disagreements(expected, recorded)
        for feed, ip, sensor, *_, bits in rows:
            want = expected.get((feed, ip, sensor))
            if want is not None and bits != len(want.targets):
                differences.append(f"{feed} {ip} {sensor}: {bits} targets, not {len(want.targets)}")
        return differences

    def _activity(self, connection: psycopg.Connection) -> list[str]:
        rows = connection.execute(
            "SELECT (extract(epoch FROM hour) * 1000)::bigint, feed, sensor, events FROM activity"
        )
        recorded = {(hour, feed, sensor): events for hour, feed, sensor, events in rows}
        return activity_disagreements(self.sessions, recorded)

    def published(self, folder: Path) -> list[str]:
        """Describe each difference between the published files and what the clients did."""
        current = folder / "current"
        if not current.exists():
            return [f"nothing is published in {folder}"]
        # All files from one generation, because another may be published meanwhile.
        generation = current.resolve()
        differences: list[str] = []
        expected = expected_rows(self.sessions)
        for feed in FEEDS:
            want = {key: row for key, row in expected.items() if key[0] == feed}
            files = read_feed(generation, feed)
            differences += feed_disagreements(files, want, self.origins, self.names)
        return differences


def wait_to_agree(look: Callable[[], list[str]], what: str, limit_s: float = AGREE_LIMIT_S) -> None:
    """Poll until there is no disagreement."""
    deadline = time.monotonic() + limit_s
    while differences := look():
        shown = "\n".join(differences[:20])
        assert time.monotonic() < deadline, (
            f"{what}: {len(differences)} disagreements, such as\n{shown}"
        )
        time.sleep(0.25)
