"""The command line of an analyst measured, beside psql, awk and grep.

    python tests/benchmarks/bench_query.py

A million rows (BENCH_LARGE=1: ten million; BENCH_ROWS: another number; some thousand with
BENCH_SHORT=1) in a private PostgreSQL. Prints a table; BENCH_OUT names a file for the figures as
JSON. Each time is the best of some runs of the whole program, from its start to its end:

* one_address_s: `smtpfeeds query ADDRESS`; one_address_floor_s: a Python that only imports
  psycopg, connects, asks for the row and ends by `os._exit`; one_address_vs_psql: beside
  `psql -c "SELECT …"` for the same row.
* terms_10000_s: `smtpfeeds query --file` with ten thousand addresses, half of them stored, beside
  psql with one statement of them all, and awk and grep over the CSV of the same rows.
* filter_lines_per_s: `smtpfeeds filter` over a mail log of 400,000 lines, beside `grep -F -f`:
  filter_vs_grep, and in CPU time, which means more on a busy host, filter_vs_grep_cpu. The same
  of 100,000 lines (_short), where its start counts more, and of two million (_longer).
* start_vs_python: `smtpfeeds --help` beside `python -c pass`.

All programs run as after an installation: with their bytecode, which a checkout may lack where
PYTHONDONTWRITEBYTECODE is set, and with buffered output.
"""

import compileall
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import report, stage
from benchmarks.sizes import size
from servers.postgres import PostgresServer
from smtpfeeds_aggregator.publish.formats import csv_file
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_aggregator.store.migrations import migrate
from smtpfeeds_deploy.single_host import postgres_binaries

ROWS = size(10_000_000 if os.environ.get("BENCH_LARGE") else 1_000_000, 5_000, "BENCH_ROWS")
TERMS = size(10_000, 500)
LINES = size(400_000, 5_000)
#: The longer log is so many times the mail log, and the short one such a part of it.
LONGER = 5
SHORTER = 4
LISTED = size(66_000, 1_000)
RUNS = size(7, 1)
PROGRAM = [str(Path(sys.executable).parent / "smtpfeeds")]
FLOOR = """
import os, sys
import psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    print(connection.execute(
        "SELECT * FROM observation WHERE ip = %s::inet", (sys.argv[2],)).fetchall())
sys.stdout.flush()
os._exit(0)
"""


class Cost(NamedTuple):
    """The least of some runs, in seconds: the others had company."""

    wall_s: float
    #: Of the program and what it started.
    cpu_s: float


def best(command: Sequence[str], runs: int = RUNS, good: tuple[int, ...] = (0,)) -> float:
    """Seconds of the fastest of some runs."""
    return cost(command, runs, good).wall_s


def cost(command: Sequence[str], runs: int, good: tuple[int, ...]) -> Cost:
    """What the cheapest of some runs costs."""
    costs = []
    for _ in range(runs):
        begun, cpu_before_s = time.perf_counter(), _children_cpu_s()
        done = subprocess.run(command, capture_output=True, check=False)
        costs.append(Cost(time.perf_counter() - begun, _children_cpu_s() - cpu_before_s))
        if done.returncode not in good:
            raise RuntimeError(f"{command[:4]}: {done.returncode}: {done.stderr[-500:]!r}")
    return Cost(*map(min, zip(*costs, strict=True)))


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def address(number: int) -> str:
    """The stored address of a number: spread over the space, as clients are."""
    value = 0x01000000 + number * 359 % 0xDE000000
    return ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0))


def fill(dsn: str) -> None:
    """Rows in both feeds, each with its sightings."""
    with connect(AggregatorSettings(dsn=dsn), "bench", autocommit=True) as connection:
        migrate(connection)
        connection.execute("SET statement_timeout = 0")
        connection.limit_s = None
        connection.execute("SET synchronous_commit = off")
        connection.execute(
            "INSERT INTO sensor (name, heard_at) VALUES ('s1', now()), ('s2', now())"
        )
        rows = (
            "SELECT '0.0.0.0'::inet + (16777216 + g::bigint * 359 %% 3724541952), {},"
            " now() - (g %% 20) * interval '1 day' - interval '2 h',"
            " now() - (g %% 20) * interval '1 day', g %% 60 + 1{} FROM generate_series(1, %s) AS g"
        )
        day = (
            ", (g::bigint * 40503) %% 536870912, (g %% 65000) + 1,"
            " (floor(extract(epoch FROM now()) / 86400)::int - g %% 20),"
            " g, (g::bigint * 40503) %% 536870912"
        )
        insert = "INSERT INTO observation (ip, feed, first_seen, last_seen, hits"
        more = ", flags, asn, day, days, flags_now) "
        greet = insert + more + rows.format("'smtpgreet'", day)
        data = insert + more + rows.format("'smtpdata'", day) + " WHERE g %% 4 = 0"
        number = ROWS * 4 // 5
        for statement in (greet, data):
            connection.execute(statement.encode(), (number,))
        seen = "INSERT INTO sighting (ip, feed, sensor, first_seen, last_seen, hits) "
        connection.execute((seen + rows.format("'smtpgreet', 's1'", "")).encode(), (number,))
        connection.execute(
            (seen + rows.format("'smtpgreet', 's2'", "") + " WHERE g %% 3 = 0").encode(), (number,)
        )
        connection.execute(
            "INSERT INTO autonomous_system"
            " SELECT g, 'Network ' || g FROM generate_series(1, 65000) AS g"
        )
        connection.execute("VACUUM ANALYZE")


