"""A publication measured, beside a bare COPY of its own statement.

    python tests/benchmarks/bench_publish.py

A million entries of both feeds with as many sightings, one in six of IPv6, in a private PostgreSQL.
The benchmark makes the origin table, AS names that parsers choke on, and a list of scanners. It
prints a table; BENCH_OUT names a file for the figures as JSON. With BENCH_SHORT=1 it takes some
thousand entries, with BENCH_LARGE=1 ten million as well.

* copy_s: the publication's statement as `COPY … TO STDOUT`, from its start to its last row, and
  nothing else. What is measured beside it is a multiple of it, the median of rounds in which all
  take turns.
* text_vs_copy: from the statement to the three text files of each feed, plain and not read back.
* text_publication_vs_copy: `smtpfeeds publish now` with the text files alone: compressed too,
  hashed, read back and on disk, with the page, its search index and the manifest.
* all_vs_copy: the same with all default formats but STIX (which ends at 100,000 entries) and MISP
  (20,000 a day). publication_s: with all default formats, as a user runs it.
* peak_mb: the most resident memory of that process, with its statistics and the origin table.
* stix_s, misp_s: a million entries in STIX without its bound, and a first MISP feed; misp_again_s:
  the MISP feed of the next publication, in which nothing is new.
* ingest_while_publishing: the rate of an aggregator that always has batches waiting and publishes
  without a pause, beside its rate without publications. Each turn begins after a checkpoint.
* ten_million_per_entry_ratio: time of an entry among ten million, beside one among a million;
  large_peak_mb and large_disk_mb: what that publication takes.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pika

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import bench_ingest
from benchmarks.report import report, stage
from benchmarks.sizes import SHORT, size
from publish_support import HOSTILE_NAMES, frame_of
from servers.rabbitmq import RabbitNode
from servers.rabbitmq import running as rabbitmq_running
from smtpfeeds_aggregator.origin import OriginSource
from smtpfeeds_aggregator.publish import documents, files
from smtpfeeds_aggregator.publish.chunks import FeedRows
from smtpfeeds_aggregator.publish.columns import Window
from smtpfeeds_aggregator.publish.judgements import NoLists, judge_window
from smtpfeeds_aggregator.publish.misp_feed import MispFeed
from smtpfeeds_aggregator.publish.snapshot import origins_in, with_origins
from smtpfeeds_aggregator.publish.stopping import go_on
from smtpfeeds_aggregator.publish.withdrawn import Withdrawn
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.sources import broker
from smtpfeeds_aggregator.store.connection import Connection, connect
from smtpfeeds_aggregator.store.migrations import migrate
from smtpfeeds_aggregator.store.publication import PublicationStore
from smtpfeeds_common.feeds import FEEDS
from smtpfeeds_common.history import DAY_MS, WEEK_DAYS
from smtpfeeds_common.topology import QUEUE
from smtpfeeds_deploy.single_host.postgres import PrivatePostgres

ENTRIES = size(1_000_000, 10_000, "BENCH_ROWS")
ROUNDS = size(3, 1, "BENCH_ROUNDS")
LARGE = size(10_000_000, 40_000) if os.environ.get("BENCH_LARGE") else 0
#: Of 5,000 rows; an aggregator applies them in each part of the measurement.
BATCHES = size(300, 10)
#: Of so many addresses in one statement.
FILL_ROWS = 1_000_000
PREFIXES = size(100_000, 1_000)
ORIGINS = size(60_000, 600)
PROGRAM = str(Path(sys.executable).parent / "smtpfeeds")
ALL = ("txt", "csv", "ndjson", "changes")
#: No checkpoint in a turn of the measurement of ingest.
POSTGRES = {**bench_ingest.POSTGRES, "max_wal_size": "16GB"}
_FLAGS = "(g * 40503 % 1024 + g % 7 * 65536)"
_ADDRESS = (
    "CASE WHEN g % 6 = 0 THEN ('2a00:' || to_hex(g / 6 % 65536) || ':' || to_hex(g / 393216)"
    " || '::' || to_hex(g * 7 % 65536) || ':' || to_hex(g * 31 % 65536))::inet"
    " ELSE inet '1.0.0.0' + g * 359 % 3690987520 END"
)
_AGE = "(interval '5 min' + g * 37 % 600000 * interval '1 s')"
_ROWS = (
    f" SELECT {_ADDRESS}, %(feed)s{{sensor}}, now() - g % 14 * interval '1 day' - {_AGE},"
    f" now() - {_AGE}, g % 60 + 1, {_FLAGS}, extract(epoch FROM now() - {_AGE})::bigint / 86400,"
    f" {_FLAGS}, {{bits}} FROM generate_series(%(first)s::bigint, %(last)s) AS g"
)
_OBSERVATIONS = (
    "INSERT INTO observation (ip, feed, first_seen, last_seen, hits, flags, day, flags_now, days)"
    + _ROWS.format(sensor="", bits="g * 31 % 1023")
)
_SIGHTINGS = (
    "INSERT INTO sighting (ip, feed, sensor, first_seen, last_seen, hits, flags, day, flags_now,"
    " targets_now)" + _ROWS.format(sensor=", 's' || g % 3", bits="g * 31 % 65535")
)


@contextlib.contextmanager
def connected(dsn: str) -> Iterator[Connection]:
    """A connection whose statements may take an hour."""
    with connect(AggregatorSettings(dsn=dsn), "bench", autocommit=True) as connection:
        connection.limit_s = None
        connection.execute("SET statement_timeout = '1h'")
        yield connection


def fill(dsn: str, entries: int) -> None:
    """So many entries, each seen by one sensor; one in five is of the second feed."""
    with connected(dsn) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute(
            "INSERT INTO sensor (name, heard_at)"
            " SELECT 's' || g, now() FROM generate_series(0, 2) AS g"
        )
        for statement in (_OBSERVATIONS, _SIGHTINGS):
            for feed, number in (("smtpgreet", entries * 4 // 5), ("smtpdata", entries // 5)):
                for first in range(1, number + 1, FILL_ROWS):
                    last = min(first + FILL_ROWS - 1, number)
                    rows = {"feed": feed, "first": first, "last": last}
                    connection.execute(statement.replace("% ", "%% ").encode(), rows)
                stage(f"{number:,} rows of {feed}")
        connection.execute("VACUUM ANALYZE")


class Bench:
    """One database, and what publications of it need."""

    def __init__(self, folder: Path, dsn: str, entries: int) -> None:
        self.folder, self.dsn, self.entries = folder, dsn, entries

    @classmethod
    def made(cls, postgres: PrivatePostgres, folder: Path, entries: int) -> "Bench":
        """A new one, filled."""
        folder.mkdir()
        name = f"bench_{entries}"
        with connected(postgres.dsn_for("postgres", user="postgres")) as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER smtpfeeds".encode())
        bench = cls(folder, postgres.dsn_for(name), entries)
        with connected(bench.dsn) as connection:
            migrate(connection)
        write_tables(folder)
        stage(f"filling a database with {entries:,} entries")
        fill(bench.dsn, entries)
        return bench

    def settings(self, name: str, *lines: str) -> Path:
        """A file of settings."""
        path = self.folder / f"{name}.toml"
        common = (
            f'dsn = "{self.dsn}"',
            f'origin_table = "{self.folder}/origins.dat"',
            f'origin_index_dir = "{self.folder}/index"',
            f'as_names = "{self.folder}/names.json"',
            f'lists_files = ["{self.folder}/scanners.txt"]',
        )
        path.write_text("\n".join((*common, *lines)) + "\n")
        return path

    def copy_s(self) -> float:
        """Seconds of the bare statement."""
        octets = 0
        with connected(self.dsn) as connection:
            begun = time.perf_counter()
            with window_of(connection) as blocks:
                for block in blocks:
                    octets += len(block)
            spent = time.perf_counter() - begun
        assert octets > self.entries * 100
        return spent

    def publish(self, name: str, *formats: str) -> tuple[float, float]:
        """Seconds of one publication, and the most memory of its process in MB."""
        lines = [f'feeds_dir = "{self.folder}/{name}"', "generations_kept = 2"]
        if formats:
            lines.append(f"formats = {json.dumps(formats)}")
        outcome, peak = run(
            [PROGRAM, "publish", "now", "--format", "json", "--config"],
            str(self.settings(name, *lines)),
        )
        assert sum(outcome["addresses"].values()) > self.entries * 9 // 10, outcome
        return outcome["seconds"], peak

    def settle(self, name: str, *formats: str) -> None:
        """Publish for the first time, which stores origins."""
        stage("the first publication")
        self.publish(name, *formats)
        with connected(self.dsn) as connection:
            connection.execute("VACUUM ANALYZE")

    def part(self, name: str) -> dict[str, float]:
        """Figures of a part of the measurement that has a process of its own."""
        command = [sys.executable, __file__, name, str(self.folder), self.dsn]
        figures: dict[str, float] = run(command, str(self.entries))[0]
        return figures


def run(command: list[str], last: str) -> tuple[Any, float]:
    """What a program writes as JSON, and the most memory that it took, in MB."""
    process = subprocess.Popen([*command, last], stdout=subprocess.PIPE)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, peak_mb(process.pid))
        time.sleep(0.02)
    assert process.stdout is not None
    written = process.stdout.read()
    assert process.returncode == 0, command
    return json.loads(written), peak


def peak_mb(pid: int) -> float:
    """The most resident memory of a process so far; 0 where it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def write_tables(folder: Path) -> None:
    """An origin table, AS names, and a list of scanners."""
    with (folder / "origins.dat").open("w") as out:
        for number in range(PREFIXES):
            net = 0x010000 + number * (0xDC0000 // PREFIXES)
            asn = number * 7919 % ORIGINS + 1
            out.write(f"{net >> 16}.{net >> 8 & 255}.{net & 255}.0/24\t{asn}\n")
        for number in range(0x01, 0xDD):
            for part in range(0, 256, 2):
                out.write(f"{number}.{part}.0.0/15\t{(number * 256 + part) % ORIGINS + 1}\n")
        for number in range(0x10000):
            out.write(f"2a00:{number:x}::/32\t{number % ORIGINS + 1}\n")
    hostile = list(HOSTILE_NAMES.values())
    names = {
        asn: hostile[asn % len(hostile)] if asn % 10 == 0 else f"NET{asn} Network {asn}"
        for asn in range(1, ORIGINS + 1)
    }
    (folder / "names.json").write_text(json.dumps(names))
    scanners = "".join(f"{number}.{number * 3 % 256}.0.0/22\n" for number in range(30, 90))
    (folder / "scanners.txt").write_text(scanners)


@contextlib.contextmanager
def window_of(connection: Connection) -> Iterator[Any]:
    """The publication's statement for the past week."""
    now = datetime.now(UTC)
    week = int(now.timestamp()) * 1000 // DAY_MS // WEEK_DAYS
    store = PublicationStore(connection)
    with store.copy_window(now - timedelta(days=7), None, week) as blocks:
        yield blocks


def read_rows(bench: Bench) -> tuple[list[FeedRows], float]:
    """The rows of both feeds as a publication has them, and the seconds from the statement on."""
    origins = OriginSource(
        AggregatorSettings(
            origin_table=f"{bench.folder}/origins.dat",
            origin_index_dir=f"{bench.folder}/index",
            as_names=f"{bench.folder}/names.json",
        )
    )
    origins.load()
    table = origins.current
    now_s = int(time.time())
    with connected(bench.dsn) as connection:
        begun = time.perf_counter()
        with window_of(connection) as blocks:
            window = Window.read(blocks, now_s)
    window = with_origins(window, table)
    names = {asn: table.name(asn) or "" for asn in origins_in(window)}
    judgements = judge_window(window, 3, NoLists())
    rows = [FeedRows(window, feed.name, judgements, names, now_s=now_s) for feed in FEEDS]
    return rows, time.perf_counter() - begun


class _Plain:
    """A file without its compressed form."""

    def __init__(self, folder: Path, name: str) -> None:
        self._stream = (folder / name).open("xb")

    def write(self, octets: bytes) -> None:
        self._stream.write(octets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stream.close()

    def written(self, *_counts: object) -> list[Any]:
        return []


def text_part(bench: Bench, folder: Path) -> dict[str, float]:
    """From the statement to the text files."""
    feeds, spent = read_rows(bench)
    begun = time.perf_counter()
    files.__dict__["PlainAndCompressed"] = _Plain
    for rows in feeds:
        frame = frame_of(rows.category)
        files.write_files(folder, files.files_of(frame.feed, frame, ("txt",)), rows.chunks())
    return {"text_s": spent + time.perf_counter() - begun}


def documents_part(bench: Bench, folder: Path) -> dict[str, float]:
    """STIX and MISP by themselves."""
    feeds, _ = read_rows(bench)
    stix, _ = documents._DOCUMENTS["stix"]
    documents._DOCUMENTS["stix"] = stix, None
    begun = time.perf_counter()
    for rows in feeds:
        frame = frame_of(rows.category)
        documents.write_documents(folder, rows, frame, ("stix",), go_on)
    figures = {"stix_s": time.perf_counter() - begun}
    before = None
    for name in ("misp_s", "misp_again_s"):
        place = folder / name
        place.mkdir()
        withdrawn = Withdrawn(folder, ())
        begun = time.perf_counter()
        feed = MispFeed(place, before, "Example", datetime.now(UTC), days=30, withdrawn=withdrawn)
        for rows in feeds:
            feed.add(rows, go_on)
        feed.write()
        figures[name] = time.perf_counter() - begun
        before = place
    return figures


def rounds(bench: Bench) -> dict[str, float]:
    """Publications, each beside the bare statement."""
    measured: dict[str, list[float]] = {}
    if not SHORT:
        bench.settle("default")
    for number in range(ROUNDS):
        stage(f"round {number + 1} of {ROUNDS}")
        figures = {"copy": bench.copy_s(), "text": bench.part("text")["text_s"]}
        figures["text_publication"], _ = bench.publish("text", "txt")
        figures["all"], _ = bench.publish("all", *ALL)
        figures["default"], figures["peak"] = bench.publish("default")
        for name, value in figures.items():
            measured.setdefault(name, []).append(value)
        stage(", ".join(f"{name} {value:.1f}" for name, value in figures.items()))
    medians = {name: statistics.median(values) for name, values in measured.items()}
    return {
        "copy_s": medians["copy"],
        "text_vs_copy": median_ratio(measured["text"], measured["copy"]),
        "text_publication_vs_copy": median_ratio(measured["text_publication"], measured["copy"]),
        "all_vs_copy": median_ratio(measured["all"], measured["copy"]),
        "all_s": medians["all"],
        "publication_s": medians["default"],
        "peak_mb": max(measured["peak"]),
    }


def median_ratio(ones: list[float], others: list[float]) -> float:
    """The median of ratios, each of one round."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


class _Ingest:
    """What `bench_ingest` needs of a benchmark to send batches and to wait for them."""

    def __init__(self, node: RabbitNode) -> None:
        self.node = node
        self.failures: list[Exception] = []
        self.deadline_s = 0.0
        for number in range(bench_ingest.SENSORS):
            node.admin.add_user(f"s{number}", "password")
            node.admin.permit(f"s{number}", "/", write=".*")
        connection = pika.BlockingConnection(pika.URLParameters(node.url()))
        broker.declare(connection, QUEUE)
        connection.close()


def ingest(bench: Bench, node: RabbitNode, checkpoint: Callable[[], None]) -> dict[str, float]:
    """The rate of ingest alone, while publications follow one another, and alone again.

    A checkpoint before each turn: after one, PostgreSQL writes whole pages to its log, which costs
    ingest more than a publication does. In the middle of one turn it would falsify the comparison.
    """
    source, feeds = _Ingest(node), bench.folder / "while"
    lines = [f'broker = ["{node.url()}"]']
    publishing = [*lines, f'feeds_dir = "{feeds}"', "publish_interval_s = 1"]
    rates: list[float] = []
    turns = (lines, publishing) if SHORT else (lines, publishing, lines)
    for turn, wanted in enumerate(turns, 1):
        checkpoint()
        with contextlib.ExitStack() as stack:
            release = stack.enter_context(bench_ingest.held(bench.dsn))
            stack.enter_context(bench_ingest.aggregator(bench.settings("ingest", *wanted)))
            bench_ingest.publish(source, bench_ingest.repeated_batches(BATCHES))
            source.deadline_s = time.monotonic() + 300
            begun = time.monotonic()
            release()
            ended = bench_ingest.wait_applied(source, bench.dsn, turn * BATCHES)
            rates.append(BATCHES * bench_ingest.BATCH_ROWS / (ended - begun))
            stage(f"{'alone' if wanted is lines else 'while publishing'}: {rates[-1]:,.0f} rows/s")
    alone = statistics.mean(rates[::2])
    return {"ingest_rows_per_s": alone, "ingest_while_publishing": rates[1] / alone}


def checkpoint(postgres: PrivatePostgres) -> None:
    """Let PostgreSQL write all that it holds in memory."""
    with connected(postgres.dsn_for("postgres", user="postgres")) as connection:
        connection.execute("CHECKPOINT")


def large(postgres: PrivatePostgres, folder: Path, all_s: float) -> dict[str, float]:
    """One publication of ten times as many."""
    bench = Bench.made(postgres, folder, LARGE)
    bench.settle("all", *ALL)
    stage("copy, and publication")
    copy_s = bench.copy_s()
    seconds, peak = bench.publish("all", *ALL)
    generation = (folder / "all" / "feeds" / "current").resolve()
    octets = sum(path.stat().st_size for path in generation.rglob("*") if path.is_file())
    return {
        "large_entries": LARGE,
        "large_copy_s": copy_s,
        "large_all_s": seconds,
        "large_peak_mb": peak,
        "large_disk_mb": octets / 1e6,
        "ten_million_per_entry_ratio": seconds / LARGE / (all_s / ENTRIES),
    }


def main() -> None:
    """All figures."""
    with (
        tempfile.TemporaryDirectory(prefix="smtpfeeds-bench-", dir="/var/tmp") as place,
        PrivatePostgres(Path(place) / "postgres", settings=POSTGRES) as postgres,
    ):
        folder = Path(place)
        bench = Bench.made(postgres, folder / "million", ENTRIES)
        figures = {"entries": float(ENTRIES)} | rounds(bench)
        stage("STIX and MISP")
        figures |= bench.part("documents")
        stage("ingest")
        with rabbitmq_running(folder / "rabbitmq") as node:
            figures |= ingest(bench, node, lambda: checkpoint(postgres))
        if LARGE:
            figures |= large(postgres, folder / "large", figures["all_s"])
        report(figures)


def part(name: str, folder: str, dsn: str, entries: str) -> None:
    """A part of a measurement, in this process."""
    bench = Bench(Path(folder), dsn, int(entries))
    with tempfile.TemporaryDirectory(dir=folder) as place:
        work = {"text": text_part, "documents": documents_part}[name]
        print(json.dumps(work(bench, Path(place))))


if __name__ == "__main__":
    if sys.argv[1:]:
        part(*sys.argv[1:])
    else:
        main()
