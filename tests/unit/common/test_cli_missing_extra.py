"""A command whose extra is not installed says the line that installs it, whenever it notices."""

from __future__ import annotations

import sys

import pytest
from click.testing import CliRunner

from smtpfeeds_common.cli import main


@pytest.mark.parametrize("command", [["query", "192.0.2.1"], ["aggregator", "migrate"]])
def test_package_that_is_missing_when_the_command_runs_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """psycopg is imported by the running command, not with its group."""
    for name in [name for name in sys.modules if name.startswith("smtpfeeds_aggregator.store")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    environ = {"SMTPFEEDS_AGGREGATOR_DSN": "host=/nowhere"}
    said = CliRunner().invoke(main, command, env=environ)
    assert said.exit_code == 1
    assert f"`smtpfeeds {command[0]}` needs the package 'psycopg'" in said.output
    assert "pip install 'smtpfeeds[aggregator]'" in said.output
    assert "Traceback" not in said.output
