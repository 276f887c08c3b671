"""Ingest against its limit: from a real RabbitMQ to rows committed in a real PostgreSQL.

The *limit* is the same rows, ready packed, by COPY and upsert into the same two tables, by one
connection with nothing else on the machine. Beside it: one and two aggregators as programs, the
rate over repeated addresses with the worker's memory, and the latency from an SMTP reply (the
spool's commit) to the moment at which a query finds it. Every run ends with a check that all
rows are there. Limit and aggregators take turns, and each round has a ratio of its own: what else
the machine does meanwhile weighs on both. The CPU time of a row hardly depends on it at all.

``python tests/benchmarks/bench_ingest.py`` prints a table, and writes JSON to ``$BENCH_OUT``.
``$SMTPFEEDS_ASN_DATA`` names a folder with ``ipasn-scaled-1300k.dat.gz``; without it a table of
1.3 million prefixes is made up. With ``BENCH_SHORT=1`` all takes some seconds (`sizes`).
``$BENCH_ROWS``, ``$BENCH_REPEATED_ROWS``, ``$BENCH_SECONDS`` and ``$BENCH_STAGES`` make it longer
or shorter. Stages:

* ``speed`` (the rates), ``repeated`` (repeated addresses, memory), ``latency``: without being asked
* ``growth``: the rate of new rows with ``$BENCH_GROWTH`` million already there
* ``spools``: batches of 10,000 spools against as many of a few
* ``busy``: while feeds are published and addresses are asked for

No stage takes more than ``$BENCH_LIMIT_S``: what is not there by then is an error.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pika
import psycopg
from pika.exceptions import NackError

from benchmarks.report import report, stage
from benchmarks.sizes import size
from ingest_support import delivery_of, now_ms
from servers.rabbitmq import RabbitNode
from servers.rabbitmq import running as rabbitmq_running
from smtpfeeds_aggregator.ingest.check import check
from smtpfeeds_aggregator.ingest.fold import fold
from smtpfeeds_aggregator.origin import OriginSource, OriginTable
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.sources import broker
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_aggregator.store.migrations import migrate
from smtpfeeds_aggregator.store.query import QueryStore
from smtpfeeds_aggregator.store.query_rows import RowFilter
from smtpfeeds_aggregator.store.rows import Folded
from smtpfeeds_aggregator.store.sql import queries
from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.clock import Clock
from smtpfeeds_common.errors import SpoolBusy
from smtpfeeds_common.history import DAY_MS, days_kept
from smtpfeeds_common.spool import Event, Sealer, Spool
from smtpfeeds_common.topology import EXCHANGE, QUEUE, routing_key
from smtpfeeds_common.wire import Batch, HourCount, Observation, encode
from smtpfeeds_deploy.single_host.postgres import PrivatePostgres

ROOT = Path(__file__).resolve().parent.parent.parent
BATCH_ROWS = 5_000
ROWS = size(600_000, 10_000, "BENCH_ROWS")
REPEATED_ROWS = size(10_000_000, 100_000, "BENCH_REPEATED_ROWS")
SECONDS = size(30, 2, "BENCH_SECONDS")
ROUNDS = size(3, 1, "BENCH_ROUNDS")
PREFIXES4, PREFIXES6 = size(1_050_000, 2_000), size(250_000, 500)
GROWTH = [int(million) for million in os.environ.get("BENCH_GROWTH", "1,3,10").split(",")]
LIMIT_S = float(os.environ.get("BENCH_LIMIT_S", "1200"))
STAGES = os.environ.get("BENCH_STAGES", "speed,repeated,latency").split(",")
SENSORS = 24
POOL = size(200_000, 20_000)
TICKS = os.sysconf("SC_CLK_TCK")
#: What a small database server is set to.
POSTGRES = {
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
}


class Waiting(Protocol):
    """What sending batches and waiting for them needs of a benchmark."""

    node: RabbitNode
    deadline_s: float
    failures: list[Exception]


class Bench:
    """The servers, and the figures as they come."""

    def __init__(self, node: RabbitNode, postgres: PrivatePostgres, folder: Path) -> None:
        self.node, self.postgres, self.folder = node, postgres, folder
        self.table = origin_table(folder)
        self.figures: dict[str, float] = {}
        self.deadline_s = 0.0
        #: Why a thread ended that had more to do.
        self.failures: list[Exception] = []
        self._databases = 0
        for number in range(SENSORS):
            node.admin.add_user(f"s{number}", "password")
            node.admin.permit(f"s{number}", "/", write=".*")

    def start(self, work: Callable[..., object], *arguments: Any) -> threading.Thread:
        """Do this in a thread; where it fails, those that wait for its work fail too."""

        def run() -> None:
            try:
                work(*arguments)
            except Exception as exc:  # noqa: BLE001 - given on to those that wait
                self.failures.append(exc)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def database(self) -> str:
        """A fresh database with the schema."""
        self._databases += 1
        name = f"bench_{self._databases}"
        with psycopg.connect(
            self.postgres.dsn_for("postgres", user="postgres"), autocommit=True
        ) as c:
            c.execute(f"CREATE DATABASE {name} OWNER smtpfeeds".encode())
            c.execute(b"CHECKPOINT")
        dsn = self.postgres.dsn_for(name)
        with connect(AggregatorSettings(dsn=dsn), "bench", autocommit=True) as connection:
            migrate(connection)
        return dsn

    def settings(self, dsn: str, *more: str) -> Path:
        path = self.folder / f"aggregator-{uuid.uuid4().hex[:8]}.toml"
        lines = [
            f'dsn = "{dsn}"',
            f'broker = ["{self.node.url()}"]',
            f'origin_table = "{self.table}"',
            *more,
        ]
        path.write_text("\n".join(lines) + "\n")
        return path

    def postgres_cpu_s(self) -> float:
        """CPU seconds of the server and its sessions, also of those that have ended."""
        server = self.postgres.pid
        assert server is not None
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        spent = cpu_seconds(server, ended=True)
        for pid in children:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                spent += cpu_seconds(int(pid))
        return spent

    def clear_queue(self) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(self.node.url()))
        channel = connection.channel()
        channel.queue_delete(QUEUE)
        channel.close()
        broker.declare(connection, QUEUE)
        connection.close()


def origin_table(folder: Path) -> Path:
    """The 1.3-million-prefix table: the one that is there, or one made up."""
    given = os.environ.get("SMTPFEEDS_ASN_DATA")
    if given:
        return Path(given) / "ipasn-scaled-1300k.dat.gz"
    path = folder / "made-up-1300k.dat"
    chance = random.Random(1)
    v4 = chance.sample(range(1 << 16, 224 << 16), PREFIXES4)  # /24s from 1.0.0.0 on
    v6 = chance.sample(range(0x2001_0000, 0x2C00_0000), PREFIXES6)
    with path.open("w") as out:
        for net in sorted(v4):
            out.write(f"{net >> 16}.{net >> 8 & 255}.{net & 255}.0/24\t{net % 60_000 + 1}\n")
        for net in sorted(v6):
            out.write(f"{net >> 16:x}:{net & 65535:x}::/32\t{net % 60_000 + 1}\n")
    return path


def distinct_batches(rows: int, seed: int) -> list[bytes]:
    """Batches whose (address, feed) are all distinct: one in six IPv6, one in five with DATA.

    Sorted as a spool seals them: by feed, then by address.
    """
    chance = random.Random(seed)
    v4 = iter(chance.sample(range(1 << 24, 224 << 24), rows))
    spools = [uuid.uuid4() for _ in range(SENSORS)]
    batches = []
    at = now_ms()
    for number in range(rows // BATCH_ROWS):
        observations: list[Observation] = []
        while len(observations) < BATCH_ROWS:
            n = next(v4)
            v6 = n % 6 == 0
            ip = (
                f"2a0{n >> 28 & 15:x}:{n >> 12 & 65535:x}:{n & 4095:x}:1::{n & 65535:x}"
                if v6
                else f"{n >> 24}.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"
            )
            seen = (at - 30_000, at - n % 1000, 1 + n % 3, n % 8, 1 << (n % 60))
            observations.append(Observation("smtpgreet", ip, *seen))
            if n % 5 == 0 and len(observations) < BATCH_ROWS:
                observations.append(Observation("smtpdata", ip, *seen))
        sensor = number % SENSORS
        observations.sort(key=lambda row: (row.feed != "smtpgreet", pack_address(row.ip)))
        batches.append(body(f"s{sensor}", spools[sensor], number // SENSORS + 1, observations))
    return batches


def repeated_batches(count: int) -> Iterator[bytes]:
    """One event a row, over and over of the same addresses."""
    chance = random.Random(5)
    spools = [uuid.uuid4() for _ in range(SENSORS)]
    ips = [f"198.{18 + n // 65536}.{n >> 8 & 255}.{n & 255}" for n in range(POOL)]
    for number in range(count):
        at, sensor = now_ms(), number % SENSORS
        chosen = sorted(chance.sample(ips, BATCH_ROWS))
        rows = [Observation("smtpgreet", ip, at, at, 1, 0, 1) for ip in chosen]
        yield body(f"s{sensor}", spools[sensor], number // SENSORS + 1, rows)


def body(sensor: str, spool: uuid.UUID, seq: int, rows: list[Observation]) -> bytes:
    at = now_ms()
    hours = [HourCount("smtpgreet", at, len(rows))]
    return encode(
        Batch(spool=spool, seq=seq, sensor=sensor, sealed_ms=at, observations=rows, hours=hours)
    )


def publish(bench: Waiting, bodies: Iterator[bytes] | Sequence[bytes]) -> None:
    """As many sensors would: confirmed, each by its account."""
    channels = []
    for number in range(SENSORS):
        parameters = pika.URLParameters(bench.node.url("/", f"s{number}", "password"))
        # A connection waits for its turn, on a busy host for longer than two heartbeats.
        parameters.heartbeat = 0
        channel = pika.BlockingConnection(parameters).channel()
        channel.confirm_delivery()
        channels.append(channel)
    for number, raw in enumerate(bodies):
        sensor = f"s{number % SENSORS}"
        properties = pika.BasicProperties(delivery_mode=2, user_id=sensor)
        channel = channels[number % SENSORS]
        while True:
            try:
                channel.basic_publish(
                    EXCHANGE, routing_key(sensor), raw, properties, mandatory=True
                )
                break
            except NackError:
                time.sleep(0.05)  # the queue is at its bound
    for channel in channels:
        channel.connection.close()


@contextmanager
def aggregator(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`smtpfeeds aggregator run`, until it says ready."""
    log = config.with_suffix(".log")
    with log.open("wb") as out:
        command = [str(Path(sys.executable).parent / "smtpfeeds"), "aggregator", "run"]
        process = subprocess.Popen([*command, "--config", str(config)], stderr=out)
    try:
        deadline = time.monotonic() + 120
        while b": ready" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        assert process.wait(60) == 0, log.read_text()


