"""swaks, nmap's scripts and Postfix's smtp-source connect to a sensor and are recorded correctly.

Events are read from the sensor's spool, sealed and decoded as the aggregator does.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
from contextlib import closing

import pytest

from acceptance.harness import Site
from servers.processes import HANG_LIMIT_S, wait_until
from smtpfeeds_common.behaviours import Flags
from smtpfeeds_common.clock import Clock
from smtpfeeds_common.spool import Sealer
from smtpfeeds_common.wire import Observation, decode
from smtpfeeds_deploy.simulation.simulate import Target

SENSOR = "sensor-a"
CLIENT = "127.0.0.1"


def program(name: str) -> str:
    """A client program; server packages put theirs where ordinary users' PATH does not look."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    assert path, f"{name} is not installed: run deploy/setup/test-programs.sh as root"
    return path


def run(*command: str, limit_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )


def landed(site: Site, hits: int) -> dict[str, Observation]:
    """Return the spool's rows by feed, once it holds so many hits.

    A client that hung up is recorded a moment later.
    """
    spool = site.folder / f"spool-{SENSOR}" / f"{SENSOR}.spool"
    with closing(sqlite3.connect(spool, timeout=HANG_LIMIT_S)) as db:
        counted = "SELECT coalesce(sum(hits), 0) FROM observation"
        wait_until(
            lambda: db.execute(counted).fetchone()[0] >= hits, what=f"{hits} hits are recorded"
        )
    sealer = Sealer(spool)
    sealed = sealer.seal(Clock().read(), empty=True)
    sealer.close()
    assert sealed is not None
    rows = decode(sealed.body).batch.observations
    assert {row.ip for row in rows} <= {CLIENT}
    return {row.feed: row for row in rows}


@pytest.fixture
def sensor(site: Site) -> Target:
    return site.sensor(SENSOR)[0]


def test_swaks_is_refused_at_data_and_is_a_greet_and_a_data_event(
    site: Site, sensor: Target
) -> None:
    result = run(
        program("swaks"), "--server", f"{sensor.host}:{sensor.port}", "--helo", "mail.example.net",
        "--from", "one@example.net", "--to", "two@example.org",
    )  # fmt: skip
    assert result.returncode != 0
    assert re.search(r"^<\*\* 554 ", result.stdout, re.MULTILINE), result.stdout
    rows = landed(site, 2)
    assert (rows["smtpgreet"].hits, rows["smtpdata"].hits) == (1, 1)
    assert rows["smtpgreet"].flags & Flags.FULL_HOST_NAME


def test_swaks_that_quits_after_its_greet_is_a_greet_alone(site: Site, sensor: Target) -> None:
    for verb in ("EHLO", "HELO"):
        result = run(
            program("swaks"), "--server", f"{sensor.host}:{sensor.port}", "--quit-after", verb,
            "--to", "two@example.org", *(["--protocol", "SMTP"] if verb == "HELO" else []),
        )  # fmt: skip
        assert result.returncode == 0, result.stdout
    rows = landed(site, 2)
    assert {feed: row.hits for feed, row in rows.items()} == {"smtpgreet": 2}


def test_each_of_nmaps_scripts_is_a_greet_and_reads_what_a_mail_server_says(
    site: Site, sensor: Target
) -> None:
    """They greet with and without an argument and go as far as RCPT and VRFY, none to DATA."""
    scripts = ("smtp-commands", "smtp-enum-users", "smtp-open-relay", "smtp-ntlm-info")
    result = run(
        program("nmap"), "-Pn", "-n", "-sT", "-p", str(sensor.port),
        "--script", ",".join(f"+{script}" for script in scripts), sensor.host,
    )  # fmt: skip
    assert re.search(r"smtp-commands: \S+, PIPELINING, SIZE \d+, 8BITMIME", result.stdout), (
        result.stdout
    )
    rows = landed(site, len(scripts))
    assert rows["smtpgreet"].hits >= len(scripts)
    assert set(rows) == {"smtpgreet"}


@pytest.mark.parametrize("policy", ["reject", "drain"])
def test_each_session_of_smtp_source_is_one_greet_and_one_data_event(
    site: Site, policy: str
) -> None:
    """20 sessions of Postfix's load generator, 5 at once; no message is ever taken."""
    target = site.sensor(SENSOR, data_policy=policy)[0]
    # -A: go on when the reply is a refusal, as it always is here.
    result = run(
        program("smtp-source"), "-A", "-s", "5", "-m", "20", "-l", "1000",
        "-f", "one@example.net", "-t", "two@example.org", "-M", "mail.example.net",
        f"inet:{target.host}:{target.port}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    rows = landed(site, 40)
    assert (rows["smtpgreet"].hits, rows["smtpdata"].hits) == (20, 20)
