"""The parts of `smtpfeeds up`: pauses between starts, the folder, the settings, the logs."""

from __future__ import annotations

import os
import socket
import tomllib
from pathlib import Path

import pytest

from smtpfeeds_common.errors import SingleHostError
from smtpfeeds_common.systemd import notify, notify_progress
from smtpfeeds_deploy.single_host.bounded_log import BoundedLog
from smtpfeeds_deploy.single_host.home import Home, Options, toml_text
from smtpfeeds_deploy.single_host.readiness import Readiness


def test_folder_in_use_is_refused_with_the_process(tmp_path: Path) -> None:
    first, second = Home(tmp_path / "site"), Home(tmp_path / "site")
    first.take()
    with pytest.raises(SingleHostError, match=rf"in use by another .* \(process {os.getpid()}\)"):
        second.take()
    first.leave()
    second.take()
    second.leave()


def test_other_folder_that_is_not_empty_is_refused_unchanged(tmp_path: Path) -> None:
    """A mistake in --dir must not fill a home folder."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "letter.txt").write_text("mine\n")
    (site / "lock").touch()  # a name that other programs use too
    with pytest.raises(SingleHostError, match="is not empty and was not created by `smtpfeeds up`"):
        Home(site).take()
    assert sorted(entry.name for entry in site.iterdir()) == ["letter.txt", "lock"]


@pytest.mark.parametrize("there", [(), ("spool",), ("lost+found",)])
def test_empty_folder_or_its_own_is_used(tmp_path: Path, there: tuple[str, ...]) -> None:
    for name in there:
        (tmp_path / name).mkdir()
    for _ in range(2):
        home = Home(tmp_path)
        home.take()
        home.leave()
        (tmp_path / "origin-table.txt").touch()


def test_folder_that_cannot_be_created_is_an_error_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SingleHostError, match="cannot use the folder"):
        Home(tmp_path / "file" / "site").take()


def test_settings_files_contain_the_options(tmp_path: Path) -> None:
    home = Home(tmp_path / 'an odd "name"')
    home.take()
    options = Options(
        smtp=("127.0.0.1:0", "[::1]:0"),
        trusted_proxies=("127.0.0.0/8",),
        origin_table=tmp_path / "table",
        publish_every_s=7,
        publish_non_global=True,
        publish_exact_counts=True,
    )
    home.write_settings(options, "host='/x y' dbname=smtpfeeds")
    home.leave()
    sensor = tomllib.loads(home.sensor_file.read_text())
    aggregator = tomllib.loads(home.aggregator_file.read_text())
    assert sensor["listen"] == ["127.0.0.1:0", "[::1]:0"]
    assert sensor["trusted_proxies"] == ["127.0.0.0/8"]
    assert aggregator["dsn"] == "host='/x y' dbname=smtpfeeds"
    assert aggregator["broker"] == [f"spool:{sensor['spool_dir']}"]
    assert aggregator["origin_table"] == str(tmp_path / "table")
    assert aggregator["publish_interval_s"] == 7
    assert aggregator["publish_non_global"] is True
    assert aggregator["publish_exact_counts"] is True
    assert home.aggregator_file.stat().st_mode & 0o077 == 0


def test_exported_variables_do_not_override_the_settings_files(tmp_path: Path) -> None:
    """An exported DSN of another database does not redirect this host's events."""
    given = {
        "PATH": "/bin",
        "SMTPFEEDS_AGGREGATOR_DSN": "postgresql://production/",
        "SMTPFEEDS_AGGREGATOR_PUBLISHER_NAME": "Example",
        "SMTPFEEDS_SENSOR_BROKER": "amqps://production",
        "SMTPFEEDS_SENSOR_USER": "nobody",
        "PGHOSTADDR": "192.0.2.1",
        "PGOPTIONS": "-c default_transaction_read_only=on",
    }
    left = Home(tmp_path).environment(given, Options(smtp=("127.0.0.1:0",)))
    assert left == {"PATH": "/bin", "SMTPFEEDS_AGGREGATOR_PUBLISHER_NAME": "Example"}


def test_toml_keeps_any_text() -> None:
    odd = 'quote " backslash \\ tab \t del \x7f ü \u2028'
    assert tomllib.loads(toml_text({"a": odd, "b": (odd,), "c": False})) == {
        "a": odd,
        "b": [odd],
        "c": False,
    }


def test_log_over_its_bound_starts_again_and_one_is_kept(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log" / "sensor.log", max_bytes=100)
    stream = log.open()
    os.write(stream, b"old\n" * 30)
    log.keep_bound()
    os.write(stream, b"new\n")
    log.keep_bound()
    os.close(stream)
    assert log.path.read_bytes() == b"new\n"
    assert log.path.with_name("sensor.log.1").read_bytes() == b"old\n" * 30


def test_last_log_lines_are_those_of_this_run(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "sensor.log")
    log.path.write_text("of the run before\n")
    since = log.size()
    with log.path.open("a") as stream:
        stream.write("".join(f"line {number}\n" for number in range(20)))
    assert log.tail(since).splitlines() == [f"line {number}" for number in range(8, 20)]


def test_ready_is_what_a_child_reports_to_its_own_socket() -> None:
    readiness = Readiness()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as child:
        child.connect("\0" + readiness.address.removeprefix("@"))
        child.send(b"STATUS=opening")
        assert not readiness.look()
        child.send(b"STATUS=listening\nREADY=1")
        assert readiness.look()
    readiness.close()


def test_progress_is_what_a_child_reported_last(monkeypatch: pytest.MonkeyPatch) -> None:
    readiness = Readiness()
    monkeypatch.setenv("NOTIFY_SOCKET", readiness.address)
    notify_progress("1 greet", {"greets": 1})
    notify_progress("2 greets", {"greets": 2})
    assert not readiness.look()
    assert readiness.progress == {"greets": 2}
    for odd in ("nonsense", "[]", "1"):
        notify(f"X_SMTPFEEDS_PROGRESS={odd}")
        readiness.look()
        assert readiness.progress == {}
    readiness.close()