def applied(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(
        "SELECT (SELECT count(*) FROM applied_batch)"
        " + (SELECT coalesce(sum(upper(r) - lower(r)), 0) FROM spool, unnest(applied) r)"
    ).fetchone()
    assert row is not None
    return int(row[0])


def wait_applied(bench: Waiting, dsn: str, batches: int) -> float:
    """When the last batch was committed (monotonic); says every ten seconds how far it is."""
    say_at = time.monotonic() + 10
    with psycopg.connect(dsn, autocommit=True) as connection:
        while (done := applied(connection)) < batches:
            now = time.monotonic()
            assert now < bench.deadline_s, f"out of time: {done} of {batches} batches"
            assert not bench.failures, f"{done} of {batches} batches, and no more: {bench.failures}"
            if now >= say_at:
                say_at = now + 10
                stage(f"{done:,} of {batches:,} batches are committed")
            time.sleep(0.02)
    return time.monotonic()


def fold_of(bodies: Sequence[bytes], table: OriginTable) -> Folded:
    return fold(
        [check(delivery_of(raw, account_in(raw))) for raw in bodies], table, now_ms() // DAY_MS
    )


def account_in(raw: bytes) -> str:
    return str(json.loads(raw)["sensor"])


def limit(bench: Bench, bodies: Sequence[bytes], table: OriginTable) -> float:
    """Rows a second of COPY and two upserts, in transactions of as many rows as ingest's."""
    dsn = bench.database()
    chunk = AggregatorSettings().ingest_batch_rows // BATCH_ROWS
    ready = [fold_of(bodies[at : at + chunk], table) for at in range(0, len(bodies), chunk)]
    sql = queries("ingest.sql")
    parameters = {
        "retention": timedelta(days=30),
        "annotated": True,
        "one_sensor_each": True,
        "today": ready[0].today,
        "days_kept": days_kept(30),
        "sensors": [],
        "enrolments": [],
    }
    with connect(AggregatorSettings(dsn=dsn), "limit", autocommit=True) as connection:
        connection.execute(sql["set_up_session"])
        connection.execute(sql["create_incoming"])
        started = time.monotonic()
        for folded in ready:
            with connection.transaction():
                with connection.cursor() as cursor, cursor.copy(sql["copy_incoming"]) as copy:
                    copy.write(folded.copy)
                connection.execute(sql["upsert_observations"], parameters)
                connection.execute(sql["upsert_sightings"], parameters)
        spent = time.monotonic() - started
        check_rows(dsn, sum(folded.rows for folded in ready))
    return sum(folded.rows for folded in ready) / spent


def check_rows(dsn: str, rows: int) -> None:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT count(*) FROM sighting").fetchone()
    assert row == (rows,), f"{row} rows are stored, {rows} were sent"


class Spent(NamedTuple):
    """What committing all rows took."""

    rows_per_s: float
    #: Seconds of a core a row, in the first aggregator and in all of PostgreSQL.
    worker_cpu_s: float
    postgres_cpu_s: float


def workers(bench: Bench, bodies: Sequence[bytes], rows: int, count: int) -> Spent:
    """From the broker to the commit, by so many aggregators."""
    dsn = bench.database()
    bench.clear_queue()
    configs = [bench.settings(dsn) for _ in range(count)]
    # All are up and hold their first batches before the first row may be written, so that
    # neither their start nor ours is in the figure, and the broker deals to each in turn.
    with held(dsn) as release, contextlib.ExitStack() as programs:
        running = [programs.enter_context(aggregator(config)) for config in configs]
        publish(bench, bodies)
        return _timed(bench, dsn, bodies, rows, release, running[0])


def _timed(
    bench: Bench,
    dsn: str,
    bodies: Sequence[bytes],
    rows: int,
    release: Callable[[], None],
    process: subprocess.Popen[bytes],
) -> Spent:
    time.sleep(1.0)
    worker, server = cpu_seconds(process.pid), bench.postgres_cpu_s()
    started = time.monotonic()
    release()
    spent = wait_applied(bench, dsn, len(bodies)) - started
    worker, server = cpu_seconds(process.pid) - worker, bench.postgres_cpu_s() - server
    check_rows(dsn, rows)
    return Spent(rows / spent, worker / rows, server / rows)


@contextmanager
def held(dsn: str) -> Iterator[Callable[[], None]]:
    """Keep every worker before its first row, until released."""
    with psycopg.connect(dsn) as connection:
        connection.execute("LOCK TABLE spool IN ACCESS EXCLUSIVE MODE")
        yield connection.rollback
        connection.rollback()


def cpu_seconds(pid: int, *, ended: bool = False) -> float:
    """Of a process, and of its children that have ended where these are wanted."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if ended else 13])) / TICKS


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def speed(bench: Bench) -> None:
    rates: dict[str, list[float]] = {"limit": [], "one": [], "two": []}
    rounds = []
    origins = OriginSource(AggregatorSettings(origin_table=str(bench.table)))
    origins.load()
    for number in range(ROUNDS):
        bodies = distinct_batches(ROWS, number)
        table = origins.current
        rows = sum(fold_of([raw], table).rows for raw in bodies)
        rates["limit"].append(limit(bench, bodies, table))
        rounds.append(workers(bench, bodies, rows, 1))
        rates["one"].append(rounds[-1].rows_per_s)
        rates["two"].append(workers(bench, bodies, rows, 2).rows_per_s)
        speeds = ", ".join(f"{name} {each[-1]:,.0f}" for name, each in rates.items())
        stage(f"round {number + 1}, rows/s: {speeds}")
    medians = {name: statistics.median(each) for name, each in rates.items()}
    bench.figures |= {
        "limit_rows_per_s": medians["limit"],
        "ingest_rows_per_s": medians["one"],
        "ingest_rows_per_s_two": medians["two"],
        "ingest_vs_limit": median_ratio(rates["one"], rates["limit"]),
        "ingest_vs_limit_two": median_ratio(rates["two"], rates["limit"]),
        "worker_cpu_us_per_row": statistics.median(each.worker_cpu_s for each in rounds) * 1e6,
        "postgres_cpu_us_per_row": statistics.median(each.postgres_cpu_s for each in rounds) * 1e6,
    }


def median_ratio(rates: list[float], limits: list[float]) -> float:
    return statistics.median(rate / most for rate, most in zip(rates, limits, strict=True))


def repeated(bench: Bench) -> None:
    """The same addresses over and over, and what the worker's memory does meanwhile."""
    dsn = bench.database()
    bench.clear_queue()
    count = REPEATED_ROWS // BATCH_ROWS
    with aggregator(bench.settings(dsn)) as process:
        started = time.monotonic()
        sender = bench.start(publish, bench, repeated_batches(count))
        warm = count // 10
        wait_applied(bench, dsn, warm)
        before = rss_mb(process.pid)
        cpu, warmed = cpu_seconds(process.pid), time.monotonic()
        ended = wait_applied(bench, dsn, count)
        after = rss_mb(process.pid)
        cpu = cpu_seconds(process.pid) - cpu
        sender.join()
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT sum(hits)::bigint, count(*) FROM observation").fetchone()
    assert row is not None
    assert row[0] == count * BATCH_ROWS, f"{row[0]} events are stored"
    bench.figures |= {
        "repeated_events_per_s": (count - warm) * BATCH_ROWS / (ended - warmed),
        "repeated_rows": count * BATCH_ROWS,
        "repeated_s": ended - started,
        "repeated_cpu_us_per_row": cpu * 1e6 / ((count - warm) * BATCH_ROWS),
        "worker_rss_mb": after,
        "worker_rss_growth_mb": after - before,
    }


def latency(bench: Bench, rate: int = 1_000) -> None:
    """From the spool's commit (the SMTP reply) to the row that a query finds."""
    dsn = bench.database()
    bench.clear_queue()
    replied: list[float] = []
    seen_at: list[float] = []
    stop = threading.Event()
    path = bench.folder / "s0.spool"
    spool = Spool(path, sensor="s0")
    with aggregator(bench.settings(dsn)):
        helpers = [
            bench.start(_deliver, bench, path, stop),
            bench.start(_look, dsn, rate * SECONDS, seen_at, stop),
        ]
        started = time.monotonic()
        for turn in range(SECONDS * 100):
            for n in range(turn * rate // 100, (turn + 1) * rate // 100):
                spool.fold(Event(0, (0x0B000000 + n).to_bytes(4), now_ms()))
            # While the sealer holds the lock the reply waits, in the sensor as here.
            with contextlib.suppress(SpoolBusy):
                spool.commit()
                replied += [time.monotonic()] * ((turn + 1) * rate // 100 - len(replied))
            time.sleep(max(0.0, started + (turn + 1) / 100 - time.monotonic()))
        while len(replied) < rate * SECONDS:
            with contextlib.suppress(SpoolBusy):
                spool.commit()
                replied += [time.monotonic()] * (rate * SECONDS - len(replied))
        helpers[1].join(60)
        stop.set()
        helpers[0].join(30)
    spool.close()
    assert len(seen_at) == len(replied), f"{len(seen_at)} of {len(replied)} were found"
    spent = sorted(end - begin for begin, end in zip(replied, seen_at, strict=True))
    bench.figures |= {
        "queryable_events": len(spent),
        "queryable_p50_s": spent[len(spent) // 2],
        "queryable_p99_s": spent[len(spent) * 99 // 100],
        "queryable_max_s": spent[-1],
    }


def _deliver(bench: Bench, path: Path, stop: threading.Event) -> None:
    """Seal once a second and publish, as the sensor's publisher does."""
    sealer, clock = Sealer(path), Clock()
    parameters = pika.URLParameters(bench.node.url("/", "s0", "password"))
    channel = pika.BlockingConnection(parameters).channel()
    channel.confirm_delivery()
    properties = pika.BasicProperties(delivery_mode=2, user_id="s0")
    while not stop.wait(1.0):
        batch = sealer.seal(clock.read())
        if batch is not None:
            channel.basic_publish(EXCHANGE, routing_key("s0"), batch.body, properties)
            sealer.confirm([(batch.spool, batch.seq)], clock.read())
    channel.connection.close()
    sealer.close()


def _look(dsn: str, total: int, seen_at: list[float], stop: threading.Event) -> None:
    """Note when each event can be found; they become visible in order."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        while len(seen_at) < total and not stop.is_set():
            row = connection.execute("SELECT count(*) FROM observation").fetchone()
            assert row is not None
            seen_at += [time.monotonic()] * (row[0] - len(seen_at))
            time.sleep(0.02)


def growth(bench: Bench) -> None:
    """The rate of new rows with so many million already there."""
    dsn = bench.database()
    bench.clear_queue()
    total = 0
    with aggregator(bench.settings(dsn)):
        batches = 0
        for million in GROWTH:
            while total < million * 1_000_000:
                bodies = distinct_batches(500_000, 100 + batches)
                publish(bench, bodies)
                batches += len(bodies)
                wait_applied(bench, dsn, batches)
                total += 500_000
            bodies = distinct_batches(200_000, 1000 + million)
            started = time.monotonic()
            sender = bench.start(publish, bench, bodies)
            batches += len(bodies)
            ended = wait_applied(bench, dsn, batches)
            sender.join()
            total += 200_000
            bench.figures[f"rows_per_s_over_{million}m"] = 200_000 / (ended - started)
            stage(f"{million} million there, rows/s: {200_000 / (ended - started):,.0f}")


def many_spools(bench: Bench, spools: int = size(10_000, 100)) -> None:
    """The same rows in batches of many spools, against as many batches of few."""
    for name, count in (("few", SENSORS), ("many", spools)):
        dsn = bench.database()
        bench.clear_queue()
        bodies, at = [], now_ms()
        ids = [uuid.uuid4() for _ in range(count)]
        for number in range(spools):
            sensor = f"s{number % SENSORS}"
            rows = [
                Observation("smtpgreet", f"10.{number >> 8}.{number & 255}.{n}", at, at, 1)
                for n in range(20)
            ]
            bodies.append(body(sensor, ids[number % count], number // count + 1, rows))
        with held(dsn) as release:
            publish(bench, bodies)
            with aggregator(bench.settings(dsn)):
                time.sleep(1)
                started = time.monotonic()
                release()
                ended = wait_applied(bench, dsn, len(bodies))
        bench.figures[f"batches_per_s_{name}_spools"] = len(bodies) / (ended - started)


def busy(bench: Bench) -> None:
    """The rate of new rows alone, and while feeds are published and addresses are asked for."""
    dsn = bench.database()
    feeds = bench.folder / "feeds"
    publishing = (f'feeds_dir = "{feeds}"', "publish_interval_s = 2", "generations_kept = 1000")
    batches = 0
    rates, asked = [], []
    for turn, more in enumerate(((), publishing)):
        bodies = distinct_batches(ROWS, 2000 + turn)
        bench.clear_queue()
        with contextlib.ExitStack() as stack:
            release = stack.enter_context(held(dsn))
            stack.enter_context(aggregator(bench.settings(dsn, *more)))
            publish(bench, bodies)
            if more:
                asked = stack.enter_context(asking(dsn, bodies))
            batches += len(bodies)
            time.sleep(1.0)
            started = time.monotonic()
            release()
            rates.append(ROWS / (wait_applied(bench, dsn, batches) - started))
    assert asked, "no question was answered"
    asked.sort()
    bench.figures |= {
        "rows_per_s_alone": rates[0],
        "rows_per_s_busy": rates[1],
        "publications": len(list(feeds.glob("feeds/generations/*"))),
        "question_p50_ms": asked[len(asked) // 2] * 1e3,
        "question_p99_ms": asked[len(asked) * 99 // 100] * 1e3,
    }


@contextmanager
def asking(dsn: str, bodies: Sequence[bytes]) -> Iterator[list[float]]:
    """Ask for an address, over and over, 20 times a second; how long each answer took."""
    ips = [row["ip"] for raw in bodies[:20] for row in json.loads(raw)["observations"][:50]]
    spent: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        wanted = RowFilter(feeds=["smtpgreet", "smtpdata"])
        with connect(AggregatorSettings(dsn=dsn), "bench", autocommit=True) as connection:
            store = QueryStore(connection)
            while not stop.wait(0.05):
                ip = random.choice(ips)
                started = time.monotonic()
                list(store.rows_of([(ip, ip)], wanted))
                spent.append(time.monotonic() - started)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield spent
    finally:
        stop.set()
        thread.join()


RUNS: dict[str, Callable[[Bench], None]] = {
    "speed": speed,
    "repeated": repeated,
    "latency": latency,
    "growth": growth,
    "spools": many_spools,
    "busy": busy,
}


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="smtpfeeds-bench-", dir="/var/tmp") as folder,
        rabbitmq_running(Path(folder) / "rabbitmq") as node,
        PrivatePostgres(Path(folder) / "postgres", settings=POSTGRES) as postgres,
    ):
        bench = Bench(node, postgres, Path(folder))
        for name in STAGES:
            stage(name)
            bench.deadline_s = time.monotonic() + LIMIT_S
            RUNS[name](bench)
        report(bench.figures)


if __name__ == "__main__":
    main()
