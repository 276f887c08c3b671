"""If a database error affects every batch, none is refused; all wait."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from ingest_support import (
    KnowsAllOrigins,
    Table,
    data,
    greet,
    made_batch,
    now_ms,
    settings_of,
    settled_clock,
    until,
)
from ingest_support.fixtures import dsn, table  # noqa: F401 - fixtures
from ingest_support.worker import Work
from smtpfeeds_aggregator.ingest.probe_batch import probe_batch
from smtpfeeds_aggregator.store.bounds import Bounds
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_aggregator.store.ingest import IngestStore
from smtpfeeds_common.wire import Batch, HourCount, PrefixOverflow

# ruff: noqa: F811 - fixtures are imported by name and used by name

PARTITION = Path(__file__).parents[2] / "deploy/postgresql/partition.sql"


@pytest.fixture
def work(dsn: str) -> Iterator[Work[IngestStore]]:
    settings = settings_of(dsn)
    store = IngestStore(
        lambda: connect(settings, "test", autocommit=True, limit_s=60),
        clock=settled_clock(),
        retention=timedelta(days=30),
        bounds=Bounds(),
    )
    yield Work(store, KnowsAllOrigins, ingest_wait_ms=100)
    store.close()


def batches(count: int) -> list[Batch]:
    spool, at = uuid.uuid4(), now_ms() - 1000
    return [
        made_batch(
            greet(f"192.0.2.{n}"),
            data(f"2001:db8:ff::{n}"),
            spool=spool,
            seq=n,
            hours=[HourCount("smtpgreet", at, 1)],
            overflows=[
                PrefixOverflow(
                    "smtpgreet", "2001:db8:fe::/64", 1_795_431_600_000, 1_795_431_600_000, 1
                )
            ],
        )
        for n in range(1, count + 1)
    ]


def add_constraint(table: Table) -> Callable[[], None]:
    table.run("ALTER TABLE sighting ADD CONSTRAINT odd CHECK (hits < 0) NOT VALID")
    return lambda: table.run("ALTER TABLE sighting DROP CONSTRAINT odd")


def add_constraint_of_the_sensor(table: Table) -> Callable[[], None]:
    """Add a constraint that fails in the last statement of a transaction."""
    table.run("ALTER TABLE sensor ADD CONSTRAINT odd CHECK (version = 'another') NOT VALID")
    return lambda: table.run("ALTER TABLE sensor DROP CONSTRAINT odd")


def add_deferred_constraint(table: Table) -> Callable[[], None]:
    """Add a constraint that fails only at the commit."""
    table.run(
        "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'odd' USING ERRCODE = '23514'; END $$"
    )
    table.run(
        "CREATE CONSTRAINT TRIGGER odd AFTER INSERT ON activity DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION odd()"
    )
    return lambda: table.run("DROP TRIGGER odd ON activity")


def detach_partition(table: Table) -> Callable[[], None]:
    """Detach the partition of the test's first batch."""
    with psycopg.connect(table.connection.info.dsn, autocommit=True) as connection:
        connection.execute(PARTITION.read_bytes())
    part = table.one(
        "SELECT n FROM generate_series(0, 15) AS n"
        " WHERE satisfies_hash_partition('sighting'::regclass, 16, n, inet '192.0.2.1')"
    )
    table.run(f"ALTER TABLE sighting DETACH PARTITION sighting_{part}")
    return lambda: table.run(
        f"ALTER TABLE sighting ATTACH PARTITION sighting_{part}"
        f" FOR VALUES WITH (MODULUS 16, REMAINDER {part})"
    )


def refuse_set_config(table: Table) -> Callable[[], None]:
    """As a pooler does that lets no client set what it does not know; asked as a session begins."""
    name = table.one("SELECT current_database()")
    table.run(
        "CREATE FUNCTION set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'not here' USING ERRCODE = '22023'; END $$"
    )
    table.run(f'ALTER DATABASE "{name}" SET search_path = public, pg_catalog')
    return lambda: table.run(f'ALTER DATABASE "{name}" RESET search_path')


@pytest.mark.parametrize(
    ("fault", "refuses"),
    [
        (add_constraint, True),
        (add_constraint_of_the_sensor, True),
        (add_deferred_constraint, True),
        (detach_partition, True),
        (refuse_set_config, False),
    ],
)
def test_fault_that_affects_every_batch_refuses_none(
    work: Work[IngestStore],
    table: Table,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[[Table], Callable[[], None]],
    refuses: bool,
) -> None:
    caplog.set_level(logging.INFO)
    repair = fault(table)
    work.source.put(*batches(3))
    with work.running():
        until(lambda: work.gauge("holding") == 1, "it is noticed")
        (problem,) = work.health.problems()
        assert problem.startswith("database: ")
        assert (work.gauge("refusing_all"), "refuses every batch" in problem) == (refuses, refuses)
        until(lambda: work.source.pauses == 1, "the source has all of it back")
        assert (work.source.refused, work.source.acknowledged) == ([], [])
        assert table("SELECT * FROM applied_batch") == []
        repair()
        until(lambda: work.source.resumes == 1, "it is noticed that it is over")
        work.source.put(*batches(2))
        until(lambda: len(work.source.acknowledged) == 2, "batches are accepted again")
    assert (work.source.refused, work.health.problems()) == ([], [])
    events = [record.getMessage() for record in caplog.records]
    assert ("database refuses every batch; all wait" in events) is refuses


def test_batch_is_refused_if_the_database_accepts_a_good_one(
    work: Work[IngestStore], table: Table
) -> None:
    table.run("ALTER TABLE sighting ADD CONSTRAINT odd CHECK (hits <> 13)")
    one, two, three = batches(3)
    bad = made_batch(greet("192.0.2.9", hits=13), spool=two.spool, seq=9)
    work.source.put(one, bad, three)
    with work.running():
        until(lambda: len(work.source.acknowledged) == 2, "the good ones are accepted")
    ((_, refusal),) = work.source.refused
    assert "odd" in refusal.reason
    assert work.gauge("refusing_all") == 0


def test_known_good_batch_runs_every_statement_and_leaves_nothing(
    work: Work[IngestStore], table: Table
) -> None:
    executed: set[str] = set()

    class Noting(dict[str, LiteralString]):
        def __getitem__(self, name: str) -> LiteralString:
            executed.add(name)
            return super().__getitem__(name)

    statements = {**work.store._sql, **work.store._admission_sql}
    vars(work.store)["_sql"] = Noting(work.store._sql)
    vars(work.store)["_admission_sql"] = Noting(work.store._admission_sql)
    work.store.probe(probe_batch())
    # A session was closed only if a batch has notes.
    assert statements.keys() - executed <= {"delete_lone_notes", "end_session"}
    tables = ("observation", "sighting", "activity", "prefix_overflow", "prefix_admission")
    for name in (
        *tables,
        "sensor",
        "sensor_overflow",
        "spool",
        "applied_batch",
        "autonomous_system",
    ):
        assert table.one(f"SELECT count(*) FROM {name}") == 0, name
