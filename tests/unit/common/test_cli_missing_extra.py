"""A command whose extra is missing prints the line that installs it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from smtpfeeds_common.cli import main
from smtpfeeds_common.extras import how_to_install, install_line, source_path


@pytest.mark.parametrize("command", [["query", "192.0.2.1"], ["aggregator", "migrate"]])
def test_package_that_is_missing_when_the_command_runs_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """The command imports psycopg only when it runs, not with its group."""
    for name in [name for name in sys.modules if name.startswith("smtpfeeds_aggregator.store")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    environ = {"SMTPFEEDS_AGGREGATOR_DSN": "host=/nowhere"}
    result = CliRunner().invoke(main, command, env=environ)
    assert result.exit_code == 3
    assert f"`smtpfeeds {command[0]}` needs the package 'psycopg'" in result.output
    assert how_to_install("aggregator") in result.output
    assert "Traceback" not in result.output


def test_wheel_is_named_where_pip_took_it_from(tmp_path: Path) -> None:
    """With the name alone, pip would ask a public registry."""
    wheel = tmp_path / "a folder" / "smtpfeeds-0.1.0-py3-none-any.whl"
    noted = source_path(f'{{"url": "{wheel.as_uri()}", "archive_info": {{}}}}')
    assert noted == wheel
    line = install_line("aggregator", wheel)
    assert shlex.split(line)[-2:] == ["install", f"{wheel}[aggregator]"]
    assert shlex.split(line)[0] == sys.executable


def test_checkout_has_its_locked_packages_installed(tmp_path: Path) -> None:
    locked = tmp_path / "deploy" / "requirements" / "sensor.txt"
    locked.parent.mkdir(parents=True)
    locked.touch()
    wanted = ["install", "--require-hashes", "-r", str(locked)]
    assert shlex.split(install_line("sensor", tmp_path))[-4:] == wanted


@pytest.mark.parametrize(
    "noted",
    [
        None,  # installed by name, or from a distribution's package
        "not JSON",
        "[]",
        '{"url": "https://example.net/smtpfeeds.whl"}',
        '{"url": ""}',
    ],
)
def test_without_a_local_place_the_line_still_names_a_file(
    monkeypatch: pytest.MonkeyPatch, noted: str | None
) -> None:
    monkeypatch.setattr("smtpfeeds_common.extras._direct_url", lambda: noted)
    assert source_path(noted) is None
    line = how_to_install("aggregator")
    assert "./smtpfeeds-….whl[aggregator]" in line
    assert "docs/how-to/two-hosts.md" in line


def test_wheel_that_is_gone_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = '{"url": "file:///nowhere/smtpfeeds-0.1.0.whl"}'
    monkeypatch.setattr("smtpfeeds_common.extras._direct_url", lambda: noted)
    assert "/nowhere" not in how_to_install("sensor")
