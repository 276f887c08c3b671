"""Which settings files a command reads, and what an error says of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smtpfeeds_aggregator.cli.settings_files import (
    SettingsFiles,
    about_owner,
    database_source,
    operator_files,
    own_files,
    single_host_folder,
)

NAMES = ("aggregator.toml", "owner.toml", "query.toml")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SMTPFEEDS_SETTINGS", str(tmp_path))
    return tmp_path


def may_read(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str) -> None:
    """Create all files; this user can read these, as the modes of two-hosts.md have it."""
    for name in NAMES:
        (folder / name).touch()
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.F_OK or path.name in names)


@pytest.mark.parametrize(
    ("readable", "own", "operator"),
    [
        # root
        (NAMES, ("aggregator.toml", None), ("aggregator.toml", "owner.toml")),
        # the aggregator's user
        (("aggregator.toml",), ("aggregator.toml", None), ("aggregator.toml", None)),
        # an analyst
        (("query.toml",), ("query.toml", None), ("query.toml", None)),
        # before there is an aggregator.toml
        (("owner.toml",), (None, None), (None, "owner.toml")),
        ((), (None, None), (None, None)),
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

    def here(files: tuple[str | None, ...]) -> SettingsFiles:
        return SettingsFiles(*(folder / name if name else None for name in files))

    assert own_files(None, None) == here(own)
    assert operator_files(None, None) == here(operator)


def test_owner_is_not_read_where_something_names_the_database(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_read(monkeypatch, folder, *NAMES)
    config = folder / "aggregator.toml"
    assert operator_files(config, None) == SettingsFiles(config)
    assert operator_files(None, folder) == SettingsFiles(config)
    assert operator_files(None, None, "dbname=x") == SettingsFiles()
    assert single_host_folder(None, None, None) is None
    monkeypatch.setenv("SMTPFEEDS_DIR", str(folder))
    assert operator_files(None, None) == SettingsFiles(config)
    assert single_host_folder(None, None, None) == folder
    assert single_host_folder(config, None, None) is None
    monkeypatch.setenv("SMTPFEEDS_AGGREGATOR_DSN", "dbname=x")
    assert operator_files(None, None) == SettingsFiles()


def test_errors_name_what_the_database_is_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SettingsFiles(folder / "aggregator.toml")
    both = files._replace(owner=folder / "owner.toml")
    assert database_source(both, None) == str(folder / "owner.toml")
    assert database_source(files, None) == str(folder / "aggregator.toml")
    assert database_source(files, "dbname=x") == ""
    assert "there is no" in about_owner(files)
    may_read(monkeypatch, folder, "aggregator.toml")
    assert about_owner(files).startswith(f"this user cannot read {folder / 'owner.toml'}")
    may_read(monkeypatch, folder, *NAMES)
    assert about_owner(files) == f"{folder / 'owner.toml'} names the role that owns the tables"
    assert about_owner(both) == ""
    monkeypatch.setenv("SMTPFEEDS_AGGREGATOR_DSN", "dbname=x")
    assert database_source(SettingsFiles(), None) == "SMTPFEEDS_AGGREGATOR_DSN"
