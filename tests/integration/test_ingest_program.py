"""The program as a service manager sees it: migrate, ready, stop, and its output."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from ingest_support import Table, now_ms, until
from ingest_support.fixtures import dsn, table  # noqa: F401 - fixtures
from smtpfeeds_common.spool import Event, Spool

# ruff: noqa: F811 - fixtures are imported by name and used by name

PROGRAM = [str(Path(sys.executable).parent / "smtpfeeds"), "aggregator"]


def command(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments, "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def config_of(folder: Path, dsn: str, *more: str) -> Path:
    spools = folder / "spools"
    spools.mkdir()
    path = folder / "aggregator.toml"
    path.write_text("\n".join([f'dsn = "{dsn}"', f'broker = ["spool:{spools}"]', *more]))
    return path


def test_migrate_run_and_stop(database: str, tmp_path: Path) -> None:
    config = config_of(tmp_path, database)
    refused = command(config, "run")
    assert refused.returncode == 3
    assert refused.stderr.startswith("smtpfeeds: the database has no smtpfeeds schema")
    assert "applied 0001 first_schema" in command(config, "migrate").stdout
    assert command(config, "migrate").stdout == "the schema is up to date\n"
    spool = Spool(tmp_path / "spools/s1.spool", sensor="s1")
    spool.fold(Event(0, b"\xc0\0\2\1", now_ms() - 1000))
    spool.commit()
    spool.close()
    notified = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(notified))
        listening.settimeout(60)
        process = subprocess.Popen(
            [*PROGRAM, "run", "--config", str(config)],
            env={**os.environ, "NOTIFY_SOCKET": str(notified)},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert listening.recv(100) == b"READY=1"
        asked = Table(database)
        until(lambda: bool(asked.rows()), "the greet is stored")
        asked.connection.close()
        process.send_signal(signal.SIGTERM)
        reports = iter(lambda: listening.recv(8192), b"STOPPING=1")
        assert all(report.startswith(b"STATUS=") for report in reports)
        result = process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert len([line for line in result.splitlines() if " ready " in line]) == 1
    assert "192.0.2.1" not in result, "no address is logged"


def test_unusable_settings_are_exit_code_2_with_a_remedy(tmp_path: Path) -> None:
    config = config_of(tmp_path, "host=127.0.0.1 dbname=x", 'feeds_dirr = "/nowhere"')
    done = command(config, "check-config")
    assert (done.returncode, "feeds_dir" in done.stderr) == (2, True)
    config.write_text('dsn = "host=127.0.0.1 dbname=x"\nbroker = ["amqp://u@h", "spool:/x"]')
    assert command(config, "check-config").returncode == 2
    config.write_text(f'dsn = "host=127.0.0.1 dbname=x"\nbroker = ["spool:{tmp_path}"]')
    good = command(config, "check-config")
    assert (good.returncode, "the settings are good" in good.stdout) == (0, True)


def test_program_waits_for_the_database_at_the_start_until_sigterm(tmp_path: Path) -> None:
    config = config_of(tmp_path, f"host={tmp_path} dbname=nothing")
    process = subprocess.Popen(
        [*PROGRAM, "run", "--config", str(config)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert "waiting for the database" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_wrong_dsn_ends_the_program_with_the_reason(database: str, tmp_path: Path) -> None:
    done = command(config_of(tmp_path, database + " dbname=nowhere"), "run")
    assert done.returncode == 3
    assert 'database "nowhere" does not exist; check dsn' in done.stderr
