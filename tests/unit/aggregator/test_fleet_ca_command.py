"""`smtpfeeds fleet ca`: create, renew and show an authority, and never overwrite a key."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from click.testing import CliRunner, Result

from servers.certificates import is_issued_by
from smtpfeeds_aggregator.cli.fleet import fleet
from smtpfeeds_common.errors import FleetError


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(fleet, ["ca", *arguments])


def test_authority_is_created_renewed_and_shown(tmp_path: Path) -> None:
    folder, output = tmp_path / "ca", tmp_path / "broker"
    output.mkdir()
    where = ("--ca-dir", str(folder))
    server = ("server", "broker", "broker.example", "2001:db8::1", "--output", str(output), *where)
    assert _run("init", "--name", "Example fleet", *where).exit_code == 0
    assert _run(*server).exit_code == 0
    first = (folder / "ca.pem").read_bytes()
    assert _run("renew", *where).exit_code == 0
    renewed = (folder / "ca.pem").read_bytes()

    assert renewed != first
    assert is_issued_by((output / "broker.pem").read_bytes(), renewed)
    assert stat.S_IMODE((output / "broker.key").stat().st_mode) == 0o600
    shown = _run("show", "--format", "json", *where)
    rows = json.loads(shown.stdout)
    assert [(row["name"], row["kind"]) for row in rows] == [
        ("Example fleet", "authority"),
        ("broker", "server"),
    ]
    assert all(row["days_left"] > 300 for row in rows)
    everything = shown.stdout + "".join(file.read_text() for file in (folder / "issued").iterdir())
    assert "PRIVATE KEY" not in everything

    key = (output / "broker.key").read_bytes()
    again = _run(*server)
    assert isinstance(again.exception, FleetError)
    assert (output / "broker.key").read_bytes() == key


def test_folder_without_an_authority_is_reported_with_the_command(tmp_path: Path) -> None:
    result = _run("show", "--ca-dir", str(tmp_path))
    assert isinstance(result.exception, FleetError)
    assert "smtpfeeds fleet ca init" in str(result.exception)


def test_a_name_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    where = ("--ca-dir", str(folder))
    assert _run("init", *where).exit_code == 0
    for name in ("../outside", "a/b", ".hidden"):
        result = _run("server", name, "broker.example", "--output", str(tmp_path), *where)
        assert isinstance(result.exception, FleetError), name
    assert [file.name for file in tmp_path.iterdir()] == ["ca"]
    assert list((folder / "issued").iterdir()) == []
