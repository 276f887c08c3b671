"""Which settings files a command reads, and what an error says of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from smtpfeeds_aggregator.cli.settings_files import (
    SettingsFiles,
    about_owner,
    no_database,
    settings_files,
)
from smtpfeeds_common.cli import main
from smtpfeeds_common.errors import SettingsError

NAMES = ("aggregator.toml", "owner.toml", "query.toml")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SMTPFEEDS_SETTINGS", str(tmp_path))
    return tmp_path


def may_read(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str) -> None:
    """Create all files; this user can read these, as the modes of two-hosts.md have it."""
    for name in NAMES:
        (folder / name).touch()
    real, denied = os.access, [folder / name for name in NAMES if name not in names]
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: real(path, mode) and (mode == os.F_OK or path not in denied),
    )


@pytest.mark.parametrize(
    ("readable", "own", "operator"),
    [
        # root
        (NAMES, ("aggregator.toml", None), ("aggregator.toml", "owner.toml")),
        # the aggregator's user
        (("aggregator.toml",), ("aggregator.toml", None), ("aggregator.toml", None)),
        # an analyst
        (("query.toml",), ("query.toml", None), ("query.toml", None)),
    ],
)
def test_files_by_who_may_read_them(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    readable: tuple[str, ...],
    own: tuple[str | None, ...],
    operator: tuple[str | None, ...],
) -> None:
    may_read(monkeypatch, folder, *readable)

    def here(files: tuple[str | None, ...]) -> tuple[Path | None, ...]:
        return tuple(folder / name if name else None for name in files)

    assert settings_files(None, None, operator=False)[:2] == here(own)
    assert settings_files(None, None, operator=True)[:2] == here(operator)


def test_database_of_the_owner_before_there_is_an_aggregator(folder: Path) -> None:
    assert settings_files(None, None, operator=True) == SettingsFiles()
    owner = folder / "owner.toml"
    owner.touch()
    assert settings_files(None, None, operator=False) == SettingsFiles()
    files = settings_files(None, None, operator=True)
    assert files == SettingsFiles(owner=owner, database_from=str(owner))


@pytest.mark.parametrize("operator", [False, True])
@pytest.mark.parametrize("readable", [(), ("owner.toml",)])
def test_command_does_not_use_default_settings_where_it_cannot_read_the_hosts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, readable: tuple[str, ...], operator: bool
) -> None:
    may_read(monkeypatch, folder, *readable)
    with pytest.raises(SettingsError, match=f"this user cannot read {folder}/aggregator.toml: "):
        settings_files(None, None, operator=operator)
    own = folder / "own.toml"
    assert settings_files(own, None, operator=operator).config == own


@pytest.mark.parametrize("operator", [False, True])
def test_folder_that_cannot_be_entered_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, operator: bool
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path == folder and mode == os.F_OK)
    with pytest.raises(SettingsError, match=f"this user cannot read {folder}: start the command"):
        settings_files(None, None, operator=operator)
    with pytest.raises(SettingsError, match="as the user that runs `smtpfeeds up`"):
        settings_files(None, folder, operator=operator)


@pytest.mark.parametrize(
    ("name", "fault"), [("missing", "No such file or directory"), ("file", "it is not a folder")]
)
def test_variable_that_names_no_folder_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, fault: str
) -> None:
    (folder / "file").touch()
    monkeypatch.setenv("SMTPFEEDS_SETTINGS", str(folder / name))
    with pytest.raises(SettingsError) as error:
        settings_files(None, None, operator=False)
    assert f"SMTPFEEDS_SETTINGS names {folder / name}: {fault}." in error.value.message
    assert "to use /etc/smtpfeeds" in error.value.message


def test_first_of_options_and_variables_counts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_read(monkeypatch, folder, *NAMES)
    config = folder / "aggregator.toml"
    named = SettingsFiles(config, database_from=str(config))
    of_folder = named._replace(folder=folder)
    assert settings_files(config, None, operator=True) == named
    assert settings_files(config, None, "dbname=x", operator=True) == SettingsFiles(config)
    assert settings_files(None, folder, operator=True) == of_folder
    assert settings_files(None, None, "dbname=x", operator=True) == SettingsFiles()
    monkeypatch.setenv("SMTPFEEDS_DIR", str(folder))
    assert settings_files(None, None, operator=True) == of_folder
    assert settings_files(config, None, operator=True) == named
    monkeypatch.setenv("SMTPFEEDS_AGGREGATOR_DSN", "dbname=x")
    by_variable = SettingsFiles(database_from="SMTPFEEDS_AGGREGATOR_DSN")
    assert settings_files(None, None, operator=True) == by_variable
    assert settings_files(config, None, operator=True) == by_variable._replace(config=config)
    with pytest.raises(SettingsError, match="--dir already selects"):
        settings_files(config, folder, operator=True)
    with pytest.raises(SettingsError, match="not a folder of `smtpfeeds up`: it has no"):
        settings_files(None, folder / "other", operator=True)


def test_folder_of_up_is_not_asked_about_another_database(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables stay in a shell that works with another centre."""
    (folder / "aggregator.toml").touch()
    for name in ("PGHOST", "SMTPFEEDS_AGGREGATOR_DSN", "SMTPFEEDS_AGGREGATOR_PUBLISH_DSN"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setenv("SMTPFEEDS_AGGREGATOR_LOG_LEVEL", "debug")
    assert settings_files(None, folder, operator=True).folder == folder
    left = {name for name in os.environ if name.startswith(("PG", "SMTPFEEDS_AGGREGATOR_"))}
    assert left == {"SMTPFEEDS_AGGREGATOR_LOG_LEVEL"}


def test_errors_say_where_the_database_could_be_named(folder: Path) -> None:
    config = folder / "aggregator.toml"
    missing = no_database(SettingsFiles(config)).message
    assert missing.startswith(f"which database? {config} does not set dsn. Give --dir DIR")
    nowhere = no_database(SettingsFiles()).message
    assert f"there is no owner.toml, aggregator.toml or query.toml in {folder}." in nowhere


def test_refused_privilege_names_the_file_of_the_owner(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SettingsFiles(folder / "aggregator.toml")
    owner = folder / "owner.toml"
    assert "there is no" in about_owner(files)
    with monkeypatch.context() as patched:
        may_read(patched, folder, "aggregator.toml")
        assert about_owner(files).startswith(f"this user cannot read {owner}")
    assert about_owner(files) == f"{owner} names the role that owns the tables"
    assert about_owner(files._replace(owner=owner)) == ""
    assert about_owner(SettingsFiles(owner)) == ""


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        ("publish now", "feeds_dir"),
        ("publish status", "feeds_dir"),
        ("origin refresh", "origin_dir"),
        ("origin rollback", "origin_dir"),
        ("lists refresh", "lists_dir"),
        ("lists rollback", "lists_dir"),
        ("aggregator check-config", "dsn"),
    ],
)
def test_command_without_a_setting_says_where_to_give_it(
    folder: Path, words: str, setting: str
) -> None:
    result = CliRunner().invoke(main, words.split())
    assert result.exit_code == 2
    assert f"smtpfeeds: the setting '{setting}' is missing (" in result.stderr
    assert "by default aggregator.toml in /etc/smtpfeeds" in result.stderr
    assert f"or as SMTPFEEDS_AGGREGATOR_{setting.upper()}" in result.stderr


def test_publication_without_a_database_leaves_nothing_behind(folder: Path) -> None:
    (folder / "aggregator.toml").write_text(f'feeds_dir = "{folder}/www"\n')
    result = CliRunner().invoke(main, ["publish", "now"])
    assert result.exit_code == 2
    assert result.stderr.startswith("smtpfeeds: which database? ")
    assert result.stderr.count("\n") == 1
    assert not (folder / "www").exists()
