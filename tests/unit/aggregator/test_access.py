"""The settings that `query` needs, read faster than all settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smtpfeeds_aggregator.cli.access import Access, read_access
from smtpfeeds_aggregator.cli.database import NoDatabase
from smtpfeeds_aggregator.cli.settings_files import SettingsFiles
from smtpfeeds_aggregator.settings import AggregatorSettings, load
from smtpfeeds_common.errors import SettingsError

DSN = "host=db.example.net dbname=smtpfeeds"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "aggregator.toml"


def of_all(settings: AggregatorSettings) -> Access:
    return Access(*(getattr(settings, name) for name in Access._fields))


def test_defaults_are_those_of_all_settings() -> None:
    assert read_access(SettingsFiles(), DSN) == of_all(AggregatorSettings(dsn=DSN))


@pytest.mark.parametrize(
    ("line", "variable", "expected"),
    [
        ("", None, Access(DSN)),
        ("publish_non_global = true", None, Access(DSN, "", 60, publish_non_global=True)),
        ("database_timeout_s = 5", None, Access(DSN, "", 5)),
        ("database_timeout_s = 5", ("DATABASE_TIMEOUT_S", "7"), Access(DSN, "", 7)),
        ("", ("PUBLISH_NON_GLOBAL", "yes"), Access(DSN, "", 60, publish_non_global=True)),
        ("", ("DSN", "host=other"), Access("host=other")),
    ],
)
def test_environment_overrides_the_file(
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    variable: tuple[str, str] | None,
    expected: Access,
) -> None:
    config.write_text(f"dsn = {json.dumps(DSN)}\n{line}\n")
    if variable is not None:
        monkeypatch.setenv(f"SMTPFEEDS_AGGREGATOR_{variable[0]}", variable[1])
    assert read_access(SettingsFiles(config), None) == expected


@pytest.mark.parametrize(
    "line",
    [
        *(f"database_timeout_s = {value}" for value in ("nan", "inf", "-1", "0", "[1]", "true")),
        'database_timeout_s = "x"',
        "database_timeout_s = 1e300",
        "dsn = 5",
        'dsn = ["host=x"]',
        "dsn_password_file = 5",
        'publish_non_global = "perhaps"',
    ],
)
def test_value_that_other_commands_refuse_is_refused(config: Path, line: str) -> None:
    dsn = "" if line.startswith("dsn =") else f"dsn = {json.dumps(DSN)}\n"
    config.write_text(f"{dsn}{line}\n")
    with pytest.raises(SettingsError, match=line.partition(" ")[0]):
        read_access(SettingsFiles(config), None)


def test_missing_database_is_a_usage_error(config: Path) -> None:
    config.touch()
    with pytest.raises(NoDatabase) as error:
        read_access(SettingsFiles(config), None)
    assert error.value.exit_code == 2


def test_owner_file_sets_only_the_database(tmp_path: Path, config: Path) -> None:
    config.write_text(
        f"dsn = {json.dumps(DSN)}\ndsn_password_file = '/ingest'\npublish_non_global = true\n"
    )
    owner = tmp_path / "owner.toml"
    owner.write_text("dsn = 'host=other'\ndatabase_timeout_s = 5\n")
    files = SettingsFiles(config, owner)
    assert read_access(files, None) == Access("host=other", "", 60, publish_non_global=True)
    assert read_access(files, None) == of_all(load(config, database_file=owner))
    owner.write_text("dsn_password_file = '/owner'\n")
    for read in (lambda: read_access(files, None), lambda: load(config, database_file=owner)):
        with pytest.raises(SettingsError, match=r"owner\.toml: the setting 'dsn' is missing"):
            read()