def psql_of(dsn: str) -> list[str]:
    """The psql beside the server, or the system's."""
    for each in (*postgres_binaries.embedded(), *postgres_binaries.of_the_system()):
        if (each.folder / "psql").exists():
            return [str(each.folder / "psql"), "-X", "-q", "-At", dsn]
    return ["psql", "-X", "-q", "-At", dsn]


def ask(folder: Path, dsn: str, figures: dict[str, float]) -> None:
    """One address and ten thousand."""
    ip = address(ROWS // 3)
    query = [*PROGRAM, "query", "--dsn", dsn]
    psql = psql_of(dsn)
    figures["one_address_s"] = best([*query, ip])
    figures["one_address_floor_s"] = best([sys.executable, "-c", FLOOR, dsn, ip])
    psql_s = best([*psql, "-c", f"SELECT * FROM observation WHERE ip = '{ip}'"])
    figures["psql_one_address_s"] = psql_s
    figures["one_address_vs_psql"] = figures["one_address_s"] / psql_s
    random.seed(1)
    half = [address(random.randrange(1, ROWS * 4 // 5)) for _ in range(TERMS // 2)]
    # Beside a stored one nothing is stored: they are 359 apart.
    others = [_beside(address(random.randrange(1, ROWS * 4 // 5))) for _ in range(TERMS // 2)]
    terms = folder / "terms"
    mixed = half + others
    random.shuffle(mixed)
    terms.write_text("\n".join(mixed) + "\n")
    figures["terms_10000_s"] = best([*query, "--file", str(terms), "--format", "csv"])
    statement = folder / "terms.sql"
    listed = ",".join(mixed)
    statement.write_text(
        f"SELECT t.ip, o.* FROM unnest('{{{listed}}}'::inet[]) AS t (ip)"
        " LEFT JOIN observation AS o USING (ip);"
    )
    figures["psql_terms_10000_s"] = best([*psql, "-f", str(statement)])
    rows = folder / "rows.csv"
    with rows.open("w") as stream:
        subprocess.run(
            [*psql, "-c", "COPY (SELECT host(ip), feed, hits FROM observation) TO STDOUT CSV"],
            stdout=stream,
            check=True,
        )
    awk = "NR==FNR{w[$1];next} $1 in w"
    figures["awk_terms_10000_s"] = best(["awk", "-F,", awk, str(terms), str(rows)], 3)
    figures["grep_terms_10000_s"] = best(
        ["grep", "-F", "-f", str(terms), str(rows)], size(2, 1), good=(0, 1)
    )


def _beside(ip: str) -> str:
    front, _, last = ip.rpartition(".")
    return f"{front}.{(int(last) + 1) % 256}"


def pass_lines(folder: Path, figures: dict[str, float]) -> None:
    """A mail log through `filter` and through grep, by the addresses of a published file."""
    published = folder / "addresses.txt"
    published.write_text("".join(f"{address(n)}\n" for n in range(1, LISTED)))
    feed = folder / "smtpgreet.csv"
    feed.write_text(
        ",".join(csv_file.COLUMNS)
        + "\n"
        + "".join(
            f"{n},Network,{address(n)},2026-11-23 11:00:00,smtpgreet,2026-11-23 10:00:00,1,1,,"
            "probe,greet,NA,1,......#,1,false\n"
            for n in range(1, LISTED)
        )
    )
    log = folder / "mail.log"
    with log.open("w") as stream:
        for n in range(LINES):
            ip = address(n * 7) if n % 3 else f"192.0.2.{n % 250}"
            stream.write(
                f"Nov 23 11:00:{n % 60:02} mx postfix/smtpd[{n}]: connect from unknown[{ip}]\n"
            )
    octets = log.read_bytes()
    (folder / "short.log").write_bytes(octets[: octets.index(b"\n", len(octets) // SHORTER) + 1])
    (folder / "longer.log").write_bytes(octets * LONGER)
    for name, end in (("short.log", "_short"), ("mail.log", ""), ("longer.log", "_longer")):
        searched = str(folder / name)
        ours = cost([*PROGRAM, "filter", "--from", str(feed), searched], size(3, 1), (0, 1))
        grep = cost(["grep", "-F", "-f", str(published), searched], size(3, 1), (0, 1))
        figures[f"filter_vs_grep{end}"] = grep.wall_s / ours.wall_s
        figures[f"filter_vs_grep_cpu{end}"] = grep.cpu_s / ours.cpu_s
        if not end:
            figures["filter_lines_per_s"] = LINES / ours.wall_s


def as_installed() -> None:
    """Compile the packages, and let programs read what is compiled."""
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
        os.environ.pop(name, None)
    for package in ("aggregator", "common", "deploy"):
        compileall.compile_dir(Path(__file__).parents[2] / package, quiet=1)


def measure(folder: Path) -> dict[str, float]:
    """All figures."""
    as_installed()
    figures: dict[str, float] = {"rows": float(ROWS)}
    stage("start, and a mail log")
    figures["start_vs_python"] = best([*PROGRAM, "--help"]) / best([sys.executable, "-c", "pass"])
    pass_lines(folder, figures)
    server = PostgresServer(folder / "postgres")
    with server.private:
        dsn = server.create_database()
        stage(f"filling a database with {ROWS:,} rows")
        fill(dsn)
        stage("questions")
        ask(folder, dsn, figures)
    return figures


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        found = measure(Path(place))
    report(found)
